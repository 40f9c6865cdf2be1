"""The page: a template, a style sheet and scripts from this folder around the data of a set of pieces."""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mt3core.errors import AudioError
from mt3core.files import atomic_output
from mt3core.notes.instruments import CLASS_NAMES, INSTRUMENT_NAMES
from mt3eval.headline import headline, plain_scores, unpitched_sentence
from mt3eval.note_errors import CATEGORIES, Analysis, pool
from mt3eval.reading.performance import Performance
from mt3eval.report.packing import pack_sides
from mt3eval.result import without_nan

SCRIPTS = (
    "data.js",
    "tables.js",
    "charts.js",
    "roll_view.js",
    "roll.js",
    "synth.js",
    "player.js",
    "views.js",
    "main.js",
)

# Browsers need these types to play a file embedded in the page; the system's own table may lack them.
_AUDIO_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg",
                ".opus": "audio/ogg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".webm": "audio/webm"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PieceReport:
    """One piece: both sides, its scores (protocol -> metric -> value, or `{"error": why}`) and its errors."""

    name: str
    reference: Performance
    estimate: Performance
    scores: Mapping[str, Mapping[str, Any]]
    analysis: Analysis


def write_report(
    path: Path | str,
    title: str,
    pieces: Sequence[PieceReport],
    summary: Mapping[str, Any],
    audio: Mapping[str, Path] | None = None,
    embed_audio: bool = False,
) -> None:
    """Writes the report, completely or not at all.

    `summary`: what the result of an evaluation (`result.Result.to_json`) says of the whole set, `{"protocols":
    {name: {"summary", "average", "intervals"}}, "against": {"estimate", "protocols"} or None, "settings": {...}}`;
    with "analysis", that of all pieces pooled, it need not be computed again; "plain" has the scores in plain words,
    "unpitched" the number of references that some of these leave out. Pieces with an "error" and "unmatched" files,
    also those of the second system, are listed on the page as left out.
    `audio`: a piece's name -> its recording, which the page links to by a path relative to itself, so the two have
    to be moved together; with `embed_audio` the recordings are inside the page. Values that are not finite numbers
    are shown as missing.
    Raises `AudioError` for a missing recording and `OutputError` if the page cannot be written.
    """
    place = Path(path)
    sources = {name: _audio_source(Path(file), place, embed_audio) for name, file in (audio or {}).items()}
    protocols = summary.get("protocols", {})
    data = {
        "title": title,
        "categories": CATEGORIES,
        "protocols": protocols,
        "headlines": {name: headline(name, one.get("average", {})) for name, one in protocols.items()},
        "plain": _plain_scores(summary),
        "plain_note": _plain_note(summary),
        "against": _without_pieces(summary.get("against")),
        "left_out": [*_left_out(summary), *_left_out(summary.get("against") or {}, "Other system: ")],
        "settings": summary.get("settings", {}),
        "pooled": summary.get("analysis") or pool([piece.analysis for piece in pieces]).to_json(),
        "pieces": [_piece_data(piece, sources.get(piece.name)) for piece in pieces],
        "names": _general_midi_names(),
    }
    with atomic_output(place) as temporary:
        # File names need not be UTF-8; Python's stand-ins for other bytes can only be written escaped.
        temporary.write_bytes(_page(title, data).encode(errors="backslashreplace"))


def _without_pieces(against: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of the second system: averages, not the scores of each piece."""
    return (
        None
        if against is None
        else {name: value for name, value in against.items() if name not in ("pieces", "unmatched")}
    )


def _left_out(system: Mapping[str, Any], whose: str = "") -> list[dict[str, str]]:
    """The pieces and files of a system without scores, and why."""
    left_out = [
        {"name": piece["name"], "reason": f"{whose}{piece['error']}"}
        for piece in system.get("pieces", ())
        if "error" in piece
    ]
    other_side = {"reference": "estimate", "estimate": "reference"}
    for side, names in system.get("unmatched", {}).items():
        reason = f"{whose}{side} without {other_side[side]}"
        left_out += [{"name": name, "reason": reason[0].upper() + reason[1:]} for name in names]
    return left_out


def _page(title: str, data: Mapping[str, Any]) -> str:
    parts = {
        "title": html.escape(title),
        "style": _text("page.css"),
        # "<" could end the element that contains the data.
        "data": json.dumps(without_nan(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace(
            "<", "\\u003c"
        ),
        "script": "\n".join(_text(name) for name in SCRIPTS),
    }
    # In one pass, so that inserted text that looks like a placeholder is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _text("page.html"))


def _plain_scores(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The values of the set in plain words, for the chosen protocols."""
    values = {one["name"]: one for one in summary.get("plain", ())}
    return [
        {"name": one.name, "rule": one.rule, "value": values[one.name]["average"],
         "interval": values[one.name]["interval"]}
        for one in plain_scores(summary.get("protocols", {}))
        if one.name in values
    ]  # fmt: skip


def _plain_note(summary: Mapping[str, Any]) -> str:
    """How many pieces are left out of the first of them, and why; the words of the command."""
    return unpitched_sentence(summary.get("unpitched", 0)) if _plain_scores(summary) else ""


def _piece_data(piece: PieceReport, audio: str | None) -> dict[str, Any]:
    return {
        "name": piece.name,
        "scores": piece.scores,
        "analysis": piece.analysis.to_json(),
        "audio": audio,
        **pack_sides(piece.analysis),
    }


def _audio_source(file: Path, page: Path, embed: bool) -> str:
    if not file.is_file():
        raise AudioError(
            f"The recording {file} does not exist.", "Correct the path, or omit the audio from the report."
        )
    if embed:
        kind = _AUDIO_TYPES.get(file.suffix.lower()) or mimetypes.guess_type(file.name)[0] or "audio/wav"
        return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    try:
        relative = os.path.relpath(file.resolve(), page.parent.resolve())
    except ValueError:  # another drive on Windows
        return file.resolve().as_uri()
    return urllib.parse.quote(os.fsencode(Path(relative).as_posix()))


def _general_midi_names() -> dict[str, list[str]]:
    import pretty_midi

    return {
        "programs": list(INSTRUMENT_NAMES),
        "families": list(CLASS_NAMES),
        "drums": [pretty_midi.note_number_to_drum_name(pitch) or f"Key {pitch}" for pitch in range(128)],
    }


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
