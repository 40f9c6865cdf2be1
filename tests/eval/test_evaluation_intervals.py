"""Intervals of averages and differences: by the protocol's own rule, as wide as they should be even for few pieces."""

import math
from pathlib import Path

import numpy as np
import pytest

from mt3core.notes.table import note_table
from mt3eval.intervals import METHOD, average, averages_without_each, compare, t_interval
from mt3eval.protocol import Protocol, all_protocols, is_share, mean_over_files, mean_without_nan, protocol
from mt3eval.reading.performance import Performance
from mt3eval.result import scores_json, summarise
from mt3eval.runner import ScoredPair, ScoringTask, score_performances

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize("one", [MEAN, MEAN_WITHOUT_NAN])
def test_means_without_each_file_are_the_means_of_the_others(one):
    files = [{"a": 1.0, "b": math.nan}, {"a": 0.5}, {"a": 0.25, "b": 0.75, "c": 2.0}]
    without_each = averages_without_each(one, files)
    for place in range(3):
        expected = one.average([*files[:place], *files[place + 1 :]])
        for name in ("a", "b", "c"):
            found = without_each[name][place]
            assert found == pytest.approx(expected.get(name, math.nan), nan_ok=True, abs=1e-12)


def test_pooled_values_without_each_file_are_those_of_the_others():
    """YourMT3's `micro_` values are pooled over files."""
    files, yourmt3 = random_pieces(6), protocol("yourmt3_slakh")
    without_each = averages_without_each(yourmt3, files)
    assert without_each.keys() == yourmt3.average(files).keys()
    seen = 0
    for place in range(6):
        expected = yourmt3.average([*files[:place], *files[place + 1 :]])
        for name, values in without_each.items():
            assert values[place] == pytest.approx(expected[name], nan_ok=True, abs=1e-12), name
            seen += not math.isnan(expected[name])
    assert seen > 100


def test_the_interval_of_a_value_without_bounds_is_students():
    """The mean of 1, 2, 3, 6 is 3, its standard error 1.0801; the quantile of t with 3 degrees of freedom 3.1824."""
    one = average(MEAN, files_of([1, 2, 3, 6], "mean onset deviation"))
    np.testing.assert_allclose(one.intervals["mean onset deviation"], (3 - 3.43739, 3 + 3.43739), atol=1e-4)


def test_the_interval_of_a_share_is_students_on_the_logit_scale():
    """Mean 0.9, standard error 0.057735, logit 2.19722 with 0.057735 / (0.9 * 0.1) = 0.64150; quantile 4.30265."""
    low, high = average(MEAN, files_of([0.8, 1.0, 0.9])).intervals["F1"]
    logits = 2.19722 - 4.30265 * 0.64150, 2.19722 + 4.30265 * 0.64150
    np.testing.assert_allclose((low, high), [1 / (1 + math.exp(-one)) for one in logits], atol=1e-4)


def test_the_interval_of_a_share_stays_within_0_and_1():
    for values in ([1, 0.2], [0, 0, 0, 0.9], [0.99, 1, 1, 1, 1]):
        low, high = average(MEAN, files_of(values)).intervals["F1"]
        assert 0 < low < np.mean(values) < high < 1
    assert average(MEAN, files_of([1, 1, 1])).intervals == {"F1": (1, 1)}
    assert t_interval(1.0, 0.1, 5, share=True)[1] == 1


def test_an_interval_of_many_pieces_is_the_normal_one():
    """Mean and 1.96 standard errors."""
    values = np.random.default_rng(1).normal(0.6, 0.1, 400)
    one = average(MEAN, files_of(values))
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert one.values["F1"] == pytest.approx(values.mean())
    np.testing.assert_allclose(one.intervals["F1"], values.mean() + np.array([-error, error]), atol=0.06 * error)


@pytest.mark.parametrize("pieces", [5, 8, 13])
def test_intervals_of_few_pieces_hold_the_truth_as_often_as_they_say(pieces):
    """The percentile bootstrap, which was here before, holds it in 82 to 91 of 100 cases."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        low, high = average(MEAN, files_of(rng.beta(4, 1.2, pieces))).intervals["F1"]
        held += low <= 4 / 5.2 <= high
    assert 0.93 <= held / 1000 <= 0.97


def test_the_benchmark_of_coverage_counts_the_same_intervals(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import interval_coverage as benchmark

    rng = np.random.default_rng(3)
    for population in benchmark.POPULATIONS:
        rows = population.draw(rng, 8)
        found = benchmark.intervals(population, rows, rng, 500)
        value = float(population.value(rows))
        assert all(low <= value <= high for low, high in found.values()), population.name
        if not population.is_share:
            assert found["ours"] == pytest.approx(found["t"])
    skewed = next(one for one in benchmark.POPULATIONS if one.name == "skewed")
    by_method = benchmark.coverage(skewed, 5, rng, 300, 200)
    assert by_method["percentile"][0] < 0.89 < 0.92 < by_method["ours"][0]


def test_a_pooled_value_that_one_piece_makes_alone_has_no_interval():
    notes = note_table([(onset, onset + 0.3, 60, 64, 0, False) for onset in range(4)])
    drums = note_table([(onset, onset + 0.3, 36, 64, 0, True) for onset in range(4)])
    score = protocol("yourmt3_slakh").score
    with_piano, half = (score(Performance(notes), Performance(notes[:count])) for count in (4, 2))
    without = score(Performance(drums), Performance(drums))
    name = "micro_onset_f_Piano"
    assert name not in average(protocol("yourmt3_slakh"), [half, without, without]).intervals
    two, padded = (
        average(protocol("yourmt3_slakh"), [with_piano, half, *[without] * more]).intervals[name] for more in (0, 10)
    )
    assert two == pytest.approx(padded)  # pieces without a piano make it no more certain


def test_the_names_of_shares_are_told_from_those_of_counts_and_times():
    notes = note_table([(onset, onset + 0.3, 60 + onset, 64, 0, False) for onset in range(20)])
    task = ScoringTask(tuple(all_protocols()))
    scored = score_performances("", Performance(notes), Performance(notes[:15]), task)
    names = {name for one in task.protocols for name in all_protocols()[one].average([scored.values(one) or {}])}
    assert {name for name in names if not is_share(name)} == {
        "pairs onset", "pairs onset+offset", "pairs onset+velocity", "pairs onset+offset+velocity",
        "reference notes", "estimated notes", "nGT", "nEst", "matched within 0.8 s",
        "mean onset deviation", "mean offset deviation", "len_ref_intervals", "len_est_intervals",
        "reference tracks", "estimated tracks", "reference instruments", "estimated instruments",
        "leakage ratio phi (from the paper, not in its code)",
    }  # fmt: skip


def test_one_piece_or_nothing_has_no_interval():
    assert average(MEAN, files_of([0.5])).intervals == {}
    nothing = average(MEAN, [])
    assert (nothing.values, nothing.intervals, nothing.pieces) == ({}, {}, 0)
    one_value = average(MEAN_WITHOUT_NAN, files_of([0.5, math.nan]))
    assert (one_value.values, one_value.intervals, one_value.counts) == ({"F1": 0.5}, {}, {"F1": 1})


def test_an_infinite_value_has_no_interval():
    """No interval of it could be written as JSON."""
    for one in (MEAN, MEAN_WITHOUT_NAN):
        found = average(one, files_of([0.5, 0.25, math.inf]))
        assert (found.values["F1"], found.intervals) == (math.inf, {})
        assert compare(one, files_of([0.5, 0.25, math.inf]), files_of([1, 1, 1])).difference.intervals == {}


def test_nan_is_an_average_without_interval():
    one = average(MEAN, files_of([0.5, 0.25, math.nan]))
    assert math.isnan(one.values["F1"])
    assert (one.intervals, one.counts, one.pieces) == ({}, {"F1": 2}, 3)


def test_what_is_hard_for_both_systems_cancels_out():
    hard = np.random.default_rng(2).uniform(0.2, 0.9, 12)
    first, second = files_of(hard + 0.01), files_of(hard)
    one = compare(MEAN, first, second).difference
    np.testing.assert_allclose([one.values["F1"], *one.intervals["F1"]], 0.01, atol=1e-12)
    low, high = average(MEAN, first).intervals["F1"]
    assert high - low > 0.1
    assert compare(MEAN, second, first).difference.values["F1"] == pytest.approx(-0.01)


@pytest.mark.parametrize("nothing", [{"F1": math.nan}, {}])
def test_a_value_that_one_system_lacks_is_neither_equal_nor_compared_with_other_pieces(nothing):
    """Without the piece on both sides, the second is better by 0.1 on every piece that both have."""
    first = [{"F1": 0.9}, {"F1": 0.3}, {"F1": 0.5}]
    second = [nothing, {"F1": 0.4}, {"F1": 0.6}]
    for one, other, sign in ((first, second, -1), (second, first, 1)):
        paired = compare(MEAN_WITHOUT_NAN, one, other)
        assert paired.difference.values["F1"] == pytest.approx(sign * 0.1)
        assert paired.difference.intervals["F1"] == pytest.approx((sign * 0.1, sign * 0.1))
        assert (paired.difference.counts, paired.one_sided) == ({"F1": 2}, {"F1": 1})
    neither = [nothing, *second[1:]]
    assert compare(MEAN_WITHOUT_NAN, neither, second).one_sided == {}


def test_a_nan_of_one_system_makes_the_difference_nan_where_the_average_does():
    paired = compare(MEAN, files_of([0.5, math.nan]), files_of([0.5, 0.7]))
    assert math.isnan(paired.difference.values["F1"])
    assert (paired.difference.intervals, paired.one_sided) == ({}, {"F1": 1})


def test_pooled_values_take_all_pieces_also_where_one_system_found_nothing():
    notes = note_table([(onset, onset + 0.3, 60, 64, 0, False) for onset in range(4)])
    truth, half, nothing = (Performance(notes[:count]) for count in (4, 2, 0))
    scores = [protocol("yourmt3_slakh").score(truth, found) for found in (truth, half, nothing)]
    paired = compare(protocol("yourmt3_slakh"), [scores[0], scores[1]], [scores[0], scores[2]])
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
    result = summarise(("mt3",), pieces, ("other", others))
    assert (result.averages["mt3"].values["F1"], result.averages["mt3"].pieces) == (0.6, 2)
    assert result.against.averages["mt3"].pieces == 2
    paired = result.against.paired["mt3"]
    assert paired.difference.pieces == 1
    assert paired.difference.values["F1"] == pytest.approx(0.7 - 0.9)
    assert (paired.first.values["F1"], paired.second.values["F1"]) == (0.7, 0.9)
    assert scores_json(pieces[2]) == {"mt3": {"error": "stops"}}


def test_the_json_has_no_nan_and_says_how_it_was_made():
    result = summarise(("mt3",), pieces_of([0.5, math.nan]), settings={"sustain": True})
    values = result.to_json()
    assert values["schema_version"] == 2
    assert values["protocols"]["mt3"]["average"] == {"F1": None}
    assert values["protocols"]["mt3"]["intervals"] == {}
    assert [piece["scores"]["mt3"]["F1"] for piece in values["pieces"]] == [0.5, None]
    assert values["settings"] == {"confidence": 0.95, "interval": METHOD, "sustain": True}
