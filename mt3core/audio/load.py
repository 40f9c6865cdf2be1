"""Audio, from a file, bytes or an array, as the network reads it: mono, float32, 16 kHz.

Channels are averaged and then resampled by soxr in its HQ quality, block by block: besides the result, only one
block of the source is in memory. Both steps are those of `librosa.load`, which the original MT3 uses.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import soxr
from jaxtyping import Float

from mt3core.audio.arrays import MOST_AMPLITUDE, check_scale, open_array, unwrapped
from mt3core.audio.files import Damaged, ReadWithFFmpeg, open_audio
from mt3core.audio.recognise import audio_problem
from mt3core.audio.source import open_source
from mt3core.audio.stream import AudioInfo, AudioStream, RateChange, check_rate, no_samples_error
from mt3core.errors import AudioError

__all__ = ["AudioInfo", "AudioSource", "LoadedAudio", "audio_problem", "load_audio", "probe_audio", "read_audio"]

AudioSource = str | os.PathLike[str] | bytes | IO[bytes] | tuple[Any, ...] | Mapping[str, Any]

# Memory allocated up front because a header asks for it; more is added once the samples have been read.
_TRUSTED_SAMPLES = 16_000 * 3600 * 4
_FULL_SCALE = 32767 / 32768  # the largest sample of 16 bits
# Codecs give a frame or two more than their containers say, and to grow for them would copy everything.
_SLACK_SECONDS = 2.0
# The energy of the channels' mean by the channels' mean energy is 1 / channels if they have nothing to do with one
# another, and more if they are alike. Below this share of 1 / channels (-14 dB) they cancel.
_CANCELLED_SHARE = 0.04


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
    source = unwrapped(source)
    if isinstance(source, tuple) or not _is_file(source):
        return _mixed(lambda: nullcontext(open_array(source)), sample_rate_hz)
    with open_source(source) as opened:
        try:
            return _mixed(lambda: open_audio(opened, track, damaged), sample_rate_hz)
        except ReadWithFFmpeg:
            return _mixed(lambda: open_audio(opened, track, damaged, with_soundfile=False), sample_rate_hz)


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


def _mixed(open_stream: Callable[[], AbstractContextManager[AudioStream]], sample_rate_hz: int) -> LoadedAudio:
    """Reads a stream; a second time, mixed in another way, if the mean of its channels turns out to be silence."""
    with open_stream() as stream:
        levels, full_scale = _Levels(), _FullScale(stream.name)
        samples = _collect(stream, sample_rate_hz, lambda block: _mean(block, levels), full_scale)
    if not levels.cancel:
        return LoadedAudio(samples, tuple(stream.remarks), full_scale.share)
    del samples
    with open_stream() as stream:
        loudest = int(np.argmax(levels.channels))
        samples = _collect(stream, sample_rate_hz, lambda block: _without_cancelling(block, loudest), full_scale)
    used = "their difference was used" if len(levels.channels) == 2 else f"channel {loudest + 1} alone was used"
    remark = f"Its channels are in antiphase, so that their mean is all but silent; {used}."
    return LoadedAudio(samples, (*stream.remarks, remark), full_scale.share)


def _collect(
    stream: AudioStream, sample_rate_hz: int, mix: Callable[[np.ndarray], np.ndarray], full_scale: _FullScale
) -> np.ndarray:
    """Mixes and resamples a stream into one array, allocated at about the right size."""
    rate_hz = stream.info.sample_rate_hz
    resampler = _resampler(stream.name, rate_hz, sample_rate_hz)
    result = _GrowingArray(math.ceil(((stream.info.duration_seconds or 600) + _SLACK_SECONDS) * sample_rate_hz))
    position, seconds_before, nothing = 0, 0.0, np.zeros(0, np.float32)
    for block in stream.blocks:
        if isinstance(block, RateChange):
            if resampler is not None and position:
                result.append(resampler.resample_chunk(nothing, last=True))
            seconds_before, position, rate_hz = seconds_before + position / rate_hz, 0, block.sample_rate_hz
            resampler = _resampler(stream.name, rate_hz, sample_rate_hz)
            continue
        mono = mix(block)
        _check_finite(stream.name, mono, seconds_before + position / rate_hz, rate_hz)
        full_scale.add(block)
        position += len(mono)
        result.append(mono if resampler is None else resampler.resample_chunk(mono))
    if resampler is not None and position:
        result.append(resampler.resample_chunk(nothing, last=True))
    samples = result.take()
    if not len(samples):
        raise no_samples_error(stream.name)
    return samples


def _resampler(name: str, rate_hz: float, sample_rate_hz: int) -> Any:
    check_rate(name, rate_hz)
    if rate_hz == sample_rate_hz:
        return None
    return soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")


class _FullScale:
    """Counts the samples at full scale, over a whole recording and all channels. Refuses what is far beyond it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = self.total = 0

    def add(self, block: np.ndarray) -> None:
        self.total += block.size
        peak = max(float(block.max(initial=0.0)), -float(block.min(initial=0.0)))
        if peak > MOST_AMPLITUDE:
            check_scale(self.name, block, " and save the file again")
        if peak >= _FULL_SCALE:
            self.count += int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))

    @property
    def share(self) -> float:
        return self.count / max(1, self.total)


class _Levels:
    """The energy of the channels and of their mean, over a whole recording."""

    def __init__(self) -> None:
        self.mean = self.total = 0.0
        self.channels = np.zeros(0)  # one by one, only if there are more than two

    def add(self, block: np.ndarray, mono: np.ndarray) -> None:
        channels = block.shape[1]
        if not len(self.channels):
            self.channels = np.zeros(channels)
        if len(self.channels) != channels:
            return
        with np.errstate(all="ignore"):
            self.mean += float(np.dot(mono, mono))
            if channels == 2 and block.flags.c_contiguous:
                flat = block.reshape(-1)
                self.total += float(np.dot(flat, flat))
            else:
                energies = np.einsum("fc,fc->c", block, block)
                self.channels += energies
                self.total += float(energies.sum())

    @property
    def cancel(self) -> bool:
        """Whether the channels cancel each other in their mean."""
        return bool(self.mean < _CANCELLED_SHARE * self.total / max(1, len(self.channels)) ** 2)


def _mean(block: Float[np.ndarray, "frames channels"], levels: _Levels) -> Float[np.ndarray, " frames"]:
    channels = block.shape[1]
    if channels == 1:
        return np.ascontiguousarray(block[:, 0])
    with np.errstate(invalid="ignore", over="ignore"):  # the caller reports infinities
        if channels == 2:  # the same bits as below, in a thirtieth of the time
            mono: np.ndarray = (block[:, 0] + block[:, 1]) * np.float32(0.5)
        else:
            mono = block.mean(axis=1, dtype=np.float32)
    levels.add(block, mono)
    return mono


def _without_cancelling(block: Float[np.ndarray, "frames channels"], loudest: int) -> Float[np.ndarray, " frames"]:
    if block.shape[1] == 2:
        return (block[:, 0] - block[:, 1]) * np.float32(0.5)
    return np.ascontiguousarray(block[:, min(loudest, block.shape[1] - 1)])


class _GrowingArray:
    """A growing float32 array; memory beyond the first guess is added in place."""

    def __init__(self, expected_samples: int) -> None:
        self._values = np.empty(min(expected_samples, _TRUSTED_SAMPLES), np.float32)
        self._used = 0

    def append(self, values: np.ndarray) -> None:
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
