"""One process of a campaign: reads case after case, each with an alarm that ends the process in whatever code it is.

It says on its standard output what it does, a line each, so that the campaign knows which case ended it:

    scratch FOLDER            where the bytes of the current case are, in `current`
    sources JSON              the slowest usual time, and the sources that cannot be read
    start NUMBER TEXT         a case begins; TEXT describes it
    found JSON                a finding
    done NUMBER 0|1 JSON      refused or accepted, and what is counted besides
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import statistics
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

import numpy as np

from reliability.commands import UNEXPECTED
from reliability.findings import Finding, Found
from reliability.kinds import Case, Kind, Reading

_WALL_FACTOR, _WALL_SECONDS = 10, 20.0  # for what waits instead of computing
_COMMAND_SECONDS = 6.0  # usual for a command: the first also imports what it needs, and lists the fonts
_ADDRESS_SPACE_BYTES = 6 << 30  # beyond that of the process before its first case
_OWN_CODE = re.compile(r"/(mt3[a-z]+|convert)/[^/].*\.py$")
_LONGEST_MESSAGE = 1_200  # characters


def random_of(kind: str, seed: int, number: int) -> np.random.Generator:
    """The generator of a case."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), number])


class Worker:
    """Reads the cases of one kind; `say` is called with the lines above."""

    def __init__(self, kind: Kind, seed: int, say: IO[str], captured: IO[bytes]) -> None:
        self.kind, self.seed = kind, seed
        self._say, self._captured = say, captured
        self.whole: dict[str, Reading] = {}
        self._usual: dict[str, float] = {}

    def open(self) -> None:
        """Reads every source whole, several times: what is usual."""
        self._line(f"scratch {self.kind.scratch}")
        self.kind.open()
        unreadable = []
        for source in self.kind.sources:
            taken = []
            try:
                for _ in range(self.kind.usual_reads):
                    started = self.kind.clock()
                    self.whole[source.name] = self.kind.read(source, source.data)
                    taken.append(self.kind.clock() - started)
            except Exception as error:
                unreadable.append(f"{source.name}: {str(error).replace(str(self.kind.scratch), '')[:200]}")
                continue
            self._usual[source.name] = statistics.median(taken)
        self.kind.sources = [source for source in self.kind.sources if source.name in self.whole]
        usual = max(self._usual.values(), default=0.0)
        self._line(f"sources {json.dumps([usual, unreadable])}")
        self._take_captured()
        if self.kind.limits_memory:
            limit = _memory("VmSize") + _ADDRESS_SPACE_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    def work(self, first: int, step: int, last: int, seconds: float) -> None:
        """Cases `first`, `first` + `step`, ... below `last`, for so many seconds."""
        until = time.time() + seconds
        for number in range(first, last, step):
            if time.time() >= until or not self.kind.sources:
                return
            self.read(number, self.kind.case(random_of(self.kind.name, self.seed, number)))

    def read(self, number: int, case: Case) -> list[Finding]:
        """Reads one case, says and returns what was found."""
        (self.kind.scratch / "current").write_bytes(case.mutated.data)
        self._line(f"start {number} {' '.join(case.description.split())}")
        usual = self._usual.get(case.source.name, 0.0)
        before = _reset_peak()
        found: list[Finding] = []
        reading = None

        def add(sort: str, message: str, where: str = "", detail: str = "") -> None:
            shown = " ".join(message.replace(str(self.kind.scratch), "").split())[:500]
            one = Finding(self.kind.name, self.seed, number, sort, shown, case.description[:500], where, detail)
            found.append(one)
            (self.kind.scratch / f"found.{number}").write_bytes(case.mutated.data)
            self._line(f"found {json.dumps(asdict(one))}")

        started = self.kind.clock()
        with _alarm(self.kind, usual):
            try:
                reading = self.kind.read(case.source, case.mutated.data)
            except Found as error:
                add(error.sort, str(error), f"{case.source.name}: {error.sort}")
            except Exception as error:
                self._refused(error, add)
        taken = self.kind.clock() - started
        if taken > self.kind.limit_seconds(usual):
            add("hang", f"took {taken:.2f} s; usual are {usual:.3f} s", case.source.name)
        growth = (_memory("VmHWM") - before) / 1e6
        if self.kind.limits_memory and growth > self.kind.most_megabytes:
            add("memory", f"{growth:.0f} MB more for a file of {len(case.mutated.data)} bytes", case.source.name)
        if reading is not None and (wrong := self.kind.judge(case, reading, self.whole[case.source.name])):
            add("wrong acceptance", wrong, f"{case.source.name}: {case.mutated.kind}")
        if self.kind.command_every and number % self.kind.command_every == 0:
            with _alarm(self.kind, usual + _COMMAND_SECONDS):
                self._command(case, add)
        if text := self._take_captured():
            add("terminal", text, _gist_of(text))
        notes = dict.fromkeys(reading.notes, 1) if reading else {}
        self._line(f"done {number} {int(reading is not None)} {json.dumps(notes)}")
        return found

    def _refused(self, error: Exception, add) -> None:
        from mt3core.errors import MT3Error

        if not isinstance(error, MT3Error):
            sort = "memory" if isinstance(error, MemoryError) else "traceback"
            add(sort, f"{type(error).__name__}: {error}", _place_of(error), "".join(traceback.format_exception(error)))
            return
        text = str(error)
        if "\n" in text or len(text) > _LONGEST_MESSAGE or (text[-1:] not in ".)!?:/" and not error.next_step):
            add("message", text, _place_of(error))

    def _command(self, case: Case, add) -> None:
        """The command on the same file: its exit code, its sentence, and whether what it wrote is whole."""
        from mt3app.cli import run

        given = self.kind.command(case.source, case.mutated.data)
        if given is None:
            return
        arguments, written = given
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = run(arguments)
            except BaseException as error:
                add("traceback", f"mt3 {arguments[0]}: {type(error).__name__}: {error}", _place_of(error))
                code = -1
        text = said.getvalue()
        if UNEXPECTED.search(text):
            add("traceback", text.strip().splitlines()[-1], f"mt3 {arguments[0]}: {text[-60:].strip()}", text)
        if code > 0 and not any(word in text for word in ("mt3: ", "Left out", "Not scored")):
            add("message", f"mt3 {arguments[0]} ended with {code} and said: {text}", f"mt3 {arguments[0]}")
        for path in written:
            try:
                self.kind.check_written(path)
            except Exception as error:
                add("half-written", f"mt3 {arguments[0]}: {path.name}: {error}", f"mt3 {arguments[0]} {path.name}")
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)

    def _line(self, text: str) -> None:
        self._say.write(f"{text}\n")
        self._say.flush()

    def _take_captured(self) -> str:
        """What has been written to standard output and error meanwhile, by whatever library."""
        sys.stdout.flush()
        sys.stderr.flush()
        if not os.fstat(self._captured.fileno()).st_size:
            return ""
        self._captured.seek(0)
        text = self._captured.read(4000).decode(errors="replace")
        self._captured.truncate(0)
        self._captured.seek(0)
        return text.strip()


@contextlib.contextmanager
def captured_output(folder: Path) -> Iterator[tuple[IO[str], IO[bytes]]]:
    """Keeps standard output for the campaign's lines alone; whatever else is written goes to the file `said`."""
    say = os.fdopen(os.dup(1), "w")
    with open(folder / "said", "ab+") as captured:  # appending, so that it can be cut to nothing between cases
        os.dup2(captured.fileno(), 1)
        os.dup2(captured.fileno(), 2)
        yield say, captured


@contextlib.contextmanager
def _alarm(kind: Kind, usual_seconds: float) -> Iterator[None]:
    """Ends this process, even within native code, when a case takes much too long. Both signals have no handler."""
    seconds = kind.limit_seconds(usual_seconds)
    if kind.limits_memory:  # it is read in this process
        signal.setitimer(signal.ITIMER_PROF, 2 * seconds)
    signal.setitimer(signal.ITIMER_REAL, _WALL_FACTOR * seconds + _WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _memory(name: str) -> int:
    """A figure of this process in bytes: `VmRSS`, `VmHWM` (the peak) or `VmSize`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> int:
    """Makes the peak of the resident memory what it is now, and returns it (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _gist_of(text: str) -> str:
    """What tells texts on the terminal apart: the last error of a traceback, or the first words."""
    errors = re.findall(r"^\w+Error: .*", text, re.M)
    return errors[-1][:60] if errors else re.sub(r"[^a-zA-Z_]+", " ", text)[:30]


def _place_of(error: BaseException) -> str:
    """The kind of error and the innermost line of this project in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _OWN_CODE.search(frame.filename)]
    place = (own or frames)[-1:]
    return f"{type(error).__name__} " + "".join(f"{Path(f.filename).name}:{f.name}" for f in place)
