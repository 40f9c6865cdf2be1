"""Audio while it arrives, cut into what the network reads: segments, or windows that overlap.

What has been cut is forgotten, so memory does not grow with the recording. How many segments there will be is known
at the end only; whether a segment is the last one is known once the audio goes on behind it, or ends.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from mt3core.audio.arrays import as_numpy, open_array
from mt3core.config.model import ModelConfig
from mt3core.decoding import Decoding
from mt3core.errors import AudioError
from mt3core.notes.choosing import Excerpt
from mt3core.notes.vocabulary import segment_start_seconds
from mt3core.recording_level import LevelMeter, RecordingLevel
from mt3core.segments import AudioSegment, num_frames
from mt3decode.grammar import last_step, last_steps
from mt3decode.sound import Levels, levels_of
from mt3decode.stretches import Stretches, network_input
from mt3decode.windows import window_hop, window_start_seconds

Samples = Float[np.ndarray, " samples"]
# How long `close` waits for a thread that is reading a file, which its owner may close next.
CLOSE_SECONDS = 1.0


class ArrivingSegments:
    """What the network reads (`network_input`) of those segments of a recording that an excerpt needs.

    Iterate once; another thread may do all else.

    `blocks` are mono, at the model's rate. Audio after the excerpt is read for its length. Segments within
    `margin_seconds` of the excerpt are needed, too. If the audio `is_live`, `close` does not wait for the next block.
    `announced_seconds` gives the length that the audio is said to have, if that is known. In turn, windows
    that overlap are played faster, so that they are some `semitones` higher, except one that the recording does not
    fill. `gives_levels` says whether `levels` are wanted. Raises what reading the blocks raises, and `AudioError` for
    an excerpt after the end.
    """

    def __init__(
        self,
        blocks: Iterable[Samples],
        config: ModelConfig,
        overlap: int = 1,
        excerpt: Excerpt | None = None,
        name: str = "",
        is_live: bool = False,
        takes_samples: bool = False,
        announced_seconds: Callable[[], float | None] = lambda: None,
        margin_seconds: float = 0.0,
        semitones: Sequence[int] = (0,),
        gives_levels: bool = False,
    ) -> None:
        self.last_steps: list[int] = []  # of the segments so far, for the grammar
        self.num_given = 0
        self.count: int | None = None  # of segments, from the last one on
        self.is_cut = False  # whether the recording goes on after the last segment
        self.error: Exception | None = None  # in reading it
        self._config, self._overlap, self._name = config, overlap, name
        self._excerpt, self._takes_samples = excerpt or Excerpt(), takes_samples
        self._needed_from = self._excerpt.start_seconds - margin_seconds
        end_seconds = self._excerpt.end_seconds
        self._needed_until = math.inf if end_seconds is None else end_seconds + margin_seconds
        self._announced_seconds = announced_seconds
        self._hop, self._semitones = window_hop(config, overlap), semitones
        self._segments: dict[int, tuple[AudioSegment, AudioSegment | None]] = {}
        self._gives_levels = gives_levels
        self._levels: dict[int, Levels] = {}
        self._blocks = iter(blocks)
        self._is_live = is_live
        self._reading = threading.Lock()  # held while a block is read
        self._is_read = self._is_closed = False
        self._num_samples = 0
        self._meter = LevelMeter(config.spectrogram.sample_rate_hz)

    @property
    def seconds(self) -> float:
        """Length of the audio that has been read."""
        return self._num_samples / self._config.spectrogram.sample_rate_hz

    @property
    def level(self) -> RecordingLevel:
        """Of what has been read of the excerpt."""
        return self._meter.level

    @property
    def expected_count(self) -> int:
        """How many segments there will be, by the length that the audio is said to have; at least those so far."""
        announced = self._announced_seconds()
        if self.count is not None or announced is None:
            return self.count or self.num_given
        spectrogram = self._config.spectrogram
        until = num_frames(
            round(min(announced, self._needed_until) * spectrogram.sample_rate_hz), spectrogram.hop_samples
        )
        first = int(max(self._needed_from, 0.0) * spectrogram.frames_per_second) // self._hop
        return max(-(-(until - self._config.network.input_frames) // self._hop) + 1 - first, self.num_given, 1)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def take(self, number: int) -> tuple[AudioSegment, AudioSegment | None]:
        """A segment that has been given, and the one after it, None for the last. Only once each.

        How many frames the one after it has may not be known yet.
        """
        return self._segments.pop(number)

    def levels(self, number: int) -> Levels | None:
        """How loud the recording is in a segment that has been given. Only once each."""
        return self._levels.pop(number, None)

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece, samples in self._cut():
            yield network_input(samples, replace(piece, first_frame=0), self._config, self._takes_samples)

    def stretches(self, decoding: Decoding) -> Stretches:
        """All segments at once, for continuous decoding, which needs the whole recording."""
        blocks = []
        while (block := self._next()) is not None:
            blocks.append(block)
        samples = np.concatenate(blocks)
        self._blocks, self._is_read, self._num_samples = iter([samples]), False, 0
        self._meter = LevelMeter(self._config.spectrogram.sample_rate_hz)
        pieces = [piece for piece, _ in self._cut()]
        return Stretches.of(samples, pieces, self._config, decoding, self._takes_samples)

    def finish(self) -> None:
        """Reads what has not been read, in whichever thread."""
        while self._next() is not None:
            pass

    def close(self) -> None:
        """Stops reading, and closes what is read."""
        self._is_closed = True
        if self._reading.acquire(timeout=0 if self._is_live else CLOSE_SECONDS):
            try:
                self._close_blocks()
            finally:
                self._reading.release()

    def _cut(self) -> Iterator[tuple[AudioSegment, Samples]]:
        """The segments with their samples."""
        length, hop_samples = self._config.network.input_frames, self._config.spectrogram.hop_samples
        waiting, start, index = np.zeros(0, np.float32), 0, 0  # samples, the place of the first, and of their segment
        while True:
            piece = self._segment(index, length)
            first = piece.first_frame
            full = (first + length) * hop_samples
            wanted = max(full, first * hop_samples + self._num_heard(piece))
            # A recording has a frame more than whole hops, so there is a segment after one that is full.
            while start + len(waiting) < wanted and (block := self._next()) is not None:
                waiting = np.concatenate([waiting, block]) if len(waiting) else block
                # What is before this segment is not needed any more.
                passed = min(max(first * hop_samples - start, 0), len(waiting))
                waiting, start = waiting[passed:], start + passed
            if self._is_closed:
                return
            goes_on = start + len(waiting) >= full
            following = self._segment(index + 1, length) if goes_on else None
            if following is None:
                self._excerpt.part_of(self.seconds, self._name)
            index += 1
            if following is None or following.start_seconds > self._needed_from:
                own = waiting[first * hop_samples - start :]
                if not goes_on:
                    frames = num_frames(start + len(waiting), hop_samples) - first
                    piece = replace(piece, num_frames=frames, semitones=0)
                if self._gives_levels:
                    self._levels[self.num_given] = levels_of(piece, own, self._hop, not goes_on, self._config)
                if goes_on:
                    piece, own = self._heard(piece, own)
                else:
                    own = own[: piece.num_frames * hop_samples]
                needed = following if following is not None and following.start_seconds < self._needed_until else None
                self._give(piece, following, needed)
                yield piece, own
                if needed is None:
                    break
            passed = min(index * self._hop * hop_samples - start, len(waiting))
            waiting, start = waiting[passed:], start + passed
        del waiting
        self.finish()

    def _give(self, piece: AudioSegment, following: AudioSegment | None, needed: AudioSegment | None) -> None:
        both = [piece] if following is None else [piece, following]
        # A window is rewritten before its end matters.
        self.last_steps.append(last_steps(both, self._config)[0] if self._overlap == 1 else last_step(self._config))
        self._segments[self.num_given] = piece, needed
        self.num_given += 1
        if needed is None:
            self.is_cut = following is not None
            self.count = self.num_given

    def _num_heard(self, piece: AudioSegment) -> int:
        """Samples of the recording in a full segment."""
        return round(piece.num_frames * self._config.spectrogram.hop_samples * piece.pace)

    def _heard(self, piece: AudioSegment, samples: Samples) -> tuple[AudioSegment, Samples]:
        """A full segment, which starts with these samples, and its own as the network hears them."""
        num_heard, hop_samples = self._num_heard(piece), self._config.spectrogram.hop_samples
        own = samples[:num_heard]
        if not piece.semitones:
            return piece, own
        is_full = len(own) == num_heard  # the recording may end within what is played faster
        own = soxr.resample(own, piece.pace, 1.0, quality="HQ")[: piece.num_frames * hop_samples]
        return (piece if is_full else replace(piece, num_frames=num_frames(len(own) - 1, hop_samples))), own

    def _segment(self, index: int, frames: int) -> AudioSegment:
        config, first = self._config, index * self._hop
        if self._overlap > 1:
            start_seconds, semitones = window_start_seconds(index, config, self._overlap), self._semitones
            return AudioSegment(index, first, frames, start_seconds, semitones[index % len(semitones)])
        start_seconds = segment_start_seconds(
            first, config.spectrogram.frames_per_second, config.vocabulary.steps_per_second
        )
        return AudioSegment(index, first, frames, start_seconds)

    def _next(self) -> Samples | None:
        """The next block; None after the last."""
        with self._reading:
            if self.error is not None:  # in another thread
                raise self.error
            try:
                block = None if self._is_read or self._is_closed else next(self._blocks, None)
            except Exception as error:
                self.error = error
                raise
            if self._is_closed:  # perhaps meanwhile
                self._close_blocks()
                return None
            if block is None:
                self._is_read = True
                return None
            self._measure(block)
            self._num_samples += len(block)
            return block

    def _measure(self, block: Samples) -> None:
        rate_hz, end_seconds = self._config.spectrogram.sample_rate_hz, self._excerpt.end_seconds
        first = int(self._excerpt.start_seconds * rate_hz)
        last = self._num_samples + len(block)
        if end_seconds is not None:
            last = max(first + 1, round(end_seconds * rate_hz))
        self._meter.add(block[max(first - self._num_samples, 0) : max(last - self._num_samples, 0)])

    def _close_blocks(self) -> None:
        close: Callable[[], Any] | None = getattr(self._blocks, "close", None)
        if close is not None:
            close()
        self._blocks = iter(())


def mono_blocks(pieces: Iterable[np.ndarray], rate_hz: float, wanted_hz: int) -> Iterator[Samples]:
    """Arrays that follow one another at `rate_hz`, (samples,) or (samples, channels), as mono at another rate."""
    resampler: Any = None
    if rate_hz != wanted_hz:
        resampler = soxr.ResampleStream(rate_hz, wanted_hz, 1, dtype="float32", quality="HQ")
    heard_seconds = 0.0
    for piece in pieces:
        if np.size(piece) == 0:
            continue
        for mono in _averaged(piece, rate_hz):
            if not np.isfinite(mono).all():
                raise AudioError(
                    f"The audio has a sample that is not finite (NaN or infinity) after {heard_seconds:.1f} s.",
                    "Check where it comes from.",
                )
            heard_seconds += len(mono) / rate_hz
            yield mono if resampler is None else resampler.resample_chunk(mono)
    if not heard_seconds:
        raise AudioError("The audio has no samples.", "Pass at least one array that is not empty.")
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _averaged(piece: Any, rate_hz: float) -> Iterator[Samples]:
    array = as_numpy(piece)
    if array.ndim == 2 and len(array) < array.shape[1]:  # which a whole recording would not be
        array = np.concatenate([array, np.zeros((array.shape[1], array.shape[1]), array.dtype)])
        yield from (mono[: np.shape(piece)[0]] for mono in _averaged(array, rate_hz))
        return
    for block in open_array((array, rate_hz)).blocks:
        assert isinstance(block, np.ndarray)
        yield block.mean(axis=1, dtype=np.float32)
