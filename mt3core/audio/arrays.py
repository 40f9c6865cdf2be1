"""Audio that is not a file: arrays of samples with their rate, from NumPy, PyTorch, JAX and others."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, AudioStream, check_rate, no_samples_error
from mt3core.errors import AudioError

NAME = "The audio array"
# Floating point samples of recordings stay near 1.0, also if several were added up. Integers of 16 bits that stay below
# this value would be a recording below -60 dBFS, which is silence.
MOST_AMPLITUDE = 32.0
_FULL_SCALE = {np.dtype(np.uint8): 1 << 7, np.dtype(np.int16): 1 << 15, np.dtype(np.int32): 1 << 31}
_SCALES = (1 << 15, 1 << 23, 1 << 31)  # of integers with 16, 24 and 32 bits
# Types that NumPy itself does not know; JAX brings them.
_SMALL_FLOATS = ("bfloat16", "float8")


def unwrapped(source: Any) -> Any:
    """The pair or the file that a dictionary of Hugging Face stands for; anything else as it is.

    The forms are `{"array": samples, "sampling_rate": rate_hz}`, with `raw` as another name of `array`, and
    `{"bytes": content, "path": name}` of recordings that are not decoded yet. Raises `AudioError` for other keys.
    """
    if not isinstance(source, Mapping):
        return source
    samples = source.get("array") if source.get("array") is not None else source.get("raw")
    if samples is not None and source.get("sampling_rate") is not None:
        samples = as_numpy(samples)
        # There, channels come first if there are several.
        return samples.T if samples.ndim == 2 and samples.shape[0] < samples.shape[1] else samples, source[
            "sampling_rate"
        ]
    for name in ("bytes", "path"):
        if samples is None and source.get(name) is not None:
            return source[name]
    raise AudioError(
        f"The dictionary of audio has the entries {', '.join(map(str, source)) or '(none)'}.",
        'Use {"array": samples, "sampling_rate": rate_hz}.',
    )


def open_array(source: Any) -> AudioStream:
    """A pair (samples, rate in Hz) as blocks of float32. Raises `AudioError` for what cannot be audio."""
    rate_hz = _number(source[1]) if isinstance(source, tuple) and len(source) == 2 else None
    if rate_hz is None:
        raise AudioError(
            "Audio that is not a file must be a pair (samples, sample_rate_hz).", "Pass an array and its rate in Hz."
        )
    samples = as_numpy(source[0])
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise AudioError(f"{NAME} has {samples.ndim} dimensions.", "Use shape (samples,) or (samples, channels).")
    if samples.size == 0:
        raise no_samples_error(NAME)
    if samples.shape[1] > samples.shape[0]:
        raise AudioError(
            f"{NAME} has shape {samples.shape}: {samples.shape[1]} channels of {samples.shape[0]} samples.",
            "Use (samples, channels): transpose it with samples.T.",
        )
    if not (np.issubdtype(samples.dtype, np.floating) or _native(samples.dtype) in _FULL_SCALE):
        raise AudioError(
            f"{NAME} contains {samples.dtype} values.", "Convert them to float32 between -1 and 1, or to int16."
        )
    check_rate(NAME, rate_hz)
    if np.issubdtype(samples.dtype, np.floating):
        check_scale(NAME, samples)
    info = AudioInfo(len(samples) / rate_hz, rate_hz, samples.shape[1], str(samples.dtype))
    return AudioStream(NAME, info, _blocks(samples))


def as_numpy(samples: Any) -> np.ndarray:
    """An array of any library as NumPy's. Tensors may be on another device, need gradients, or be bfloat16."""
    try:
        if hasattr(samples, "detach"):  # PyTorch, which is not imported for it
            samples = samples.detach().cpu()
            if samples.is_floating_point() and samples.element_size() < 4:
                samples = samples.float()
            return samples.resolve_neg().numpy()
        array = np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths, or a sparse tensor
        raise AudioError(
            f"{NAME} cannot be read as an array of numbers: {str(error).splitlines()[0]}", "Pass a NumPy array."
        ) from error
    return array.astype(np.float32) if array.dtype.name.startswith(_SMALL_FLOATS) else array


def check_scale(name: str, samples: np.ndarray, otherwise: str = ", or pass them as integers") -> None:
    """Raises `AudioError` if floating point samples are far beyond full scale, which is 1.0."""
    with np.errstate(invalid="ignore"):
        peak = max(float(samples.max()), -float(samples.min()))
    if math.isfinite(peak) and peak > MOST_AMPLITUDE:
        scale = next((scale for scale in _SCALES if peak <= scale), None)
        cause = f"; they look like integers that were not divided by {scale:,}" if scale else ""
        raise AudioError(
            f"{name} has samples up to {peak:,.0f}, far beyond 1.0, which is full scale{cause}.",
            f"Divide them by {scale:,}{otherwise}." if scale else "Scale them to between -1 and 1.",
        )


def _number(value: Any) -> float | None:
    """A rate as a number; also NumPy's, JAX's and PyTorch's scalars."""
    if isinstance(value, numbers.Real):
        return float(value)
    if hasattr(value, "item") and np.ndim(value) == 0:
        return _number(value.item())
    return None


def _native(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("=")


def _blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    full_scale = _FULL_SCALE.get(_native(samples.dtype))
    step = max(1024, BLOCK_VALUES // samples.shape[1])
    for first in range(0, len(samples), step):
        block = samples[first : first + step]
        if full_scale is None:
            with np.errstate(over="ignore"):
                yield block.astype(np.float32)
            continue
        middle = full_scale if samples.dtype == np.uint8 else 0
        yield ((block.astype(np.float64) - middle) / full_scale).astype(np.float32)
