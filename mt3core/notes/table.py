"""Notes as one structured array, and the operations on them before they are encoded.

A note table is the form in which modules pass notes to each other: one row per note, times in seconds.
`Note` is the same row as a plain object, for users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped

from mt3core.errors import MidiError

NOTE_DTYPE = np.dtype(
    [("onset", "f8"), ("offset", "f8"), ("pitch", "i4"), ("velocity", "i4"), ("program", "i4"), ("is_drum", "?")]
)
DRUM_PROGRAM = 128  # stands for drums if a part has a single number: after General MIDI's 0 to 127
SUSTAIN_PEDAL = 64  # the controller's number, MIDI 1.0
SUSTAIN_DOWN = 64  # from this value on the pedal is down
MOST_SECONDS = 86_400.0  # frames of a longer piece would fill the memory, and times in milliseconds look like one

NoteTable = Shaped[np.ndarray, " _notes"]  # the underscore: two tables may differ in length


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure the model was, from 0 to 1: of the parts of a note, and of the whole `note`.

    The parts are the probabilities of the tokens that say when it begins, which pitch or drum and which program it has.
    A note is wrong if one of them is, so the whole is their product, or what a calibration makes of that.
    """

    onset: float
    pitch: float
    program: float
    note: float


@dataclass(frozen=True, slots=True)
class Note:
    """One note: onset and offset in seconds, MIDI pitch, velocity and program (0 to 127).

    Notes that a model wrote have a `confidence`; notes with the same sound are equal, whatever it is.
    """

    onset: float
    offset: float
    pitch: int
    velocity: int = 100
    program: int = 0
    is_drum: bool = False
    confidence: Confidence | None = field(default=None, compare=False)


def note_table(notes: NoteTable | Iterable[Note | Sequence[Any]]) -> NoteTable:
    """A table of `Note` objects or of `[onset, offset, pitch, velocity, program, is_drum]` rows, in their order."""
    if isinstance(notes, np.ndarray) and notes.dtype == NOTE_DTYPE:
        return notes.copy()
    columns = attrgetter(*NOTE_DTYPE.names or ())
    return np.array([columns(note) if isinstance(note, Note) else tuple(note) for note in notes], dtype=NOTE_DTYPE)


def to_notes(table: NoteTable) -> list[Note]:
    """The rows of a note table as `Note` objects."""
    return [Note(*row) for row in table.tolist()]


def validate_notes(table: NoteTable) -> None:
    """Raises `MidiError` naming the first note that is impossible.

    Times must be finite, not negative and in order (a note may have no length); pitch and program must be in
    0 to 127, velocity in 1 to 127 (0 means "off" in the codec and in MIDI).
    """
    onset, offset = table["onset"], table["offset"]
    checks = [
        (~(np.isfinite(onset) & np.isfinite(offset)), "has a time that is not a number"),
        ((onset < 0) | (offset < 0), "starts or ends before the recording"),
        (offset < onset, "ends before it starts"),
        ((table["pitch"] < 0) | (table["pitch"] > 127), "has a pitch outside 0 to 127"),
        ((table["program"] < 0) | (table["program"] > 127), "has a program outside 0 to 127"),
        ((table["velocity"] < 1) | (table["velocity"] > 127), "has a velocity outside 1 to 127"),
    ]
    for is_bad, complaint in checks:
        if is_bad.any():
            index = int(np.argmax(is_bad))
            note = Note(*table[index].item())
            raise MidiError(f"Note {index} {complaint}: {note}.", "Correct or remove it, then try again.")


def trim_overlapping(table: NoteTable) -> NoteTable:
    """Ends each note when the next of the same pitch, program and drum flag starts; drops notes without length."""
    trimmed = table.copy()
    order = np.lexsort((table["onset"], table["pitch"], table["program"], table["is_drum"]))
    ordered = table[order]
    same = np.ones(max(len(table) - 1, 0), dtype=bool)
    for name in ("pitch", "program", "is_drum"):
        same &= ordered[name][1:] == ordered[name][:-1]
    overlaps = same & (ordered["offset"][:-1] > ordered["onset"][1:])
    trimmed["offset"][order[:-1][overlaps]] = ordered["onset"][1:][overlaps]
    return trimmed[trimmed["onset"] < trimmed["offset"]]


# Order of events at one instant, as in note-seq: the pedal acts before the notes do.
_PEDAL_DOWN, _PEDAL_UP, _NOTE_ON, _NOTE_OFF = range(4)


def apply_sustain(
    table: NoteTable,
    controls: Num[np.ndarray, "controls columns"] | Sequence[Sequence[int | float]],
    note_keys: Sequence[int] | None = None,
) -> NoteTable:
    """Lengthens the notes held by the sustain pedal, as note-seq's `apply_sustain_control_changes` does.

    `controls` has rows (time in seconds, value of controller 64[, key]). Without a key a pedal holds every
    instrument; with one, only the notes with the same key: `note_keys`, or their program if that is None.
    Drums are unchanged. A note struck again under the pedal ends the one sounding before (and replaces it where
    both start at the same time); a pedal that is never released holds until the last event of the piece.
    """
    result = table.copy()
    keys = table["program"].tolist() if note_keys is None else list(note_keys)
    pitched = np.flatnonzero(~table["is_drum"]).tolist()
    onsets, offsets, pitches = (table[name].tolist() for name in ("onset", "offset", "pitch"))
    events = [(onsets[i], _NOTE_ON, keys[i], i) for i in pitched]
    events += [(offsets[i], _NOTE_OFF, keys[i], i) for i in pitched]
    every_key = sorted({keys[i] for i in pitched})
    for time, value, *key in controls:
        kind = _PEDAL_DOWN if value >= SUSTAIN_DOWN else _PEDAL_UP
        events += [(float(time), kind, one, -1) for one in (key or every_key)]
    events.sort(key=lambda event: event[:2])

    is_down: dict[Any, bool] = defaultdict(bool)
    sounding: dict[Any, dict[int, None]] = defaultdict(dict)  # insertion-ordered sets of note indices
    replaced: list[int] = []
    for time, kind, key, index in events:
        active = sounding[key]
        if kind == _PEDAL_DOWN:
            is_down[key] = True
        elif kind == _PEDAL_UP:
            is_down[key] = False
            for held in [held for held in active if offsets[held] < time]:
                offsets[held] = time
                del active[held]
        elif kind == _NOTE_ON:
            if is_down[key]:
                for previous in [previous for previous in active if pitches[previous] == pitches[index]]:
                    offsets[previous] = time
                    del active[previous]
                    if onsets[previous] == time:
                        replaced.append(previous)
            active[index] = None
        elif not is_down[key]:
            active.pop(index, None)
    for active in sounding.values():
        for held in active:
            offsets[held] = events[-1][0]
    result["offset"] = offsets
    return np.delete(result, replaced)
