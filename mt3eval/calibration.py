"""Whether confidences are reliable: of the notes given 80 %, are four in five right?

Notes are sorted into ten bins of equal width by their confidence. The expected calibration error is the mean, over
all notes, of the difference between a bin's mean confidence and its share of right notes (Guo, Pleiss, Sun and
Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3); the greatest error is that of the
worst bin (equation 4). The Brier score is the mean squared difference between confidence and outcome (0 or 1).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mt3core.errors import UsageError

BINS = 10


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
