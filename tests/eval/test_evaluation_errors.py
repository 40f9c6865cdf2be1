"""Every note is in exactly one category, the right one; and the counts made of the categories add up."""

import json

import numpy as np
import pytest
from golden_metrics import golden_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3core.errors import UsageError
from mt3core.notes.table import note_table
from mt3eval.calibration import calibrate
from mt3eval.note_errors import CATEGORIES, PAIR_CATEGORIES, analyse, pool
from mt3eval.protocol import protocol
from mt3eval.reading.performance import Performance

pytestmark = pytest.mark.unit


def performance(*notes, confidences=None) -> Performance:
    """Notes of (onset, offset, pitch[, velocity, program, is_drum])."""
    return Performance(
        note_table([(*note, 80, 0, False)[:6] if len(note) == 3 else note for note in notes]), confidences=confidences
    )


def named(analysis) -> tuple[list[str], list[str]]:
    return tuple(
        [CATEGORIES[code] for code in codes] for codes in (analysis.reference_categories, analysis.estimate_categories)
    )


PIANO, GRAND, GUITAR = 0, 1, 24


@pytest.mark.parametrize(
    ("reference", "estimate", "expected"),
    [
        ([(1, 2, 60)], [(1.05, 1.8, 60)], (["correct"], ["correct"])),
        ([(1, 2, 60)], [(1, 1.79, 60)], (["offset"], ["offset"])),
        ([(1, 2, 60, 80, PIANO, False)], [(1, 2, 60, 80, GRAND, False)], (["correct"], ["correct"])),
        ([(1, 2, 60, 80, PIANO, False)], [(1, 1.1, 60, 80, GUITAR, False)], (["instrument"], ["instrument"])),
        ([(1, 2, 60)], [(1, 2, 72)], (["octave"], ["octave"])),
        ([(1, 2, 60)], [(1, 2, 36)], (["octave"], ["octave"])),
        ([(1, 2, 60)], [(1, 2, 61)], (["missed"], ["ghost"])),
        ([(1, 2, 60)], [(0.9, 2, 60)], (["early"], ["early"])),
        ([(1, 2, 60)], [(1.2, 2, 60)], (["late"], ["late"])),
        ([(1, 2, 60)], [(1.21, 2, 60)], (["missed"], ["ghost"])),
        ([(1, 2, 60, 80, 0, True)], [(1, 9, 60, 80, 40, True)], (["correct"], ["correct"])),
        ([(1, 2, 36, 80, 0, True)], [(1, 2, 38, 80, 0, True)], (["instrument"], ["instrument"])),
        ([(1, 2, 36, 80, 0, True)], [(1, 2, 36, 80, 0, False)], (["missed"], ["ghost"])),
        ([(1, 3, 60)], [(1, 2, 60), (2, 3, 60)], (["split"], ["split", "split"])),
        ([(1, 2, 60), (2, 3, 60)], [(1, 3, 60)], (["merged", "merged"], ["merged"])),
        # The second part is another reference note, whose end alone is wrong.
        ([(1, 3, 60), (2, 9, 60)], [(1, 2, 60), (2, 3, 60)], (["offset"] * 2, ["offset"] * 2)),
        # A late repetition stays with the reference note that is nearer.
        ([(1, 1.1, 60), (1.3, 1.4, 60)], [(1.12, 1.3, 60)], (["late", "missed"], ["late"])),
        ([(1, 1.1, 60), (1.25, 1.35, 60)], [(1.15, 1.25, 60)], (["missed", "early"], ["early"])),
        ([(1, 2, 60)], [], (["missed"], [])),
        ([], [(1, 1, 60)], ([], ["ghost"])),
        ([], [], ([], [])),
    ],
)  # fmt: skip
def test_a_note_is_in_the_category_it_belongs_to(reference, estimate, expected):
    assert named(analyse(performance(*reference), performance(*estimate))) == expected


def test_velocities_count_only_where_both_sides_have_several():
    reference = performance(*[(k, k + 0.5, 60, 20 + 20 * k, 0, False) for k in range(5)])
    right = [10 + 10 * k for k in range(5)]  # a line of the reference's, so no error
    assert set(named(analyse(reference, with_velocities(reference, right)))[0]) == {"correct"}
    wrong = analyse(reference, with_velocities(reference, [*right[:4], 10]))
    assert "velocity" in named(wrong)[0]
    assert wrong.velocities_compared == (True, False)
    one_value = analyse(reference, with_velocities(reference, [127] * 5))
    assert set(named(one_value)[0]) == {"correct"}
    assert one_value.velocities_compared == (False, False)


def with_velocities(one: Performance, velocities) -> Performance:
    notes = one.notes.copy()
    notes["velocity"] = velocities
    return Performance(notes)


notes_strategy = st.lists(
    st.tuples(
        st.integers(0, 60), st.integers(0, 20), st.sampled_from([48, 59, 60, 61, 72]), st.integers(1, 127),
        st.sampled_from([0, 3, 24, 40]), st.booleans(),
    ),
    max_size=40,
)  # fmt: skip


def crowded(rows, grid) -> Performance:
    notes = [(a * grid, (a + b) * grid, *rest) for a, b, *rest in rows]
    return Performance(note_table(notes), confidences=np.linspace(0, 1, len(notes)))


@settings(max_examples=60)
@given(notes_strategy, notes_strategy, st.sampled_from([0.02, 0.05, 0.1]))
def test_every_note_is_counted_once_wherever_notes_are_counted(reference, estimate, grid):
    analysis = analyse(crowded(reference, grid), crowded(estimate, grid))
    found = json.loads(json.dumps(analysis.to_json()))
    assert len(np.unique(analysis.pairs[:, 0])) == len(np.unique(analysis.pairs[:, 1])) == len(analysis.pairs)
    for part, labels, confusion in (("pitched", "by_instrument", "confusion"), ("drums", "by_drum", "drum_confusion")):
        for side, notes in (("reference", analysis.reference), ("estimate", analysis.estimate)):
            total = int((notes["is_drum"] == (part == "drums")).sum())
            assert sum(count[side] for count in found[part].values()) == total
            assert sum(sum(c[side] for c in row["categories"].values()) for row in found[labels]) == total
        for category in PAIR_CATEGORIES:
            assert len(set(found[part][category].values())) == 1, category
        assert found[part]["missed"]["estimate"] == found[part]["ghost"]["reference"] == 0
        assert found[part]["split"]["estimate"] >= 2 * found[part]["split"]["reference"]
        assert found[part]["merged"]["reference"] >= 2 * found[part]["merged"]["estimate"]
        check_confusion(found[confusion], found[labels])
    ranges = sum(row["reference_notes"] for row in found["by_pitch_range"])
    assert ranges == sum(row["reference_notes"] for row in found["by_instrument"])
    assert sum(found["onset_deviations"]["counts"]) == found["onset_deviations"]["notes"] == len(analysis.pairs)
    bins = found["calibration"]["bins"] if found["calibration"] else []
    assert sum(one["notes"] for one in bins) == len(analysis.estimate)


def check_confusion(confusion, rows):
    counts = np.array(confusion["counts"])
    assert confusion["labels"] == [*[row["name"] for row in rows], "no partner"]
    assert counts.sum(axis=1)[:-1].tolist() == [row["reference_notes"] for row in rows]
    assert counts.sum(axis=0)[:-1].tolist() == [row["estimated_notes"] for row in rows]
    assert counts[-1, -1] == 0


@settings(max_examples=15)
@given(st.lists(st.tuples(notes_strategy, notes_strategy), max_size=4))
def test_pooled_pieces_have_the_sum_of_their_counts(pieces):
    analyses = [analyse(crowded(one, 0.05), crowded(other, 0.05)) for one, other in pieces]
    pooled, alone = pool(analyses).to_json(), [analysis.to_json() for analysis in analyses]
    for part in ("pitched", "drums"):
        for category in CATEGORIES:
            for side in ("reference", "estimate"):
                assert pooled[part][category][side] == sum(one[part][category][side] for one in alone)
    assert pooled["onset_deviations"]["notes"] == sum(one["onset_deviations"]["notes"] for one in alone)
    assert (pooled["calibration"] is None) == (not sum(len(one.estimate) for one in analyses))


@pytest.mark.parametrize("name", ["song_mt3", "song_perturbed", "multi_rendered_gugs_jcycle", "piano_pedal"])
def test_notes_without_error_are_those_that_mt3_counts(name):
    reference, estimate = golden_pair(name)
    found = analyse(reference, estimate).to_json()
    right = sum(found[part][category]["estimate"] for part in ("pitched", "drums")
                for category in ("correct", "velocity"))  # fmt: skip
    scores = protocol("mt3").score(reference, estimate)
    precision = scores["Onset + offset + program precision (midi_class)"]
    assert right == pytest.approx(precision * len(estimate.notes), abs=1e-6)


def test_an_estimate_that_is_the_reference_has_no_errors():
    reference = golden_pair("multi_rendered_gugs_earthday")[0]
    found = analyse(reference, reference).to_json()
    assert sum(found[part]["correct"]["reference"] for part in ("pitched", "drums")) == len(reference.notes)
    assert {row["f1"] for row in found["by_instrument"]} == {1.0}
    assert found["onset_deviations"]["standard_deviation"] == 0


def test_deviations_are_those_of_the_estimate():
    reference = performance((1, 2, 60), (3, 4, 62))
    found = analyse(reference, performance((1.012, 2.1, 60), (2.91, 4, 62))).to_json()
    onsets = found["onset_deviations"]
    assert onsets["mean"] == pytest.approx((12 - 90) / 2)
    at = [onsets["low"] + k * onsets["bin"] for k, count in enumerate(onsets["counts"]) if count]
    assert at == [-90, 10]
    assert found["offset_deviations"]["median"] == pytest.approx(50)


def test_calibration_against_a_hand_made_table():
    confidences = np.array([0.1, 0.1, 0.9, 0.9, 0.9, 1.0])
    is_right = np.array([False, True, True, True, False, True])
    found = calibrate(confidences, is_right)
    assert [(one.notes, one.right) for one in found.bins] == [(2, 0.5), (4, 0.75)]
    assert found.expected_error == pytest.approx((2 * 0.4 + 4 * (0.925 - 0.75)) / 6)
    assert found.greatest_error == pytest.approx(0.4)
    assert found.brier_score == pytest.approx((0.01 + 0.81 + 0.01 + 0.01 + 0.81 + 0) / 6)


@pytest.mark.parametrize("confidences", [[0.5], [0.5, 1.1], [0.5, np.nan]])
def test_confidences_that_are_none_are_refused(confidences):
    estimate = performance((1, 2, 60), (2, 3, 60), confidences=np.array(confidences))
    with pytest.raises(UsageError, match=r"confidence"):
        analyse(estimate, estimate).to_json()
