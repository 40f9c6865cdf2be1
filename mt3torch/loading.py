"""From weights to a PyTorch network on a device."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch

from mt3core.config.model import ModelConfig
from mt3core.errors import UsageError
from mt3core.model.parameters import check_weights
from mt3core.model.search import load_pretrained
from mt3torch.model import Transformer

# What names a device: text in capitals or not, None for "auto", or PyTorch's own object.
Device = str | torch.device | None


def load_model(model: str | os.PathLike[str] | None = None, device: Device = "auto") -> Transformer:
    """The network of a model (see `load_pretrained`), on `device` and ready for inference. Raises `ModelError`."""
    config, arrays = load_pretrained(model)
    return build_model(config, arrays, device)


def build_model(config: ModelConfig, arrays: Mapping[str, np.ndarray], device: Device = "auto") -> Transformer:
    """A network holding `arrays` (PyTorch names and shapes); with every array of the network and no others."""
    check_weights(config.network, arrays, "the given weights")
    chosen = choose_device(device)
    # Built without memory and then given the arrays: this halves the time and avoids the double memory.
    with torch.device("meta"):
        model = Transformer(config)
    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.restore_positions()
    return model.to(chosen).eval().requires_grad_(False)


def choose_device(device: Device = "auto") -> torch.device:
    """The named device, or with `auto` or None the first available of CUDA, MPS and CPU. Raises `UsageError`."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    name = "auto" if device is None else str(device).strip().lower()
    if name == "auto":
        return torch.device(available[0])
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UsageError(f"Unknown device {device!r}.", f"Available here: {', '.join(available)}.") from None
    if chosen.type not in available:
        raise UsageError(f"PyTorch has no device {device!r}.", f"Available here: {', '.join(available)}.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"PyTorch has no device {device!r}.", f"Its CUDA devices are numbered 0 to {torch.cuda.device_count() - 1}."
        )
    return chosen
