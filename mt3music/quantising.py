"""Moves notes to a grid of the tempo map: onsets and ends, with a minimal length, and no two notes at one place."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from mt3core.errors import UsageError
from mt3core.notes.table import Note
from mt3core.notes.tempo_map import TempoMap
from mt3core.transcription import Transcription

_DENOMINATORS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Grid:
    """A note value, as a part of a whole note: `1/16`, or `1/8t` for the eighths of a triplet."""

    denominator: int
    is_triplet: bool = False

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Raises `UsageError` for anything else."""
        found = re.fullmatch(r"\s*1/(\d{1,2})\s*([tT]?)\s*", text)
        if not found or int(found[1]) not in _DENOMINATORS:
            raise UsageError(f"--quantise {text} is not a note value.", "Use 1/8, 1/16 or 1/32; 1/8t for triplets.")
        return cls(int(found[1]), bool(found[2]))

    def __str__(self) -> str:
        return f"1/{self.denominator}{'t' if self.is_triplet else ''}"

    @property
    def quarters(self) -> Fraction:
        return Fraction(4, self.denominator) * (Fraction(2, 3) if self.is_triplet else 1)


def quantised(result: Transcription, grid: Grid) -> Transcription:
    """The notes moved to the grid of the transcription's tempo map. Raises `UsageError` if it has none.

    A note is at least one step of the grid long. Of notes of one pitch and instrument that come to one place the
    loudest stays, of these the longest; an earlier one ends where the next begins.
    """
    if result.tempo is None:
        raise UsageError("Without a tempo there is no grid.", "Find it first, with a tempo of auto or a number.")
    notes = on_grid(result.notes, result.tempo, grid.quarters)
    lost = len(result.notes) - len(notes)
    remark = f"Notes were moved to the grid of {grid}"
    remark += f"; {lost} of {len(result.notes)} fell on others." if lost else "."
    remarks = (result.remark, remark if result.notes else "")
    return replace(result, notes=notes, grid=str(grid), remark="\n".join(filter(None, remarks)))


def on_grid(notes: list[Note], tempo: TempoMap, quarters: Fraction) -> list[Note]:
    """The notes with onsets and ends on multiples of a part of a quarter, see `quantised`.

    Multiples are counted from the first beat. Places before the recording begins are not used.
    """
    steps_per_beat = float(tempo.time_signature.beat_quarters / quarters)
    first = int(np.ceil(float(tempo.beats_at(np.zeros(1))[0]) * steps_per_beat - 1e-6))

    def step(seconds: float) -> int:
        return round(float(tempo.beats_at(np.array([seconds]))[0]) * steps_per_beat)

    def seconds_at(place: int) -> float:
        return max(float(tempo.seconds_at(np.array([place / steps_per_beat]))[0]), 0.0)

    groups: dict[tuple[bool, int, int], dict[int, tuple[int, Note]]] = defaultdict(dict)
    for note in notes:
        begin = max(step(note.onset), first)
        end = max(step(note.offset), begin + 1)
        places = groups[note.is_drum, note.program, note.pitch]
        if begin not in places or (note.velocity, end) > (places[begin][1].velocity, places[begin][0]):
            places[begin] = (end, note)
    moved = []
    for places in groups.values():
        begins = sorted(places)
        for begin, following in zip(begins, [*begins[1:], None], strict=True):
            end, note = places[begin]
            end = end if following is None else min(end, following)
            moved.append(replace(note, onset=seconds_at(begin), offset=seconds_at(end)))
    return moved
