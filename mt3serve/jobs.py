"""The queue: recordings wait, are decoded a few at a time, can be cancelled, and are removed after a while.

Jobs are changed by the threads that decode and read by the server's own; each change is a single assignment or an
append, so readers need no lock. The folder of a job has a name of our own, and so has every file in it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from mt3core.audio.load import load_audio, probe_audio
from mt3core.errors import MT3Error
from mt3core.notes.table import Note
from mt3core.transcription import Transcription
from mt3decode.streams import NoteStream
from mt3serve.arranging import Arrangement

WAITING, DECODING, DONE, FAILED, CANCELLED = "waiting", "decoding", "done", "failed", "cancelled"
SETTLED = (DONE, FAILED, CANCELLED)
RECORDING = "recording"  # the name of the file in a job's folder
_ID_BYTES = 16  # nobody guesses the address of another's job
_RATE_HZ = 16_000
_GOODBYE_SECONDS = 0.5


class Decoder(Protocol):
    """A model that is ready.

    `at_once`: so many recordings are decoded at the same time; `usual_quality`: fast or best.
    """

    model: str
    at_once: int
    usual_quality: str

    def stream(self, recording: Path, instruments: str | None, quality: str) -> AbstractContextManager[NoteStream]:
        """The notes of a recording, of these instruments only; the `quality` is fast or best.

        Raises `UsageError` for other instruments than there are.
        """
        ...


@dataclass(frozen=True)
class Shown:
    """What the page shows of a finished job. `version` is another each time."""

    version: int
    result: Transcription
    asked: Mapping[str, str]


@dataclass
class Job:
    """One recording. `name` is for people only; `settled_at` and `started_at` are of `time.monotonic`."""

    id: str
    name: str
    folder: Path
    instruments: str | None
    quality: str
    state: str = WAITING
    seconds: float = 0.0
    final_seconds: float = 0.0
    notes: list[Note] = field(default_factory=list)
    error: str = ""
    started_at: float = 0.0
    settled_at: float = 0.0
    stream: NoteStream | None = None
    result: Transcription | None = None
    shown: Shown | None = None  # once somebody wished for other notes than those of `result`

    @property
    def version(self) -> int:
        """Of the notes that are shown."""
        return 0 if self.shown is None else self.shown.version

    @property
    def recording(self) -> Path:
        return self.folder / RECORDING

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED

    @property
    def heard_seconds(self) -> float:
        """Until when the notes are final."""
        stream = self.stream
        return min(self.final_seconds if stream is None else stream.final_seconds, self.seconds)

    def seconds_left(self) -> float | None:
        """How long decoding goes on at its present pace; None while that is unknown."""
        spent = time.monotonic() - self.started_at
        heard = self.heard_seconds
        if self.state != DECODING or heard <= 0 or spent < 0.5:
            return None
        return spent * (self.seconds - heard) / heard


class Queue:
    """All jobs, and the threads that decode them in the order in which they came."""

    def __init__(self, decoder: Decoder, folder: Path, keep_seconds: float, most_decoding_seconds: float) -> None:
        self.decoder, self.folder = decoder, folder
        self.keep_seconds, self.most_decoding_seconds = keep_seconds, most_decoding_seconds
        self.jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(decoder.at_once)]
        for thread in self._threads:
            thread.start()

    def new(self, name: str, instruments: str | None, quality: str) -> Job:
        """A job with a folder, not yet in the queue: its recording has to come first."""
        identity = secrets.token_urlsafe(_ID_BYTES)
        folder = self.folder / identity
        folder.mkdir()
        return Job(identity, name, folder, instruments, quality)

    def add(self, job: Job) -> None:
        """Puts a job with its recording into the queue. Raises `AudioError` if that cannot be read."""
        info = probe_audio(job.recording, damaged="keep")
        # What was recorded in a browser does not say how long it is.
        job.seconds = info.duration_seconds or len(load_audio(job.recording, _RATE_HZ, damaged="keep")) / _RATE_HZ
        with self._changed:
            self.jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify()

    def again(self, job: Job, instruments: str | None, quality: str) -> Job:
        """The same recording once more, with other instruments or in another quality."""
        fresh = self.new(job.name, instruments, quality)
        try:
            os.link(job.recording, fresh.recording)
        except OSError:  # a file system without links
            shutil.copyfile(job.recording, fresh.recording)
        self.add(fresh)
        return fresh

    def arrange(self, job: Job, arrangement: Arrangement) -> None:
        """Shows other notes of a finished job: with bars, on a grid, fewer."""
        arranged = arrangement.of(transcription_of(job, self.decoder.model, as_found=True), job.recording)
        with self._changed:
            job.shown = Shown(job.version + 1, arranged, arrangement.asked)

    def place(self, job: Job) -> int:
        """How many are being decoded or will be before it; 0 if it does not wait."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + sum(one.state == DECODING for one in self.jobs.values())

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def cancel(self, job: Job) -> None:
        """Ends a job that is not settled; decoding stops at the next step."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            if not job.is_settled:
                self._settle(job, CANCELLED)
            stream = job.stream
        if stream is not None:
            stream.close()

    def remove(self, job: Job) -> None:
        """Cancels a job and removes its files."""
        self.cancel(job)
        self.jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def remove_old(self) -> None:
        """Removes the jobs that were settled long enough ago."""
        for job in list(self.jobs.values()):
            if job.is_settled and time.monotonic() - job.settled_at > self.keep_seconds:
                self.remove(job)

    def close(self) -> None:
        """Cancels everything, and waits a moment for the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for job in list(self.jobs.values()):
            self.cancel(job)
        limit = time.monotonic() + _GOODBYE_SECONDS
        for thread in self._threads:
            thread.join(max(limit - time.monotonic(), 0.0))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._waiting)
                if self._is_closed:
                    return
                job = self._waiting.pop(0)
                job.started_at, job.state = time.monotonic(), DECODING
            try:
                self._decode(job)
            except MT3Error as error:
                self._end(job, FAILED, str(error).replace(str(job.recording), job.name))
            except Exception as error:
                self._end(job, FAILED, f"Unexpected {type(error).__name__}: {error}. Try another recording.")
            else:
                self._end(job, DONE)

    def _decode(self, job: Job) -> None:
        limit = time.monotonic() + self.most_decoding_seconds
        with self.decoder.stream(job.recording, job.instruments, job.quality) as stream:
            job.stream = stream
            timer = threading.Timer(self.most_decoding_seconds, stream.close)
            timer.daemon = True
            timer.start()
            try:
                if job.state == CANCELLED:  # meanwhile
                    return
                for note in stream:
                    job.notes.append(note)
                    job.final_seconds = stream.final_seconds
                    if job.is_settled:
                        return
                job.result = stream.result
            finally:
                timer.cancel()
                job.stream = None
        if time.monotonic() > limit:
            raise MT3Error(
                f"Decoding took longer than {self.most_decoding_seconds / 60:.0f} minutes.",
                "Use a shorter recording, or start the server with a longer --time-limit.",
            )

    def _end(self, job: Job, state: str, error: str = "") -> None:
        with self._changed:
            if not job.is_settled:
                job.error = error
                if state == DONE:
                    job.final_seconds = job.seconds
                self._settle(job, state)

    @staticmethod
    def _settle(job: Job, state: str) -> None:
        job.settled_at, job.state = time.monotonic(), state


def transcription_of(job: Job, model: str, as_found: bool = False) -> Transcription:
    """The result of a job, as it is shown or as it was found: by the name of its recording, not of our file."""
    shown = None if as_found or job.shown is None else job.shown.result
    result = shown or job.result or Transcription(list(job.notes), duration_seconds=job.seconds, model=model)
    return replace(result, audio=job.name)


def own_folder(parent: Path) -> Path:
    """A folder for the files of this server, which says by its name whose it is; those of dead servers are removed."""
    for old in parent.glob("mt3-serve-*") if hasattr(os, "getuid") else ():
        number = old.name.split("-")[2]
        with contextlib.suppress(OSError):
            if (
                number.isdigit()
                and not old.is_symlink()
                and old.stat().st_uid == os.getuid()
                and not _lives(int(number))
            ):
                shutil.rmtree(old)
    folder = parent / f"mt3-serve-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
