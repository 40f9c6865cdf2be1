"""The fixed sinusoidal position table, the same in encoder and decoder.

Magenta's table spaces the frequencies over `10000^(-i / (half - 1))`, i = 0..half-1, sines in the first
half and cosines in the second. The common PyTorch ports divide by `half` and therefore compute a different network.
"""

from __future__ import annotations

import functools

import numpy as np


@functools.cache
def position_table(max_positions: int, emb_dim: int) -> np.ndarray:
    """The table (max_positions, emb_dim) float32, computed in float64; read-only."""
    half = emb_dim // 2
    frequencies = 10_000.0 ** (-np.arange(half) / (half - 1))
    angles = np.arange(max_positions)[:, None] * frequencies[None, :]
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    table.flags.writeable = False
    return table
