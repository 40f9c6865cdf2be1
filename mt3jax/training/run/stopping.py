"""Ending a run between two steps: on SIGTERM, which batch systems send before they take a machine away, on SIGHUP,
sent when a terminal or its connection is closed, and on Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.experimental import multihost_utils

HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # unknown to Windows
EXIT_FINISHED, EXIT_SAVED, EXIT_INTERRUPTED = 0, 75, 130  # 75: EX_TEMPFAIL of sysexits.h, "try again later"


class StopSignals:
    """A context in which the first signal requests a stop, checked after each step; the second interrupts immediately.

    With several processes, JAX forwards a SIGTERM that any of them gets, and names a step that all of
    them reach. Ctrl-C and SIGHUP are passed on as a SIGTERM, so that they also stop all processes.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._received: int | None = None
        self._previous: dict[int, signal.Handlers | Callable | int | None] = {}
        self._terminals = _terminals()  # found now, as a closed one is no longer a terminal

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers: list[int] = [signal.SIGINT]
            if jax.process_count() == 1:  # else JAX's own handler must stay, which informs the other processes
                numbers.append(signal.SIGTERM)
            if HANG_UP is not None and signal.getsignal(HANG_UP) != signal.SIG_IGN:  # as set by nohup
                numbers.append(HANG_UP)
            for number in numbers:
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
        """The exit code for the program."""
        if self._received is None:
            return EXIT_FINISHED
        return EXIT_INTERRUPTED if self._received == signal.SIGINT else EXIT_SAVED

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == HANG_UP:
            _send_nowhere(self._terminals)
        if self._received is not None:
            if number == HANG_UP:  # shell and system may both send it, and service managers after a SIGTERM
                return
            raise KeyboardInterrupt
        self._received = number
        self._say(f"{signal.Signals(number).name} received: saving after this step. Send it again to stop immediately.")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)


def _terminals() -> list[int]:
    """The file descriptors of the standard streams that are shown on a terminal."""
    return [stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream is not None and stream.isatty()]


def _send_nowhere(streams: list[int]) -> None:
    """Discards further output: writing to a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)
