"""What is reported of training: the sums of all steps since the last report, as figures by name.

    train/loss               per target token: cross entropy and z-loss
    train/cross_entropy      its parts
    train/z_loss
    train/accuracy           share of the target tokens that the network finds most probable, each after the true ones
    train/accuracy_TYPE      the same of one type of event: shift, pitch, velocity, tie, program, drum, end
    train/gradient_norm      global norm before clipping, mean of the steps
    train/learning_rate      of the last step
    train/skipped_updates    steps whose update was not applied: not finite, or a spike
    speed/steps_per_second   of the time since the last report, without validation
    speed/examples_per_second
    speed/tokens_per_second  target tokens
    speed/mfu                floating-point operations that the network needs (those computed again by
                             rematerialisation and those of padding do not count) as a share of the devices' peak;
                             only where the peak is known
    speed/input_wait         share of the time in which the loop waited for this host's examples
    data/tokens_per_example  target tokens
    data/padding             share of the decoder's places without a target token
    data/rejected            draws that were too long, per example; of this host, as the next
    data/cut                 share of the examples whose target was cut

Steps that are not finite are left out of loss, accuracy and norm. What did not occur has no figure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mt3core.vocabulary import EVENT_TYPES

# As `correct` and `count` of a step have them.
TOKEN_TYPES = (*EVENT_TYPES, "end")


@dataclass
class _Sums:
    steps: int = 0
    finite_steps: int = 0
    skipped: int = 0
    tokens: float = 0.0
    finite_tokens: float = 0.0
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("loss", "cross_entropy", "z_loss"), 0.0))
    gradient_norm: float = 0.0
    correct: np.ndarray = field(default_factory=lambda: np.zeros(len(TOKEN_TYPES)))
    count: np.ndarray = field(default_factory=lambda: np.zeros(len(TOKEN_TYPES)))
    places: int = 0
    flops: float = 0.0
    wait_seconds: float = 0.0
    host_examples: int = 0
    rejected: int = 0
    cut: int = 0


class Meter:
    """Feed it each step's figures by `add`, take them by `report`, which begins anew."""

    def __init__(
        self,
        examples_per_step: int,
        max_target_tokens: int,
        peak_flops_per_second: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`examples_per_step` and the peak are of all hosts together; a peak of None means that it is not known."""
        self._examples_per_step, self._max_target_tokens = examples_per_step, max_target_tokens
        self._peak = peak_flops_per_second
        self._clock = clock
        self._sums = _Sums()
        self._learning_rate = np.nan
        self._paused_seconds = 0.0
        self._started = clock()

    def restart_clock(self) -> None:
        """Leaves the time until now out of the next report, such as that of compiling."""
        self._started, self._paused_seconds = self._clock(), 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time within counts for no figure: validation."""
        begun = self._clock()
        try:
            yield
        finally:
            self._paused_seconds += self._clock() - begun

    def add(
        self,
        metrics: Mapping[str, np.ndarray | float],
        host: Mapping[str, np.ndarray],
        places: int,
        wait_seconds: float = 0.0,
        flops: float = 0.0,
    ) -> None:
        """One step.

        Args:
            metrics: what the train step returned, fetched from the device.
            host: what the pipeline said of this host's examples: `index`, `num_tokens`, `num_rejected`.
            places: for tokens, in the decoder rows of all hosts.
            flops: that the step needs.
        """
        sums, tokens = self._sums, float(metrics["num_tokens"])
        sums.steps += 1
        sums.skipped += int(metrics["is_bad"]) > 0
        sums.tokens += tokens
        sums.places += places
        sums.flops += flops
        sums.wait_seconds += wait_seconds
        self._learning_rate = float(metrics["learning_rate"])
        real = host["index"] >= 0
        sums.host_examples += int(np.count_nonzero(real))
        sums.rejected += int(host["num_rejected"][real].sum())
        sums.cut += int(np.count_nonzero(host["num_tokens"][real] > self._max_target_tokens))
        if not (np.isfinite(metrics["loss"]) and np.isfinite(metrics["gradient_norm"])):
            return
        sums.finite_steps += 1
        sums.finite_tokens += tokens
        for name in sums.losses:
            sums.losses[name] += float(metrics[name]) * tokens
        sums.gradient_norm += float(metrics["gradient_norm"])
        sums.correct += np.asarray(metrics["correct"], np.float64)
        sums.count += np.asarray(metrics["count"], np.float64)

    def report(self) -> dict[str, float]:
        """The figures since the last report, by name; see above. Empty without a step."""
        sums, now = self._sums, self._clock()
        seconds = max(now - self._started - self._paused_seconds, 1e-9)
        self._sums, self._started, self._paused_seconds = _Sums(), now, 0.0
        if not sums.steps:
            return {}
        figures = {}
        if sums.finite_steps:
            figures = {f"train/{name}": _ratio(total, sums.finite_tokens) for name, total in sums.losses.items()}
            figures |= accuracies("train/", sums.correct, sums.count)
            figures["train/gradient_norm"] = sums.gradient_norm / sums.finite_steps
        figures |= {
            "train/learning_rate": self._learning_rate,
            "train/skipped_updates": sums.skipped,
            "speed/steps_per_second": sums.steps / seconds,
            "speed/examples_per_second": sums.steps * self._examples_per_step / seconds,
            "speed/tokens_per_second": sums.tokens / seconds,
            "speed/input_wait": min(sums.wait_seconds / seconds, 1.0),
            "data/tokens_per_example": sums.tokens / (sums.steps * self._examples_per_step),
            "data/padding": 1.0 - _ratio(sums.tokens, sums.places),
            "data/rejected": _ratio(sums.rejected, sums.host_examples),
            "data/cut": _ratio(sums.cut, sums.host_examples),
        }
        if self._peak and sums.flops:
            figures["speed/mfu"] = sums.flops / seconds / self._peak
        return figures


def accuracies(prefix: str, correct: np.ndarray, count: np.ndarray) -> dict[str, float]:
    """`PREFIXaccuracy` of all tokens and `PREFIXaccuracy_TYPE` of the types that occur."""
    figures = {f"{prefix}accuracy": _ratio(correct.sum(), count.sum())}
    for kind, right, total in zip(TOKEN_TYPES, correct.tolist(), count.tolist(), strict=True):
        if total:
            figures[f"{prefix}accuracy_{kind}"] = right / total
    return figures


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0
