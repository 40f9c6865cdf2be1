"""Onset precision, recall and F1 with mir_eval: the simplest score of a transcription.

A reference note is found if the estimate has a note of the same pitch whose onset is within 50 ms; each
note counts once (mir_eval's matching, by sorted times instead of a table of all pairs, which would not fit in memory
for a long piece). Offsets, velocities and, among pitched notes, programs are ignored. Pitched notes and drum hits
are scored separately; either scores NaN if both reference and estimate have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mt3core.notes.table import Note, note_table
from mt3eval.matching.matching import best_pairs
from mt3eval.matching.note_scores import Comparison, scored_notes, share_scores


@dataclass(frozen=True)
class OnsetScore:
    """Shares from 0 to 1, and the numbers of notes behind them."""

    precision: float
    recall: float
    f1: float
    reference_notes: int
    estimated_notes: int


def onset_score(reference: Iterable[Note], estimate: Iterable[Note], drums: bool) -> OnsetScore:
    """Scores the drum hits (`drums`) or the pitched notes of `estimate` against those of `reference`."""
    expected = [note for note in reference if note.is_drum == drums]
    found = [note for note in estimate if note.is_drum == drums]
    if not expected and not found:
        return OnsetScore(np.nan, np.nan, np.nan, 0, 0)
    score = share_scores(len(matched_onsets(expected, found)), len(expected), len(found))
    return OnsetScore(score.precision, score.recall, score.f1, len(expected), len(found))


def onset_scores(reference: Iterable[Note], estimate: Iterable[Note]) -> dict[str, OnsetScore]:
    """The scores of the pitched notes and of the drum hits, of those that are there on either side."""
    both = {name: onset_score(reference, estimate, drums) for name, drums in (("pitched", False), ("drums", True))}
    return {name: score for name, score in both.items() if score.reference_notes or score.estimated_notes}


def matched_onsets(reference: list[Note], estimate: list[Note]) -> list[tuple[int, int]]:
    """Pairs (index in `reference`, index in `estimate`) of notes that count as found; drums included."""
    comparison = Comparison(scored_notes(note_table(reference)), scored_notes(note_table(estimate)))
    return [(expected, found) for expected, found in best_pairs(comparison.hits(offset_ratio=None)).tolist()]
