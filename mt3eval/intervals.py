"""How certain an average over pieces is: an interval for it, also for the difference between two systems.

The interval is Student's t: the average, plus and minus a number of standard errors that grows as the pieces get
fewer. It says how much the average would vary with other pieces of the same kind, not how much single pieces vary.
The standard error is the jackknife's (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11): the
protocol's own rule averages all pieces but one, for each piece in turn. For a mean that is the usual standard error,
and it serves just as well for values that are pooled over pieces.

An average of shares (F1, precision, recall, overlap) has its interval on the logit scale, by the delta method: it stays
between 0 and 1 and reaches further away from the nearer of the two. `benchmarks/interval_coverage.py` compares this
with the bootstrap, whose intervals are too narrow for few pieces; its figures are in docs/evaluation.md.

Two systems are compared piece by piece, so pieces that are hard for both cancel out. An interval of the difference
without 0 in it says that the systems differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from mt3eval.protocol import LeftOut, Protocol, Scores, is_share, mean_over_files, mean_without_nan

CONFIDENCE = 0.95
METHOD = "Student's t with the jackknife's standard error; on the logit scale for F1, precision, recall and overlap"

Interval = tuple[float, float]

# An average of fewer pieces than this has no interval.
_FEWEST_PIECES = 2
# Sums in another order differ by this much; pieces that change a pooled value by less are not part of it.
_ROUNDING = 1e-12


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


def average(protocol: Protocol, files: Sequence[Scores]) -> Average:
    """The average of the files for which the protocol is defined, with intervals."""
    return _average(protocol, files, averages_without_each(protocol, files))


def _average(protocol: Protocol, files: Sequence[Scores], without_each: dict[str, LeftOut]) -> Average:
    values = protocol.average(files) if files else {}
    counts = {name: _count(files, name) for name in values}
    intervals = {}
    for name, value in values.items():
        concerned = _concerned(files, name, value, without_each.get(name))
        if found := _interval(value, without_each.get(name), concerned, is_share(name)):
            intervals[name] = found
    return Average(values, intervals, counts, len(files))


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


def compare(protocol: Protocol, first: Sequence[Scores], second: Sequence[Scores]) -> Paired:
    """Two systems on the same pieces, in the same order on both sides."""
    first, second, one_sided = _without_one_sided(protocol, first, second)
    sides = [averages_without_each(protocol, files) for files in (first, second)]
    averages = _average(protocol, first, sides[0]), _average(protocol, second, sides[1])
    counts = [one.counts for one in averages]
    values = {name: averages[0].values[name] - averages[1].values[name] for name in counts[0] if name in counts[1]}
    fewest = {name: min(counts[0][name], counts[1][name]) for name in values}
    intervals = {}
    for name, value in values.items():
        each = [side.get(name) for side in sides]
        concerned = [
            _concerned(files, name, one.values[name], left_out)
            for files, one, left_out in zip((first, second), averages, each, strict=True)
        ]
        if each[0] is not None and each[1] is not None:
            with np.errstate(invalid="ignore"):
                differences = each[0] - each[1]
            found = _interval(value, differences, concerned[0] | concerned[1], False)
            if found:
                intervals[name] = found
    return Paired(*averages, Average(values, intervals, fewest, len(first)), one_sided)


def t_interval(value: float, error: float, pieces: int, share: bool, confidence: float = CONFIDENCE) -> Interval:
    """The interval of an average with this standard error; a share's is within 0 and 1."""
    from scipy.special import expit, logit, stdtrit

    reach = float(stdtrit(pieces - 1, (1 + confidence) / 2)) * error
    if share and 0 < value < 1:
        reach /= value * (1 - value)
        return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))
    low, high = value - reach, value + reach
    return (max(low, 0.0), min(high, 1.0)) if share and value in (0, 1) else (low, high)


def averages_without_each(protocol: Protocol, files: Sequence[Scores]) -> dict[str, LeftOut]:
    """The protocol's average of all files but one, for each file in turn, by metric; NaN if none is left."""
    if len(files) < _FEWEST_PIECES:
        return {}
    if protocol.average is mean_over_files:
        return means_without_each(files, skip_nan=False)
    if protocol.average is mean_without_nan:
        return means_without_each(files, skip_nan=True)
    if protocol.averages_without_each is not None:
        return protocol.averages_without_each(files)
    averages = [protocol.average([*files[:place], *files[place + 1 :]]) for place in range(len(files))]
    names = dict.fromkeys(name for values in averages for name in values)
    return {name: np.array([values.get(name, math.nan) for values in averages]) for name in names}


def means_without_each(files: Sequence[Scores], skip_nan: bool) -> dict[str, LeftOut]:
    """The mean over the other files that have the value; NaN counts as missing, or makes the mean NaN."""
    names = list(dict.fromkeys(name for scores in files for name in scores))
    values = np.array([[scores.get(name, math.nan) for name in names] for scores in files], dtype=float)
    values = values.reshape(len(files), len(names))
    has_value = ~np.isnan(values)
    known = np.where(has_value, values, 0.0)
    counts = has_value.sum(axis=0) - has_value
    means = np.full(values.shape, math.nan)
    with np.errstate(invalid="ignore"):  # infinite values have no interval
        np.divide(known.sum(axis=0) - known, counts, out=means, where=counts > 0)
    if not skip_nan:
        is_nan = np.array([[name in scores for name in names] for scores in files]).reshape(values.shape) & ~has_value
        means[is_nan.sum(axis=0) - is_nan > 0] = math.nan
    return dict(zip(names, means.T, strict=True))


def _interval(
    value: float, without_each: LeftOut | None, concerned: Bool[np.ndarray, " files"], share: bool
) -> Interval | None:
    """The interval from the averages without each of the pieces concerned; None if there are too few of them."""
    if math.isnan(value) or without_each is None:
        return None
    if len(without_each) > 1 and not concerned.any():  # a pooled value that no piece changes
        return value, value
    left_out = without_each[concerned]
    pieces = len(left_out)
    if pieces < _FEWEST_PIECES or np.isnan(left_out).any():
        return None
    error = math.sqrt((pieces - 1) / pieces * float(np.square(left_out - left_out.mean()).sum()))
    return t_interval(value, error, pieces, share) if math.isfinite(value + error) else None


def _concerned(
    files: Sequence[Scores], name: str, value: float, without_each: LeftOut | None
) -> Bool[np.ndarray, " files"]:
    """The pieces with a value; for values pooled over pieces, which no piece has, those that change it."""
    if any(name in scores for scores in files):
        return np.array([not math.isnan(scores.get(name, math.nan)) for scores in files], dtype=bool)
    if without_each is None:
        return np.zeros(len(files), dtype=bool)
    return ~(np.abs(without_each - value) <= _ROUNDING)  # NaN, where no other piece has any, changes it


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


def _count(files: Sequence[Scores], name: str) -> int:
    """The number of pieces with a value; for values pooled over pieces, which no piece has, all of them."""
    having = [scores[name] for scores in files if name in scores]
    return sum(not math.isnan(value) for value in having) if having else len(files)
