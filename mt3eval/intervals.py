"""How certain an average over pieces is: bootstrap intervals, also for the difference between two systems.

The pieces are drawn again, with replacement, as many as there are; each draw is averaged by the protocol's own rule;
the interval holds the middle 95 % of the draws (the percentile bootstrap: Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 13). It says how much the average would vary with other pieces of the same kind, not how
much single pieces vary. With few pieces it is too narrow; with one there is none.

Two systems are compared on the same draws of the same pieces, so pieces that are hard for both cancel out. An
interval of the difference without 0 in it says that the systems differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from mt3eval.protocol import Protocol, Scores, mean_over_files, mean_without_nan

RESAMPLES = 1000
CONFIDENCE = 0.95

# How often each piece is in each draw.
Draws = Float[np.ndarray, "draws pieces"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed; the same settings give the same intervals."""

    resamples: int = RESAMPLES
    seed: int = 0
    confidence: float = CONFIDENCE

    def draws(self, pieces: int) -> Draws:
        """How often each of the pieces is drawn, by draw."""
        picks = np.random.default_rng(self.seed).integers(0, pieces, (self.resamples, pieces))
        counts = np.zeros((self.resamples, pieces))
        np.add.at(counts, (np.arange(self.resamples)[:, None], picks), 1.0)
        return counts

    def interval(self, values: Float[np.ndarray, " draws"]) -> Interval | None:
        """The interval of the values; None without values."""
        values = values[~np.isnan(values)]
        if len(values) == 0:
            return None
        outside = 50 * (1 - self.confidence)
        low, high = np.percentile(values, [outside, 100 - outside])
        return float(low), float(high)


@dataclass(frozen=True)
class Average:
    """A set's values by the protocol's own rule.

    `counts` are the numbers of pieces that have a value for the metric (not NaN). A metric has no interval
    if fewer than two pieces have a value, or if the average is NaN.
    """

    values: Scores
    intervals: dict[str, Interval]
    counts: dict[str, int]
    pieces: int


def average(protocol: Protocol, files: Sequence[Scores], bootstrap: Bootstrap) -> Average:
    """The average of the files for which the protocol is defined, with intervals."""
    values = protocol.average(files) if files else {}
    counts = {name: _count(files, name) for name in values}
    drawn = draw_averages(protocol, files, bootstrap.draws(len(files))) if len(files) > 1 else {}
    return Average(values, _intervals(values, counts, drawn, bootstrap), counts, len(files))


@dataclass(frozen=True)
class Paired:
    """Two systems over the pieces that both have: the average of each, and the first minus the second.

    `one_sided` counts, by metric, the pieces for which only one system has a value (and the other none, or NaN):
    they are left out on both sides, as they have no difference.
    """

    first: Average
    second: Average
    difference: Average
    one_sided: dict[str, int] = field(default_factory=dict)


def compare(protocol: Protocol, first: Sequence[Scores], second: Sequence[Scores], bootstrap: Bootstrap) -> Paired:
    """Two systems on the same pieces, in the same order on both sides."""
    first, second, one_sided = _without_one_sided(protocol, first, second)
    averages = average(protocol, first, bootstrap), average(protocol, second, bootstrap)
    counts = [one.counts for one in averages]
    values = {name: averages[0].values[name] - averages[1].values[name] for name in counts[0] if name in counts[1]}
    fewest = {name: min(counts[0][name], counts[1][name]) for name in values}
    drawn = {}
    if len(first) > 1:
        draws = bootstrap.draws(len(first))
        one, other = (draw_averages(protocol, files, draws) for files in (first, second))
        drawn = {name: one[name] - other[name] for name in values}
    intervals = _intervals(values, fewest, drawn, bootstrap)
    return Paired(*averages, Average(values, intervals, fewest, len(first)), one_sided)


def _intervals(
    values: Scores, counts: dict[str, int], drawn: dict[str, Float[np.ndarray, " draws"]], bootstrap: Bootstrap
) -> dict[str, Interval]:
    """The interval of each metric that has a value and more than one piece."""
    names = [name for name, value in values.items() if counts[name] > 1 and not math.isnan(value)]
    found = {name: bootstrap.interval(drawn[name]) for name in names}
    return {name: interval for name, interval in found.items() if interval is not None}


def _without_one_sided(
    protocol: Protocol, first: Sequence[Scores], second: Sequence[Scores]
) -> tuple[list[Scores], list[Scores], dict[str, int]]:
    """Both sides without the values that the other lacks, and the number of such pieces by metric.

    This concerns only metrics that are averaged directly: pooled ones differ in their inputs from system to system.
    A NaN stays where the protocol's average is then NaN.
    """
    averaged = {name for files in (first, second) if files for name in protocol.average(files)}
    kept: tuple[list[Scores], list[Scores]] = ([], [])
    one_sided: Counter[str] = Counter()
    for sides in zip(first, second, strict=True):
        having = [{name for name in averaged if not math.isnan(side.get(name, math.nan))} for side in sides]
        alone = having[0] ^ having[1]
        one_sided.update(alone)
        for side, files, has in zip(sides, kept, having, strict=True):
            files.append({name: value for name, value in side.items() if name not in alone & has})
    return *kept, {name: one_sided[name] for name in sorted(one_sided)}


def draw_averages(protocol: Protocol, files: Sequence[Scores], draws: Draws) -> dict[str, Float[np.ndarray, " draws"]]:
    """The protocol's average for every draw, by metric."""
    if protocol.average is mean_over_files:
        return draw_means(files, draws, skip_nan=False)
    if protocol.average is mean_without_nan:
        return draw_means(files, draws, skip_nan=True)
    if protocol.draw_averages is not None:
        return protocol.draw_averages(files, draws)
    return _one_by_one(protocol, files, draws)


def draw_means(files: Sequence[Scores], draws: Draws, skip_nan: bool) -> dict[str, Float[np.ndarray, " draws"]]:
    """The mean of every draw over the files that have the value; NaN counts as missing, or makes the mean NaN."""
    names = list(dict.fromkeys(name for scores in files for name in scores))
    values = np.array([[scores.get(name, math.nan) for name in names] for scores in files], dtype=float)
    values = values.reshape(len(files), len(names))
    has_value = ~np.isnan(values)
    counts = draws @ has_value
    with np.errstate(invalid="ignore"):
        means = draws @ np.where(has_value, values, 0.0) / counts
    if not skip_nan:
        is_nan = np.array([[name in scores for name in names] for scores in files]).reshape(values.shape) & ~has_value
        means[draws @ is_nan > 0] = math.nan
    return dict(zip(names, means.T, strict=True))


def _one_by_one(protocol: Protocol, files: Sequence[Scores], draws: Draws) -> dict[str, Float[np.ndarray, " draws"]]:
    averages = []
    for draw in draws.astype(int).tolist():
        averages.append(protocol.average([one for one, times in zip(files, draw, strict=True) for _ in range(times)]))
    names = dict.fromkeys(name for values in averages for name in values)
    return {name: np.array([values.get(name, math.nan) for values in averages]) for name in names}


def _count(files: Sequence[Scores], name: str) -> int:
    """The number of pieces with a value; for values pooled over pieces, which no piece has, all of them."""
    having = [scores[name] for scores in files if name in scores]
    return sum(not math.isnan(value) for value in having) if having else len(files)
