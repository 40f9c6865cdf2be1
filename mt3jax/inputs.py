"""What the encoder reads, on the device: log-mels that were made on the host, or made here from samples.

On one core of a processor a log-mel takes several milliseconds a segment, longer than everything else on a large GPU,
and samples are a quarter of its size. It is the one of `mt3core/spectrogram.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mt3core.config.model import ModelConfig
from mt3core.spectrogram import segment_log_mel
from mt3decode.stretches import Start
from mt3jax.compilation import program


def network_inputs(
    starts: Sequence[Start], num_rows: int, config: ModelConfig, device: jax.Device
) -> Float[Array, "rows frames bands"]:
    """Of up to `num_rows` segments, all samples or all log-mels (`network_input`); rows without a segment are zeros."""
    network, hop = config.network, config.spectrogram.hop_samples
    if starts and starts[0].log_mel.ndim == 1:
        samples, num_frames = np.zeros((num_rows, config.segment_samples), np.float32), np.zeros(num_rows, np.int32)
        for row, start in enumerate(starts):
            samples[row, : len(start.log_mel)], num_frames[row] = start.log_mel, len(start.log_mel) // hop
        return log_mels(config, *jax.device_put((samples, num_frames), device))
    rows = np.zeros((num_rows, network.input_frames, network.input_bands), np.float32)
    for row, start in enumerate(starts):
        rows[row] = start.log_mel
    return jax.device_put(rows, device)


@program(static=("config",))
def log_mels(
    config: ModelConfig, samples: Float[Array, "rows samples"], num_frames: Int[Array, " rows"]
) -> Float[Array, "rows frames bands"]:
    """Log-mels of segments of `config.segment_samples` samples, of which so many frames are theirs."""
    result: Array = segment_log_mel(samples, num_frames, config.spectrogram)
    return result
