"""The two networks taken apart: the output of every layer, and how much two such arrays differ.

The twins have the same attribute names, so one walk serves both; `Framework` has the few differences.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mt3core.config.model import ModelConfig
from mt3core.model.positions import position_table


@dataclass(frozen=True)
class StageDifference:
    """How much PyTorch and JAX differ in one stage, over all values that were compared.

    `allowed` is the tolerance times `scale`, the largest magnitude in the stage but at least 1; `first` is the
    index of the first value that differs by more (segment, then frame or token, then channel).
    """

    stage: str
    largest: float
    mean: float
    scale: float
    allowed: float
    num_values: int
    first: tuple[int, ...] | None

    @property
    def within_tolerance(self) -> bool:
        # A NaN is also out of tolerance.
        return self.first is None and bool(np.isfinite(self.largest))


class Meter:
    """Collects the difference of two arrays that come in parts."""

    def __init__(self, stage: str, tolerance: float, is_relative: bool = False) -> None:
        self.stage = stage
        self.tolerance = tolerance
        self.is_relative = is_relative
        self._largest = 0.0
        self._sum = 0.0
        self._count = 0
        self._scale = 1.0
        self._first: tuple[int, ...] | None = None

    def add(self, torch_values: np.ndarray, jax_values: np.ndarray, valid: np.ndarray, first_segment: int) -> None:
        """Both (segments, ...); `valid` is a mask over the first axes; values outside it do not count."""
        difference = np.abs(torch_values.astype(np.float64) - jax_values)
        counted = difference[valid]
        if not counted.size:
            return
        if self.is_relative:
            self._scale = max(self._scale, float(np.abs(torch_values[valid]).max()))
        self._largest = float(np.fmax(self._largest, counted.max())) if np.isfinite(counted).all() else float("nan")
        self._sum += float(counted.sum())
        self._count += counted.size
        shown = valid.reshape(valid.shape + (1,) * (difference.ndim - valid.ndim))
        wrong = shown & ~(difference <= self.tolerance * self._scale)
        if self._first is None and wrong.any():
            segment, *place = (int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            self._first = (segment + first_segment, *place)

    def result(self) -> StageDifference:
        return StageDifference(
            stage=self.stage,
            largest=self._largest,
            mean=self._sum / max(self._count, 1),
            scale=self._scale,
            allowed=self.tolerance * self._scale,
            num_values=self._count,
            first=self._first,
        )


class Framework:
    """One of the two frameworks: its network, and arrays in and out of it."""

    def __init__(self, name: str, config: ModelConfig, arrays: Mapping[str, np.ndarray], device: str) -> None:
        self.name = name
        self.package = importlib.import_module(f"mt3{name}")
        self.model = self.package.build_model(config, arrays, device)
        self.device = importlib.import_module(f"mt3{name}.loading").choose_device(device)
        dropout = importlib.import_module(f"mt3{name}.model").Dropout
        self.no_dropout = dropout(0.0, None)
        self._compiled: dict[Any, tuple[Any, list[str]]] = {}

    def run(self, walk: Callable[..., Iterator[tuple[str, Any]]], *arrays: Any) -> Iterator[tuple[str, Any]]:
        """The stages that `walk(self, *arrays)` yields; with JAX, compiled as one program per shape."""
        if self.name == "torch":
            yield from walk(self, *arrays)
            return
        import jax
        from flax import nnx

        if walk not in self._compiled:
            names: list[str] = []
            graph, state = nnx.split(self.model)

            def compute(state: Any, *arrays: Any) -> list[Any]:
                inside = copy.copy(self)
                inside.model = nnx.merge(graph, state)
                stages = list(walk(inside, *arrays))
                names[:] = [name for name, _ in stages]
                return [values for _, values in stages]

            self._compiled[walk] = partial(jax.jit(compute), state), names
        program, names = self._compiled[walk]
        yield from zip(names, program(*arrays), strict=True)

    def array(self, values: np.ndarray) -> Any:
        """A NumPy array on the framework's device; an array of the framework stays as it is."""
        if not isinstance(values, np.ndarray):
            return values
        if self.name == "torch":
            import torch

            return torch.from_numpy(np.array(values)).to(self.device)  # a copy: tables are read-only
        import jax

        return jax.device_put(values, self.device)

    def full_precision(self) -> contextlib.AbstractContextManager[Any]:
        """For devices that multiply float32 in a shorter format by default: JAX on TPU and GPU."""
        if self.name == "torch":
            return contextlib.nullcontext()
        import jax

        return jax.default_matmul_precision("highest")

    def numpy(self, values: Any) -> np.ndarray:
        return values.detach().cpu().numpy() if self.name == "torch" else np.asarray(values)


def encoder_stages(
    framework: Framework, log_mel: Float[np.ndarray, "segments frames mel"]
) -> Iterator[tuple[str, Any]]:
    """Name and output of every step of the encoder; the last, `encoder`, comes from `model.encode` itself."""
    encoder, network = framework.model.encoder, framework.model.config.network
    inputs = framework.array(log_mel)
    positions = framework.array(position_table(network.max_positions, network.emb_dim)[: log_mel.shape[1]])
    x = encoder.continuous_inputs_projection(inputs) + positions
    yield "encoder input", x
    for number, layer in enumerate(encoder.layers):
        x = layer(x, None, framework.no_dropout)
        yield f"encoder layer {number}", x
    yield "encoder", framework.model.encode(inputs)


def decoder_stages(
    framework: Framework, encoded: Any, decoder_input_ids: Int[np.ndarray, "segments tokens"]
) -> Iterator[tuple[str, Any]]:
    """The same for the decoder under teacher forcing; the last, `logits`, comes from `model.decode` itself."""
    decoder, network = framework.model.decoder, framework.model.config.network
    length = decoder_input_ids.shape[1]
    tokens = framework.array(decoder_input_ids)
    positions = framework.array(position_table(network.max_positions, network.emb_dim)[:length])
    causal = framework.array(np.tril(np.ones((1, 1, length, length), bool)))
    x = decoder.token_embedder(tokens) + positions
    yield "decoder input", x
    for number, layer in enumerate(decoder.layers):
        x = layer(x, encoded, causal, None, framework.no_dropout)
        yield f"decoder layer {number}", x
    yield "logits", framework.model.decode(encoded, tokens)


def log_mel_in(framework: Framework, samples: np.ndarray, num_valid_frames: np.ndarray, config: ModelConfig) -> Any:
    """The log-mel of segments (segments, samples), computed by the framework instead of NumPy."""
    from mt3core.spectrogram import segment_log_mel

    compute = partial(segment_log_mel, config=config.spectrogram)
    return compute(framework.array(samples), framework.array(num_valid_frames))
