"""Where the bytes of a recording come from: a path, bytes in memory, or an open file, always as a file to seek in."""

from __future__ import annotations

import bisect
import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mt3core.errors import AudioError, reading
from mt3core.files import expanded

# Two letters at least, because C:/ is a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/|www\.|(?:music\.|m\.)?youtube\.com/|youtu\.be/", re.I)
# What comes through a pipe stays in memory up to this size, beyond it in a temporary file.
_SPOOLED_BYTES = 64 << 20


@dataclass(frozen=True)
class Source:
    """A recording by name; `path` only if it is a file with a name."""

    name: str
    path: Path | None = None
    _file: IO[bytes] | None = field(default=None, repr=False)
    _start: int = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[Ranges]:
        """All its bytes. Raises `AudioError` if the file is missing, a folder, not a regular file, or empty."""
        if self.path is None:
            assert self._file is not None
            content = Ranges(self._file, [(self._start, self._file.seek(0, io.SEEK_END) - self._start)])
            if not content.size:
                raise AudioError(f"{self.name} is empty (0 bytes).", "Check the program that sends it.")
            yield content
            return
        _check_path(self.path)
        with reading(self.path, AudioError, "Check its permissions."):
            file = self.path.open("rb")
        with file:
            size = file.seek(0, io.SEEK_END)
            if not size:
                raise AudioError(f"{self.path} is empty (0 bytes).", "Copy or download it again.")
            yield Ranges(file, [(0, size)])


@contextlib.contextmanager
def open_source(given: Any) -> Iterator[Source]:
    """A path, bytes or a binary file object as a `Source`; raises `AudioError` for text files opened as such.

    A file object is read from where it stands; one in which one cannot seek is copied first, into memory if it is
    small. It is not closed.
    """
    if isinstance(given, str | os.PathLike):
        refuse_address(os.fspath(given))
        path = expanded(given)
        yield Source(str(path), path)
        return
    if isinstance(given, bytes | bytearray | memoryview):
        yield Source("The audio in memory", None, io.BytesIO(given))
        return
    name = _file_name(given)
    if getattr(given, "closed", False):
        raise AudioError(f"{name} is closed.", "Pass it while it is open.")
    if isinstance(given, io.TextIOBase) or isinstance(given.read(0), str):
        raise AudioError(f"{name} is open as text.", 'Open it for bytes: open(path, "rb").')
    if _can_seek(given):
        start, end = given.tell(), given.seek(0, io.SEEK_END)
        yield Source(name, None, given, 0 if start == end else start)  # at its end it has just been written
        return
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES) as copied:
        with reading(name, AudioError, "Save the audio to a file first."):
            shutil.copyfileobj(given, copied, 1 << 20)
        yield Source(name, None, copied)


def _file_name(file: Any) -> str:
    name = getattr(file, "name", None)
    if name == "<stdin>" or name == 0:
        return "Standard input"
    return str(name) if isinstance(name, str) and name else "The audio file object"


def _can_seek(file: Any) -> bool:
    try:
        file.seek(file.tell())
    except (AttributeError, OSError, ValueError):  # io.UnsupportedOperation is both of the latter
        return False
    return True


def refuse_address(text: str) -> None:
    """Raises `AudioError` for an address, also one that lost a slash on its way through a path."""
    address = _ADDRESS.match(text)
    if address and not os.path.lexists(text):
        whole = text if not address[1] or "://" in text else text.replace(":/", "://", 1)
        raise AudioError(
            f"{whole} is an address, and recordings are read from files.", "Download it, and pass the file."
        )


def refuse_midi(name: str, start: bytes) -> None:
    """Raises `AudioError` if a file with these first bytes is MIDI, alone or within RIFF."""
    if start[:4] == b"MThd" or (start[:4] == b"RIFF" and start[8:12] == b"RMID"):
        raise AudioError(f"{name} cannot be read as audio: it is a MIDI file.", f"To write it, use -o {name}.")


def _check_path(path: Path) -> None:
    if not os.path.exists(path):  # which also knows that a name may be too long to exist
        is_output = path.suffix.lower() in (".mid", ".midi")
        hint = f"To write it, use -o {path}." if is_output else "Check the name and the folder."
        raise AudioError(f"There is no file {path}.", hint)
    if path.is_dir():
        raise AudioError(f"{path} is a folder, not an audio file.", "Pass the files in it.")
    if not path.is_file():
        raise AudioError(f"{path} is not a regular file.", "Save the audio to a file first.")


class Ranges(io.RawIOBase):
    """Some ranges of a file, and bytes that are in no file, one after the other as a file of their own.

    That is how one of several files that were joined is read alone, a tag is left out, or a wrong header replaced.
    Several of them may share a file, as long as they are used by turns.
    """

    def __init__(self, base: Any, pieces: Sequence[bytes | tuple[int, int]]) -> None:
        """`pieces` are bytes, or (start in `base`, length)."""
        super().__init__()
        self._base = base
        self._pieces = [piece for piece in pieces if (len(piece) if isinstance(piece, bytes) else piece[1] > 0)]
        self._ends: list[int] = []
        for piece in self._pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1]
            self._ends.append((self._ends[-1] if self._ends else 0) + length)
        self.size = self._ends[-1] if self._ends else 0
        self._position = 0

    def cut(self, start: int, length: int | None = None) -> Ranges:
        """A part of it."""
        return Ranges(self, [(start, self.size - start if length is None else min(length, self.size - start))])

    def at(self, position: int, length: int) -> bytes:
        """The bytes at a position, fewer at the end; the position from which the next `read` goes on changes."""
        self._position = position
        return self.read(length) or b""

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer completely, except at the end: libsndfile takes less for the end of the file."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self.size:
            number = bisect.bisect_right(self._ends, self._position)
            piece, end = self._pieces[number], self._ends[number]
            wanted = min(len(view) - done, end - self._position)
            if isinstance(piece, bytes):
                first = len(piece) - (end - self._position)
                got = piece[first : first + wanted]
            else:
                self._base.seek(piece[0] + piece[1] - (end - self._position))
                got = self._base.read(wanted)
            if not got:
                break
            view[done : done + len(got)] = got
            done += len(got)
            self._position += len(got)
        return done

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
