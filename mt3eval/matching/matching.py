"""Matching the notes of an estimate to those of the reference: mir_eval's matching, partner for partner, but fast.

mir_eval (`mir_eval.transcription`, 0.8.2) compares every reference note with every estimated note and takes the
largest one-to-one matching among the pairs within tolerance. Here the pairs come from sorted times. The groups of
notes that are linked by such pairs do not influence each other in mir_eval's algorithm, so a reference note with
one candidate that has no other candidate is paired immediately, and only the rest goes through mir_eval's own search,
in the order in which mir_eval would meet it. Which of several possible partners a note gets is therefore
mir_eval's choice; average overlap and velocity scores depend on it. If only the number of pairs counts, SciPy's
search for the largest matching is faster still.

Times are in seconds, pitches in Hz, tolerances of pitch in cents. Differences of times are rounded to four decimals
before they are compared (mir_eval's `N_DECIMALS`), and a difference equal to the tolerance matches.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mt3core.extras import needed

SCORING = "Scoring notes"  # needs the extra [evaluate]
ONSET_TOLERANCE_SECONDS = 0.05
PITCH_TOLERANCE_CENTS = 50.0
OFFSET_RATIO = 0.2  # of the reference note's length
OFFSET_MIN_TOLERANCE_SECONDS = 0.05
VELOCITY_TOLERANCE = 0.1  # of the range of reference velocities

_DECIMALS = 4
_ROUNDING_SLACK_SECONDS = 1e-4  # rounding lets differences up to half of this above the tolerance pass

Intervals = Float[np.ndarray, "_notes 2"]
Hz = Float[np.ndarray, " _notes"]
Velocities = Float[np.ndarray, " _notes"]
Pairs = Int[np.ndarray, "_pairs 2"]  # rows (index in the reference, index in the estimate), sorted by the first


@dataclass(frozen=True, eq=False)
class Hits:
    """All pairs within tolerance, by index in the reference, then in the estimate."""

    reference: Int[np.ndarray, " hits"]
    estimate: Int[np.ndarray, " hits"]

    def keep(self, within: np.ndarray) -> Hits:
        """The pairs where `within` is true."""
        return Hits(self.reference[within], self.estimate[within])


def match_velocities(
    pairs: Pairs,
    reference_velocities: Velocities,
    estimate_velocities: Velocities,
    velocity_tolerance: float = VELOCITY_TOLERANCE,
) -> Pairs:
    """The pairs whose velocities agree, as in `mir_eval.transcription_velocity.match_notes`.

    Reference velocities are scaled to 0 to 1 by their minimum and maximum (range at least 1), those
    of the paired estimated notes fitted to them by a least-squares line; a pair stays if the two differ by less
    than the tolerance. The reference must not be empty.
    """
    least, greatest = np.min(reference_velocities), np.max(reference_velocities)
    scaled = (reference_velocities - least) / float(max(1, greatest - least))
    if len(pairs) == 0:
        return pairs
    expected, found = scaled[pairs[:, 0]], estimate_velocities[pairs[:, 1]]
    line = np.stack([found, np.ones(len(found))], axis=1)
    slope, intercept = np.linalg.lstsq(line, expected, rcond=None)[0]
    return pairs[np.abs(slope * found + intercept - expected) < velocity_tolerance]


def count_onsets(reference_intervals: Intervals, estimate_intervals: Intervals) -> int:
    """The number of pairs of `mir_eval.transcription.match_note_onsets`: onsets alone, pitches are ignored."""
    onsets, found = reference_intervals[:, 0], estimate_intervals[:, 0]
    return count_pairs(_time_hits(onsets, found, np.full(len(onsets), ONSET_TOLERANCE_SECONDS)))


def count_offsets(reference_intervals: Intervals, estimate_intervals: Intervals) -> int:
    """The number of pairs of `mir_eval.transcription.match_note_offsets`: offsets alone."""
    tolerances = offset_tolerances(reference_intervals)
    return count_pairs(_time_hits(reference_intervals[:, 1], estimate_intervals[:, 1], tolerances))


def onset_hits(
    reference_intervals: Intervals,
    reference_hz: Hz,
    estimate_intervals: Intervals,
    estimate_hz: Hz,
    onset_tolerance: float = ONSET_TOLERANCE_SECONDS,
    pitch_tolerance: float = PITCH_TOLERANCE_CENTS,
) -> Hits:
    """All pairs of notes whose onsets and pitches are within tolerance."""
    onsets, found = reference_intervals[:, 0], estimate_intervals[:, 0]
    reference_octaves, estimate_octaves = np.log2(reference_hz), np.log2(estimate_hz)
    rows = _pitch_rows(reference_octaves, estimate_octaves, pitch_tolerance)
    hits = _time_hits(onsets, found, np.full(len(onsets), onset_tolerance), *rows)
    cents = np.abs(1200 * (reference_octaves[hits.reference] - estimate_octaves[hits.estimate]))
    return hits.keep(cents <= pitch_tolerance)


def within_offsets(
    hits: Hits,
    reference_intervals: Intervals,
    estimate_intervals: Intervals,
    ratio: float = OFFSET_RATIO,
    min_tolerance: float = OFFSET_MIN_TOLERANCE_SECONDS,
) -> Hits:
    """The pairs whose offsets are also within tolerance."""
    tolerances = offset_tolerances(reference_intervals, ratio, min_tolerance)[hits.reference]
    distances = _distances(reference_intervals[hits.reference, 1], estimate_intervals[hits.estimate, 1])
    return hits.keep(distances <= tolerances)


def offset_tolerances(
    reference_intervals: Intervals,
    ratio: float = OFFSET_RATIO,
    min_tolerance: float = OFFSET_MIN_TOLERANCE_SECONDS,
) -> Float[np.ndarray, " _notes"]:
    """The offset tolerance of each reference note, in seconds."""
    return np.maximum(ratio * np.abs(np.diff(reference_intervals, axis=-1).flatten()), min_tolerance)


def best_pairs(hits: Hits) -> Pairs:
    """The largest one-to-one matching among the pairs within tolerance: mir_eval's choice if there are several."""
    alone = _without_rivals(hits)
    candidates: dict[int, list[int]] = {}
    for reference, estimate in zip(hits.reference[~alone].tolist(), hits.estimate[~alone].tolist(), strict=True):
        candidates.setdefault(estimate, []).append(reference)
    contested = np.array(_search(candidates), dtype=np.int64).reshape(-1, 2)
    pairs = np.concatenate([np.stack([hits.reference[alone], hits.estimate[alone]], axis=1), contested])
    return pairs[np.argsort(pairs[:, 0])]


def count_pairs(hits: Hits) -> int:
    """How many pairs the largest one-to-one matching has."""
    alone = _without_rivals(hits)
    rest = hits.keep(~alone)
    if len(rest.reference) == 0:
        return int(alone.sum())
    with needed("evaluate", SCORING):
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching
    rows, row_of = np.unique(rest.reference, return_inverse=True)
    columns, column_of = np.unique(rest.estimate, return_inverse=True)
    graph = csr_array((np.ones(len(row_of), dtype=bool), (row_of, column_of)), shape=(len(rows), len(columns)))
    return int(alone.sum() + (maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _search(candidates: dict[int, list[int]]) -> list[tuple[int, int]]:
    """mir_eval's matching of estimated notes, each with its candidates in the reference."""
    # The search has no public name. The ways to it, `match_events` with a `distance` and `match_notes`, give the same
    # pairs, but through a table of all notes by all notes, which takes gigabytes where repeated notes form one chain of
    # candidates (tests/eval/test_evaluation_matching.py). So mir_eval is pinned below 0.9, and a test guards the pin.
    with needed("evaluate", SCORING):
        from mir_eval.util import _bipartite_match
    limit = sys.getrecursionlimit()
    # The search calls itself once for each note of a chain in which every note changes its partner.
    sys.setrecursionlimit(limit + 2 * len(candidates))
    try:
        return list(_bipartite_match(candidates).items())
    finally:
        sys.setrecursionlimit(limit)


def _without_rivals(hits: Hits) -> np.ndarray:
    """Which pairs join two notes that have no other candidate."""
    if len(hits.reference) == 0:
        return np.zeros(0, dtype=bool)
    return (np.bincount(hits.reference)[hits.reference] == 1) & (np.bincount(hits.estimate)[hits.estimate] == 1)


def _time_hits(
    times: np.ndarray,
    found: np.ndarray,
    tolerances: np.ndarray,
    rows: np.ndarray | None = None,
    found_rows: np.ndarray | None = None,
) -> Hits:
    """Pairs of times within the tolerance of the first, of equal rows if rows are given."""
    keys, found_keys = times, found
    if rows is not None and found_rows is not None and len(times) and len(found):
        both = np.concatenate([times, found])
        # Rows are placed one after the other, further apart than any tolerance.
        spacing = np.ptp(both) + tolerances.max() + 1.0
        keys, found_keys = times + rows * spacing, found + found_rows * spacing
    order = np.argsort(found_keys, kind="stable")
    reach = tolerances + _ROUNDING_SLACK_SECONDS
    first = np.searchsorted(found_keys[order], keys - reach, side="left")
    counts = np.searchsorted(found_keys[order], keys + reach, side="right") - first
    reference = np.repeat(np.arange(len(times)), counts)
    starts = np.cumsum(counts) - counts
    estimate = order[np.arange(len(reference)) - np.repeat(starts - first, counts)]
    by_place = np.lexsort((estimate, reference))
    hits = Hits(reference[by_place], estimate[by_place])
    return hits.keep(_distances(times[hits.reference], found[hits.estimate]) <= tolerances[hits.reference])


def _distances(times: np.ndarray, found: np.ndarray) -> np.ndarray:
    return np.around(np.abs(times - found), decimals=_DECIMALS)


def _pitch_rows(reference_octaves: Hz, estimate_octaves: Hz, pitch_tolerance: float) -> tuple[np.ndarray, ...]:
    """A number for each different pitch, on both sides; None if different pitches may match each other."""
    pitches, rows = np.unique(np.concatenate([reference_octaves, estimate_octaves]), return_inverse=True)
    # One cent of slack: whether pitches match is decided for each pair; this is only a first selection.
    if (1200 * np.diff(pitches) <= pitch_tolerance + 1).any():
        return ()
    return rows[: len(reference_octaves)], rows[len(reference_octaves) :]
