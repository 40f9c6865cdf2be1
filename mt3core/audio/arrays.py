"""Audio that is not a file: arrays of samples with their rate."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, AudioStream, check_rate, no_samples_error
from mt3core.errors import AudioError

_FULL_SCALE = {np.dtype(np.uint8): 1 << 7, np.dtype(np.int16): 1 << 15, np.dtype(np.int32): 1 << 31}


def open_array(source: tuple[Any, ...]) -> AudioStream:
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
        raise no_samples_error("The audio array")
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
    check_rate("The audio array", rate_hz)
    info = AudioInfo(len(samples) / rate_hz, rate_hz, samples.shape[1], str(samples.dtype))
    return AudioStream("The audio array", info, _blocks(samples))


def _blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
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
