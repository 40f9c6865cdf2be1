"""The fast matching gives mir_eval's pairs, partner for partner."""

import tomllib
import warnings
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3eval.matching import matching
from mt3eval.matching.note_scores import Comparison, ScoredNotes, pitch_to_hz

pytestmark = pytest.mark.unit


@st.composite
def crowded_notes(draw) -> ScoredNotes:
    """Notes so close in time and pitch that many may match; times on and off the limits of rounding."""
    grid = draw(st.sampled_from([0.01, 0.025, 0.00005]))
    spread = draw(st.sampled_from([8, 40, 4000]))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, spread), st.integers(1, 60), st.integers(30, 33), st.integers(1, 127)), max_size=40
        )
    )
    onset, length, pitch, velocity = np.array(rows, dtype=float).reshape(-1, 4).T
    intervals = np.stack([onset * grid, (onset + length) * grid], axis=1)
    return ScoredNotes(intervals, pitch_to_hz(pitch), velocity)


def match_notes(reference, reference_hz, estimate, estimate_hz, offset_ratio=0.2, **tolerances):
    """What `mir_eval.transcription.match_notes` does, from the steps of our matching."""
    hits = matching.onset_hits(reference, reference_hz, estimate, estimate_hz, **tolerances)
    if offset_ratio is not None:
        hits = matching.within_offsets(hits, reference, estimate, offset_ratio)
    return matching.best_pairs(hits)


def as_list(pairs) -> list[tuple[int, int]]:
    return [(int(reference), int(estimate)) for reference, estimate in pairs]


@settings(max_examples=150)
@given(crowded_notes(), crowded_notes(), st.sampled_from([None, 0.2]), st.sampled_from([0.05, 0.2]))
def test_pairs_are_those_of_mir_eval(reference, estimate, offset_ratio, tolerance):
    sides = reference.intervals, reference.hz, estimate.intervals, estimate.hz
    expected = mir_eval.transcription.match_notes(*sides, onset_tolerance=tolerance, offset_ratio=offset_ratio)
    found = match_notes(*sides, onset_tolerance=tolerance, offset_ratio=offset_ratio)
    assert as_list(found) == as_list(expected)
    assert Comparison(reference, estimate, tolerance).count(offset_ratio) == len(expected)


@settings(max_examples=60)
@given(crowded_notes(), crowded_notes())
def test_pairs_where_neighbouring_pitches_may_match_too(reference, estimate):
    numbers = [np.round(69 + 12 * np.log2(side.hz / 440)) for side in (reference, estimate)]
    sides = reference.intervals, numbers[0], estimate.intervals, numbers[1]
    expected = mir_eval.transcription.match_notes(*sides, pitch_tolerance=100.0)
    assert as_list(match_notes(*sides, pitch_tolerance=100.0)) == as_list(expected)


@settings(max_examples=60)
@given(crowded_notes(), crowded_notes())
def test_scores_are_those_of_mir_eval(reference, estimate):
    sides = reference.intervals, reference.hz, estimate.intervals, estimate.hz
    with_velocities = (*sides[:2], reference.velocities, *sides[2:], estimate.velocities)
    comparison = Comparison(reference, estimate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval warns of empty sides
        for ratio in (None, 0.2):
            expected = mir_eval.transcription.precision_recall_f1_overlap(*sides, offset_ratio=ratio)
            assert comparison.score(ratio) == pytest.approx(expected, abs=1e-12)
            expected = mir_eval.transcription_velocity.precision_recall_f1_overlap(*with_velocities, offset_ratio=ratio)
            assert comparison.velocity_score(ratio) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(crowded_notes(), crowded_notes())
def test_counts_of_single_ends_are_those_of_mir_eval(reference, estimate):
    sides = reference.intervals, estimate.intervals
    assert matching.count_onsets(*sides) == len(mir_eval.transcription.match_note_onsets(*sides))
    assert matching.count_offsets(*sides) == len(mir_eval.transcription.match_note_offsets(*sides))


def test_a_long_piece_of_repeated_notes_is_matched_without_comparing_all_with_all():
    onsets = np.arange(60_000) * 0.04
    intervals, hz = np.stack([onsets, onsets + 0.03], axis=1), np.full(len(onsets), 440.0)
    pairs = match_notes(intervals, hz, intervals + 0.02, hz)
    assert len(pairs) == len(onsets)  # all pairs at once would take 29 GB
    assert (np.abs(pairs[:, 0] - pairs[:, 1]) <= 1).all()


def test_a_chain_in_which_every_note_changes_its_partner_is_not_too_long():
    """Each estimated note takes the earlier of two candidates, until the last on the list needs the very first."""
    length = 3000
    expected = 0.1 + 0.04 * np.arange(length)
    found = np.append(expected[1:] - 0.02, expected[0] - 0.04)
    intervals = [np.stack([onsets, onsets + 0.03], axis=1) for onsets in (expected, found)]
    hz = np.full(length, 440.0)
    pairs = match_notes(intervals[0], hz, intervals[1], hz, offset_ratio=None)
    assert as_list(pairs) == [(0, length - 1), *((place + 1, place) for place in range(length - 1))]


def test_only_versions_of_mir_eval_whose_private_search_is_known_are_installed():
    """Of a later series, `_bipartite_match` may be gone or choose other partners."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for one in project["optional-dependencies"]["evaluate"] if one.startswith("mir_eval")]
    assert wanted == "mir_eval>=0.8.2,<0.9"
    assert mir_eval.__version__.startswith("0.8.")
