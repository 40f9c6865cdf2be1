"""Processes of a job wait for each other before JAX does, which cannot say that it waits, and aborts when it gives up.

Process 0 listens at the coordinator's address; the others tell it their number and how many they believe there are.
When all have come they are sent on, and JAX uses the same port. So a wrong number, a second process of the same number
and one that does not come are named by all, and Ctrl-C ends the waiting.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mt3core.errors import TrainingError, UsageError, listed

Say = Callable[[str], None]
MOST_SECONDS = 300.0  # as long as JAX waits by default
SECONDS_BETWEEN_LINES = 30.0
_QUIET_SECONDS = 1.0  # processes that are started together need not hear of the waiting
_LOOK_SECONDS = 0.2  # between two looks, so that Ctrl-C is noticed
_ANSWER_SECONDS = 5.0
_SPARE_SECONDS = 10.0
_MOST_LINE_BYTES = 1000
_HELLO, _GO, _STOP = "mt3-process", "mt3-go", "mt3-stop"


@dataclass(frozen=True)
class Job:
    """Where the processes meet, how many they are, and which one this is."""

    host: str
    port: int
    count: int
    number: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass
class _Waiting:
    """Time and messages of one who waits."""

    say: Say
    most_seconds: float
    started: float = field(default_factory=time.monotonic)
    next_line: float = field(default_factory=lambda: _QUIET_SECONDS)

    def is_over(self, what: str, spare_seconds: float = 0.0) -> bool:
        """Whether to give up; says from time to time `what` is waited for."""
        elapsed = time.monotonic() - self.started - spare_seconds
        if elapsed >= self.next_line and elapsed < self.most_seconds:
            left = self.most_seconds - elapsed
            self.say(f"Waiting for {what}; giving up in {left:.0f} s (Ctrl-C ends it now) ...")
            self.next_line = elapsed + SECONDS_BETWEEN_LINES
        return elapsed >= self.most_seconds


def meet(job: Job, say: Say = print, most_seconds: float | None = None) -> None:
    """Returns when all processes of the job are there.

    Raises `TrainingError` if some do not come in time, or if one gives up; `UsageError` if numbers contradict each
    other or the port cannot be used.
    """
    waiting = _Waiting(say, MOST_SECONDS if most_seconds is None else most_seconds)
    if job.count == 1:
        return
    if job.number == 0:
        _receive(job, waiting)
    else:
        _arrive(job, waiting)


def _receive(job: Job, waiting: _Waiting) -> None:
    """Process 0: collects the others, then sends all of them on."""
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(job))
        try:
            while missing := sorted(set(range(1, job.count)) - present.keys()):
                numbers = f"JAX_PROCESS_ID {listed(missing)}"
                if waiting.is_over(f"{len(missing)} of {job.count} processes ({numbers}) at {job.address}"):
                    raise TrainingError(
                        f"Gave up after {waiting.most_seconds:.0f} s: {len(missing)} of {job.count} processes "
                        f"({numbers}) did not come to {job.address}.",
                        "Start all of them with the same address and number of processes, and make sure that the port "
                        "can be reached.",
                    )
                with contextlib.suppress(TimeoutError):
                    _let_in(job, stack.enter_context(listener.accept()[0]), present)
                _forget_those_who_left(present)
        except (TrainingError, UsageError) as error:
            _tell(present, f"{_STOP} {error}")
            raise
        _tell(present, _GO)
        for connection in present.values():  # they close first, so that the port is free at once
            with contextlib.suppress(OSError):
                connection.settimeout(_ANSWER_SECONDS)
                connection.recv(1)


def _listen(job: Job) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(
            ("", job.port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=job.count
        )
    except OSError as error:
        raise UsageError(
            f"Process 0 cannot wait for the others at port {job.port}: {os.strerror(error.errno or 0)}.",
            "If another process has JAX_PROCESS_ID=0 too, give it another number; else use another port in "
            "JAX_COORDINATOR_ADDRESS.",
        ) from error
    listener.settimeout(_LOOK_SECONDS)
    return listener


def _let_in(job: Job, connection: socket.socket, present: dict[int, socket.socket]) -> None:
    """Reads who has come. Raises `UsageError` if its variables contradict those of the others."""
    words = _line(connection, _ANSWER_SECONDS).split()
    if len(words) != 3 or words[0] != _HELLO or not (words[1].isdigit() and words[2].isdigit()):
        connection.close()  # some other program
        return
    number, count = int(words[1]), int(words[2])
    _forget_those_who_left(present)
    if count != job.count:
        trouble = f"Process {number} has JAX_NUM_PROCESSES={count}, and process 0 has {job.count}."
    elif number in present:
        trouble = f"Two processes have JAX_PROCESS_ID={number}."
    else:
        present[number] = connection
        return
    error = UsageError(
        trouble,
        "Set JAX_NUM_PROCESSES to the same number for all, and JAX_PROCESS_ID to a different one for each, from 0.",
    )
    _tell({number: connection}, f"{_STOP} {error}")
    raise error


def _arrive(job: Job, waiting: _Waiting) -> None:
    """The others: find process 0, and wait until it sends them on."""
    reason = "nobody answers"
    while not waiting.is_over(f"process 0 at {job.address}"):
        try:
            with socket.create_connection((job.host, job.port), timeout=_LOOK_SECONDS * 5) as connection:
                connection.sendall(f"{_HELLO} {job.number} {job.count}\n".encode())
                if _is_sent_on(job, connection, waiting):
                    return
                reason = "it left, or another program answers there"
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(_LOOK_SECONDS)
    raise TrainingError(
        f"Gave up after {waiting.most_seconds:.0f} s: process 0 was not found at {job.address} ({reason}).",
        "Start it with the same JAX_COORDINATOR_ADDRESS, which is its host and a free port, and make sure that the "
        "port can be reached from here.",
    )


def _is_sent_on(job: Job, connection: socket.socket, waiting: _Waiting) -> bool:
    """Whether process 0 sends this one on; False if it leaves. Raises `TrainingError` if it stops the job.

    This one waits a little longer, so that process 0, which knows who is missing, gives up first.
    """
    while not waiting.is_over(f"the other processes (process 0 is there, at {job.address})", _SPARE_SECONDS):
        try:
            line = _line(connection, _LOOK_SECONDS)
        except TimeoutError:
            continue
        if line.startswith(_STOP):
            raise TrainingError(line.removeprefix(_STOP).strip(), "")
        return line == _GO
    return False


def _line(connection: socket.socket, seconds: float) -> str:
    """A line from the other side; empty if it leaves. Raises `TimeoutError` if nothing comes."""
    connection.settimeout(seconds)
    received = b""
    while not received.endswith(b"\n") and len(received) < _MOST_LINE_BYTES:
        try:
            part = connection.recv(_MOST_LINE_BYTES)
        except TimeoutError:
            if not received:
                raise
            break
        except OSError:
            break
        if not part:
            break
        received += part
    return received.decode(errors="replace").strip()


def _forget_those_who_left(present: dict[int, socket.socket]) -> None:
    for number, connection in list(present.items()):
        connection.setblocking(False)
        try:
            has_left = not connection.recv(1)
        except BlockingIOError:
            has_left = False
        except OSError:
            has_left = True
        if has_left:
            del present[number]
            connection.close()


def _tell(present: dict[int, socket.socket], line: str) -> None:
    for connection in present.values():
        with contextlib.suppress(OSError):
            connection.setblocking(True)
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall(f"{line}\n".encode())
