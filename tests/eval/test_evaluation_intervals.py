"""Bootstrap intervals of averages and of differences: by the protocol's own rule, seeded, as wide as they should be."""

import math

import numpy as np
import pytest

from mt3core.notes.table import note_table
from mt3eval.intervals import Bootstrap, average, compare, draw_averages
from mt3eval.protocol import Protocol, mean_over_files, mean_without_nan, protocol
from mt3eval.reading.performance import Performance
from mt3eval.result import scores_json, summarise
from mt3eval.runner import ScoredPair, ScoringTask, score_performances

pytestmark = pytest.mark.unit


def rule(average_of_files):
    """A protocol that is nothing but its average."""
    return Protocol("rule", "", "", lambda reference, estimate: {}, average_of_files)


MEAN, MEAN_WITHOUT_NAN = rule(mean_over_files), rule(mean_without_nan)


def files_of(values, name="F1"):
    return [{name: float(value)} for value in values]


def random_pieces(count, seed=0):
    """Scores of YourMT3 for random pieces: some without drums, some without a class."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(count):
        programs = rng.choice([0, 33, 40, 100], rng.integers(1, 4), replace=False)
        rows = [
            (onset, onset + 0.3, int(rng.integers(40, 70)), 64, int(rng.choice(programs)), bool(rng.random() < 0.2))
            for onset in rng.uniform(0, 5, rng.integers(0, 25))
        ]
        found = [row for row in rows if rng.random() < 0.8]
        scored = score_performances(
            "", *(Performance(note_table(side)) for side in (rows, found)), ScoringTask(("yourmt3_slakh",))
        )
        pieces.append(scored.values("yourmt3_slakh"))
    return pieces


def test_draws_hold_as_many_pieces_as_there_are_and_depend_on_the_seed_only():
    draws = Bootstrap(500, seed=3).draws(7)
    assert draws.shape == (500, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert abs(draws.mean() - 1) < 1e-12
    assert draws.std() > 0.5
    np.testing.assert_array_equal(draws, Bootstrap(500, seed=3).draws(7))
    assert not np.array_equal(draws, Bootstrap(500, seed=4).draws(7))


@pytest.mark.parametrize("one", [MEAN, MEAN_WITHOUT_NAN])
def test_means_of_draws_are_the_means_of_the_drawn_files(one):
    files = [{"a": 1.0, "b": math.nan}, {"a": 0.5}, {"a": 0.25, "b": 0.75, "c": 2.0}]
    draws = Bootstrap(200).draws(3)
    drawn = draw_averages(one, files, draws)
    for place, counts in enumerate(draws.astype(int).tolist()):
        expected = one.average([file for file, times in zip(files, counts, strict=True) for _ in range(times)])
        for name in ("a", "b", "c"):
            assert drawn[name][place] == pytest.approx(expected.get(name, math.nan), nan_ok=True, abs=1e-12)


def test_pooled_values_of_draws_are_those_of_the_drawn_files():
    """YourMT3's `micro_` values are pooled over files; drawn at once they are what its average says of each draw."""
    files, yourmt3 = random_pieces(6), protocol("yourmt3_slakh")
    draws = Bootstrap(25).draws(6)
    drawn = draw_averages(yourmt3, files, draws)
    assert drawn.keys() == yourmt3.average(files).keys()
    seen = 0
    for place, counts in enumerate(draws.astype(int).tolist()):
        expected = yourmt3.average([file for file, times in zip(files, counts, strict=True) for _ in range(times)])
        for name, values in drawn.items():
            assert values[place] == pytest.approx(expected[name], nan_ok=True, abs=1e-12), name
            seen += not math.isnan(expected[name])
    assert seen > 300


def test_a_rule_of_any_other_kind_is_asked_draw_by_draw():
    largest = rule(lambda files: {"F1": max(file["F1"] for file in files)})
    one = average(largest, files_of([0.1, 0.2, 0.9]), Bootstrap(400))
    assert one.values == {"F1": 0.9}
    assert one.intervals["F1"] == (0.1, 0.9)  # one draw in 27 holds the smallest alone


def test_an_interval_is_that_of_the_mean():
    """For many pieces the percentile bootstrap is the normal interval: mean and 1.96 standard errors."""
    values = np.random.default_rng(1).normal(0.6, 0.1, 400)
    one = average(MEAN, files_of(values), Bootstrap(4000))
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert one.values["F1"] == pytest.approx(values.mean())
    np.testing.assert_allclose(one.intervals["F1"], values.mean() + np.array([-error, error]), atol=0.06 * error)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        low, high = average(MEAN, files_of(rng.beta(6, 3, 25)), Bootstrap(300, seed)).intervals["F1"]
        held += low <= 6 / 9 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_one_piece_or_nothing_has_no_interval():
    assert average(MEAN, files_of([0.5]), Bootstrap()).intervals == {}
    nothing = average(MEAN, [], Bootstrap())
    assert (nothing.values, nothing.intervals, nothing.pieces) == ({}, {}, 0)
    one_value = average(MEAN_WITHOUT_NAN, files_of([0.5, math.nan]), Bootstrap())
    assert (one_value.values, one_value.intervals, one_value.counts) == ({"F1": 0.5}, {}, {"F1": 1})


def test_nan_is_an_average_without_interval():
    one = average(MEAN, files_of([0.5, 0.25, math.nan]), Bootstrap())
    assert math.isnan(one.values["F1"])
    assert (one.intervals, one.counts, one.pieces) == ({}, {"F1": 2}, 3)


def test_what_is_hard_for_both_systems_cancels_out():
    hard = np.random.default_rng(2).uniform(0.2, 0.9, 12)
    first, second = files_of(hard + 0.01), files_of(hard)
    one = compare(MEAN, first, second, Bootstrap()).difference
    np.testing.assert_allclose([one.values["F1"], *one.intervals["F1"]], 0.01, atol=1e-12)
    low, high = average(MEAN, first, Bootstrap()).intervals["F1"]
    assert high - low > 0.1
    assert compare(MEAN, second, first, Bootstrap()).difference.values["F1"] == pytest.approx(-0.01)


@pytest.mark.parametrize("nothing", [{"F1": math.nan}, {}])
def test_a_value_that_one_system_lacks_is_neither_equal_nor_compared_with_other_pieces(nothing):
    """Without the piece on both sides, the second is better by 0.1 on every piece that both have."""
    first = [{"F1": 0.9}, {"F1": 0.3}, {"F1": 0.5}]
    second = [nothing, {"F1": 0.4}, {"F1": 0.6}]
    for one, other, sign in ((first, second, -1), (second, first, 1)):
        paired = compare(MEAN_WITHOUT_NAN, one, other, Bootstrap(200))
        assert paired.difference.values["F1"] == pytest.approx(sign * 0.1)
        assert paired.difference.intervals["F1"] == pytest.approx((sign * 0.1, sign * 0.1))
        assert (paired.difference.counts, paired.one_sided) == ({"F1": 2}, {"F1": 1})
    neither = [nothing, *second[1:]]
    assert compare(MEAN_WITHOUT_NAN, neither, second, Bootstrap(200)).one_sided == {}


def test_a_nan_of_one_system_makes_the_difference_nan_where_the_average_does():
    paired = compare(MEAN, files_of([0.5, math.nan]), files_of([0.5, 0.7]), Bootstrap(200))
    assert math.isnan(paired.difference.values["F1"])
    assert (paired.difference.intervals, paired.one_sided) == ({}, {"F1": 1})


def test_pooled_values_take_all_pieces_also_where_one_system_found_nothing():
    notes = note_table([(onset, onset + 0.3, 60, 64, 0, False) for onset in range(4)])
    truth, half, nothing = (Performance(notes[:count]) for count in (4, 2, 0))
    scores = [protocol("yourmt3_slakh").score(truth, found) for found in (truth, half, nothing)]
    paired = compare(protocol("yourmt3_slakh"), [scores[0], scores[1]], [scores[0], scores[2]], Bootstrap(200))
    assert paired.one_sided == {"multi_f": 1}
    assert paired.first.values["micro_onset_f_Piano"] == pytest.approx(2 * 6 / 14)
    assert paired.second.values["micro_onset_f_Piano"] == pytest.approx(2 * 4 / 12)
    assert paired.difference.values["multi_f"] == pytest.approx(0)
    assert paired.difference.values["onset_f"] == pytest.approx(scores[1]["onset_f"] / 2)


def pieces_of(values, names="abcdef"):
    return [
        ScoredPair(name, "", "", {"mt3": value if isinstance(value, str) else {"F1": value}})
        for name, value in zip(names, values, strict=False)
    ]


def test_pieces_without_a_value_stay_out_and_differences_take_what_both_have():
    pieces = [*pieces_of([0.5, 0.7, "stops"]), ScoredPair("d", "", "", failure="cannot be read")]
    others = pieces_of([0.2, 0.9, "stops"], "cba")
    result = summarise(("mt3",), pieces, Bootstrap(), ("other", others))
    assert (result.averages["mt3"].values["F1"], result.averages["mt3"].pieces) == (0.6, 2)
    assert result.against.averages["mt3"].pieces == 2
    paired = result.against.paired["mt3"]
    assert paired.difference.pieces == 1
    assert paired.difference.values["F1"] == pytest.approx(0.7 - 0.9)
    assert (paired.first.values["F1"], paired.second.values["F1"]) == (0.7, 0.9)
    assert scores_json(pieces[2]) == {"mt3": {"error": "stops"}}


def test_the_json_has_no_nan_and_says_how_it_was_made():
    result = summarise(("mt3",), pieces_of([0.5, math.nan]), Bootstrap(200, seed=5), settings={"sustain": True})
    values = result.to_json()
    assert values["schema_version"] == 1
    assert values["protocols"]["mt3"]["average"] == {"F1": None}
    assert values["protocols"]["mt3"]["intervals"] == {}
    assert [piece["scores"]["mt3"]["F1"] for piece in values["pieces"]] == [0.5, None]
    assert values["settings"] == {"resamples": 200, "seed": 5, "confidence": 0.95, "sustain": True}
