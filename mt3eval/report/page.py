"""The page: a template, style sheets and scripts, those of `mt3page` and of this folder, around data of pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt3core.files import atomic_output
from mt3eval.headline import headline, plain_scores, unpitched_sentence
from mt3eval.note_errors import CATEGORIES, Analysis, pool
from mt3eval.reading.performance import Performance
from mt3eval.report.packing import pack_sides
from mt3eval.result import without_nan
from mt3page.assembly import (
    ROLL_SCRIPTS,
    asset,
    audio_address,
    encoded,
    escaped,
    filled,
    general_midi_names,
    offline_page,
)

SCRIPTS = ("data.js", "error_look.js", "tables.js", "charts.js", "views.js", "main.js")  # after the shared ones


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
    otherwise = "Correct the path, or omit the audio from the report."
    sources = {name: audio_address(Path(file), place, embed_audio, otherwise) for name, file in (audio or {}).items()}
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
        "names": general_midi_names(),
    }
    with atomic_output(place) as temporary:
        temporary.write_bytes(encoded(_page(title, data)))


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
    scripts = [*map(asset, ROLL_SCRIPTS), *map(_own, SCRIPTS)]
    body = filled(_own("report.html"), {"title": escaped(title)})
    style = asset("page.css") + _own("report.css")
    return offline_page("report", title, body, style, without_nan(data), "\n".join(scripts))


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


def _own(name: str) -> str:
    return asset(name, "mt3eval.report", folder="")
