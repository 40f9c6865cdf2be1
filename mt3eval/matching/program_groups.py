"""Notes grouped by instrument, and the scores of all groups together ("multi-instrument" scores)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mt3core.notes.table import NoteTable
from mt3eval.matching.matching import OFFSET_RATIO
from mt3eval.matching.note_scores import Comparison, Score, f1, scored_notes

FAMILY_PROGRAMS = 8  # General MIDI: sixteen families of eight programs
GRANULARITIES = ("flat", "midi_class", "full")


Group = tuple[int, bool]  # (program after mapping, whether it is drums)
Programs = Int[np.ndarray, " _notes"]


@dataclass(frozen=True)
class GroupCount:
    """One instrument on both sides."""

    pairs: int
    reference_notes: int
    estimated_notes: int

    def __add__(self, other: GroupCount) -> GroupCount:
        return GroupCount(
            self.pairs + other.pairs,
            self.reference_notes + other.reference_notes,
            self.estimated_notes + other.estimated_notes,
        )

    def score(self) -> Score:
        """Precision, recall and F1; 0 if a side has no notes."""
        precision = self.pairs / self.estimated_notes if self.estimated_notes else 0.0
        recall = self.pairs / self.reference_notes if self.reference_notes else 0.0
        return Score(precision, recall, f1(precision, recall))


def family(programs: np.ndarray) -> np.ndarray:
    """The first program of each program's family of eight."""
    return FAMILY_PROGRAMS * (programs // FAMILY_PROGRAMS)


def count_groups(
    reference: NoteTable,
    estimate: NoteTable,
    reference_programs: Programs,
    estimate_programs: Programs,
    with_offsets: bool,
) -> dict[Group, GroupCount]:
    """Pairs and notes of every group on either side, after mapping programs; drums never with offsets."""
    places = split_groups(reference, reference_programs), split_groups(estimate, estimate_programs)
    nothing = np.zeros(0, dtype=int)
    counts = {}
    for group in dict.fromkeys([*places[0], *places[1]]):
        expected, found = reference[places[0].get(group, nothing)], estimate[places[1].get(group, nothing)]
        pairs = 0
        if len(expected) and len(found):
            comparison = Comparison(scored_notes(expected), scored_notes(found))
            pairs = comparison.count(OFFSET_RATIO if with_offsets and not group[1] else None)
        counts[group] = GroupCount(pairs, len(expected), len(found))
    return counts


def total(counts: dict[Group, GroupCount], drums: bool | None = None) -> GroupCount:
    """All groups pooled, or those of drums (`drums` true) or of pitched notes (false)."""
    return sum((count for (_, is_drum), count in counts.items() if drums in (None, is_drum)), GroupCount(0, 0, 0))


def split_groups(table: NoteTable, programs: Programs) -> dict[Group, Int[np.ndarray, " places"]]:
    """The indices of each group's notes in the table, groups in the order in which they first appear."""
    keys, first, inverse = np.unique(2 * programs + table["is_drum"], return_index=True, return_inverse=True)
    return {(int(keys[one]) // 2, bool(keys[one] % 2)): np.flatnonzero(inverse == one) for one in np.argsort(first)}
