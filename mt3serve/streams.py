"""What the server needs of whatever turns recordings into notes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from mt3core.notes.table import Note
from mt3core.transcription import Transcription


class NoteStream(Protocol):
    """Notes of one recording in order of onset, as soon as each and all before it are final.

    `final_seconds`: every note with an earlier onset has been given out. `close` may be called from another thread, and
    ends the iteration. After the last note, `result` is the whole transcription, with what is to be said of it.
    """

    @property
    def final_seconds(self) -> float: ...

    @property
    def result(self) -> Transcription | None: ...

    def __iter__(self) -> Iterator[Note]: ...

    def close(self) -> None: ...


class Decoder(Protocol):
    """A model that is ready. `at_once`: so many recordings are decoded at the same time."""

    model: str
    at_once: int

    def stream(self, recording: Path, instruments: str | None) -> AbstractContextManager[NoteStream]:
        """The notes of a recording, of these instruments only. Raises `UsageError` for others than there are."""
        ...
