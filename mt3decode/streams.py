"""Notes while they are decoded.

Decoding is a generator of steps: first the stream of decoded segments itself, then, for every segment in order, the
notes that have become final and the time before which all are; its value is the whole result.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from types import TracebackType
from typing import Any

from mt3core.decoding import Generated
from mt3core.notes.choosing import NoteChoice
from mt3core.notes.table import Note
from mt3core.transcription import Transcription, place_in_time

Segments = Iterator[tuple[int, Generated]]
Step = Segments | tuple[list[Note], float]
Steps = Generator[Step, None, Transcription | None]


class NoteStream(Iterator[Note]):
    """Iterates over notes, see `BaseTranscriber.stream`. `close` may be called from any thread."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._segments: Any = None
        self._new: list[Note] = []  # the next one last
        self._is_closed = False
        self._is_running = threading.Lock()  # held by the thread that makes or ends the steps
        self._final_seconds = 0.0
        # What `transcribe` would have returned; None before the end, and for audio in pieces.
        self.result: Transcription | None = None

    @property
    def final_seconds(self) -> float:
        """Every note that starts before it has been given, except those that were taken out by a choice."""
        new = self._new
        return min([self._final_seconds, *(note.onset for note in new[-1:])])

    def __next__(self) -> Note:
        while True:
            new = self._new  # which another thread may empty
            if new and not self._is_closed:
                return new.pop()
            with self._is_running:
                if self._is_closed:
                    self._steps.close()
                    raise StopIteration
                try:
                    step = next(self._steps)
                except StopIteration as end:
                    if not self._is_closed:
                        self.result, self._is_closed = end.value, True
                    raise StopIteration from None
            if self._is_closed:  # meanwhile: what comes after that is not what the whole would be
                continue
            if not isinstance(step, tuple):
                self._segments = step
                continue
            notes, final_seconds = step
            new = sorted(notes, key=place_in_time)[::-1]  # not `reverse`, which keeps equals in order
            self._new, self._final_seconds = new, max(self._final_seconds, final_seconds)

    def finish(self) -> Transcription | None:
        """The result, once all notes have been found; None if it is closed meanwhile, and for audio in pieces."""
        with self:
            for _ in self:
                pass
        return self.result

    def close(self) -> None:
        """Stops decoding; a loop over the notes, in whichever thread, ends."""
        self._is_closed = True
        self._final_seconds, self._new = self.final_seconds, []
        if self._is_running.acquire(blocking=False):
            try:
                self._steps.close()
            finally:
                self._is_running.release()
        # Another thread is at it, and may wait for the next segment.
        elif not isinstance(self._segments, Generator) and hasattr(self._segments, "close"):
            self._segments.close()

    def __enter__(self) -> NoteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def closing_if_possible(stream: Any) -> AbstractContextManager[object]:
    return closing(stream) if hasattr(stream, "close") else nullcontext()


def chosen(notes: list[Note], choice: NoteChoice | None, held: list[Note], is_last: bool = False) -> list[Note]:
    """What a choice leaves of notes that follow those before; if it joins notes, all at the end, `held` until then."""
    if choice is None:
        return notes
    if choice.merge is None and not choice.merge_gap_seconds:
        return choice.apply(notes)
    held += notes
    return choice.apply(held) if is_last else []
