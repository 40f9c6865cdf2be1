"""Which checkpoints are kept: the last few, and the best by each of several figures of the validation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Names of figures in the metrics that a checkpoint is saved with, and which of two is the better.
BEST_BY: dict[str, Callable[..., float]] = {"validation/loss": min, "validation/note_f1": max}


class LastAndBest:
    """A preservation policy for Orbax's `CheckpointManager`.

    Args:
        keep_last: so many of the newest.
        keep_best: so many of the best by each figure of `BEST_BY`; the earlier of two that are equal.

    `metrics` are those of each step. A step without a figure, or with one that is no number, is none of the best by it.
    """

    def __init__(self, keep_last: int, keep_best: int) -> None:
        self.keep_last, self.keep_best = keep_last, keep_best
        self.metrics: dict[int, dict[str, float]] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question, for checkpoints in the order of their steps."""
        kept = self.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Those of `steps` (ascending) that stay."""
        kept = set(steps[-self.keep_last :])
        for name, better in BEST_BY.items():
            sign = 1 if better is min else -1
            figures = [(sign * self.metrics.get(step, {}).get(name, math.nan), step) for step in steps]
            kept.update(step for _, step in sorted(f for f in figures if math.isfinite(f[0]))[: self.keep_best])
        return kept


def read_metrics(directory: Path) -> dict[str, float]:
    """The figures that a checkpoint was saved with; none where they cannot be read."""
    try:
        found = json.loads((directory / "metrics" / "metrics").read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
