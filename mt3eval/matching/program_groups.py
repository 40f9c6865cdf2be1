"""Notes grouped by instrument, and the scores of all groups together ("multi-instrument" scores)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.table import NoteTable
from mt3eval.matching.matching import OFFSET_RATIO
from mt3eval.matching.note_scores import Comparison, Score, scored_notes, share_scores

GRANULARITIES = ("flat", "midi_class", "full")


Group = tuple[int, bool]  # (program after mapping, whether it is drums)
Programs = Int[np.ndarray, " _notes"]


class GroupCount(NamedTuple):
    """One instrument on both sides."""

    pairs: int = 0
    reference_notes: int = 0
    estimated_notes: int = 0

    def score(self) -> Score:
        """Precision, recall and F1; 0 if a side has no notes."""
        return share_scores(*self)


def family(programs: np.ndarray) -> np.ndarray:
    """The first program of each program's family of eight."""
    return PROGRAMS_PER_CLASS * (programs // PROGRAMS_PER_CLASS)


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
    chosen = [count for (_, is_drum), count in counts.items() if drums in (None, is_drum)]
    return GroupCount(*map(sum, zip(*chosen, strict=True)))


def split_groups(table: NoteTable, programs: Programs) -> dict[Group, Int[np.ndarray, " places"]]:
    """The indices of each group's notes in the table, groups in the order in which they first appear."""
    keys, first, inverse = np.unique(2 * programs + table["is_drum"], return_index=True, return_inverse=True)
    return {(int(keys[one]) // 2, bool(keys[one] % 2)): np.flatnonzero(inverse == one) for one in np.argsort(first)}
