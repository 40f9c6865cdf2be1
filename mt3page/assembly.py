"""Pages from files in packages: templates with places to fill, scripts, style sheets, data, recordings."""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
import re
import urllib.parse
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from mt3core.errors import AudioError
from mt3core.notes.instruments import CLASS_NAMES, INSTRUMENT_NAMES

# What every page with a piano roll needs, in this order.
ROLL_SCRIPTS = ("elements.js", "notes.js", "roll_view.js", "roll.js", "synth.js", "player.js")

# Browsers need these types to play a file embedded in the page; the system's own table may lack them.
_AUDIO_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg",
                ".opus": "audio/ogg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".webm": "audio/webm"}  # fmt: skip


def asset(name: str, package: str = "mt3page", folder: str = "browser") -> str:
    """The text of a file for the browser."""
    place = resources.files(package)
    return (place / folder if folder else place).joinpath(name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each `{{name}}` replaced, in one pass, so that text that looks like a place stays as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def offline_page(name: str, title: str, body: str, style: str, data: Any, script: str) -> str:
    """A page that is one file: its body with the data (in the element `NAME-data`), style and scripts in it."""
    parts = {"name": name, "title": escaped(title), "body": body, "style": style, "script": script}
    return filled(asset("shell.html"), {**parts, "data": embedded_json(data)})


def escaped(text: str) -> str:
    """Text as it stands in markup."""
    return html.escape(text)


def embedded_json(data: Any) -> str:
    """JSON for a script element: "<" could end the element. Raises `ValueError` for what is no finite number."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def encoded(page: str) -> bytes:
    """UTF-8; file names need not be that, and Python's stand-ins for other bytes can only be written escaped."""
    return page.encode(errors="backslashreplace")


def audio_address(file: Path, page: Path, embed: bool, next_step: str) -> str:
    """Where a page finds a recording: by a path relative to itself, or with `embed` inside.

    Raises `AudioError`, with `next_step`, if the recording does not exist.
    """
    if not file.is_file():
        raise AudioError(f"The recording {file} does not exist.", next_step)
    if embed:
        kind = _AUDIO_TYPES.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0] or "audio/wav"
        return audio_data(file.read_bytes(), kind)
    try:
        relative = os.path.relpath(file.resolve(), page.parent.resolve())
    except ValueError:  # another drive on Windows
        return file.resolve().as_uri()
    return urllib.parse.quote(os.fsencode(Path(relative).as_posix()))


def audio_data(content: bytes, kind: str) -> str:
    """The content of a recording as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def general_midi_names() -> dict[str, list[str]]:
    """Names of programs and drums by number, and of the families of eight programs."""
    import pretty_midi

    return {
        "programs": list(INSTRUMENT_NAMES),
        "families": list(CLASS_NAMES),
        "drums": [pretty_midi.note_number_to_drum_name(pitch) or f"Key {pitch}" for pitch in range(128)],
    }
