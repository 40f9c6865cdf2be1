"""Runs the cases of a kind in several processes, and restarts those that a case has ended."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from reliability.findings import Finding, Tally

CASES_OF_A_PROCESS = 4_000  # then a fresh one takes over, so that what a library leaks is not counted against a file
_PROGRAM = Path(__file__).resolve().parents[1] / "campaign.py"
_STARTS_WITHOUT_A_CASE = 3


@dataclass(frozen=True)
class Work:
    """What a worker process is to do, as JSON on its command line: `seconds` from when it has opened its sources."""

    kind: str
    folder: str
    seed: int
    first: int
    step: int
    last: int
    seconds: float


@dataclass
class _Clock:
    """The time of a kind, which runs from when the first of its processes has opened the sources."""

    seconds: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    started: float | None = None

    def start(self) -> None:
        with self.lock:
            self.started = self.started or time.time()

    def left(self) -> float:
        with self.lock:
            return self.seconds - (time.time() - self.started if self.started else 0.0)


def build(kind: str, folder: Path) -> None:
    """Makes the sources of a kind, in a process of its own, since it may import both frameworks."""
    folder.mkdir(parents=True)
    done = subprocess.run([sys.executable, str(_PROGRAM), "--build", kind, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The sources of {kind} could not be made:\n{done.stderr}")


def run_kind(kind: str, folder: Path, seed: int, count: int, seconds: float, processes: int, store: Path) -> Tally:
    """Reads `count` cases of a kind, or as many as the time allows, and counts what happens."""
    tally, clock = Tally(kind, store), _Clock(seconds)
    if not folder.exists():
        build(kind, folder)
    threads = [
        threading.Thread(target=_run_share, args=(kind, folder, seed, place, processes, count, clock, tally))
        for place in range(min(processes, count))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.seconds = seconds - clock.left()
    return tally


def _run_share(
    kind: str, folder: Path, seed: int, place: int, processes: int, count: int, clock: _Clock, tally: Tally
) -> None:
    """Every `processes`-th case from `place`, in one process after another."""
    number, failed_starts = place, 0
    while number < count and (left := clock.left()) > 0 and failed_starts < _STARTS_WITHOUT_A_CASE:
        last = min(count, number + processes * CASES_OF_A_PROCESS)
        reached = _run_process(Work(kind, str(folder), seed, number, processes, last, left), clock, tally)
        failed_starts = failed_starts + 1 if reached == number else 0
        number = reached
    if failed_starts == _STARTS_WITHOUT_A_CASE:
        tally.unreadable.append("the worker does not start")


def _run_process(work: Work, clock: _Clock, tally: Tally) -> int:
    """One worker process; returns the number of the case that comes next."""
    command = [sys.executable, "-W", "ignore", str(_PROGRAM), "--worker", json.dumps(vars(work))]
    current, description, scratch, next_number = -1, "", None, work.first
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "scratch":
                scratch = Path(rest)
            elif word == "sources":
                clock.start()
                usual, unreadable = json.loads(rest)
                with tally.lock:
                    tally.usual_seconds = max(tally.usual_seconds, usual)
                    tally.unreadable = sorted({*tally.unreadable, *unreadable})
            elif word == "start":
                text, _, description = rest.partition(" ")
                current = int(text)
            elif word == "found":
                finding = Finding(**json.loads(rest))
                tally.add(finding, _content(scratch, f"found.{finding.number}"))
            elif word == "done":
                text, accepted, notes = rest.split(" ", 2)
                tally.count(accepted == "1", json.loads(notes))
                next_number, current = int(text) + work.step, -1
    if current >= 0:
        sort, message = _ending(process.returncode)
        where = description.split(":")[0]
        tally.add(
            Finding(work.kind, work.seed, current, sort, message, description, where, _last_words(scratch)),
            _content(scratch, "current"),
        )
        tally.count(False, {})
        next_number = current + work.step
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    return next_number


def _ending(code: int) -> tuple[str, str]:
    """The sort of finding that an exit code is."""
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return "hang", "it was ended by the alarm"
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ("memory" if code == -signal.SIGKILL else "crash"), f"the process was ended: {name}"


def _content(scratch: Path | None, name: str) -> bytes | None:
    path = None if scratch is None else scratch / name
    return path.read_bytes() if path is not None and path.is_file() else None


def _last_words(scratch: Path | None) -> str:
    """The last words of a process that died."""
    path = None if scratch is None else scratch / "said"
    return path.read_text(errors="replace")[-3000:] if path is not None and path.is_file() else ""
