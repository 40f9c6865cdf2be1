"""The network's inputs on its own device, from samples or from log-mels that were made before.

The log-mel is that of `mt3core/spectrogram.py`, for many segments at a time and with its constants already there. With
NumPy on one core it takes several milliseconds a segment, longer than everything else on a large GPU, and samples are a
quarter of its size. On a CPU it takes about half of NumPy's time here: PyTorch's transform is faster, and each
band is summed over its own few bins (`value_sums.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from mt3core.config.model import ModelConfig
from mt3core.spectrogram import hann_window, mel_matrix
from mt3torch.stepper import in_full_precision
from mt3torch.value_sums import Bags, are_bags_fast, sums_of

# The window is scaled by this, and the bands back: float32 loses the squares of magnitudes below 1e-19, which occur
# where a recording in floating point fades away.
_CPU_SCALE = 2.0**40


class LogMel:
    """Call it with segments: one-dimensional ones are samples of whole frames, two-dimensional ones log-mels."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        scale = _CPU_SCALE if device.type == "cpu" else 1.0
        self._window = torch.from_numpy(hann_window(config.spectrogram.fft_samples) * np.float32(scale)).to(device)
        matrix = mel_matrix(config.spectrogram) / np.float32(scale)
        self._bins: Bags | None = None  # of each band, where sums are faster than the product with all bins
        if are_bags_fast(device):
            bands, bins = np.nonzero(matrix.T)
            starts = np.searchsorted(bands, np.arange(matrix.shape[1]))
            self._bins = Bags(torch.from_numpy(bins.astype(np.int32)), torch.from_numpy(starts.astype(np.int32)))
            self._weights = torch.from_numpy(matrix[bins, bands])
        else:
            self._weights = torch.from_numpy(matrix).to(device)

    def __call__(self, segments: Sequence[np.ndarray]) -> Float[Tensor, "segments frames bands"]:
        is_samples = np.array([segment.ndim == 1 for segment in segments])
        if not is_samples.any():
            return self._put(np.stack(segments).astype(np.float32, copy=False))
        made = self.of_samples([segment for segment in segments if segment.ndim == 1])
        if is_samples.all():
            return made
        result = made.new_empty((len(segments), *made.shape[1:]))
        result[self._put(np.flatnonzero(is_samples))] = made
        given = np.stack([segment for segment in segments if segment.ndim == 2])
        result[self._put(np.flatnonzero(~is_samples))] = self._put(given.astype(np.float32, copy=False))
        return result

    def of_samples(self, segments: Sequence[Float[np.ndarray, " samples"]]) -> Float[Tensor, "segments frames bands"]:
        """Of segments of up to `segment_samples` samples each, whole frames; rows after them are 0.0, as in NumPy."""
        hop = self._config.spectrogram.hop_samples
        # In memory that stays in its place, so that the host need not wait for the copy.
        shape, is_pinned = (len(segments), self._config.segment_samples), self._device.type == "cuda"
        padded = torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=is_pinned)
        for row, segment in zip(padded.numpy(), segments, strict=True):
            row[: len(segment)], row[len(segment) :] = segment, 0.0
        num_frames = self._put(np.array([len(segment) // hop for segment in segments]))
        with in_full_precision(self._device):
            if self._device.type == "cpu":  # which is fastest with what fits into its caches
                rows = zip(padded.split(1), num_frames.split(1), strict=True)
                return torch.cat(list(itertools.starmap(self._log_mel, rows)))
            return self._log_mel(padded.to(self._device, non_blocking=is_pinned), num_frames)

    def _log_mel(self, samples: Tensor, num_frames: Tensor) -> Tensor:
        settings = self._config.spectrogram
        frames = F.pad(samples, (0, settings.fft_samples - settings.hop_samples))
        frames = frames.unfold(-1, settings.fft_samples, settings.hop_samples)
        mel = self._mel(_magnitude(torch.fft.rfft(frames * self._window)))
        silence = torch.full_like(mel, math.log(settings.zero_replacement))
        rows = torch.where(mel > 0, mel.log(), silence)
        is_valid = torch.arange(rows.shape[1], device=rows.device) < num_frames[:, None]
        return torch.where(is_valid[..., None], rows, torch.zeros_like(rows))

    def _mel(self, magnitude: Float[Tensor, "segments frames bins"]) -> Float[Tensor, "segments frames bands"]:
        if self._bins is None:
            return torch.matmul(magnitude, self._weights)
        by_bins = magnitude.flatten(0, 1).t().contiguous()
        return sums_of(by_bins, self._bins, self._weights).t().unflatten(0, magnitude.shape[:2])

    def _put(self, array: np.ndarray) -> Tensor:
        values = torch.from_numpy(array)
        if self._device.type != "cuda":
            return values.to(self._device)
        return values.pin_memory().to(self._device, non_blocking=True)


def _magnitude(spectrum: Complex[Tensor, "*frames bins"]) -> Float[Tensor, "*frames bins"]:
    """On a CPU `abs` takes three times as long, as it guards against numbers that squares do not hold."""
    if spectrum.device.type != "cpu":
        return spectrum.abs()
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).sqrt_()
