"""Whether confidences are reliable: of the notes given 80 %, are four in five right?

Notes are sorted into ten bins of equal width by their confidence. The expected calibration error is the mean, over
all notes, of the difference between a bin's mean confidence and its share of right notes (Guo, Pleiss, Sun and
Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3); the greatest error is that of the
worst bin (equation 4). The Brier score is the mean squared difference between confidence and outcome (0 or 1).

Confidences that are not reliable become so by a map that never falls, fitted to notes whose outcome is known: isotonic
regression, by pooling adjacent violators (Ayer, Brunk, Ewing, Reid and Silverman, "An Empirical Distribution Function
for Sampling with Incomplete Information", 1955). It is fitted to groups of as many notes, so that it is a few numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mt3core.errors import UsageError

BINS = 10
GROUPS = 20  # of a fitted map: enough for its form, and each of many notes

Knots = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Bin:
    """The notes with confidences from `low` to below `high` (the last bin includes 1)."""

    low: float
    high: float
    notes: int
    mean_confidence: float
    right: float  # share of the notes


@dataclass(frozen=True)
class Calibration:
    """The reliability table (only bins with notes) and its summary values."""

    bins: tuple[Bin, ...]
    expected_error: float
    greatest_error: float
    brier_score: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def calibrate(
    confidences: Float[np.ndarray, " notes"], is_right: Bool[np.ndarray, " notes"], bins: int = BINS
) -> Calibration | None:
    """The reliability of confidences from 0 to 1; None without notes.

    Raises `UsageError` unless there is one confidence per note, each a number from 0 to 1.
    """
    if len(confidences) != len(is_right):
        raise UsageError(
            f"There are {len(confidences)} confidences for {len(is_right)} notes.", "Use one per note, or none at all."
        )
    is_bad = ~((confidences >= 0) & (confidences <= 1))
    if is_bad.any():
        place = int(np.argmax(is_bad))
        raise UsageError(f"Note {place} has the confidence {confidences[place]}.", "Use numbers from 0 to 1.")
    if len(confidences) == 0:
        return None
    numbers = np.minimum((confidences * bins).astype(int), bins - 1)
    filled = []
    for number in np.unique(numbers).tolist():
        sure, right = confidences[numbers == number], is_right[numbers == number]
        filled.append(Bin(number / bins, (number + 1) / bins, len(sure), float(sure.mean()), float(right.mean())))
    errors = np.array([abs(one.mean_confidence - one.right) for one in filled])
    weights = np.array([one.notes for one in filled]) / len(confidences)
    brier_score = float(np.mean((confidences - is_right) ** 2))
    return Calibration(tuple(filled), float(errors @ weights), float(errors.max()), brier_score)


def fit_calibration(
    confidences: Float[np.ndarray, " notes"], is_right: Bool[np.ndarray, " notes"], groups: int = GROUPS
) -> Knots:
    """Pairs of a confidence and the share of right notes that it means, both rising; for `calibrated`.

    Raises `UsageError` where there is nothing to learn from, and what `calibrate` raises.
    """
    if calibrate(confidences, is_right) is None:
        raise UsageError("There are no notes to fit confidences to.", "Use recordings in which notes are found.")
    order = np.argsort(confidences, kind="stable")
    blocks: list[tuple[int, float, float]] = []  # notes, and their mean confidence and outcome
    for places in np.array_split(order, min(groups, len(order))):
        block = (len(places), float(confidences[places].mean()), float(is_right[places].mean()))
        while blocks and (blocks[-1][2] >= block[2] or blocks[-1][1] >= block[1]):
            block = _pooled(blocks.pop(), block)
        blocks.append(block)
    knots = {round(sure, 6): round(right, 4) for _, sure, right in blocks}
    return tuple(knots.items())


def _pooled(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    notes = one[0] + other[0]
    sure, right = ((one[0] * one[place] + other[0] * other[place]) / notes for place in (1, 2))
    return notes, sure, right


def calibrated(confidences: Float[np.ndarray, " notes"], knots: Knots) -> Float[np.ndarray, " notes"]:
    """What confidences mean by these knots, with straight lines between them; without knots they stay as they are."""
    return np.interp(confidences, *np.transpose(knots)) if knots else confidences
