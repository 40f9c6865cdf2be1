"""Transkun's and bytedance's scores and their pedals: the originals' values, and cases worked out by hand."""

import numpy as np
import pytest
from golden_metrics import disagreements, expected_scores, golden_pair
from hypothesis import given
from hypothesis import strategies as st

from mt3core.notes.table import note_table
from mt3eval.matching.pedal import (
    cut_at_next_of_pitch,
    in_time_order,
    pedal_intervals,
    prolong_in_one_pass,
    prolong_to_pedal,
)
from mt3eval.protocol import protocol
from mt3eval.protocols import bytedance as bytedance_protocols
from mt3eval.protocols import transkun as transkun_protocols
from mt3eval.reading.performance import NotDefinedError, Performance

pytestmark = pytest.mark.unit

PIANO_PROTOCOLS = [one.name for one in (*transkun_protocols.PROTOCOLS, *bytedance_protocols.PROTOCOLS)]


def notes(*rows):
    """A table from (onset, offset, pitch[, velocity])."""
    return note_table([(*row, *(80, 0, False)[len(row) - 3 :]) for row in rows])


def performance(*rows, pedal=(), controller: int = 64) -> Performance:
    """Notes from (onset, offset, pitch[, velocity]), control changes from (time, value)."""
    controls = np.array([(time, controller, value) for time, value in pedal], dtype=float).reshape(-1, 3)
    return Performance(notes(*rows), controls)


def spans(table) -> list[tuple]:
    return [tuple(row) for row in table[["onset", "offset", "pitch"]].tolist()]


@pytest.mark.parametrize("name", PIANO_PROTOCOLS)
def test_the_original_values(name):
    assert disagreements(name) == []


@pytest.mark.parametrize("name", PIANO_PROTOCOLS)
def test_the_same_metrics_are_listed(name):
    expected = expected_scores()[name]
    pair = "case_identical" if name == "transkun_compare_transcription" else "piano_pedal"
    assert list(protocol(name).score(*golden_pair(pair))) == list(expected[pair])


# The pedal


def test_pedal_intervals():
    controls = np.array([(1, 64, 64), (1.5, 64, 127), (2, 64, 63), (2.5, 67, 127), (3, 64, 0), (4, 64, 100)])
    assert pedal_intervals(controls, end_seconds=6).tolist() == [[1, 2], [4, 6]]
    assert pedal_intervals(controls[::-1], end_seconds=6).tolist() == [[1, 2], [4, 6]]
    assert pedal_intervals(controls, end_seconds=4).tolist() == [[1, 2]]
    assert pedal_intervals(controls, end_seconds=6, controller=67).tolist() == [[2.5, 6]]
    assert pedal_intervals(np.zeros((0, 3)), end_seconds=6).shape == (0, 2)


def test_a_pedal_held_to_the_end_lasts_to_its_last_change():
    controls = np.array([(4, 64, 100), (8, 64, 90)])
    assert pedal_intervals(controls, end_seconds=6).tolist() == [[4, 8]]


def test_notes_that_end_inside_a_pedal_are_prolonged():
    table = notes((0, 1, 60), (0, 1.5, 61), (0, 2, 62), (0, 2.5, 63), (0, 3.5, 64))
    pedals = np.array([[1, 2], [3, 4]])
    assert prolong_to_pedal(table, pedals)["offset"].tolist() == [1, 2, 2, 2.5, 4]
    assert prolong_to_pedal(table, np.zeros((0, 2)))["offset"].tolist() == table["offset"].tolist()


def test_notes_are_cut_at_the_next_of_their_pitch():
    table = notes((0, 5, 60), (1, 2, 62), (2, 3, 60), (2, 4, 60), (3, 3.5, 60))
    assert spans(cut_at_next_of_pitch(table)) == [(0, 2, 60), (1, 2, 62), (2, 3, 60), (3, 3.5, 60)]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(60, 61)), max_size=12),
    st.lists(st.integers(0, 30), max_size=8, unique=True),
)
def test_cut_notes_never_overlap(rows, times):
    table = in_time_order(notes(*[(onset, onset + length, pitch) for onset, length, pitch in rows]))
    times = np.array(sorted(times[: len(times) // 2 * 2]), dtype=float)
    cut = cut_at_next_of_pitch(prolong_to_pedal(table, times.reshape(-1, 2)))
    for pitch in (60, 61):
        ours = cut[cut["pitch"] == pitch]
        assert np.all(ours["offset"][:-1] <= ours["onset"][1:])
        assert set(ours["onset"]) == set(table["onset"][table["pitch"] == pitch])
    assert np.all(cut["onset"] < cut["offset"])


def test_bytedance_goes_through_notes_and_pedals_once():
    pedals = np.array([[1, 3], [3.5, 5]])
    table = notes((0, 1.5, 60), (1.6, 2, 60), (2, 3.7, 62), (2, 3.8, 64))
    # The second note of a pitch cuts the first. The note that ends at 3.7 only makes the second pedal current.
    assert prolong_in_one_pass(table, pedals)["offset"].tolist() == [1.6, 3, 3.7, 5]
    assert prolong_to_pedal(table, pedals)["offset"].tolist() == [3, 3, 5, 5]


# Transkun


def test_only_the_reference_is_prolonged_by_default():
    side = performance((0, 1, 60), (4, 5, 62), pedal=[(0.5, 127), (3, 0)])
    score = {
        name: protocol(f"transkun_compute_metrics{name}").score(side, side)
        for name in ("", "_no_extension", "_extend_both")
    }
    assert [score[name]["note+offset f1"] for name in score] == [0.5, 1, 1]
    assert [score[name]["note f1"] for name in score] == [1, 1, 1]
    assert score[""]["frame recall"] == pytest.approx(2 / 4)
    assert score[""]["frame overlap"] == pytest.approx(2 / 4)
    assert score[""]["mean offset deviation"] == pytest.approx(0)  # the prolonged pair is no pair within 0.8 s
    assert score[""]["pedal64 f1"] == score[""]["pedal64+offset f1"] == 1


def test_deviations_are_reference_minus_estimate():
    score = protocol("transkun_compute_metrics").score(performance((1, 2, 60)), performance((0.5, 2.7, 60)))
    assert (score["matched within 0.8 s"], score["note f1"]) == (1, 0)
    assert score["mean onset deviation"] == pytest.approx(0.5)
    assert score["mean offset deviation"] == pytest.approx(-0.7)


def test_aligned_onsets():
    reference = performance(*[(step, step + 0.5, 60) for step in range(5)])
    late = performance(*[(step + 0.1, step + 0.6, 60) for step in range(5)])
    assert protocol("transkun_compute_metrics").score(reference, late)["note f1"] == 0
    aligned = protocol("transkun_compute_metrics_align_onset").score(reference, late)
    assert aligned["note+offset f1"] == 1
    assert aligned["mean onset deviation"] == pytest.approx(0)
    assert aligned["frame f1"] == pytest.approx(1)


def test_soft_pedals_are_scored_and_others_are_not():
    soft = performance((0, 9, 60), pedal=[(1, 127), (3, 0), (4, 127), (6, 0)], controller=67)
    late = performance((0, 9, 60), pedal=[(1, 127), (3, 0), (4.5, 127), (6, 0)], controller=67)
    score = protocol("transkun_compute_metrics").score(soft, late)
    assert (score["pedal67 f1"], score["pedal67nGT"]) == (0.5, 2)
    assert score["pedal67frame recall"] == pytest.approx(3.5 / 4)
    assert score["note+offset f1"] == 1
    assert "pedal64 f1" not in score
    assert "pedal67 f1" not in protocol("transkun_compute_metrics").score(performance((0, 9, 60)), soft)
    sostenuto = performance((0, 9, 60), pedal=[(1, 127), (3, 0)], controller=66)
    assert not any(name.startswith("pedal") for name in protocol("transkun_compute_metrics").score(sostenuto, soft))


def test_time_counts_only_on_the_piano():
    low = performance((0, 1, 20), (0, 1, 21))
    score = protocol("transkun_compute_metrics").score(low, performance((0, 1, 20), (0.5, 1, 21)))
    assert score["frame recall"] == pytest.approx(0.5)
    assert score["frame precision"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("reference", "estimate", "complaint"),
    [
        (performance(), performance((0, 1, 60)), "reference has none"),
        (performance((0, 1, 60)), performance(), "estimate has none"),
        (performance((0, 1, 60)), performance((0, 1, 61)), "within 0.8 s"),
        (performance((0, 1, 60), (2, 2, 61)), performance((0, 1, 60)), "without length"),
        (performance((0, 1, 60), pedal=[(1, 127), (1, 0)]), performance((0, 1, 60)), "same time"),
    ],
)
def test_where_transkun_stops(reference, estimate, complaint):
    for name in PIANO_PROTOCOLS[:4]:
        with pytest.raises(NotDefinedError, match=complaint):
            protocol(name).score(reference, estimate)


def test_compared_notes_of_one_pitch_must_not_overlap():
    overlapping, apart = performance((0, 1, 60), (0.5, 2, 60)), performance((0, 0.5, 60), (0.5, 2, 60))
    compare = protocol("transkun_compare_transcription").score
    assert compare(apart, apart)["note f1"] == 1
    for pair in ((overlapping, apart), (apart, overlapping)):
        with pytest.raises(NotDefinedError, match="overlap"):
            compare(*pair)
    assert compare(performance(), performance())["note f1"] == 0


# bytedance


def test_a_new_onset_replaces_a_sounding_note_of_the_reference():
    reference = performance((0, 2, 60), (1, 3, 60), (3, 4, 62))
    score = protocol("bytedance").score(reference, performance((1, 2, 60), (3, 4, 62)))
    assert score["reference notes"] == 2
    assert score["note+offset_f1"] == 1
    # The estimate is not read in this way, but for its frames.
    assert protocol("bytedance").score(performance((1, 2, 60)), reference)["note_precision"] == pytest.approx(1 / 3)

    frames = protocol("bytedance").score(performance((0, 4, 60)), performance((0, 2, 60), (1, 3, 60)))
    assert frames["frame_recall"] == pytest.approx(101 / 401)


def test_only_the_reference_is_prolonged_for_bytedance():
    side = performance((0, 1, 60), pedal=[(0.5, 127), (3, 0)])
    score = protocol("bytedance").score(side, side)
    assert (score["note_f1"], score["note+offset_f1"], score["pedal_f1"]) == (1, 0, 1)
    assert score["frame_recall"] == pytest.approx(101 / 301)


def test_notes_that_touch_are_both_kept():
    touching = performance((0, 1, 60), (1, 2, 60))
    assert protocol("bytedance").score(touching, touching)["reference notes"] == 2


def test_frames_include_both_ends():
    # Frames 0 to 100 against frames 0 to 50.
    score = protocol("bytedance").score(performance((0, 1, 60)), performance((0, 0.5, 60)))
    assert (score["frame_precision"], score["frame_recall"]) == (1, pytest.approx(51 / 101))


def test_pitches_beyond_the_piano_count_as_its_outermost_keys():
    score = protocol("bytedance").score(performance((0, 1, 12)), performance((0, 1, 21)))
    assert (score["frame_f1"], score["note_f1"]) == (1, 0)


def test_pedals_may_be_late_by_a_fifth_of_a_second():
    reference = performance((0, 9, 60), pedal=[(1, 127), (3, 0), (4, 127), (6, 0)])
    estimate = performance((0, 9, 60), pedal=[(1.19, 127), (3, 0), (4.21, 127), (6, 0)])
    score = protocol("bytedance").score(reference, estimate)
    assert score["pedal_f1"] == 0.5
    # 201 frames each of the reference, of which the estimate misses 19 and 21.
    assert score["pedal_frame_recall"] == pytest.approx((402 - 40) / 402)
    assert score["pedal_frame_precision"] == 1
    assert protocol("bytedance").score(reference, performance((0, 9, 60)))["pedal_f1"] == 0
    assert "pedal_f1" not in protocol("bytedance").score(performance((0, 9, 60)), estimate)


def test_where_bytedance_stops():
    note = performance((0, 1, 60))
    with pytest.raises(NotDefinedError, match="reference has no notes"):
        protocol("bytedance").score(performance(), note)
    for pair in ((performance((1, 1, 60)), note), (note, performance((1, 1, 60)))):
        with pytest.raises(NotDefinedError, match="without length"):
            protocol("bytedance").score(*pair)
    tapped, pedalled = (performance((0, 4, 60), pedal=[(1, 127), (end, 0)]) for end in (1, 2))
    for pair in ((tapped, pedalled), (pedalled, tapped)):
        with pytest.raises(NotDefinedError, match="same time"):
            protocol("bytedance").score(*pair)
    assert protocol("bytedance").score(note, tapped)["note_f1"] == 1
    assert protocol("bytedance").score(note, performance())["note_f1"] == 0


@pytest.mark.parametrize("name", PIANO_PROTOCOLS)
def test_drums_are_no_piano(name):
    drums = Performance(note_table([(0, 1, 36, 80, 0, True)]))
    with pytest.raises(NotDefinedError, match="a single piano"):
        protocol(name).score(performance((0, 1, 60)), drums)


@pytest.mark.parametrize("name", PIANO_PROTOCOLS)
def test_the_performances_are_not_changed(name):
    side = performance((0, 1, 60), (2, 3, 60), pedal=[(0.5, 127), (1.5, 0)])
    before = side.notes.copy(), side.controls.copy()
    protocol(name).score(side, side)
    assert np.array_equal(before[0], side.notes)
    assert np.array_equal(before[1], side.controls)
