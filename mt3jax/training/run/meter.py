"""The metrics of training: values by name, each over the steps since the last report.

    train/loss               per target token: cross entropy and z-loss
    train/cross_entropy      its parts
    train/z_loss
    train/accuracy           share of the target tokens that the network finds most probable, given the true ones before
    train/accuracy_TYPE      the same for one type of event: shift, pitch, velocity, tie, program, drum, end
    train/gradient_norm      global norm before clipping, mean of the steps
    train/learning_rate      of the last step
    train/skipped_updates    steps whose update was not applied: not finite, or a spike
    speed/steps_per_second   over the time since the last report, without validation and saving
    speed/examples_per_second
    speed/tokens_per_second  target tokens
    speed/mfu                model FLOPs utilisation, see `estimate.py`; on devices with a known peak
    speed/input_wait         share of the time in which the loop waited for this host's examples
    data/tokens_per_example  target tokens
    data/padding             share of the decoder's positions without a target token
    data/rejected            draws that were too long, per example; on this host, like the next
    data/cut                 share of the examples whose target was cut, or left out because the batch was too full

Steps that are not finite are left out of loss, accuracy and norm. Metrics without a value are absent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mt3core.config.training import TrainingConfig
from mt3jax.training.run import estimate
from mt3jax.training.step.loss import EVENT_TYPES
from mt3jax.training.step.step_input import StepBatch


@dataclass
class _Sums:
    steps: int = 0
    finite_steps: int = 0
    skipped: int = 0
    tokens: float = 0.0
    finite_tokens: float = 0.0
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("loss", "cross_entropy", "z_loss"), 0.0))
    gradient_norm: float = 0.0
    correct: np.ndarray = field(default_factory=lambda: np.zeros(len(EVENT_TYPES)))
    count: np.ndarray = field(default_factory=lambda: np.zeros(len(EVENT_TYPES)))
    places: int = 0
    wait_seconds: float = 0.0
    host_examples: int = 0
    rejected: int = 0
    cut: int = 0


class Meter:
    """Pass each step's metrics to `add`, and get the report from `take`, which starts again."""

    def __init__(
        self, config: TrainingConfig, num_devices: int = 1, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`num_devices` are those of the mesh."""
        self._config, self._num_devices, self._clock = config, num_devices, clock
        self._sums = _Sums()
        self._learning_rate = np.nan
        self.start()

    def start(self) -> None:
        """Leaves the time until now out of the next metrics, for example compilation."""
        self._started, self._paused_seconds = self._clock(), 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside counts for no metric: validation and saving."""
        begun = self._clock()
        try:
            yield
        finally:
            self._paused_seconds += self._clock() - begun

    def add(self, metrics: Mapping[str, np.ndarray | float], batch: StepBatch) -> None:
        """One step: its result, fetched from the device, and its input."""
        sums, tokens = self._sums, float(metrics["num_tokens"])
        sums.steps += 1
        sums.skipped += bool(metrics["rejection"])
        sums.tokens += tokens
        sums.places += batch.arrays["targets"].size
        sums.wait_seconds += batch.wait_seconds
        self._learning_rate = float(metrics["learning_rate"])
        host, most = batch.host, self._config.model.network.max_target_tokens
        real = host["index"] >= 0
        sums.host_examples += int(np.count_nonzero(real))
        sums.rejected += int(host["num_rejected"][real].sum())
        sums.cut += int(np.count_nonzero(host["num_tokens"][real] > most)) + batch.num_left_out
        if not (np.isfinite(metrics["loss"]) and np.isfinite(metrics["gradient_norm"])):
            return
        sums.finite_steps += 1
        sums.finite_tokens += tokens
        for name in sums.losses:
            sums.losses[name] += float(metrics[name]) * tokens
        sums.gradient_norm += float(metrics["gradient_norm"])
        sums.correct += np.asarray(metrics["correct"], np.float64)
        sums.count += np.asarray(metrics["count"], np.float64)

    def take(self) -> dict[str, float]:
        """The metrics since the last time, by name; see above. Empty without a step."""
        sums, now = self._sums, self._clock()
        seconds = max(now - self._started - self._paused_seconds, 1e-9)
        self._sums, self._started, self._paused_seconds = _Sums(), now, 0.0
        if not sums.steps:
            return {}
        examples = sums.steps * self._config.batch.examples
        figures = {}
        if sums.finite_steps:
            figures = {f"train/{name}": _ratio(total, sums.finite_tokens) for name, total in sums.losses.items()}
            figures |= accuracies("train/", sums.correct, sums.count)
            figures["train/gradient_norm"] = sums.gradient_norm / sums.finite_steps
        figures |= {
            "train/learning_rate": self._learning_rate,
            "train/skipped_updates": sums.skipped,
            "speed/steps_per_second": sums.steps / seconds,
            "speed/examples_per_second": examples / seconds,
            "speed/tokens_per_second": sums.tokens / seconds,
            "speed/input_wait": min(sums.wait_seconds / seconds, 1.0),
            "data/tokens_per_example": sums.tokens / examples,
            "data/padding": 1.0 - _ratio(sums.tokens, sums.places),
            "data/rejected": _ratio(sums.rejected, sums.host_examples),
            "data/cut": _ratio(sums.cut, sums.host_examples),
        }
        mfu = estimate.mfu(examples / seconds, self._config.model, sums.tokens / examples, self._num_devices)
        if mfu is not None:
            figures["speed/mfu"] = mfu
        return figures


def accuracies(prefix: str, correct: np.ndarray, count: np.ndarray) -> dict[str, float]:
    """`PREFIXaccuracy` of all tokens and `PREFIXaccuracy_TYPE` of the types that occur."""
    figures = {f"{prefix}accuracy": _ratio(correct.sum(), count.sum())}
    for kind, right, total in zip(EVENT_TYPES, correct.tolist(), count.tolist(), strict=True):
        if total:
            figures[f"{prefix}accuracy_{kind}"] = right / total
    return figures


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0
