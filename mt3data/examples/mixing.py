"""The audio of several recordings mixed into one. Their targets are merged by `SegmentEncoder.merge`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int16, Num

from mt3data.prepare.chunks import FULL_SCALE


def peak(samples: Num[np.ndarray, " samples"]) -> float:
    """The largest absolute value; 0 for no samples."""
    # Of the extremes, not of the absolute values: those would be a copy, and int16 has no +32768.
    return max(float(samples.max(initial=0)), -float(samples.min(initial=0)))


def mix_audio(
    parts: Sequence[Int16[np.ndarray, " samples"]],
    normalise: bool = True,
    gains: Sequence[float] | None = None,
) -> Float[np.ndarray, " samples"]:
    """The sum of the parts as float32 within +-1.

    Args:
        parts: int16 of equal length.
        normalise: bring every part to the same peak before (silence stays silent), and the sum to a peak of 1.
            Otherwise the parts keep their levels, as the stems of one track must, and the sum is scaled
            only if it exceeds 1.
        gains: a factor for each part, after normalising.
    """
    total = np.zeros(len(parts[0]), np.float32)
    for index, part in enumerate(parts):
        scale = 1.0 / (peak(part) or 1.0) if normalise else 1.0 / FULL_SCALE
        total += part * np.float32(scale * (gains[index] if gains is not None else 1.0))
    if not normalise:
        return limit_peak(total)
    total *= np.float32(1.0 / (peak(total) or 1.0))  # in place: no further array for each example
    return total


def limit_peak(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Scaled in place to a peak of 1 if it is larger."""
    highest = peak(samples)
    if highest > 1.0:
        samples *= np.float32(1.0 / highest)
    return samples
