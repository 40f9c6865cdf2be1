"""Orbax's messages, which would bury the one sentence that a user gets about a checkpoint."""

from __future__ import annotations

import logging
import os


def quiet_orbax() -> None:
    """Leaves out what Orbax logs: tracebacks of errors that it raises as well, and advice on its use.

    When one of its writes or reads fails, asyncio reports each of the others besides; of Orbax's, that is left out too.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_orbax)  # once, however often it is called


def _is_not_orbax(record: logging.LogRecord) -> bool:
    place = f"{os.sep}orbax{os.sep}"
    return place not in record.pathname and (record.name != "asyncio" or place not in record.getMessage())
