"""Shared by benchmarks/train.py and benchmarks/gpu.py: configs, made-up batches, and timed steps."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from mt3core.config.model import MT3, MULTITRACK, ModelConfig, NetworkConfig, SpectrogramConfig
from mt3core.config.training import BatchConfig, ComputeConfig, OptimizerConfig, TrainingConfig
from mt3jax import row_packing

# Two layers with a quarter of the width, but with the published lengths of input and target.
SMALL = ModelConfig(
    name="small",
    network=NetworkConfig(
        num_encoder_layers=2, num_decoder_layers=2, num_heads=2, head_dim=64, emb_dim=128, mlp_dim=256
    ),
)
# For rehearsals: compiles in seconds. It has the published vocabulary.
TINY = ModelConfig(
    name="tiny",
    network=NetworkConfig(1, 1, 2, 8, 16, 32, input_frames=64, input_bands=64, max_target_tokens=128),
    spectrogram=SpectrogramConfig(mel_bands=64),
)
NETWORKS = {"mt3": MT3, "multitrack": MULTITRACK, "small": SMALL}

# Lengths of 4,000 targets of a rendered SLAKH (24 tracks; mixes, stems, subsets and mixes across tracks in equal
# shares): their twentieths, from the shortest to the longest. Means 111 (2.05 s) and 210 (4.10 s).
TARGET_LENGTHS = {
    256: (2, 6, 13, 19, 28, 36, 44, 51, 60, 69, 78, 89, 101, 115, 136, 154, 178, 210, 256, 342, 684),
    512: (2, 13, 23, 37, 52, 68, 81, 97, 114, 131, 151, 173, 193, 224, 265, 297, 342, 409, 492, 656, 1024),
}

# Share of all tokens that the N most frequent ones have: 688,375 tokens of 3,994 segments of 2.048 s, every
# second of the 111 General MIDI pieces of Freedoom (github.com/freedoom/freedoom, musics/), 424 different tokens.
TOKEN_SHARES = {
    1: 0.070, 2: 0.140, 3: 0.170, 4: 0.198, 6: 0.239, 8: 0.278, 12: 0.333, 16: 0.377, 24: 0.448, 32: 0.513,
    48: 0.622, 64: 0.711, 96: 0.818, 128: 0.860, 192: 0.900, 256: 0.936, 424: 1.0,
}  # fmt: skip
END_TOKEN = 1

Batch = dict[str, np.ndarray]


def training_config(
    model: ModelConfig, examples: int, batch: dict[str, Any] | None = None, compute: dict[str, Any] | None = None
) -> TrainingConfig:
    """A run on one device with the published update rule; `batch` and `compute` change fields of these sections."""
    return TrainingConfig(
        name="benchmark",
        model=model,
        batch=BatchConfig(examples=examples, **(batch or {})),
        optimizer=OptimizerConfig(warmup_steps=10),
        compute=ComputeConfig(data=1, **(compute or {})),
    )


def draw_lengths(model: ModelConfig, count: int, seed: int = 0) -> np.ndarray:
    """Target lengths distributed like those of rendered SLAKH."""
    points = TARGET_LENGTHS[512 if model.network.input_frames > 256 else 256]
    places = np.random.default_rng(seed).uniform(0, len(points) - 1, count)
    lengths = np.interp(places, np.arange(len(points)), points).astype(np.int64)
    return np.minimum(lengths, model.network.max_target_tokens)


def draw_tokens(vocab_size: int, shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """Tokens from 3 up, with the frequencies of those in real targets."""
    ranks, shares = np.array([0, *TOKEN_SHARES]), np.array([0.0, *TOKEN_SHARES.values()])
    rank = np.interp(draw.uniform(0, 1, shape), shares, ranks).astype(np.int64)
    ids = 3 + np.random.default_rng(0).permutation(vocab_size - 3)  # which are the frequent ones, the same every time
    return ids[rank % (vocab_size - 3)]


def made_up_batch(model: ModelConfig, lengths: np.ndarray, seed: int = 0) -> Batch:
    """A batch of noise, with tokens as frequent as in data and an end token; a step costs the same."""
    draw = np.random.default_rng(seed)
    network, size = model.network, len(lengths)
    tokens = draw_tokens(network.vocab_size, (size, network.max_target_tokens), draw)
    place = np.arange(network.max_target_tokens)
    tokens[place == lengths[:, None] - 1] = END_TOKEN
    return {
        "audio": draw.normal(0, 2000, (size, model.segment_samples)).astype(np.int16),
        "num_frames": np.full(size, network.input_frames, np.int32),
        "targets": np.where(place < lengths[:, None], tokens, 0).astype(np.int32),
        "num_tokens": lengths.astype(np.int32),
    }


def rows_for(config: TrainingConfig, lengths: np.ndarray) -> int:
    """Decoder rows per microbatch, as a run on one device would choose them from these lengths if not set."""
    group = config.batch.examples // config.batch.accumulation
    if not config.batch.packed:
        return group
    if config.batch.rows:
        return min(config.batch.rows, group)
    limit, block = config.model.network.max_target_tokens, config.batch.block_tokens
    return row_packing.choose_rows(lengths, group, limit, block, config.batch.accumulation)


class TimedStep:
    """The run's own step over a few batches, compiled and ready.

    Attributes: `rows` per microbatch, `padding` (share of the decoder's positions without a token), `compile_seconds`,
    `planned_bytes` (XLA's plan: state, batch and the most needed besides at a time).
    """

    def __init__(self, config: TrainingConfig, batches: list[Batch], lengths: np.ndarray) -> None:
        """`lengths` of many targets decide how many rows a step has, as in a run."""
        import jax

        from mt3jax.training.step.sharding import make_mesh, to_global
        from mt3jax.training.step.state import init_state
        from mt3jax.training.step.train_step import make_train_step

        self.config = config
        mesh = make_mesh(config.compute)
        self.rows = rows_for(config, lengths)
        split = [row_packing.split_batch(batch, config, 1, self.rows) for batch in batches]
        self.padding = float(1 - np.mean([np.mean(batch["targets"] > 0) for batch in split]))
        self._batches = [to_global(batch, mesh) for batch in split]
        self._state = init_state(config, mesh)
        started = time.perf_counter()
        self._step = make_train_step(config, mesh).lower(self._state, self._batches[0]).compile()
        self.compile_seconds = time.perf_counter() - started
        self.planned_bytes = planned_bytes(self._step)
        self.losses: list[float] = []
        self._block = jax.block_until_ready
        self._number = 0

    def run(self, num_steps: int) -> float:
        """Seconds taken by this number of steps, dispatched one after the other; losses are kept."""
        found = []
        started = time.perf_counter()
        for _ in range(num_steps):
            self._state, metrics = self._step(self._state, self._batches[self._number % len(self._batches)])
            self._number += 1
            found.append(metrics["loss"])
        self._block(self._state)
        seconds = time.perf_counter() - started
        self.losses += [float(loss) for loss in found]
        return seconds


def planned_bytes(compiled: Any) -> int:
    """Memory of a compiled program: arguments, results that do not share their memory, and temporary memory."""
    plan = compiled.memory_analysis()
    kept = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return int(plan.argument_size_in_bytes + kept + plan.temp_size_in_bytes)


def with_layers(model: ModelConfig, num_layers: int) -> ModelConfig:
    """The model with this number of layers on each side; 0 leaves it unchanged."""
    if not num_layers:
        return model
    network = dataclasses.replace(model.network, num_encoder_layers=num_layers, num_decoder_layers=num_layers)
    return dataclasses.replace(model, network=network)
