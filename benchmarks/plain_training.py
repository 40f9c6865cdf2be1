"""A straightforward training step after Flax's tutorial, as a baseline for the project's.

The network, examples and update rule are the same. Every target is padded to the decoder's length, all logits are in
memory at once, nothing is sharded or donated, and there are no rules for bad updates.
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from step_timing import planned_bytes

from mt3core.config.model import ModelConfig
from mt3core.spectrogram import segment_log_mel
from mt3jax.model import Transformer


class PlainStep:
    """Plain float32 training over a few batches of a pipeline; it has the attributes of `step_timing.TimedStep`."""

    def __init__(self, config: ModelConfig, batches: list[dict[str, np.ndarray]], learning_rate: float = 1e-3) -> None:
        self._model = Transformer(config, nnx.Rngs(0))
        self._optimizer = nnx.Optimizer(self._model, optax.adafactor(learning_rate), wrt=nnx.Param)
        self._batches = [{name: jnp.asarray(b[name]) for name in ("audio", "num_frames", "targets")} for b in batches]
        self._key = jax.random.key(0)
        self._number = 0
        self.losses: list[float] = []
        self.rows = len(batches[0]["targets"])
        self.padding = 1 - np.mean([np.mean(batch["targets"] > 0) for batch in batches])
        started = time.perf_counter()
        lowered = make_step(config).lower(self._model, self._optimizer, self._batches[0], self._key)
        self._step = lowered.compile()
        self.compile_seconds = time.perf_counter() - started
        self.planned_bytes = planned_bytes(self._step.compiled)

    def run(self, num_steps: int) -> float:
        """Seconds taken by this number of steps."""
        started = time.perf_counter()
        for _ in range(num_steps):
            batch = self._batches[self._number % len(self._batches)]
            key = jax.random.fold_in(self._key, self._number)
            loss = self._step(self._model, self._optimizer, batch, key)
            self._number += 1
            self.losses.append(float(loss))
        return time.perf_counter() - started


def make_step(config: ModelConfig):
    @nnx.jit
    def train_step(model: Transformer, optimizer: nnx.Optimizer, batch: dict, key: jax.Array) -> jax.Array:
        encoder_key, decoder_key = jax.random.split(key)
        targets = batch["targets"]

        def loss_of(model: Transformer) -> jax.Array:
            with jax.default_matmul_precision("highest"):
                log_mel = segment_log_mel(batch["audio"] / jnp.float32(32768), batch["num_frames"], config.spectrogram)
            inputs = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
            encoded = model.encode(log_mel, dropout_key=encoder_key)
            logits = model.decode(encoded, inputs, dropout_key=decoder_key)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return jnp.sum(losses * (targets > 0)) / jnp.sum(targets > 0)

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    return train_step
