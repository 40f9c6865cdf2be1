"""Audio, from a file or an array, as the network reads it: mono, float32, 16 kHz.

Channels are averaged and then resampled by soxr in its HQ quality, block by block: besides the result, only one
block of the source is in memory. Both steps are those of `librosa.load`, which the original MT3 uses.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from mt3core.audio.files import open_audio
from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, AudioStream
from mt3core.errors import AudioError

__all__ = ["AudioInfo", "AudioSource", "load_audio", "probe_audio"]

AudioSource = str | os.PathLike[str] | tuple[Any, ...]

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 1_000_000
_FULL_SCALE = {np.dtype(np.uint8): 1 << 7, np.dtype(np.int16): 1 << 15, np.dtype(np.int32): 1 << 31}
# Memory allocated up front because a header asks for it; more is added once the samples have been read.
_TRUSTED_SAMPLES = 16_000 * 3600 * 4


def load_audio(source: AudioSource, sample_rate_hz: int = 16_000) -> Float[np.ndarray, " samples"]:
    """Audio as mono float32 at `sample_rate_hz`.

    Args:
        source: a file that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...) or, if ffmpeg is installed,
            that ffmpeg reads; or `(samples, rate_hz)` with samples of shape (samples,) or (samples, channels). Floating
            point samples are used unchanged, even beyond +-1; uint8, int16 and int32 are scaled to +-1.
        sample_rate_hz: the rate of the result; audio that already has it is not resampled.

    Raises `AudioError` for anything but complete, finite audio of at least one sample.
    """
    if not isinstance(source, str | os.PathLike):
        return _collect(_open_array(source), sample_rate_hz)
    with open_audio(Path(source)) as stream:
        return _collect(stream, sample_rate_hz)


def probe_audio(path: str | os.PathLike[str]) -> AudioInfo:
    """What a file says about itself, without reading its samples: a check before anything slow starts.

    Raises `AudioError` like `load_audio`, as far as problems show without decoding.
    """
    with open_audio(Path(path)) as stream:
        if stream.info.duration_seconds == 0:
            raise _no_samples(stream.name)
        _check_rate(stream.name, stream.info.sample_rate_hz)
        return stream.info


def _collect(stream: AudioStream, sample_rate_hz: int) -> np.ndarray:
    """Mixes and resamples a stream into one array, allocated at about the right size."""
    source_rate_hz = stream.info.sample_rate_hz
    _check_rate(stream.name, source_rate_hz)
    resampler = None
    if source_rate_hz != sample_rate_hz:
        resampler = soxr.ResampleStream(source_rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ")
    result = _GrowingArray(math.ceil((stream.info.duration_seconds or 600) * sample_rate_hz) + 64)
    position = 0
    for block in stream.blocks:
        mono = _mix(block)
        _check_finite(mono, position, stream)
        position += len(mono)
        result.append(mono if resampler is None else resampler.resample_chunk(mono))
    if resampler is not None and position:
        result.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = result.take()
    if not len(samples):
        raise _no_samples(stream.name)
    return samples


def _mix(block: Float[np.ndarray, "frames channels"]) -> Float[np.ndarray, " frames"]:
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])
    with np.errstate(invalid="ignore", over="ignore"):  # the caller reports infinities
        return block.mean(axis=1, dtype=np.float32)


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


def _open_array(source: tuple[Any, ...]) -> AudioStream:
    is_pair = isinstance(source, tuple) and len(source) == 2 and np.ndim(source[1]) == 0
    if not is_pair or not isinstance(source[1], numbers.Real):
        raise AudioError(
            "Audio that is not a file must be a pair (samples, sample_rate_hz).", "Pass an array and its rate in Hz."
        )
    samples, rate_hz = np.asarray(source[0]), float(source[1])
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise AudioError(
            f"The audio array has {samples.ndim} dimensions.", "Use shape (samples,) or (samples, channels)."
        )
    if samples.size == 0:
        raise _no_samples("The audio array")
    if samples.shape[1] > samples.shape[0]:
        raise AudioError(
            f"The audio array has shape {samples.shape}: {samples.shape[1]} channels of {samples.shape[0]} samples.",
            "Use (samples, channels): transpose it with samples.T.",
        )
    if not (np.issubdtype(samples.dtype, np.floating) or samples.dtype in _FULL_SCALE):
        raise AudioError(
            f"The audio array contains {samples.dtype} values.",
            "Convert them to float32 between -1 and 1, or to int16.",
        )
    _check_rate("The audio array", rate_hz)
    info = AudioInfo(len(samples) / rate_hz, rate_hz, samples.shape[1], str(samples.dtype))
    return AudioStream("The audio array", info, _array_blocks(samples))


def _array_blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    full_scale = _FULL_SCALE.get(samples.dtype)
    step = max(1024, BLOCK_VALUES // samples.shape[1])
    for first in range(0, len(samples), step):
        block = samples[first : first + step]
        if full_scale is None:
            with np.errstate(over="ignore"):
                yield block.astype(np.float32)
            continue
        middle = full_scale if samples.dtype == np.uint8 else 0
        yield ((block.astype(np.float64) - middle) / full_scale).astype(np.float32)


def _check_rate(name: str, rate_hz: float) -> None:
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:  # NaN fails too
        raise AudioError(
            f"{name} has a sample rate of {rate_hz:g} Hz.",
            f"Use a rate from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz, or resample first.",
        )


def _check_finite(mono: np.ndarray, position: int, stream: AudioStream) -> None:
    finite = np.isfinite(mono)
    if not finite.all():
        seconds = (position + int(np.argmin(finite))) / stream.info.sample_rate_hz
        raise AudioError(
            f"{stream.name} has a sample that is not finite (NaN or infinity) at {seconds:.3f} s.",
            "Export the file again, or replace these samples with 0.",
        )


def _no_samples(name: str) -> AudioError:
    return AudioError(f"{name} contains no audio: 0 samples.", "Check the recording or the export that made it.")
