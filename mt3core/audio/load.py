"""Audio, from a file, bytes or an array, as the network reads it: mono, float32, 16 kHz.

Channels are averaged and then resampled by soxr in its HQ quality, block by block: besides the result, only some
seconds of the source are in memory. Both steps are those of `librosa.load`, which the original MT3 uses.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import soxr
from jaxtyping import Float

from mt3core.audio.arrays import MOST_AMPLITUDE, check_scale, open_array, unwrapped
from mt3core.audio.files import Block, Damaged, ReadWithFFmpeg, open_audio
from mt3core.audio.recognise import audio_problem
from mt3core.audio.source import open_source
from mt3core.audio.stream import AudioInfo, AudioStream, RateChange, check_rate, no_samples_error, seconds_text
from mt3core.errors import AudioError

__all__ = [
    "AudioInfo",
    "AudioReader",
    "AudioSource",
    "LoadedAudio",
    "audio_problem",
    "load_audio",
    "probe_audio",
    "read_audio",
]

AudioSource = str | os.PathLike[str] | bytes | IO[bytes] | tuple[Any, ...] | Mapping[str, Any]

# Memory allocated up front because a header asks for it; more is added once the samples have been read.
_TRUSTED_SAMPLES = 16_000 * 3600 * 4
_FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits
# Codecs give a frame or two more than their containers say, and to grow for them would copy everything.
_SLACK_SECONDS = 2.0
# How channels are mixed is decided for so much of a recording at a time, which is in memory meanwhile.
STRETCH_SECONDS = 10.0
# The energy of the channels' mean by the channels' mean energy is 1 / channels if they have nothing to do with one
# another, and more if they are alike. Below this share of 1 / channels (-14 dB) they cancel.
_CANCELLED_SHARE = 0.04
_SILENT_ENERGY = 1e-6  # of a sample, -60 dBFS: what is left of silence, such as an offset, may cancel as it likes
_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class LoadedAudio:
    """Mono float32 samples, and a sentence for everything that was odd about where they came from.

    `full_scale_share` of the source's samples, in all channels, are at full scale or beyond, where clipping puts them.
    """

    samples: Float[np.ndarray, " samples"]
    remarks: tuple[str, ...] = ()
    full_scale_share: float = 0.0


def load_audio(
    source: AudioSource, sample_rate_hz: int = 16_000, *, track: int | None = None, damaged: Damaged = "refuse"
) -> Float[np.ndarray, " samples"]:
    """Audio as mono float32 at `sample_rate_hz`; `read_audio` without its remarks."""
    return read_audio(source, sample_rate_hz, track=track, damaged=damaged).samples


def read_audio(
    source: AudioSource, sample_rate_hz: int = 16_000, *, track: int | None = None, damaged: Damaged = "refuse"
) -> LoadedAudio:
    """Audio as mono float32 at `sample_rate_hz`, with remarks on what was odd.

    Args:
        source: a file, its bytes or an open binary file, in any format that libsndfile or FFmpeg reads, which its
            content decides, not its name; or `(samples, rate_hz)` with samples of shape (samples,) or
            (samples, channels), from NumPy, PyTorch, JAX or a list; or a dictionary as in data sets of Hugging Face,
            `{"array": samples, "sampling_rate": rate_hz}`. Floating point samples are used unchanged, also somewhat
            beyond +-1; uint8, int16 and int32 are scaled to +-1.
        sample_rate_hz: the rate of the result; audio that already has it is not resampled.
        track: which audio track of several, from 1. By default the one marked as such, or the first.
        damaged: "refuse" raises when something cannot be decoded; "keep" puts silence of the same length in its place,
            reads a truncated file as far as it goes, and remarks on it.

    Raises `AudioError` for anything but complete, finite audio of at least one sample.
    """
    reader = AudioReader(source, sample_rate_hz, track=track, damaged=damaged)
    result = _GrowingArray()
    for block in reader:
        result.append(block, reader.announced_seconds, sample_rate_hz)
    return LoadedAudio(result.take(), reader.remarks, reader.full_scale_share)


def probe_audio(
    source: str | os.PathLike[str] | bytes | IO[bytes], track: int | None = None, damaged: Damaged = "refuse"
) -> AudioInfo:
    """What a file says about itself, without decoding it: a check before anything slow starts.

    Raises `AudioError` like `load_audio`, as far as problems show without decoding. A file object without seeking is
    used up by it.
    """
    with open_source(source) as opened, open_audio(opened, track, damaged) as stream:
        if stream.info.duration_seconds == 0:
            raise no_samples_error(stream.name)
        check_rate(stream.name, stream.info.sample_rate_hz)
        return stream.info


def _is_file(source: object) -> bool:
    return isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read")


class AudioReader:
    """Reads a recording while it is iterated over: mono float32 blocks at `sample_rate_hz`, only once, in any thread.

    The source is open only meanwhile. Arguments and errors are those of `read_audio`, which joins the blocks; an error
    may come after many of them. What libsndfile read before FFmpeg had to go on (`ReadWithFFmpeg`) is kept.
    """

    def __init__(
        self,
        source: AudioSource,
        sample_rate_hz: int = 16_000,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.announced_seconds: float | None = None  # of the whole, from the first block on, if the source says it
        self._source, self._track, self._damaged = source, track, damaged
        self._name = ""
        self._stream_remarks: list[str] = []
        self._full_scale = _FullScale()
        self._mixer = _Mixer()
        self._frames = 0

    @property
    def remarks(self) -> tuple[str, ...]:
        """On what was odd; complete after the last block."""
        return (*self._stream_remarks, *self._mixer.remarks())

    @property
    def full_scale_share(self) -> float:
        """As in `LoadedAudio`, of what has been read."""
        return self._full_scale.share

    def __iter__(self) -> Iterator[Float[np.ndarray, " samples"]]:
        rate_hz, resampler = 0.0, None
        seconds_before, position, given = 0.0, 0, 0
        for stretch in _stretches(self._blocks()):
            if isinstance(stretch, RateChange):
                if stretch.sample_rate_hz == rate_hz:
                    continue
                if resampler is not None and position:
                    yield resampler.resample_chunk(_NOTHING, last=True)
                seconds_before += position / rate_hz if position else 0.0
                rate_hz, position = stretch.sample_rate_hz, 0
                resampler = _resampler(self._name, rate_hz, self.sample_rate_hz)
                continue
            for block, mono in zip(stretch, self._mixer.mixed(stretch, rate_hz), strict=True):
                _check_finite(self._name, mono, seconds_before + position / rate_hz, rate_hz)
                self._full_scale.add(self._name, block)
                position += len(mono)
                out = mono if resampler is None else resampler.resample_chunk(mono)
                given += len(out)
                yield out
        if resampler is not None and position:
            out = resampler.resample_chunk(_NOTHING, last=True)
            given += len(out)
            yield out
        if not given:
            raise no_samples_error(self._name)

    def _blocks(self) -> Iterator[Block]:
        """The blocks of the source, in front of them its rate."""
        source = unwrapped(self._source)
        if isinstance(source, tuple) or not _is_file(source):
            yield from self._blocks_of(open_array(source))
            return
        with open_source(source) as opened:
            try:
                with open_audio(opened, self._track, self._damaged) as stream:
                    yield from self._blocks_of(stream)
                return
            except ReadWithFFmpeg:
                done = self._frames
            with open_audio(opened, self._track, self._damaged, with_soundfile=False) as stream:
                yield from _without_first(done, self._blocks_of(stream))

    def _blocks_of(self, stream: AudioStream) -> Iterator[Block]:
        self._name, self.announced_seconds = stream.name, stream.info.duration_seconds
        self._stream_remarks = stream.remarks
        yield RateChange(stream.info.sample_rate_hz)
        for block in stream.blocks:
            if not isinstance(block, RateChange):
                self._frames += len(block)
            yield block


def _stretches(blocks: Iterable[Block]) -> Iterator[list[np.ndarray] | RateChange]:
    """Blocks of the same rate and number of channels, at least `STRETCH_SECONDS` of them if there are so many; mono
    ones alone, as nothing is to be decided about them."""
    rate_hz = 0.0
    waiting: list[np.ndarray] = []
    for block in blocks:
        if waiting and (isinstance(block, RateChange) or block.shape[1] != waiting[0].shape[1]):
            yield waiting
            waiting = []
        if isinstance(block, RateChange):
            rate_hz = block.sample_rate_hz
            yield block
            continue
        waiting.append(block)
        if block.shape[1] == 1 or sum(map(len, waiting)) >= STRETCH_SECONDS * rate_hz:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _without_first(frames: int, blocks: Iterable[Block]) -> Iterator[Block]:
    """What comes after the first `frames`, with the rate that it has in front."""
    change: RateChange | None = None
    for block in blocks:
        if frames > 0 and isinstance(block, RateChange):
            change = block
            continue
        if frames > 0 and not isinstance(block, RateChange):
            block, frames = block[frames:], frames - len(block)
            if not len(block):
                continue
        if change is not None:
            yield change
            change = None
        yield block


def _resampler(name: str, rate_hz: float, sample_rate_hz: int) -> Any:
    check_rate(name, rate_hz)
    if rate_hz == sample_rate_hz:
        return None
    return soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")


class _FullScale:
    """Counts the samples at full scale, over a whole recording and all channels. Refuses what is far beyond it."""

    def __init__(self) -> None:
        self.count = self.total = 0

    def add(self, name: str, block: np.ndarray) -> None:
        self.total += block.size
        peak = max(float(block.max(initial=0.0)), -float(block.min(initial=0.0)))
        if peak > MOST_AMPLITUDE:
            check_scale(name, block, " and save the file again")
        if peak >= _FULL_SCALE:
            self.count += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))

    @property
    def share(self) -> float:
        return self.count / max(1, self.total)


class _Mixer:
    """Averages channels; where they cancel each other in their mean, it is their difference, or the loudest alone."""

    def __init__(self) -> None:
        self._sounding_seconds = self._cancelled_seconds = 0.0
        self._used = ""

    def mixed(self, stretch: list[np.ndarray], rate_hz: float) -> list[Float[np.ndarray, " frames"]]:
        """The blocks of a stretch as mono."""
        channels = stretch[0].shape[1]
        if channels == 1:
            return [np.ascontiguousarray(block[:, 0]) for block in stretch]
        monos = [_mean(block) for block in stretch]
        with np.errstate(all="ignore"):  # the caller reports infinities
            total = sum(_energy(block) for block in stretch)
            mean = sum(float(np.dot(mono, mono)) for mono in monos)
        frames = sum(map(len, monos))
        if not total > _SILENT_ENERGY * frames * channels:
            return monos
        self._sounding_seconds += frames / rate_hz
        if not mean < _CANCELLED_SHARE * total / channels**2:
            return monos
        self._cancelled_seconds += frames / rate_hz
        if channels == 2:
            self._used = "their difference was used"
            return [(block[:, 0] - block[:, 1]) * np.float32(0.5) for block in stretch]
        loudest = int(np.argmax(sum(np.einsum("fc,fc->c", block, block) for block in stretch)))
        self._used = f"channel {loudest + 1} alone was used"
        return [np.ascontiguousarray(block[:, loudest]) for block in stretch]

    def remarks(self) -> tuple[str, ...]:
        if not self._cancelled_seconds:
            return ()
        is_all = self._cancelled_seconds >= self._sounding_seconds
        where = "" if is_all else f" for {seconds_text(self._cancelled_seconds)} of its sound"
        return (f"Its channels are in antiphase{where}, so that their mean is all but silent; {self._used}.",)


def _mean(block: Float[np.ndarray, "frames channels"]) -> Float[np.ndarray, " frames"]:
    with np.errstate(invalid="ignore", over="ignore"):  # the caller reports infinities
        if block.shape[1] == 2:  # the same bits as below, in a thirtieth of the time
            mono: np.ndarray = (block[:, 0] + block[:, 1]) * np.float32(0.5)
        else:
            mono = block.mean(axis=1, dtype=np.float32)
    return mono


def _energy(block: Float[np.ndarray, "frames channels"]) -> float:
    flat = block.reshape(-1) if block.flags.c_contiguous else np.ravel(block)
    return float(np.dot(flat, flat))


class _GrowingArray:
    """A growing float32 array; memory beyond the first guess is added in place."""

    def __init__(self) -> None:
        self._values, self._used = np.empty(0, np.float32), 0

    def append(self, values: np.ndarray, expected_seconds: float | None, rate_hz: int) -> None:
        if not len(self._values):
            expected = math.ceil(((expected_seconds or 600) + _SLACK_SECONDS) * rate_hz)
            self._values = np.empty(min(expected, _TRUSTED_SAMPLES), np.float32)
        end = self._used + len(values)
        if end > len(self._values):
            self._values.resize(max(end, len(self._values) * 5 // 4), refcheck=False)
        self._values[self._used : end] = values
        self._used = end

    def take(self) -> np.ndarray:
        self._values.resize(self._used, refcheck=False)
        return self._values


def _check_finite(name: str, mono: np.ndarray, start_seconds: float, rate_hz: float) -> None:
    finite = np.isfinite(mono)
    if not finite.all():
        seconds = start_seconds + int(np.argmin(finite)) / rate_hz
        raise AudioError(
            f"{name} has a sample that is not finite (NaN or infinity) at {seconds:.3f} s.",
            "Export the file again, or replace these samples with 0.",
        )
