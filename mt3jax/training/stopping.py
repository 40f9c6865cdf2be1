"""Ending a run between two steps: on SIGTERM, as batch systems send it before they take a machine away, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_FINISHED, EXIT_SAVED, EXIT_INTERRUPTED = 0, 75, 130  # 75: EX_TEMPFAIL of sysexits.h, "try again later"


class StopSignals:
    """A context in which the first signal asks to stop, to be looked at after each step; the second interrupts at once.

    With several processes JAX spreads the notice of a SIGTERM that any of them gets, and names a step that all of
    them reach. What Ctrl-C sends is passed on as a SIGTERM, so it stops all of them, too.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._received: int | None = None
        self._previous: dict[int, signal.Handlers | Callable | int | None] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            # JAX's own handler for SIGTERM must stay where there are other processes to be told.
            for number in SIGNALS if jax.process_count() == 1 else (signal.SIGINT,):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def must_stop(self, step: int) -> bool:
        """Whether to save and stop after this step; all processes get the same answer."""
        if jax.process_count() > 1:
            if multihost_utils.reached_preemption_sync_point(step):
                self._received = self._received or signal.SIGTERM
                return True
            return False
        return self._received is not None

    @property
    def exit_code(self) -> int:
        """What the program should end with."""
        if self._received is None:
            return EXIT_FINISHED
        return EXIT_INTERRUPTED if self._received == signal.SIGINT else EXIT_SAVED

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number
        self._say(f"{signal.Signals(number).name} received: saving after this step. Once more stops at once.")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
