"""The page of one piece: its notes and, if there is one, its recording, in one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt3core.notes.table import Note, note_table
from mt3core.notes.tempo_map import TempoMap
from mt3page.assembly import ROLL_SCRIPTS, asset, encoded, escaped, filled, general_midi_names, offline_page
from mt3page.packing import pack_notes

PIECE_SCRIPTS = (*ROLL_SCRIPTS, "bars.js", "piece_look.js", "piece.js")
PIECE_STYLES = ("page.css", "piece.css")
CONFIDENCE_STEPS = 200
NO_CONFIDENCE = 255


@dataclass(frozen=True)
class Piece:
    """What a page shows: `audio` is the address of the recording (`assembly.audio_address`), which lasts `seconds`."""

    title: str
    notes: Sequence[Note]
    seconds: float = 0.0
    audio: str | None = None
    about: str = ""
    tempo: TempoMap | None = None


def piece_page(piece: Piece) -> bytes:
    """The page as UTF-8."""
    data = {
        "notes": pack_piece(piece.notes),
        "seconds": piece.seconds,
        "audio": piece.audio,
        "names": general_midi_names(),
        "tempo": tempo_of(piece.tempo),
    }
    parts = {
        "title": escaped(piece.title),
        "about": escaped(piece.about),
        "panel": filled(asset("piece.html"), {"sound": ""}),
    }
    body, style = filled(asset("view.html"), parts), "".join(map(asset, PIECE_STYLES))
    script = "\n".join(map(asset, (*PIECE_SCRIPTS, "view.js")))
    return encoded(offline_page("piece", piece.title, body, style, data, script))


def tempo_of(tempo: TempoMap | None) -> dict[str, Any] | None:
    """Beats and bars as the pages draw them: seconds, beats a bar, the first beat that begins one, a sentence."""
    if tempo is None:
        return None
    return {
        "beats": [round(seconds, 4) for seconds in tempo.beat_seconds],
        "perBar": tempo.time_signature.beats_per_bar,
        "first": tempo.first_downbeat,
        "words": tempo.in_words,
    }


def pack_piece(notes: Sequence[Note]) -> dict[str, Any]:
    """Notes as of `pack_notes`, in order of onset, with the octet confidence: in steps of 1/200, or 255 for none."""
    ordered = sorted(notes, key=lambda note: note.onset)
    sureness = [
        NO_CONFIDENCE if note.confidence is None else round(CONFIDENCE_STEPS * note.confidence.note) for note in ordered
    ]
    return pack_notes(note_table(ordered), octets={"confidence": np.array(sureness, np.uint8)})
