"""The output of a run for a person: one live line with a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

REFRESHES_PER_SECOND = 2


def progress_line(
    step: int, num_steps: int, figures: Mapping[str, float], seconds_left: float | None = None, note: str = ""
) -> str:
    """`step 1,200/1,000,000  loss 1.234  accuracy 56 %  1,980 ex/s  MFU 41 %  waiting 1 %  left 3 h 12 min`.

    Metrics by the names of `meter.py`; missing ones are left out.
    """
    forms: dict[str, Callable[[float], str]] = {
        "train/loss": lambda value: f"loss {value:.3f}",
        "train/accuracy": lambda value: f"accuracy {100 * value:.0f} %",
        "speed/examples_per_second": lambda value: f"{_rate(value)} ex/s",
        "speed/mfu": lambda value: f"MFU {100 * value:.0f} %",
        "speed/input_wait": lambda value: f"waiting {100 * value:.0f} %",
        "train/skipped_updates": lambda value: f"{value:.0f} skipped" if value else "",
    }
    parts = [f"step {step:,}/{num_steps:,}"]
    parts += [form(figures[name]) for name, form in forms.items() if name in figures]
    if seconds_left is not None and math.isfinite(seconds_left):
        parts.append(f"left {duration_text(seconds_left)}")
    return "  ".join(part for part in (*parts, note) if part)


def duration_text(seconds: float) -> str:
    """`2 d 4 h`, `3 h 12 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    if not hours:
        return f"{minutes} min"
    if not days:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24} h"


class Console(contextlib.AbstractContextManager["Console"]):
    """Progress and messages of a run. Close it, or use it as a context, so that the terminal is left in order.

    On a terminal (standard error) a live line follows each step, with messages above it; elsewhere each
    report is a line of its own, passed to `say`.
    """

    def __init__(
        self,
        num_steps: int,
        first_step: int,
        is_shown: bool,
        say: Callable[[str], None],
        is_terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`first_step` is the last finished step, 0 for a new run. Without `is_shown`, only messages are printed."""
        self._num_steps, self._say, self._clock, self._is_shown = num_steps, say, clock, is_shown
        self._figures: Mapping[str, float] = {}
        self._note = ""
        self._step = first_step
        self._begun: tuple[int, float] | None = None  # step and time of the first report: until then it compiles
        self._bar: Any = None
        if is_shown and (sys.stderr.isatty() if is_terminal is None else is_terminal):
            self._open_bar()

    def say(self, text: str) -> None:
        """A message of its own."""
        if self._bar is None:
            self._say(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, loss: float | None = None) -> None:
        """A step is done, with its loss if known; shown on a terminal only."""
        self._step = step
        if loss is not None:
            self._figures = {**self._figures, "train/loss": loss}
        self._show()

    def note(self, text: str) -> None:
        """Work other than steps, such as `validating`; empty when it is over. Shown on a terminal only."""
        self._note = text
        self._show()

    def compiling(self, what: str) -> None:
        """A program is about to be compiled and run for the first time: nothing else is heard for a minute or more."""
        if self._bar is None and self._is_shown:
            self._say(f"Compiling {what}; this can take minutes, less if it is in the cache ...")
        self.note("compiling")

    def report(self, step: int, figures: Mapping[str, float]) -> None:
        """The metrics of the steps up to this one, by the names of `meter.py`."""
        self._step, self._figures = step, figures
        if self._begun is None:
            self._begun = (step, self._clock())
        if self._bar is not None:
            self._show()
        elif self._is_shown:
            self._say(progress_line(step, self._num_steps, figures, self.seconds_left()))

    def seconds_left(self) -> float | None:
        """Seconds to the last step at the pace since the first report, with validation and all; None if unknown."""
        steps_left = self._num_steps - self._step
        if self._begun is not None and self._step > self._begun[0]:
            step, seconds = self._begun
            return steps_left * (self._clock() - seconds) / (self._step - step)
        pace = self._figures.get("speed/steps_per_second")
        return steps_left / pace if pace else None

    def close(self) -> None:
        """Removes the live line and leaves its last state as a plain one. Further calls do nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._say(progress_line(self._step, self._num_steps, self._figures))

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_bar(self) -> None:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False))
        self._bar = Progress(
            *columns, console=Terminal(stderr=True), transient=True, refresh_per_second=REFRESHES_PER_SECOND
        )
        self._task = self._bar.add_task("", total=self._num_steps, completed=self._step)
        self._bar.start()

    def _show(self) -> None:
        if self._bar is None:
            return
        line = progress_line(self._step, self._num_steps, self._figures, self.seconds_left(), self._note)
        self._bar.update(self._task, completed=self._step, description=line)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
