"""Precision, recall, F1 and overlap of notes, as `mir_eval.transcription` and `transcription_velocity` have them.

If either side is empty all values are 0. mir_eval accepts neither notes without length nor negative times:
`require_lengths` says so before anything is scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mt3core.extras import needed
from mt3core.notes.table import NoteTable
from mt3eval.matching.matching import (
    OFFSET_MIN_TOLERANCE_SECONDS,
    OFFSET_RATIO,
    ONSET_TOLERANCE_SECONDS,
    SCORING,
    Hits,
    Hz,
    Intervals,
    Pairs,
    Velocities,
    best_pairs,
    count_pairs,
    match_velocities,
    onset_hits,
    within_offsets,
)
from mt3eval.reading.performance import NotDefinedError

A4_HZ = 440.0
A4_PITCH = 69


class Score(NamedTuple):
    """Shares from 0 to 1."""

    precision: float
    recall: float
    f1: float
    overlap: float = 0.0


def named(score: Score, name: str, suffix: str = "") -> dict[str, float]:
    """A score's shares under the names that MT3 and MR-MT3 give them."""
    values = (("precision", score.precision), ("recall", score.recall), ("F1", score.f1))
    return {f"{name} {share}{suffix}": value for share, value in values}


def pitch_to_hz(pitches: np.ndarray) -> Hz:
    """MIDI note numbers in equal temperament, A4 = 440 Hz."""
    return A4_HZ * 2.0 ** ((np.asarray(pitches, dtype=float) - A4_PITCH) / 12.0)


@dataclass(frozen=True, eq=False)
class ScoredNotes:
    """Notes in mir_eval's form: (onset, offset) in seconds, pitch in Hz, velocity."""

    intervals: Intervals
    hz: Hz
    velocities: Velocities

    def __len__(self) -> int:
        return len(self.hz)


def scored_notes(table: NoteTable) -> ScoredNotes:
    """All notes of a table, in its order."""
    intervals = np.stack([table["onset"], table["offset"]], axis=1)
    return ScoredNotes(intervals, pitch_to_hz(table["pitch"]), table["velocity"].astype(float))


def with_length(table: NoteTable) -> NoteTable:
    """The notes that end after they start."""
    return table[table["offset"] > table["onset"]]


def require_lengths(reference: NoteTable, estimate: NoteTable) -> None:
    """Raises `NotDefinedError` if mir_eval refuses notes: without length, or before the recording starts."""
    for side, table in (("reference", reference), ("estimate", estimate)):
        if (table["onset"] < 0).any() or (table["offset"] < 0).any():
            raise NotDefinedError(
                f"The {side} has a note with a negative time, which mir_eval refuses.", "Correct or remove it."
            )
        empty = np.flatnonzero(table["offset"] <= table["onset"])
        if len(empty):
            raise NotDefinedError(
                f"The {side} has {len(empty)} notes without length, which mir_eval refuses; the first is number "
                f"{empty[0]} at {table['onset'][empty[0]]:.3f} s.",
                "Remove them, or score with a protocol that drops them, such as mt3.",
            )


class Comparison:
    """Two lists of notes; the pairs within the onset tolerance are computed once."""

    def __init__(
        self, reference: ScoredNotes, estimate: ScoredNotes, onset_tolerance: float = ONSET_TOLERANCE_SECONDS
    ) -> None:
        self.reference, self.estimate = reference, estimate
        self._onset_hits = onset_hits(
            reference.intervals, reference.hz, estimate.intervals, estimate.hz, onset_tolerance
        )

    def hits(
        self,
        offset_ratio: float | None = OFFSET_RATIO,
        offset_min_tolerance: float = OFFSET_MIN_TOLERANCE_SECONDS,
    ) -> Hits:
        """All pairs within tolerance: onset and pitch, and offset unless `offset_ratio` is None."""
        if offset_ratio is None:
            return self._onset_hits
        intervals = self.reference.intervals, self.estimate.intervals
        return within_offsets(self._onset_hits, *intervals, offset_ratio, offset_min_tolerance)

    def count(self, offset_ratio: float | None = OFFSET_RATIO) -> int:
        """How many pairs the largest one-to-one matching has."""
        return count_pairs(self.hits(offset_ratio))

    def score(self, offset_ratio: float | None = OFFSET_RATIO, overlap: bool = True) -> Score:
        """`mir_eval.transcription.precision_recall_f1_overlap`; without `overlap` (faster) the overlap stays 0."""
        if overlap:
            return self.score_pairs(best_pairs(self.hits(offset_ratio)))
        return self.score_count(self.count(offset_ratio))

    def velocity_score(self, offset_ratio: float | None = OFFSET_RATIO) -> Score:
        """`mir_eval.transcription_velocity.precision_recall_f1_overlap`."""
        return self.score_pairs(self.velocity_pairs(offset_ratio))

    def velocity_pairs(self, offset_ratio: float | None = OFFSET_RATIO) -> Pairs:
        """`mir_eval.transcription_velocity.match_notes`; no pairs if the reference is empty."""
        pairs = best_pairs(self.hits(offset_ratio))
        return match_velocities(pairs, self.reference.velocities, self.estimate.velocities) if len(pairs) else pairs

    def score_count(self, pairs: int) -> Score:
        """The score of a number of pairs."""
        return share_scores(pairs, len(self.reference), len(self.estimate))

    def score_pairs(self, pairs: Pairs) -> Score:
        """The score of pairs of notes, with their average overlap."""
        overlap = average_overlap(self.reference.intervals, self.estimate.intervals, pairs)
        return self.score_count(len(pairs))._replace(overlap=overlap)


def share_scores(pairs: int, reference_notes: int, estimated_notes: int) -> Score:
    """Precision, recall and F1 of a number of pairs; all 0 if either side is empty."""
    precision = pairs / estimated_notes if estimated_notes and reference_notes else 0.0
    recall = pairs / reference_notes if estimated_notes and reference_notes else 0.0
    return Score(precision, recall, f1(precision, recall))


def f1(precision: float, recall: float) -> float:
    """The harmonic mean; 0 if both are 0."""
    with needed("evaluate", SCORING):
        from mir_eval.util import f_measure
    return float(f_measure(precision, recall))


def average_overlap(reference_intervals: Intervals, estimate_intervals: Intervals, pairs: Pairs) -> float:
    """The mean over pairs of the time both notes sound by the time either does; 0 without pairs."""
    if len(pairs) == 0:
        return 0.0
    expected, found = reference_intervals[pairs[:, 0]], estimate_intervals[pairs[:, 1]]
    both = np.minimum(expected[:, 1], found[:, 1]) - np.maximum(expected[:, 0], found[:, 0])
    either = np.maximum(expected[:, 1], found[:, 1]) - np.minimum(expected[:, 0], found[:, 0])
    return float(np.mean(both / either))
