"""Notes while they are decoded, and audio while it arrives.

Decoding is a generator of steps: first the stream of decoded segments itself, then, for every segment in order, the
notes that have become final and the time before which all are; its value is the whole result. `run` only wants that,
a `NoteStream` gives the notes.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3core.audio.arrays import as_numpy, open_array
from mt3core.audio.stream import check_rate
from mt3core.config.model import ModelConfig
from mt3core.decoding import Generated
from mt3core.errors import AudioError
from mt3core.notes.choosing import NoteChoice
from mt3core.notes.table import Note
from mt3core.notes.vocabulary import segment_start_seconds
from mt3core.segments import AudioSegment, num_frames, segment_samples
from mt3core.spectrogram import segment_log_mel
from mt3core.transcription import Transcription, place_in_time
from mt3decode.grammar import last_steps

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
        # Every note that starts before it has been given, except those that were taken out by a choice.
        self.final_seconds = 0.0
        # What `transcribe` would have returned; None before the end, and for audio in pieces.
        self.result: Transcription | None = None

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
            self._new = sorted(notes, key=place_in_time)[::-1]  # not `reverse`, which keeps equals in order
            self.final_seconds = max(self.final_seconds, final_seconds)

    def close(self) -> None:
        """Stops decoding; a loop over the notes, in whichever thread, ends."""
        self._is_closed = True
        self._new = []
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


def run(steps: Generator[Step, None, Any]) -> Any:
    """The result of all steps."""
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value


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


class ArrivingSegments:
    """Log-mels of the segments of audio that arrives in pieces. Iterate once, in one thread; `take` in another."""

    def __init__(self, pieces: Iterable[np.ndarray], rate_hz: float, config: ModelConfig) -> None:
        check_rate("The audio", rate_hz)
        self.last_steps: list[int] = []  # of the segments so far, for the grammar
        self.seconds = 0.0
        self._pieces, self._rate_hz, self._config = pieces, rate_hz, config
        self._segments: dict[int, tuple[AudioSegment, float | None]] = {}

    def take(self, number: int) -> tuple[AudioSegment, float | None]:
        """A segment whose log-mel has been given, and the start of the next; None for the last. Only once each."""
        return self._segments.pop(number)

    def __iter__(self) -> Iterator[Float[np.ndarray, "frames mel"]]:
        config = self._config
        rate_hz, length = config.spectrogram.sample_rate_hz, config.segment_samples
        waiting, total, number = np.zeros(0, np.float32), 0, 0
        for block in self._resampled():
            total += len(block)
            self.seconds = total / rate_hz
            waiting = np.concatenate([waiting, block])
            # A recording has a frame more than whole hops, so there is a segment after one that is full.
            while len(waiting) >= length:
                yield self._log_mel(number, waiting[:length], config.network.input_frames, is_last=False)
                waiting, number = waiting[length:], number + 1
        if not total:
            raise AudioError("The audio has no samples.", "Pass at least one array that is not empty.")
        num_left = num_frames(len(waiting), config.spectrogram.hop_samples)
        yield self._log_mel(number, waiting, num_left, is_last=True)

    def _log_mel(self, number: int, samples: np.ndarray, frames: int, is_last: bool) -> np.ndarray:
        config, length = self._config, self._config.network.input_frames
        starts = [
            segment_start_seconds(
                first * length, config.spectrogram.frames_per_second, config.vocabulary.steps_per_second
            )
            for first in (number, number + 1)
        ]
        piece = AudioSegment(number, number * length, frames, starts[0])
        both = [piece] if is_last else [piece, AudioSegment(number + 1, (number + 1) * length, 1, starts[1])]
        self._segments[number] = piece, None if is_last else starts[1]
        self.last_steps.append(last_steps(both, config)[0])
        own = segment_samples(samples, AudioSegment(0, 0, frames, 0.0), config)
        log_mel: np.ndarray = segment_log_mel(own, frames, config.spectrogram)
        return log_mel

    def _resampled(self) -> Iterator[Float[np.ndarray, " samples"]]:
        import soxr

        wanted_hz = self._config.spectrogram.sample_rate_hz
        resampler: Any = None
        if self._rate_hz != wanted_hz:
            resampler = soxr.ResampleStream(self._rate_hz, wanted_hz, 1, dtype="float32", quality="HQ")
        heard_seconds = 0.0
        for piece in self._pieces:
            if np.size(piece) == 0:
                continue
            for mono in _mono_blocks(piece, self._rate_hz):
                if not np.isfinite(mono).all():
                    raise AudioError(
                        f"The audio has a sample that is not finite (NaN or infinity) after {heard_seconds:.1f} s.",
                        "Check where it comes from.",
                    )
                heard_seconds += len(mono) / self._rate_hz
                yield mono if resampler is None else resampler.resample_chunk(mono)
        if resampler is not None and heard_seconds:
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _mono_blocks(piece: Any, rate_hz: float) -> Iterator[Float[np.ndarray, " samples"]]:
    array = as_numpy(piece)
    if array.ndim == 2 and len(array) < array.shape[1]:  # which a whole recording would not be
        array = np.concatenate([array, np.zeros((array.shape[1], array.shape[1]), array.dtype)])
        yield from (mono[: np.shape(piece)[0]] for mono in _mono_blocks(array, rate_hz))
        return
    for block in open_array((array, rate_hz)).blocks:
        assert isinstance(block, np.ndarray)
        yield block.mean(axis=1, dtype=np.float32)
