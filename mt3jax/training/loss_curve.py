"""A run's loss curve compared with a stored one: does training still learn as it did when the curve was recorded?

The stored curve has means over equal stretches of the run and a band around them, wide enough for the rounding of
other processors and narrow enough that a mistake in the loss, the optimizer or the data shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mt3core.errors import UsageError
from mt3core.files import atomic_output

NUM_STRETCHES = 20
_REPORTS_PER_STRETCH = 2  # at least; fewer stretches if the run reported less often


@dataclass(frozen=True)
class LossCurve:
    """`losses` are means over equal stretches of `num_steps`; `band` is the allowed deviation, as a share of each.

    `num_steps` may be fewer than the run's, for the curve of its beginning.

    `engine` rendered the composed pieces that the run learned from: other sounds are learned at a different speed.
    """

    config: str
    num_steps: int
    band: float
    losses: tuple[float, ...]
    engine: str = ""
    about: str = ""  # what it was recorded with


@dataclass(frozen=True)
class Comparison:
    """How a run followed a curve. `worst_step` ends the stretch with the largest `deviation`, a share of the curve."""

    is_inside: bool
    worst_step: int
    loss: float
    stored_loss: float

    @property
    def deviation(self) -> float:
        return self.loss / self.stored_loss - 1


def record_curve(
    config: str, num_steps: int, reports: Iterable[tuple[int, float]], band: float, engine: str = "", about: str = ""
) -> LossCurve:
    """The curve of a run's first `num_steps`, given as (step, loss of the steps up to there).

    Raises `UsageError` for gaps in it.
    """
    reports = list(reports)
    num_reports = sum(0 < step <= num_steps for step, _ in reports)
    means = _means(num_steps, reports, max(1, min(NUM_STRETCHES, num_reports // _REPORTS_PER_STRETCH)))
    if np.isnan(means).any():
        raise UsageError("Some parts of the run have no reports.", "Report more often: --set report.every_steps=5.")
    return LossCurve(config, num_steps, band, tuple(round(float(mean), 4) for mean in means), engine, about)


def compare_curve(curve: LossCurve, reports: Iterable[tuple[int, float]]) -> Comparison | None:
    """A run compared with the curve; None if they have no stretch in common."""
    means = _means(curve.num_steps, reports, len(curve.losses))
    deviations = np.abs(means / np.array(curve.losses) - 1)
    if np.isnan(deviations).all():
        return None
    worst = int(np.nanargmax(deviations))
    step = round(curve.num_steps * (worst + 1) / len(curve.losses))
    return Comparison(bool(deviations[worst] <= curve.band), step, float(means[worst]), curve.losses[worst])


def read_curve(path: Path) -> LossCurve:
    """Raises `UsageError` for a file that is missing or is not a curve."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        curve = LossCurve(**{**values, "losses": tuple(map(float, values["losses"]))})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a loss curve ({error}).", "Record it again.") from error
    return curve


def write_curve(path: Path, curve: LossCurve) -> None:
    with atomic_output(path) as temporary:
        temporary.write_text(json.dumps(asdict(curve), indent=1) + "\n", encoding="utf-8")


def _means(num_steps: int, reports: Iterable[tuple[int, float]], num_stretches: int) -> np.ndarray:
    """The mean loss of each stretch, NaN if none was reported."""
    stretches: list[list[float]] = [[] for _ in range(num_stretches)]
    for step, loss in reports:
        if 0 < step <= num_steps:
            stretches[(step - 1) * num_stretches // num_steps].append(loss)
    return np.array([np.mean(losses) if losses else np.nan for losses in stretches])
