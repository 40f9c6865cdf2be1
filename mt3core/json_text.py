"""JSON from files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text, in UTF-8 if it is bytes.

    Raises `ValueError` for everything that cannot be read; the standard library has errors of another kind for a text
    that is nested too deeply, as random or malicious ones are.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises `OSError` and `ValueError`."""
    return json_value(path.read_text(encoding="utf-8"))
