"""Runs a system over clips: one process that loads it once, watched from here, resumable clip by clip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mt3core.files import atomic_output
from systems.clips import Clip
from systems.process_tree import usage
from systems.registry import System

WORKER = Path(__file__).parent / "workers" / "worker.py"
_CHECKOUT = Path(__file__).resolve().parents[2]
_SAMPLE_SECONDS = 0.2

Record = dict[str, Any]


@dataclass
class Outcome:
    """The outcome of a system: a record per finished clip, a reason per failed one, or why it did not run at all."""

    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: str | None = None


@dataclass(frozen=True)
class Job:
    """A system ready to run: its Python, its weights ("" for the package's own) and its output folder."""

    system: System
    python: Path
    weights: str
    folder: Path
    threads: int | None = None
    timeout_seconds: float = 3600.0

    def midi(self, clip: Clip) -> Path:
        return self.folder / f"{clip.name}.mid"

    def record(self, clip: Clip) -> Path:
        return self.folder / f"{clip.name}.json"

    def fingerprint(self, clip: Clip) -> str:
        """A key that changes with everything that affects the result: the system, its weights, the recording."""
        system = self.system
        parts = [system.name, *system.requirements, *system.without_dependencies, json.dumps(dict(system.options))]
        parts += [self.weights, clip.name, str(clip.audio.stat().st_size)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def run(job: Job, clips: Sequence[Clip], fresh: bool, say: Callable[[str], None] = print) -> Outcome:
    """Transcribes the unfinished clips. Errors are recorded in the outcome; nothing is raised.

    A clip that ends the process, or takes longer than the timeout, has failed; a new process transcribes the rest.
    """
    outcome = Outcome()
    job.folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        if not fresh and (record := _finished(job, clip)):
            outcome.records[clip.name] = record
    rest = [clip for clip in clips if clip.name not in outcome.records]
    if outcome.records:
        say(f"{job.system.name}: {len(outcome.records)} of {len(clips)} clips are already there")
    while rest and not outcome.skipped:
        before = len(rest)
        _run_process(job, rest, outcome, say)
        rest = [clip for clip in rest if clip.name not in outcome.records and clip.name not in outcome.failures]
        if len(rest) == before and not outcome.skipped:
            outcome.skipped = "its process ended without a message"
    if outcome.skipped and (outcome.records or outcome.failures):
        # Clips from an earlier run or from a process that worked count; the others have failed.
        outcome.failures |= {clip.name: outcome.skipped for clip in rest}
        outcome.skipped = None
    return outcome


def _finished(job: Job, clip: Clip) -> Record | None:
    if not (job.midi(clip).exists() and job.record(clip).exists()):
        return None
    try:
        record = json.loads(job.record(clip).read_text(encoding="utf-8"))
    except ValueError:
        return None
    return record if record.get("fingerprint") == job.fingerprint(clip) else None


def _run_process(job: Job, clips: Sequence[Clip], outcome: Outcome, say: Callable[[str], None]) -> None:
    by_name = {clip.name: clip for clip in clips}
    with (job.folder / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [str(job.python), str(WORKER), job.system.adapter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=_environment(job),
            start_new_session=True,
        )
        watched = _Watched(process)
        try:
            watched.send(_request(job, clips))
            _follow(job, by_name, watched, outcome, say)
        finally:
            watched.end()


def _follow(
    job: Job, clips: Mapping[str, Clip], watched: _Watched, outcome: Outcome, say: Callable[[str], None]
) -> None:
    name, running, load_seconds, cpu_before = job.system.name, "", 0.0, 0.0
    while (event := watched.next_event(job.timeout_seconds)) is not None:
        kind, clip_name = event["event"], event.get("clip", "")
        if kind == "unusable":
            outcome.skipped = event["error"]
            return
        if kind == "loaded":
            load_seconds = event["seconds"]
        elif kind == "begin":
            running, cpu_before = clip_name, watched.cpu_seconds()
        elif kind == "failed":
            running = ""
            outcome.failures[clip_name] = event["error"]
            say(f"{name}: {clip_name}: failed: {event['error']}")
        elif kind == "done":
            running = ""
            clip = clips[clip_name]
            record = {
                "system": name,
                "clip": clip_name,
                "fingerprint": job.fingerprint(clip),
                "audio_seconds": clip.seconds,
                "seconds": event["seconds"],
                "compile_seconds": event["compile_seconds"],
                "load_seconds": load_seconds,
                "cpu_seconds": watched.cpu_seconds() - cpu_before,
                "peak_bytes": watched.peak_bytes,
                "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            }
            with atomic_output(job.record(clip)) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            outcome.records[clip_name] = record
            say(f"{name}: {clip_name}: {clip.seconds / event['seconds']:.2f}x real time")
    reason = watched.why_it_ended(job.timeout_seconds)
    if running:
        outcome.failures[running] = reason
        say(f"{name}: {running}: {reason}")
    elif not load_seconds:
        outcome.skipped = reason


class _Watched:
    """A worker process: its events, its memory and its processor time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.peak_bytes = 0
        self._cpu_seconds = 0.0
        self._timed_out = False
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, request: str) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it ended immediately; its exit code says more
            self.process.stdin.write(request)
            self.process.stdin.close()

    def next_event(self, timeout_seconds: float) -> dict[str, Any] | None:
        """The next event; None when the process has ended or was silent for too long."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._sample()
            try:
                line = self._lines.get(timeout=_SAMPLE_SECONDS)
            except queue.Empty:
                if time.monotonic() < deadline:
                    continue
                self._timed_out = True
                return None
            return None if line is None else json.loads(line)

    def cpu_seconds(self) -> float:
        self._sample()
        return self._cpu_seconds

    def why_it_ended(self, timeout_seconds: float) -> str:
        if self._timed_out:
            return f"no result within {timeout_seconds:.0f} s"
        code = self.process.wait(timeout=60)
        return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"

    def end(self) -> None:
        """Ends the process and its children, which are in their own process group."""
        if self.process.poll() is None or self._timed_out:
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        self._reader.join(timeout=10)

    def _sample(self) -> None:
        if now := usage(self.process.pid):
            self.peak_bytes = max(self.peak_bytes, now.resident_bytes)
            self._cpu_seconds = max(self._cpu_seconds, now.cpu_seconds)

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def _request(job: Job, clips: Sequence[Clip]) -> str:
    jobs = [
        {"clip": clip.name, "audio": str(clip.audio.resolve()), "midi": str(job.midi(clip).resolve())} for clip in clips
    ]
    return json.dumps({"options": {**job.system.options, "weights": job.weights}, "jobs": jobs})


def _environment(job: Job) -> dict[str, str]:
    environment = dict(os.environ)
    # Packages of other environments must be hidden; our own network is imported from the checkout.
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONHOME", None)
    if job.system.is_ours:
        environment["PYTHONPATH"] = str(_CHECKOUT)
    environment["HF_HUB_OFFLINE"] = "1"  # weights are given or part of the package
    # Waiting threads must not spin: on a busy machine that doubles the time. mt3torch sets this itself.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if job.threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment |= dict.fromkeys(names, str(job.threads))
    return environment
