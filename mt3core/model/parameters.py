"""Every weight array of the network: its path, kind and shape, and its name in each framework.

One table serves both networks and the converter. A path is Magenta's own name for an array,
`decoder.layers.3.self_attention.query`. The other names follow from it:

    PyTorch   decoder.layers.3.self_attention.query.weight    linear maps transposed: (out, in)
    Flax      decoder.layers.3.self_attention.query.kernel    (in, out); `scale` norms, `embedding` tables
    T5X       target.decoder.layers_3.self_attention.query.kernel
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mt3core.config.model import NetworkConfig
from mt3core.errors import ModelError, listed

Kind = Literal["linear", "norm", "embedding"]
_FLAX_LEAF = {"linear": "kernel", "norm": "scale", "embedding": "embedding"}


@dataclass(frozen=True)
class Parameter:
    """One weight array. `shape` is Flax's: (in, out) for linear maps."""

    path: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def torch_name(self) -> str:
        return f"{self.path}.weight"

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return self.shape[::-1] if self.kind == "linear" else self.shape

    @property
    def flax_name(self) -> str:
        return f"{self.path}.{_FLAX_LEAF[self.kind]}"

    @property
    def t5x_name(self) -> str:
        return "target." + re.sub(r"layers\.(\d+)", r"layers_\1", self.flax_name)

    def flip(self, array: np.ndarray) -> np.ndarray:
        """From Flax's layout to PyTorch's or back (the same operation); contiguous."""
        return np.ascontiguousarray(array.T if self.kind == "linear" else array)


def parameters(config: NetworkConfig) -> list[Parameter]:
    """All weight arrays of a network, encoder first, then decoder, each in order of computation."""
    joined = config.num_heads * config.head_dim
    table: list[Parameter] = []

    def add(path: str, kind: Kind, *shape: int) -> None:
        table.append(Parameter(path, kind, shape))

    def add_attention(path: str) -> None:
        for name in ("query", "key", "value"):
            add(f"{path}.{name}", "linear", config.emb_dim, joined)
        add(f"{path}.out", "linear", joined, config.emb_dim)

    def add_mlp(path: str) -> None:
        gates = len(config.mlp_activations)
        for name in ["wi"] if gates == 1 else [f"wi_{i}" for i in range(gates)]:
            add(f"{path}.{name}", "linear", config.emb_dim, config.mlp_dim)
        add(f"{path}.wo", "linear", config.mlp_dim, config.emb_dim)

    add("encoder.continuous_inputs_projection", "linear", config.input_bands, config.emb_dim)
    for layer in range(config.num_encoder_layers):
        add(f"encoder.layers.{layer}.pre_attention_layer_norm", "norm", config.emb_dim)
        add_attention(f"encoder.layers.{layer}.attention")
        add(f"encoder.layers.{layer}.pre_mlp_layer_norm", "norm", config.emb_dim)
        add_mlp(f"encoder.layers.{layer}.mlp")
    add("encoder.encoder_norm", "norm", config.emb_dim)

    add("decoder.token_embedder", "embedding", config.vocab_size, config.emb_dim)
    for layer in range(config.num_decoder_layers):
        add(f"decoder.layers.{layer}.pre_self_attention_layer_norm", "norm", config.emb_dim)
        add_attention(f"decoder.layers.{layer}.self_attention")
        add(f"decoder.layers.{layer}.pre_cross_attention_layer_norm", "norm", config.emb_dim)
        add_attention(f"decoder.layers.{layer}.encoder_decoder_attention")
        add(f"decoder.layers.{layer}.pre_mlp_layer_norm", "norm", config.emb_dim)
        add_mlp(f"decoder.layers.{layer}.mlp")
    add("decoder.decoder_norm", "norm", config.emb_dim)
    if not config.logits_via_embedding:
        add("decoder.logits_dense", "linear", config.emb_dim, config.vocab_size)
    return table


def torch_shapes(network: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight array by its PyTorch name."""
    return {parameter.torch_name: parameter.torch_shape for parameter in parameters(network)}


def check_weights(network: NetworkConfig, arrays: Mapping[str, Any], where: str) -> None:
    """Raises `ModelError` unless these are the network's arrays by PyTorch name, in PyTorch's shape."""
    check_arrays(torch_shapes(network), {name: array.shape for name, array in arrays.items()}, where)


def check_finite(arrays: Mapping[str, np.ndarray], where: str | os.PathLike[str]) -> None:
    """Raises `ModelError` naming the arrays that contain NaN, and those that contain infinity."""
    wrong = sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
    with_nan = [name for name in wrong if np.isnan(arrays[name]).any()]
    infinite = [name for name in wrong if name not in with_nan]
    kinds = {"NaN (not a number)": with_nan, "infinity": infinite}
    found = [
        f"{kind} in {len(names)} of {len(arrays)} arrays: {listed(names)}" for kind, names in kinds.items() if names
    ]
    if found:
        raise ModelError(
            f"{where} contains {'; '.join(found)}.",
            "Use an earlier checkpoint: training has diverged, or the file is damaged.",
        )


def check_arrays(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises `ModelError` listing every missing, surplus and misshapen array, if there are any."""
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    misshapen = sorted(
        f"{name} (is {tuple(found[name])}, should be {tuple(shape)})"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    )
    lines = [
        f"{len(names)} {label}: {listed(names)}."
        for label, names in (("missing", missing), ("surplus", surplus), ("of another shape", misshapen))
        if names
    ]
    if lines:
        raise ModelError(f"The arrays in {where} do not match the network. " + " ".join(lines))
