"""mir_eval's, MT3's, MR-MT3's and hFT's scores against those of the original programs, and by hand."""

import math

import numpy as np
import pytest
from golden_metrics import average_disagreements, disagreements, expected_scores

from mt3core.errors import MidiError, UsageError
from mt3core.notes.table import note_table
from mt3eval.protocol import all_protocols, mean_over_files, mean_without_nan, protocol
from mt3eval.protocols.mrmt3 import PHI
from mt3eval.reading.performance import NotDefinedError, Performance

pytestmark = pytest.mark.unit

NAMES = [
    *("mir_eval_notes_nondrum", "mir_eval_velocity_nondrum", "mir_eval_counts_nondrum"),
    *("mir_eval_notes_drum", "mir_eval_counts_drum"),
    *("mir_eval_notes_all", "mir_eval_velocity_all", "mir_eval_counts_all"),
    *("mt3", "mt3_onsets_only", "mt3_tracks_cerberus4", "mt3_program_aware", "mt3_tolerance_sweep"),
    *("mrmt3_program_aware", "mrmt3_notes", "mrmt3_tracks", "mrmt3_instruments"),
    *("hft_note", "hft_note_velocity"),
]


def played(*rows) -> Performance:
    """Rows of (onset, offset, pitch[, velocity[, program[, is_drum]]])."""
    return Performance(note_table([(*row, *(64, 0, False)[len(row) - 3 :]) for row in rows]))


def score(name: str, reference: Performance, estimate: Performance) -> dict[str, float]:
    return protocol(name).score(reference, estimate)


C_MAJOR = played((0.0, 1.0, 60), (1.0, 2.0, 64), (2.0, 3.0, 67))
NOTHING = played()


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_that_of_the_original(name):
    assert disagreements(name) == []


def test_the_average_of_files_is_that_of_mt3():
    assert average_disagreements("mt3", 1e-9) == []


def test_all_protocols_of_the_golden_results_are_there():
    assert set(all_protocols()) == set(expected_scores())


def test_names_lists_and_summaries():
    assert set(NAMES) <= set(all_protocols())
    assert [one.name for one in all_protocols().values()] == list(all_protocols())
    for one in all_protocols().values():
        assert protocol(one.name) is one
        assert not one.summary.endswith(".")
        assert "\n" not in one.summary
        assert one.source


def test_an_unknown_protocol_is_answered_with_all_names():
    with pytest.raises(UsageError, match=r"Unknown evaluation protocol 'mt4'.*Choose from: mt3, ") as raised:
        protocol("mt4")
    assert all(name in str(raised.value) for name in all_protocols())


@pytest.mark.parametrize(
    "name", ["mir_eval_notes_nondrum", "mir_eval_velocity_nondrum", "mt3", "mrmt3_notes", "hft_note"]
)
def test_empty_sides_score_zero(name):
    for reference, estimate in ((NOTHING, C_MAJOR), (C_MAJOR, NOTHING), (NOTHING, NOTHING)):
        scores = score(name, reference, estimate)
        shares = [value for metric, value in scores.items() if not metric.startswith("len_")]
        assert shares
        assert set(shares) == {0.0}


def test_a_perfect_estimate_scores_one():
    for name in ("mir_eval_notes_nondrum", "mir_eval_velocity_nondrum", "mt3_tolerance_sweep", "hft_note"):
        assert set(score(name, C_MAJOR, C_MAJOR).values()) == {1.0}, name


@pytest.mark.parametrize(
    ("late_seconds", "f1"), [(0.05, 1.0), (0.05004, 1.0), (0.0501, 0.0)], ids=["limit", "rounds to the limit", "over"]
)
def test_the_onset_tolerance_is_rounded_to_four_decimals_and_includes_the_limit(late_seconds, f1):
    estimate = played((1.0 + late_seconds, 2.0, 60))
    scores = score("mir_eval_notes_nondrum", played((1.0, 2.0, 60)), estimate)
    assert scores["F-measure_no_offset"] == f1
    assert scores["Onset_F-measure"] == f1


def test_the_offset_tolerance_follows_the_reference_note():
    long, short = played((0.0, 2.0, 60)), played((0.0, 1.6, 60))
    assert score("mir_eval_notes_nondrum", long, short)["F-measure"] == 1.0
    assert score("mir_eval_notes_nondrum", short, long)["F-measure"] == 0.0


def test_the_best_matching_is_taken_not_the_nearest_partner():
    reference = played((1.00, 2, 60), (1.04, 2, 60))
    estimate = played((0.96, 2, 60), (1.01, 2, 60))  # the second is nearest to the first, which is alone with the first
    assert score("mir_eval_counts_nondrum", reference, estimate)["pairs onset"] == 2


def test_a_second_copy_of_a_note_is_wrong():
    twice = played((0.0, 1.0, 60), (0.0, 1.0, 60))
    scores = score("mt3", played((0.0, 1.0, 60)), twice)
    assert (scores["Onset precision"], scores["Onset recall"]) == (0.5, 1.0)


def test_velocity_is_blind_to_scale_and_offset():
    reference = played(*[(i, i + 0.5, 60, 20 + 20 * i) for i in range(5)])
    estimate = played(*[(i, i + 0.5, 60, 30 + 10 * i) for i in range(5)])
    assert score("mir_eval_velocity_nondrum", reference, estimate)["F-measure"] == 1.0


@pytest.mark.parametrize("name", ["mir_eval_notes_all", "mir_eval_velocity_all", "mrmt3_program_aware", "mrmt3_tracks"])
def test_notes_without_length_are_named_where_the_original_stops(name):
    with pytest.raises(NotDefinedError, match=r"estimate has 1 notes without length.*number 1 at 1.000 s.*Remove them"):
        score(name, C_MAJOR, played((0.0, 1.0, 60), (1.0, 1.0, 64)))


@pytest.mark.parametrize("name", ["mt3", "mrmt3_notes", "hft_note"])
def test_notes_without_length_are_dropped_where_the_original_drops_them(name):
    scores = score(name, played((0.0, 1.0, 60)), played((0.0, 1.0, 60), (1.0, 1.0, 64)))
    metric = {"mt3": "Onset + offset F1", "mrmt3_notes": "onoff_f1", "hft_note": "F-measure"}[name]
    assert scores[metric] == 1.0


@pytest.mark.parametrize("onset", [math.nan, -0.5])
def test_impossible_times_are_refused_before_anything_is_scored(onset):
    with pytest.raises(MidiError, match="Note 1"):
        played((0.0, 1.0, 60), (onset, 1.0, 60))


def test_mt3_frames_floor_lengthen_and_ask_for_loudness():
    quiet = played((0.0, 1.0, 60, 30), (0.0, 1.0, 62, 31))
    scores = score("mt3", quiet, played((0.0, 1.0, 62), (0.0, 0.01, 64)))
    # 62 frames of the loud note; the short one is made 50 ms long: 3 frames.
    assert scores["Frame Recall"] == 1.0
    assert scores["Frame Precision"] == 62 / 65


def test_mt3_sweep_in_mt3_scores_lengthened_notes():
    reference, estimate = played((0.0, 0.01, 60)), played((0.0, 0.075, 60))
    assert score("mt3", reference, estimate)["Onset + offset F1"] == 0.0
    assert score("mt3", reference, estimate)["Onset + offset F1 (0.05)"] == 1.0
    assert score("mt3_tolerance_sweep", reference, estimate)["Onset + offset F1 (0.05)"] == 0.0


def test_granularities_of_mt3_and_mrmt3():
    """One note with the right family, one with a wrong one, one with a wrong end, a drum with other program numbers."""
    reference = played((0, 1, 60, 64, 0), (1, 2, 62, 64, 24), (2, 3, 64, 64, 40), (3, 4, 36, 64, 0, True))
    estimate = played((0, 1, 60, 64, 4), (1, 2, 62, 64, 33), (2, 2.5, 64, 64, 40), (3, 4, 36, 64, 3, True))
    mt3 = score("mt3_program_aware", reference, estimate)
    values = [mt3[f"Onset + offset + program F1 ({one})"] for one in ("flat", "midi_class", "full")]
    assert values == [0.5, 0.25, 0.0]
    assert mt3["Drum onset F1 (flat)"] == 0.0
    mrmt3 = score("mrmt3_program_aware", reference, estimate)
    values = [mrmt3[f"Onset + program F1 ({one})"] for one in ("flat", "midi_class", "full")]
    assert values == [1.0, 0.75, 0.25]
    assert mrmt3["F1 by program drums"] == 1.0
    assert mrmt3["F1 by program 24"] == 0.0


def test_mrmt3_pools_drums_with_pitched_notes_and_mt3_does_not():
    kick, bass = played((0.0, 1.0, 36, 64, 0, True)), played((0.0, 1.0, 36, 64, 33))
    assert score("mrmt3_program_aware", kick, bass)["Onset F1"] == 1.0
    assert score("mrmt3_notes", kick, bass)["on_f1"] == 1.0
    assert score("mt3", kick, bass)["Onset F1"] == 0.0


def test_mrmt3_tracks_take_the_best_track_of_the_same_kind():
    reference = played((0, 1, 60, 64, 0), (1, 2, 62, 64, 0), (0, 1, 36, 64, 0, True))
    estimate = played((0, 1, 60, 64, 50), (1, 2, 62, 64, 50), (0, 1, 36, 64, 0))
    scores = score("mrmt3_tracks", reference, estimate)
    assert scores == {"mean best track F1": 0.5, "reference tracks": 2, "estimated tracks": 2}
    with pytest.raises(NotDefinedError, match="no tracks"):
        score("mrmt3_tracks", reference, NOTHING)
    assert math.isnan(score("mrmt3_tracks", NOTHING, estimate)["mean best track F1"])


def test_leakage_ratio_and_instrument_detection():
    reference = played((0, 1, 60, 64, 0), (1, 2, 62, 64, 33))
    estimate = played((0, 1, 60, 64, 0), (1, 2, 62, 64, 33), (1, 2, 60, 64, 4), (1, 2, 60, 64, 48))
    scores = score("mrmt3_instruments", reference, estimate)
    assert (scores["instruments precision"], scores["instruments recall"], scores[PHI]) == (0.5, 1.0, 2.0)
    with pytest.raises(NotDefinedError, match="no instrument in common"):
        score("mrmt3_instruments", reference, played((0, 1, 60, 64, 8)))
    with pytest.raises(NotDefinedError, match="one has no notes"):
        score("mrmt3_instruments", reference, NOTHING)


def test_hft_velocity_lets_semitone_errors_pass_as_published():
    wrong = played((0.0, 1.0, 61))
    assert score("hft_note_velocity", played((0.0, 1.0, 60)), wrong)["F-measure"] == 1.0
    assert score("hft_note", played((0.0, 1.0, 60)), wrong)["F-measure"] == 0.0


def test_averages_over_files_that_have_the_value():
    files = [{"a": 1.0, "b": math.nan}, {"a": 0.0, "b": 0.5, "c": 0.25}]
    assert mean_without_nan(files) == {"a": 0.5, "b": 0.5, "c": 0.25}
    means = mean_over_files(files)
    assert (means["a"], means["c"]) == (0.5, 0.25)
    assert math.isnan(means["b"])
    assert math.isnan(mean_without_nan([{"a": math.nan}])["a"])
    assert mean_over_files([]) == {}


def test_scoring_leaves_the_notes_as_they_are():
    performance = played((0.0, 0.01, 60), (0.0, 0.02, 36, 100, 0, True))
    before = performance.notes.copy()
    for one in NAMES:
        score(one, performance, performance)
    assert np.array_equal(performance.notes, before)
