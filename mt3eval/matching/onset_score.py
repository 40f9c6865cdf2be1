"""Onset precision, recall and F1 with mir_eval: the plainest score of a transcription.

A reference note is found when the estimate has a note of the same pitch whose onset lies within 50 ms; each
note counts once (mir_eval's matching, by sorted times in place of a table of all pairs, which a long piece has no
memory for). Offsets, velocities and, among pitched notes, programs are not looked at. Pitched notes and drum hits
are scored apart; a part without reference and estimate scores NaN.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mt3core.notes.table import Note
from mt3eval.matching.matching import ONSET_TOLERANCE_SECONDS, match_notes
from mt3eval.matching.note_scores import f1


@dataclass(frozen=True)
class OnsetScore:
    """Shares from 0 to 1, and how many notes they come from."""

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
    if not expected or not found:
        return OnsetScore(0.0, 0.0, 0.0, len(expected), len(found))
    pairs = len(matched_onsets(expected, found))
    precision, recall = pairs / len(found), pairs / len(expected)
    return OnsetScore(precision, recall, f1(precision, recall), len(expected), len(found))


def matched_onsets(reference: list[Note], estimate: list[Note]) -> list[tuple[int, int]]:
    """Pairs (place in `reference`, place in `estimate`) of notes that count as found; drums included."""
    if not reference or not estimate:
        return []
    intervals, pitches_hz = _intervals_and_hz(reference)
    pairs = match_notes(
        intervals,
        pitches_hz,
        *_intervals_and_hz(estimate),
        onset_tolerance=ONSET_TOLERANCE_SECONDS,
        offset_ratio=None,
    )
    return [(expected, found) for expected, found in pairs.tolist()]


def _intervals_and_hz(notes: list[Note]) -> tuple[np.ndarray, np.ndarray]:
    """mir_eval's form. Its intervals must have a length; onsets alone are scored, so any length will do."""
    onsets = np.array([note.onset for note in notes])
    lengths = np.maximum([note.offset - note.onset for note in notes], 0.01)
    pitches = np.array([note.pitch for note in notes], dtype=float)
    return np.stack([onsets, onsets + lengths], axis=1), 440.0 * 2.0 ** ((pitches - 69.0) / 12.0)
