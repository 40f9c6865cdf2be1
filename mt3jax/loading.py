"""From weights to a Flax network."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

from mt3core.config.model import ModelConfig
from mt3core.errors import UsageError
from mt3core.model.parameters import check_weights, parameters
from mt3core.model.search import load_pretrained
from mt3jax.model import Transformer

# What names a device: text in capitals or not, None for "auto", or JAX's own object.
Device = str | jax.Device | None


def load_model(model: str | os.PathLike[str] | None = None, device: Device = "auto") -> Transformer:
    """The network of a model (see `load_pretrained`), its weights on `device`. Raises `ModelError`."""
    config, arrays = load_pretrained(model)
    return build_model(config, arrays, device)


def build_model(config: ModelConfig, arrays: Mapping[str, np.ndarray], device: Device = "auto") -> Transformer:
    """A network holding `arrays` (PyTorch names and shapes); with every array of the network and no others."""
    return network(config, jax.device_put(given_params(config, arrays), choose_device(device)))


def given_params(config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> dict:
    """Weights by PyTorch name as Flax's nested dictionary of host arrays, float32. Raises `ModelError`."""
    check_weights(config.network, arrays, "the given weights")
    return nest({p.flax_name: p.flip(np.asarray(arrays[p.torch_name], np.float32)) for p in parameters(config.network)})


def network(config: ModelConfig, params: dict) -> Transformer:
    """The network that holds these parameters, Flax's nested dictionary; also inside compiled functions."""
    graph, abstract = _abstract_network(config)
    state = jax.tree.map(lambda leaf: leaf, abstract)  # a copy, as it is about to be changed
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


@functools.cache
def _abstract_network(config: ModelConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0))))


def nest(flat: Mapping[str, Any]) -> dict:
    """`{"a.0.b": x}` as `{"a": {0: {"b": x}}}`: Flax's pure dictionary, with integers for list indices."""
    paths = {name: tuple(int(part) if part.isdigit() else part for part in name.split(".")) for name in flat}
    return traverse_util.unflatten_dict({paths[name]: value for name, value in flat.items()})


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`."""
    return {prefix + ".".join(map(str, path)): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def choose_device(device: Device = "auto") -> jax.Device:
    """JAX's device of the named kind, the first or as in `cuda:1` a later one; with `auto` or None the first of the
    best kind available. Raises `UsageError`."""
    if isinstance(device, jax.Device):
        return device
    name, _, number = ("auto" if device is None else str(device).strip().lower()).partition(":")
    kind = {"auto": None, "cuda": "gpu"}.get(name, name)
    try:
        return jax.devices(kind)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError):
        kinds = sorted({found.platform for found in jax.devices()} | {"cpu"})
        raise UsageError(f"JAX has no device {device!r}.", f"Available here: {', '.join(kinds)}.") from None
