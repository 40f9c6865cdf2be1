"""YourMT3's scores: the original's values, and cases worked out by hand."""

import math

import numpy as np
import pytest
from golden_metrics import average_disagreements, disagreements, expected_scores, golden_pair

from mt3core.notes.table import note_table
from mt3eval.protocol import protocol
from mt3eval.protocols.yourmt3 import PROTOCOLS
from mt3eval.protocols.yourmt3_classes import EVERY_PROGRAM, GENERAL_MIDI_DRUMS, MT3_TABLE
from mt3eval.reading.performance import NotDefinedError, Performance

pytestmark = pytest.mark.unit

EPSILON = pytest.approx(0.0, abs=1e-12)


def performance(*rows) -> Performance:
    """Notes from (onset, offset, pitch[, program[, is_drum]])."""
    return Performance(note_table([(*row[:3], 80, *row[3:], 0, False)[:6] for row in rows]))


def drums(*rows) -> Performance:
    """Drum hits from (onset, pitch)."""
    return Performance(note_table([(onset, onset, pitch, 80, 0, True) for onset, pitch in rows]))


def score(name: str, reference: Performance, estimate: Performance) -> dict:
    return protocol(f"yourmt3_{name}").score(reference, estimate)


@pytest.mark.parametrize("name", [one.name for one in PROTOCOLS])
def test_the_original_values(name):
    assert disagreements(name) == []


@pytest.mark.parametrize("name", ["yourmt3_slakh", "yourmt3_gm_plus"])
def test_the_original_averages(name):
    assert average_disagreements(name, tolerance=1e-6) == []


@pytest.mark.parametrize("pair", ["song_mt3", "case_empty_reference", "case_both_empty", "case_programs"])
def test_the_same_metrics_are_listed(pair):
    assert list(protocol("yourmt3_slakh").score(*golden_pair(pair))) == list(expected_scores()["yourmt3_slakh"][pair])


def test_classes_are_scored_alone():
    # A piano note that comes out as a bass: right for onset_f, wrong for each class and for multi_f.
    reference = performance((0, 1, 60, 0), (1, 2, 62, 0))
    estimate = performance((0, 1, 60, 4), (1, 2, 62, 33))
    scores = score("slakh", reference, estimate)
    assert scores["onset_f"] == scores["offset_f"] == 1
    assert scores["onset_f_Piano"] == pytest.approx(2 / 3)
    assert (scores["micro_onset_p_Piano"], scores["micro_onset_p_Piano weight"]) == (1, 1)
    assert (scores["micro_onset_r_Piano"], scores["micro_onset_r_Piano weight"]) == (0.5, 2)
    assert (scores["micro_offset_p_Bass"], scores["micro_offset_p_Bass weight"]) == (0, 1)
    assert "onset_f_Bass" not in scores
    assert "micro_onset_r_Bass" not in scores
    assert scores["multi_f"] == pytest.approx(0.5)


def test_programs_in_no_class_are_not_counted():
    reference = performance((0, 1, 60, 0), (1, 2, 62, 118))
    wrong, right = performance((0, 1, 60, 0), (1, 2, 70, 97)), performance((0, 1, 60, 0), (1, 2, 62, 118))
    for estimate, onset_f in ((wrong, 0.5), (right, 1)):
        scores = score("slakh", reference, estimate)
        assert scores["onset_f"] == onset_f
        assert scores["multi_f"] == pytest.approx(1)
        assert scores["micro_onset_p_Piano weight"] == 1


def test_offsets_count_in_multi_f_but_not_those_of_drums():
    reference, late = performance((0, 1, 60)), performance((0, 2, 60))
    assert score("slakh", reference, late)["onset_f"] == 1
    assert score("slakh", reference, late)["offset_f"] == 0
    assert score("slakh", reference, late)["multi_f"] == EPSILON
    long_hits = Performance(note_table([(0, 3, 36, 80, 0, True)]))
    assert score("slakh", drums((0, 36)), long_hits)["multi_f"] == pytest.approx(1)


def test_drum_groups():
    reference, estimate = drums((0, 35), (1, 40), (2, 44), (3, 81)), drums((0, 36), (1, 38), (2, 46), (3, 81))
    # Kick and snare agree by group, the hi-hats do not; pitch 81 is in no group of the maps.
    assert score("slakh", reference, estimate)["onset_f_drum"] == pytest.approx(2 / 3)
    assert score("drums_ksh", reference, estimate)["onset_f_drum"] == 1
    assert score("gm_plus", reference, estimate)["onset_f_drum"] == pytest.approx(1 / 4)
    assert score("slakh", reference, estimate)["micro_onset_p_drum weight"] == 3


def test_empty_sides():
    notes, nothing = performance((0, 1, 60)), performance()
    for reference in (nothing, drums((0, 36))):
        scores = score("slakh", reference, notes)
        assert all(math.isnan(scores[name]) for name in ("onset_f", "offset_f", "frame_f", "frame_f_pc"))
        assert scores["micro_onset_p_Piano weight"] == 1
    scores = score("slakh", notes, nothing)
    assert [scores[name] for name in ("onset_f", "offset_f", "frame_f", "onset_f_Piano")] == [0, 0, 0, 0]
    assert math.isnan(scores["onset_f_drum"])
    assert math.isnan(scores["multi_f"])
    assert "multi_f" not in score("drums_ksh", notes, notes)


def test_frames_are_of_a_sixteenth_of_a_second():
    # 16 frames against 8 of the same pitch and 8 an octave higher; after the reference nothing counts.
    scores = score("slakh", performance((0, 1, 60)), performance((0, 0.5, 60), (0.5, 1, 72), (1, 9, 61)))
    assert scores["frame_f"] == pytest.approx(0.5)
    assert scores["frame_f_pc"] == pytest.approx(1)
    # A note shorter than a frame has one, here one of the reference's nine.
    short = performance((0.07, 0.08, 60), (0.5, 1, 62))
    assert score("slakh", short, performance((0.5, 1, 62)))["frame_f"] == pytest.approx(2 * 8 / (9 + 8))


def test_frames_leave_out_the_lowest_and_highest_pitches():
    edges = performance((0, 1, 15), (0, 1, 110))
    assert math.isnan(score("slakh", edges, edges)["frame_f"])
    for pitch in (16, 109):
        inside = performance((0, 1, pitch))
        assert score("slakh", inside, edges)["frame_f"] == 0
        assert score("slakh", inside, inside)["frame_f"] == pytest.approx(1)


def test_frames_end_with_the_last_twenty_notes_of_the_list():
    reference = performance((0, 4, 60), *[(0.1 * step, 0.1 * step + 0.1, 70) for step in range(20)])
    estimate = performance((2, 4, 60), *[(0.1 * step, 0.1 * step + 0.1, 70) for step in range(20)])
    # The frames end at 2 s: of pitch 60 only the first 32 of 64 frames are there, and the estimate has none of them.
    assert score("slakh", reference, estimate)["frame_f"] == pytest.approx(2 * 32 / (64 + 32))


def test_notes_without_length_are_refused_where_both_sides_have_notes():
    broken, fine = performance((0, 1, 60), (2, 2, 62)), performance((0, 1, 60))
    with pytest.raises(NotDefinedError, match="without length"):
        score("slakh", broken, fine)
    with pytest.raises(NotDefinedError, match="without length"):
        score("slakh", fine, broken)
    assert score("slakh", broken, performance())["onset_f"] == 0
    assert score("slakh", drums((0, 36)), drums((0, 36)))["onset_f_drum"] == 1


def test_averages_leave_out_nan_and_pool_the_micro_scores():
    one, two = performance((0, 1, 60)), performance((0, 1, 60), (1, 2, 62), (2, 3, 64))
    files = [score("slakh", one, one), score("slakh", two, one), score("slakh", drums((0, 36)), drums((0, 36)))]
    averages = protocol("yourmt3_slakh").average(files)
    assert averages["onset_f"] == pytest.approx((1 + 0.5) / 2)
    assert averages["micro_onset_f_Piano"] == pytest.approx(2 * 2 / (2 + 4))
    assert averages["onset_f_drum"] == 1
    assert math.isnan(averages["onset_f_Organ"])
    assert math.isnan(averages["micro_offset_f_Organ"])
    assert all(math.isnan(value) for value in protocol("yourmt3_slakh").average([]).values())


def test_the_tables_of_classes():
    assert len(EVERY_PROGRAM) == 96
    assert EVERY_PROGRAM["Clavinet"] == [7]
    assert EVERY_PROGRAM["Pad 8 (sweep)"] == [95]
    assert len(MT3_TABLE) == 34
    programs = [program for group in MT3_TABLE.values() for program in group]
    assert sorted(programs) == [*range(96)]
    hits = [pitch for group in GENERAL_MIDI_DRUMS.values() for pitch in group]
    assert len(hits) == len(set(hits))


def test_the_notes_are_not_changed():
    reference = drums((0, 35))
    before = reference.notes.copy()
    score("slakh", reference, reference)
    assert np.array_equal(before, reference.notes)
