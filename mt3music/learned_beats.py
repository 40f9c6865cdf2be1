"""Beats by the network of the package `beat_this`, where it and its weights are on this computer.

The package is asked for nothing that it would have to download: without the file of weights in the folder of PyTorch's
hub, where the package itself keeps it, it counts as not installed.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mt3core.extras import is_installed

_CHECKPOINT = "final0"  # the published weights, as `beat_this.inference` names them


def weights_path() -> Path:
    """Where `beat_this` keeps its weights (torch.hub's rules)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    home = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch")
    return home / "hub" / "checkpoints" / f"beat_this-{_CHECKPOINT}.ckpt"


def is_available() -> bool:
    """Whether the package and its weights are there."""
    return is_installed("beat_this") and weights_path().is_file()


def learned_beats(
    samples: Float[np.ndarray, " samples"], rate_hz: int
) -> tuple[Float[np.ndarray, " beats"], Float[np.ndarray, " downbeats"]]:
    """Times of the beats and of those that begin a bar, in seconds."""
    from beat_this.inference import Audio2Beats

    beats, downbeats = Audio2Beats(checkpoint_path=str(weights_path()), device="cpu", dbn=False)(samples, rate_hz)
    return np.asarray(beats, dtype=np.float64), np.asarray(downbeats, dtype=np.float64)
