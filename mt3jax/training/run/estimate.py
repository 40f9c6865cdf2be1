"""What a run will take, before anything is compiled: parameters, arithmetic, memory of a device, time.

The arithmetic is counted as in "model FLOPs utilisation": two operations for each product and sum that the network's
matrix products need, three times the forward pass for forward and backward. Repeated or wasted computation (remat,
padding), the spectrogram, softmax, norms and the optimizer are not counted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import jax
from jax.sharding import Mesh

from mt3core.config.model import ModelConfig
from mt3core.config.training import TrainingConfig
from mt3core.errors import TrainingError
from mt3core.files import size_in_words
from mt3core.model.parameters import parameters
from mt3jax.attention import choose_implementation
from mt3jax.row_packing import TILE_BLOCKS, num_tiles
from mt3jax.training.run.console import duration_text
from mt3jax.training.step.loss import chunk_tokens
from mt3jax.training.step.state import TrainState, abstract_state

# Operations per second and device in bfloat16 without sparsity, from the makers' data sheets; the first entry whose
# name is part of JAX's name of the device kind applies.
PEAK_FLOPS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
)
# If memory is not enough, in this order: bfloat16 costs nothing, microbatches hardly anything, computing twice a
# quarter of the speed.
ADVICE = "Set compute.dtype=bfloat16, then batch.accumulation=2 (4, ...), then compute.remat=true."
# The share of the peak assumed in estimates of time.
EXPECTED_MFU = 0.20  # not measured; docs/performance.md explains the figure


def forecast_lines(
    config: TrainingConfig,
    mesh: Mesh,
    rows: int,
    mean_tokens: float,
    first_step: int = 0,
    memory_limit: int | None = None,
) -> list[str]:
    """What a run will take, as lines for the user.

    Args:
        rows: per device and microbatch, in all steps.
        mean_tokens: of a target in the data.
        first_step: number of steps that are already done.
        memory_limit: bytes available on a device; None if unknown.
    """
    network, batch = config.model.network, config.batch
    places = rows * mesh.size * batch.accumulation * network.max_target_tokens
    padding = 1 - min(mean_tokens * batch.examples / places, 1.0)
    memory = memory_estimate(config, mesh, rows)
    flops = batch.examples * example_flops(config.model, mean_tokens)
    form = "packed" if batch.packed else "padded"
    there_is = "" if memory_limit is None else f" of {size_in_words(memory_limit)}"
    parts = f" in {batch.accumulation} microbatches" if batch.accumulation > 1 else ""
    lines = [
        f"{config.name}: {network.num_encoder_layers} + {network.num_decoder_layers} layers, "
        f"{num_parameters(config.model):,} parameters, computed in {config.compute.dtype}",
        f"A step: {batch.examples} examples{parts}, {mean_tokens:.0f} tokens each, {form} in {rows} rows per device"
        f" ({100 * padding:.0f} % padding), {flops / 1e12:.3g} TFLOP",
        f"Estimated memory per device: {size_in_words(memory.total)}{there_is} (parameters and optimizer "
        f"{size_in_words(memory.params + memory.optimizer + memory.average)}, gradients "
        f"{size_in_words(memory.gradients)}, activations {size_in_words(memory.activations)})",
    ]
    if memory_limit is not None and memory.total > memory_limit:
        lines.append(f"THIS DOES NOT FIT: expect to run out of memory. {ADVICE}")
    seconds = run_seconds(config, mean_tokens, mesh.size)
    if seconds is not None:
        left = seconds * (config.num_steps - first_step) / config.num_steps
        precision = "" if config.compute.dtype == "bfloat16" else " in bfloat16 (compute.dtype); float32 takes longer"
        lines.append(
            f"At an MFU of {100 * EXPECTED_MFU:.0f} % the run would take another {duration_text(left)}{precision}"
        )
    return lines


@contextlib.contextmanager
def exhaustion_explained() -> Iterator[None]:
    """Turns XLA's pages about memory that it could not get into a `TrainingError`."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = str(error).splitlines()[0].strip().rstrip(".")
        raise TrainingError(f"The devices ran out of memory ({said}).", ADVICE) from error


def memory_limit(mesh: Mesh) -> int | None:
    """Bytes that JAX may use on the smallest of this process's devices; None if it does not say, as on CPUs."""
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    limits = [found["bytes_limit"] for found in stats if found.get("bytes_limit")]
    return min(limits, default=None)


def num_parameters(config: ModelConfig) -> int:
    return sum(math.prod(p.shape) for p in parameters(config.network))


def example_flops(config: ModelConfig, tokens: float) -> float:
    """Operations of an example's forward and backward pass.

    Args:
        config: the model; e, j, m, g, b, v below are its width, heads times their size, the MLP's width and number
            of gates, mel bands and vocabulary; frames are those of its input.
        tokens: of its target, the end token included; the mean over examples for a mean.

    An encoder layer takes 8 e j + 2 (g + 1) e m + 4 j frames per frame; a decoder layer 4 e j per frame for keys and
    values of the cross-attention, and 12 e j + 2 (g + 1) e m + 4 j frames + 2 j (tokens + 1) per token, the causal half
    of the self-attention; then 2 b e per frame for the input and 2 e v per token for the logits.
    """
    network, frames = config.network, config.network.input_frames
    width, joined = network.emb_dim, network.num_heads * network.head_dim
    mlp = 2 * (len(network.mlp_activations) + 1) * width * network.mlp_dim
    encoder_layer = 8 * width * joined + mlp + 4 * joined * frames
    decoder_layer = 12 * width * joined + mlp + 4 * joined * frames + 2 * joined * (tokens + 1)
    a_frame = 2 * network.input_bands * width + network.num_encoder_layers * encoder_layer
    a_frame += network.num_decoder_layers * 4 * width * joined
    a_token = network.num_decoder_layers * decoder_layer + 2 * width * network.vocab_size
    return 3.0 * (frames * a_frame + tokens * a_token)


def peak_flops(device_kind: str | None = None) -> float | None:
    """For a kind of device (JAX's `device_kind`; by default the first device's); None if unknown."""
    kind = jax.devices()[0].device_kind if device_kind is None else device_kind
    return next((peak for name, peak in PEAK_FLOPS if name in kind), None)


def mfu(
    examples_per_second: float,
    config: ModelConfig,
    tokens: float,
    num_devices: int = 1,
    device_kind: str | None = None,
) -> float | None:
    """Model FLOPs utilisation, a share of the devices' peak in bfloat16; None on unknown devices.

    `examples_per_second` is for all devices together, with `tokens` per target on average.
    """
    peak = peak_flops(device_kind)
    return None if peak is None else examples_per_second * example_flops(config, tokens) / (peak * num_devices)


def run_seconds(
    config: TrainingConfig, tokens: float, num_devices: int, device_kind: str | None = None
) -> float | None:
    """Roughly how long all steps will take, at `EXPECTED_MFU`; None on unknown devices."""
    peak = peak_flops(device_kind)
    if peak is None:
        return None
    flops = config.num_steps * config.batch.examples * example_flops(config.model, tokens)
    return flops / (peak * num_devices * EXPECTED_MFU)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device.

    Attributes:
        params, optimizer, average: kept from step to step.
        gradients: of one microbatch and, with several, their sum; if parameters are split, also the gathered ones.
        activations: kept for the backward pass, or the spectrogram's if larger; with the logits of a chunk.
        batch: two steps' input, since the next one is sent while one is computed.
    """

    params: int
    optimizer: int
    average: int
    gradients: int
    activations: int
    batch: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def memory_estimate(config: TrainingConfig, mesh: Mesh, rows: int | None = None) -> MemoryEstimate:
    """Memory that a step needs on each device of `mesh`, from shapes alone; activations are a rough count.

    `rows`: decoder rows per device and microbatch; by default as many as it has examples.
    """
    state: TrainState = abstract_state(config, mesh)
    whole = 4 * num_parameters(config.model)
    copies = whole if config.compute.dtype == "float32" else whole // 2  # gradients, as they leave the backward pass
    gathered = (whole if mesh.shape["fsdp"] > 1 else 0) + (whole // 2 if config.compute.dtype == "bfloat16" else 0)
    summed = _bytes(state.params) * (2 if config.batch.accumulation > 1 else 1)
    examples = max(config.batch.examples // (config.batch.accumulation * mesh.size), 1)
    rows = examples if rows is None else rows
    return MemoryEstimate(
        params=_bytes(state.params),
        optimizer=_bytes(state.opt_state),
        average=_bytes(state.ema),
        gradients=copies + gathered + summed,
        activations=max(_activation_bytes(config, examples, rows), _spectrogram_bytes(config.model, examples)),
        batch=2 * config.batch.accumulation * _batch_bytes(config, examples, rows),
    )


def _bytes(tree: Any) -> int:
    """Bytes of a tree of abstract arrays that are on one device."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _activation_bytes(config: TrainingConfig, examples: int, rows: int) -> int:
    """The activations kept for the backward pass, and two copies of a chunk's logits in float32.

    A position (frame or token) of a layer keeps its input to each block and norm, queries, keys, values, what attention
    and the MLP multiplied, and the attention's weights in float32 unless it is fused; a block of tokens the keys and
    values of its example. With remat only the layers' inputs are kept, and the rest for one layer at a time; XLA undoes
    that on CPUs. In float32 without remat XLA's own figures for 2 + 2 and 4 + 4 layers on a CPU were a tenth higher.
    """
    network, compute = config.model.network, config.compute
    size = 4 if compute.dtype == "float32" else 2
    width, joined = network.emb_dim, network.num_heads * network.head_dim
    mlp = (2 * len(network.mlp_activations) + 2) * network.mlp_dim
    is_fused = choose_implementation(compute.attention, compute.dtype, network.head_dim) == "cudnn"
    weight = 0 if is_fused else network.num_heads * (4 + size)
    frames, tokens = examples * network.input_frames, rows * network.max_target_tokens
    attention = 3 * width + 5 * joined
    encoder = frames * (size * (attention + 3 * width + mlp) + weight * network.input_frames)
    decoder = tokens * (size * (2 * attention + 3 * width + mlp) + weight * network.max_target_tokens)
    tiles, tile_tokens = rows, network.max_target_tokens
    if config.batch.packed:
        row_blocks = network.max_target_tokens // config.batch.block_tokens
        tiles = num_tiles(rows, row_blocks, examples)
        tile_tokens = config.batch.block_tokens * min(TILE_BLOCKS, row_blocks)
        decoder += 2 * joined * size * tiles * tile_tokens
    decoder += tiles * tile_tokens * weight * network.input_frames
    decoder += (frames + tiles * network.input_frames) * size * 2 * joined
    if compute.remat:
        inputs = size * width * (frames * network.num_encoder_layers + tokens * network.num_decoder_layers)
        layers = inputs + max(encoder, decoder)
    else:
        layers = encoder * network.num_encoder_layers + decoder * network.num_decoder_layers
    return layers + 2 * 4 * rows * chunk_tokens(config, rows) * network.vocab_size


def _spectrogram_bytes(config: ModelConfig, examples: int) -> int:
    """Framed audio, its transform (complex) and magnitude, and the mel bands, all float32."""
    bins = config.spectrogram.fft_samples // 2 + 1
    per_frame = config.spectrogram.fft_samples + 3 * bins + config.spectrogram.mel_bands
    return 4 * examples * config.network.input_frames * per_frame


def _batch_bytes(config: TrainingConfig, examples: int, rows: int) -> int:
    """For one microbatch: 16-bit audio, and four numbers per token."""
    return 2 * examples * config.model.segment_samples + 4 * 4 * rows * config.model.network.max_target_tokens
