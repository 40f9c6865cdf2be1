"""What is said before anything is compiled: how large the network is, what it will need, and for how long."""

from __future__ import annotations

from jax.sharding import Mesh

from mt3core.config.training import TrainingConfig
from mt3jax.training.run.console import duration_text
from mt3jax.training.run.device_memory import ADVICE
from mt3jax.training.run.estimate import EXPECTED_MFU, example_flops, memory_estimate, num_parameters, run_seconds


def forecast_lines(
    config: TrainingConfig,
    mesh: Mesh,
    rows: int,
    mean_tokens: float,
    first_step: int = 0,
    memory_limit: int | None = None,
) -> list[str]:
    """Lines for the user.

    Args:
        rows: of a device and part, in all steps.
        mean_tokens: of a target in the data.
        first_step: that are done already.
        memory_limit: bytes that there are on a device; None where it is not known.
    """
    network, batch = config.model.network, config.batch
    places = rows * mesh.size * batch.accumulation * network.max_target_tokens
    padding = 1 - min(mean_tokens * batch.examples / places, 1.0)
    memory = memory_estimate(config, mesh, rows)
    flops = batch.examples * example_flops(config.model, mean_tokens)
    form = "packed" if batch.packed else "padded"
    there_is = "" if memory_limit is None else f" of {memory_limit / 1e9:.2f}"
    parts = f" in {batch.accumulation} parts" if batch.accumulation > 1 else ""
    lines = [
        f"{config.name}: {network.num_encoder_layers} + {network.num_decoder_layers} layers, "
        f"{num_parameters(config.model):,} parameters, computed in {config.compute.dtype}",
        f"A step: {batch.examples} examples{parts}, {mean_tokens:.0f} tokens each, {form} in {rows} rows a device"
        f" ({100 * padding:.0f} % padding), {flops / 1e12:.3g} TFLOP",
        f"Memory a device, estimated: {memory.total / 1e9:.2f} GB{there_is} (parameters and optimizer "
        f"{(memory.params + memory.optimizer + memory.average) / 1e9:.2f}, gradients {memory.gradients / 1e9:.2f}, "
        f"activations {memory.activations / 1e9:.2f})",
    ]
    if memory_limit is not None and memory.total > memory_limit:
        lines.append(f"THAT DOES NOT FIT: expect to run out of memory. {ADVICE}")
    seconds = run_seconds(config, mean_tokens, mesh.size)
    if seconds is not None:
        left = seconds * (config.num_steps - first_step) / config.num_steps
        precision = "" if config.compute.dtype == "bfloat16" else " in bfloat16 (compute.dtype); float32 takes longer"
        lines.append(
            f"At an MFU of {100 * EXPECTED_MFU:.0f} % the run would take another {duration_text(left)}{precision}"
        )
    return lines
