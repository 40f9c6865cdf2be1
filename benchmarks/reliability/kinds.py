"""What a kind of file is to the campaign: its sources, how it is read, and when accepting it was wrong."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from reliability.mutations import Mend, Mutated, mutate

TIMES_USUAL = 10
LEAST_SECONDS = 1.0  # of processor time: a smaller limit would measure the machine, not the reader
_MEMORY_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class Source:
    """A whole file. `name` is that of the file that is read, with its suffix.

    Attributes:
        states_end: it says how long it is, or where it ends, so that a part must not pass for the whole.
        is_checked: it has checksums over its content, so that other content must not pass for its own.
        header_bytes: where its content begins; a mutation before that may change what the file says of itself.
        slack: how much less than the whole may be read, in the unit of `Reading.amount`.
    """

    name: str
    data: bytes
    states_end: bool = False
    is_checked: bool = False
    header_bytes: int = 0
    slack: float = 0.0
    mend: Mend | None = None


@dataclass(frozen=True)
class Reading:
    """What was read: how much, a digest of it, and what the user was told."""

    amount: float
    digest: str
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # counted, but no findings


@dataclass(frozen=True)
class Case:
    """One file of the campaign."""

    source: Source
    mutated: Mutated

    @property
    def description(self) -> str:
        return f"{self.source.name}: {self.mutated.description}"


class Kind(ABC):
    """A kind of file. `build` runs once for a campaign; every worker opens the same folder with `open`."""

    name: ClassVar[str]
    # Growth of the resident memory that a file of these sizes may cause.
    most_megabytes: ClassVar[float] = 300.0
    # Every so many files, the command is run on the file as well; 0 for never.
    command_every: ClassVar[int] = 50
    # Of these a mutation takes something away or makes it unreadable; the others may add to a file.
    losses: ClassVar[tuple[str, ...]] = ("truncation", "deletion", "noise", "bit flips", "zeros")
    usual_reads: ClassVar[int] = 3  # of every source, for the usual time
    limits_memory: ClassVar[bool] = True  # it is read in the worker itself, and measured by its processor time

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = scratch_folder()
        self.sources: Sequence[Source] = ()

    @classmethod
    @abstractmethod
    def build(cls, folder: Path) -> None:
        """Writes the sources; the same ones every time."""

    @abstractmethod
    def open(self) -> None:
        """Reads the sources and imports what reading needs."""

    @abstractmethod
    def read(self, source: Source, data: bytes) -> Reading:
        """Reads mutated bytes as a user of the library would; whatever is refused raises."""

    def clock(self) -> float:
        """Seconds, of which only differences count."""
        return time.process_time() if self.limits_memory else time.monotonic()

    def limit_seconds(self, usual_seconds: float) -> float:
        """From this on a case hangs."""
        return max(LEAST_SECONDS, TIMES_USUAL * usual_seconds)

    def case(self, rng: np.random.Generator) -> Case:
        source, other = (self.sources[int(rng.integers(0, len(self.sources)))] for _ in range(2))
        return Case(source, mutate(rng, source.data, other.data, source.mend))

    def judge(self, case: Case, reading: Reading, whole: Reading) -> str:
        """Why accepting a file was wrong; empty if it was not."""
        source, mutated = case.source, case.mutated
        if reading.remarks or not mutated.is_single or mutated.kind not in self.losses:
            return ""
        in_content = mutated.is_prefix or mutated.first >= source.header_bytes
        if source.states_end and in_content and reading.amount < whole.amount - source.slack:
            return f"{reading.amount:g} of {whole.amount:g} were taken for the whole"
        if source.is_checked and in_content and reading.digest != whole.digest:
            return "content that does not match its checksum was taken for the file's own"
        return ""

    def command(self, source: Source, data: bytes) -> tuple[list[str], Sequence[Path]] | None:
        """Arguments of `mt3` that read the file, and what they write; None if there is no such command."""
        return None

    def check_written(self, path: Path) -> None:
        """Raises if a result of the command is not whole."""
        del path

    def place(self, name: str, data: bytes) -> Path:
        """Writes a file into the scratch folder."""
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def scratch_folder() -> Path:
    """A fresh folder, in memory where that is possible."""
    return Path(tempfile.mkdtemp(prefix="campaign.", dir=_MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None))


def digest_of(*parts: bytes | np.ndarray | str) -> str:
    """A short digest of arrays, bytes and texts."""
    found = hashlib.sha1()
    for part in parts:
        found.update(
            part.encode()
            if isinstance(part, str)
            else np.ascontiguousarray(part).tobytes()
            if isinstance(part, np.ndarray)
            else part
        )
    return found.hexdigest()


def sources_in(folder: Path, describe: Callable[[Path], Source]) -> list[Source]:
    """Every file of a folder by name."""
    return [describe(Path(folder, name)) for name in sorted(os.listdir(folder))]
