"""How often the 95 % intervals of `mt3 evaluate` contain the true value, compared with other kinds of intervals.

    python benchmarks/interval_coverage.py [--samples 4000] [--resamples 1000] [--seed 0]

Draws small sets of pieces from populations whose average is known, and counts for each kind of interval how often it
contains that average and how wide it is (the median). `ours` is what `mt3eval/intervals.py` computes; `percentile`, the
method of earlier releases, and `BCa` are bootstraps (Efron and Tibshirani, 1993, chapters 13 and 14); `t` is Student's
t without the logit scale. The populations:

- `skewed`: F1 values of the distribution Beta(4, 1.2), mean 0.77, as of a good system with a few bad pieces;
- `ties`: the same rounded to tenths, with three of ten pieces at exactly 1;
- `zeros`: Beta(3, 3) with a quarter of the pieces at exactly 0;
- `paired`: the difference of two systems on the same pieces, one of them 0.03 better with a deviation of 0.05;
- `paired, skewed`: the same where most pieces differ by nothing or little and one in ten by a lot;
- `pooled`: YourMT3's `micro` F1 of pieces of very different lengths.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from mt3eval.intervals import Interval, average, compare, t_interval
from mt3eval.protocol import Protocol, Scores, mean_over_files, protocol

SIZES = (5, 8, 13, 30)
METHODS = ("percentile", "BCa", "t", "ours")
MEAN = Protocol("mean", "", "", lambda reference, estimate: {}, mean_over_files)
POOLED, POOLED_METRIC = protocol("yourmt3_maestro"), "micro_onset_f_Piano"
_MANY = 1_000_000  # pieces from which the true value is computed

Rng = np.random.Generator


@dataclass(frozen=True)
class Population:
    """Where pieces come from: each row of a draw is one piece; a set's value is `value` of its rows."""

    name: str
    draw: Callable[[Rng, int], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]  # (..., pieces, columns) -> (...)
    interval: Callable[[np.ndarray], Interval]
    is_share: bool


def skewed(rng: Rng, pieces: int) -> np.ndarray:
    return rng.beta(4, 1.2, (pieces, 1))


def with_ties(rng: Rng, pieces: int) -> np.ndarray:
    return np.where(rng.random((pieces, 1)) < 0.3, 1.0, skewed(rng, pieces).round(1))


def with_zeros(rng: Rng, pieces: int) -> np.ndarray:
    return np.where(rng.random((pieces, 1)) < 0.25, 0.0, rng.beta(3, 3, (pieces, 1)))


def paired(rng: Rng, pieces: int) -> np.ndarray:
    """Two columns, one for each system."""
    other = skewed(rng, pieces)
    return np.hstack([np.clip(other + rng.normal(0.03, 0.05, (pieces, 1)), 0, 1), other])


def paired_skewed(rng: Rng, pieces: int) -> np.ndarray:
    other = skewed(rng, pieces)
    gain = np.where(rng.random((pieces, 1)) < 0.1, rng.uniform(0.1, 0.4, (pieces, 1)), rng.normal(0, 0.01, (pieces, 1)))
    return np.hstack([np.clip(other + gain, 0, 1), other])


def pooled(rng: Rng, pieces: int) -> np.ndarray:
    """Pairs found, estimated notes, reference notes."""
    notes = rng.lognormal(5.5, 0.8, pieces).round() + 1
    found = (notes * rng.beta(4, 1.2, pieces)).round()
    return np.column_stack([found, found + (notes * rng.beta(1.5, 6, pieces)).round() + 1, notes])


def mean(rows: np.ndarray) -> np.ndarray:
    return rows[..., 0].mean(axis=-1)


def mean_difference(rows: np.ndarray) -> np.ndarray:
    return (rows[..., 0] - rows[..., 1]).mean(axis=-1)


def pooled_f1(rows: np.ndarray) -> np.ndarray:
    total = rows.sum(axis=-2)
    return 2 * total[..., 0] / (total[..., 1] + total[..., 2])


def files_of(rows: np.ndarray, column: int = 0) -> list[Scores]:
    return [{"F1": float(value)} for value in rows[:, column]]


def pooled_files(rows: np.ndarray) -> list[Scores]:
    key = "micro_onset_{}_Piano"
    return [
        {name: value for share, notes in (("p", estimated), ("r", reference))
         for name, value in ((key.format(share), found / notes), (f"{key.format(share)} weight", notes))}
        for found, estimated, reference in rows.tolist()
    ]  # fmt: skip


POPULATIONS = (
    Population("skewed", skewed, mean, lambda rows: average(MEAN, files_of(rows)).intervals["F1"], True),
    Population("ties", with_ties, mean, lambda rows: average(MEAN, files_of(rows)).intervals["F1"], True),
    Population("zeros", with_zeros, mean, lambda rows: average(MEAN, files_of(rows)).intervals["F1"], True),
    Population("paired", paired, mean_difference, lambda rows: _difference(rows), False),
    Population("paired, skewed", paired_skewed, mean_difference, lambda rows: _difference(rows), False),
    Population(
        "pooled", pooled, pooled_f1, lambda rows: average(POOLED, pooled_files(rows)).intervals[POOLED_METRIC], True
    ),
)


def _difference(rows: np.ndarray) -> Interval:
    return compare(MEAN, files_of(rows), files_of(rows, 1)).difference.intervals["F1"]


def intervals(population: Population, rows: np.ndarray, rng: Rng, resamples: int) -> dict[str, Interval]:
    """The intervals of one set of pieces by each method."""
    pieces = len(rows)
    value = float(population.value(rows))
    without_each = population.value(np.stack([np.delete(rows, place, axis=0) for place in range(pieces)]))
    drawn = population.value(rows[rng.integers(0, pieces, (resamples, pieces))])
    error = math.sqrt((pieces - 1) / pieces * np.square(without_each - without_each.mean()).sum())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "percentile": (float(low), float(high)),
        "BCa": bca(value, drawn, without_each),
        "t": t_interval(value, error, pieces, share=False),
        "ours": population.interval(rows),
    }


def bca(value: float, drawn: np.ndarray, without_each: np.ndarray) -> Interval:
    """The bias-corrected and accelerated bootstrap."""
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    bias = ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    away = without_each.mean() - without_each
    spread = np.square(away).sum() ** 1.5
    acceleration = (away**3).sum() / (6 * spread) if spread else 0.0
    ends = bias + ndtri(np.array([0.025, 0.975]))
    low, high = np.percentile(drawn, 100 * ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


def coverage(population: Population, pieces: int, rng: Rng, samples: int, resamples: int) -> dict[str, tuple]:
    """By method: the share of intervals with the true value in them, and their median width."""
    truth = float(population.value(population.draw(rng, _MANY)))
    found: dict[str, list[Interval]] = {method: [] for method in METHODS}
    for _ in range(samples):
        for method, one in intervals(population, population.draw(rng, pieces), rng, resamples).items():
            found[method].append(one)
    return {
        method: (
            sum(low - 1e-12 <= truth <= high + 1e-12 for low, high in ends) / samples,
            float(np.median([high - low for low, high in ends])),
        )
        for method, ends in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000, help="sets of pieces for each number")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstraps")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    print(f"| scores | pieces | {' | '.join(METHODS)} |")
    print("|---|---|" + "---|" * len(METHODS))
    for population in POPULATIONS:
        for pieces in SIZES:
            rng = np.random.default_rng([options.seed, pieces])
            found = coverage(population, pieces, rng, options.samples, options.resamples)
            cells = [f"{share:.3f} ({width:.3f})" for share, width in found.values()]
            print(f"| {population.name} | {pieces} | {' | '.join(cells)} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s, seed {options.seed}, {options.samples} sets of pieces a line")


if __name__ == "__main__":
    main()
