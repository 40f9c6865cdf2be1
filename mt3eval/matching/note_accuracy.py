"""Note accuracy: of all notes that either side has, the share that both have.

    accuracy = correct / (correct + missed + extra)

A note is correct if an estimated note has its pitch and starts within 50 ms of it, each with one partner at most
(mir_eval's matching); drum hits match drum hits only, instruments and offsets are ignored. The formula is
Dixon's (On the Computer Recognition of Solo Piano Music, 2000), as MIREX has it for frames. It is stricter than F1:
accuracy = F1 / (2 - F1). A piece without notes on either side has no accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mt3core.notes.table import NoteTable
from mt3eval.matching.note_scores import Comparison, scored_notes

DEFINITION = (
    "correct / (correct + missed + extra): equal pitch, onset within 50 ms, drums and pitched notes separately; "
    "mean over pieces, and pooled over all notes"
)


@dataclass(frozen=True)
class NoteCounts:
    """The numbers of correct, missed and extra notes."""

    correct: int
    missed: int
    extra: int

    @property
    def accuracy(self) -> float:
        """From 0 to 1; NaN without any notes."""
        every = self.correct + self.missed + self.extra
        return self.correct / every if every else math.nan


def count_notes(reference: NoteTable, estimate: NoteTable) -> NoteCounts:
    """The notes of one piece."""
    correct = 0
    for drums in (False, True):
        sides = (table[table["is_drum"] == drums] for table in (reference, estimate))
        expected, found = (scored_notes(side) for side in sides)
        if len(expected) and len(found):
            correct += Comparison(expected, found).count(offset_ratio=None)
    return NoteCounts(correct, len(reference) - correct, len(estimate) - correct)


def pooled(counts: Iterable[NoteCounts]) -> NoteCounts:
    """The notes of several pieces together."""
    counts = list(counts)
    return NoteCounts(*(sum(getattr(one, name) for one in counts) for name in ("correct", "missed", "extra")))


def mean_accuracy(counts: Iterable[NoteCounts]) -> float:
    """The mean over the pieces that have notes; NaN if none has."""
    values = [one.accuracy for one in counts if not math.isnan(one.accuracy)]
    return math.fsum(values) / len(values) if values else math.nan
