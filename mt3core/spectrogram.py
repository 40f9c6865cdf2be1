"""The log-mel spectrogram, one implementation for NumPy, jax.numpy and torch, on host or accelerator.

Conventions of the published MT3 (Magenta's `spectrograms.py` with TensorFlow's `tf.signal`): frame k has the
samples hop*k ... hop*k + fft - 1, so nothing precedes the start and zeros follow the end; periodic Hann window;
magnitude, not power; triangular mel bands; natural logarithm, where exact zeros - and only they - are replaced.

On TPUs and recent NVIDIA GPUs, JAX multiplies float32 matrices in a shorter format by default: call
these functions under `jax.default_matmul_precision("highest")` there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np
from jaxtyping import Float

from mt3core.config.model import ModelConfig, SpectrogramConfig
from mt3core.segments import AudioSegment, segment_samples

Array = Any  # a NumPy array, a jax.Array or a torch.Tensor; the result has the type of the input


def log_mel(samples: Array, config: SpectrogramConfig) -> Array:
    """Log-mel of whole frames of audio.

    Args:
        samples: floating point (..., frames * hop_samples), any number of leading dimensions.
        config: the model's spectrogram settings.

    Returns:
        float32 (..., frames, mel_bands), natural logarithm. Differentiable, silence included; jit-safe.
    """
    xp = array_api_compat.array_namespace(samples)
    frames = _frame(samples, config) * _constant(hann_window(config.fft_samples), samples)
    magnitude = xp.abs(xp.fft.rfft(frames))
    mel = xp.matmul(magnitude, _constant(mel_matrix(config), samples))
    # The inner `where` keeps the logarithm away from zero, whose gradient would be NaN even where it is not selected.
    positive = mel > 0
    floor = math.log(config.zero_replacement)
    return xp.where(positive, xp.log(xp.where(positive, mel, xp.ones_like(mel))), xp.full_like(mel, floor))


def segment_log_mel(samples: Array, num_valid_frames: Array | int, config: SpectrogramConfig) -> Array:
    """The network's input: log-mel with 0.0 - not the logarithm's floor - in all rows after the valid frames.

    Args:
        samples: (..., frames * hop_samples), zeros after the valid frames.
        num_valid_frames: an int, or integers of shape (...).
        config: the model's spectrogram settings.

    Returns:
        float32 (..., frames, mel_bands).
    """
    xp = array_api_compat.array_namespace(samples)
    rows = log_mel(samples, config)
    index = _constant(np.arange(rows.shape[-2]), samples)
    if not isinstance(num_valid_frames, int):
        num_valid_frames = xp.asarray(num_valid_frames)[..., None]
    return xp.where((index < num_valid_frames)[..., None], rows, xp.zeros_like(rows))


def log_mel_segments(
    samples: Float[np.ndarray, " samples"], segments: Sequence[AudioSegment], config: ModelConfig
) -> Float[np.ndarray, "segments frames bands"]:
    """The network's inputs for some segments of a recording, in NumPy, one at a time to keep temporaries small.

    float32 (segments, input_frames, input_bands). For long recordings pass a batch of segments at a time.
    """
    result = np.empty((len(segments), config.network.input_frames, config.network.input_bands), np.float32)
    for row, segment in zip(result, segments, strict=True):
        own = segment_samples(samples, segment, config)
        row[:] = segment_log_mel(own, segment.num_frames, config.spectrogram)
    return result


def _frame(samples: Array, config: SpectrogramConfig) -> Array:
    """Overlapping frames, (..., frames, fft_samples), by joining shifted views of hop-sized blocks.

    The array API has no strided views; joining costs one copy, which applying the window would make anyway.
    """
    xp = array_api_compat.array_namespace(samples)
    hop, fft = config.hop_samples, config.fft_samples
    if samples.shape[-1] == 0 or samples.shape[-1] % hop:
        raise ValueError(f"{samples.shape[-1]} samples are not a whole number of frames of {hop} samples.")
    num_frames = samples.shape[-1] // hop
    num_views = math.ceil(fft / hop)
    blocks = xp.reshape(xp.astype(samples, xp.float32), (*samples.shape[:-1], num_frames, hop))
    silence = xp.zeros_like(blocks[..., :1, :])
    blocks = xp.concat([blocks, *[silence] * (num_views - 1)], axis=-2)
    views = [blocks[..., shift : shift + num_frames, :] for shift in range(num_views)]
    return xp.concat(views, axis=-1)[..., :fft]


def _constant(array: np.ndarray, like: Array) -> Array:
    """A copy of a NumPy array in the library and on the device of `like`."""
    xp = array_api_compat.array_namespace(like)
    if array_api_compat.is_jax_array(like):
        return xp.asarray(array)  # JAX moves it to where it is used, and a traced array has no device
    return xp.asarray(array, device=array_api_compat.device(like), copy=not array_api_compat.is_numpy_array(like))


@functools.lru_cache(maxsize=8)
def hann_window(size: int) -> Float[np.ndarray, " size"]:
    """The periodic Hann window, float32: 0.5 - 0.5 cos(2 pi n / size). Read-only."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    window.flags.writeable = False
    return window


@functools.lru_cache(maxsize=8)
def mel_matrix(config: SpectrogramConfig) -> Float[np.ndarray, "bins bands"]:
    """Weights from FFT bins to mel bands, float32 (fft_samples // 2 + 1, mel_bands). Read-only.

    Triangles with peak 1 and no normalisation by area, evenly spaced and straight-sided on the HTK scale
    1127 ln(1 + f / 700); the bin at 0 Hz has no weight. Narrow low bands may contain no bin at all and stay empty.
    """
    bins_mel = _hz_to_mel(np.linspace(0.0, config.sample_rate_hz / 2, config.fft_samples // 2 + 1))[:, None]
    edges = np.linspace(_hz_to_mel(config.low_hz), _hz_to_mel(config.high_hz), config.mel_bands + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins_mel - low) / (centre - low), (high - bins_mel) / (high - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    matrix = weights.astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def _hz_to_mel(frequency_hz: Any) -> Any:
    return 1127.0 * np.log1p(np.asarray(frequency_hz, np.float64) / 700.0)
