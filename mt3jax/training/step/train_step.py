"""One update of a run as a compiled function of state and batch, and the same network's loss for validation.

    step = make_train_step(config, mesh)
    state, metrics = step(state, to_global(batch, mesh))

The state passed in is donated: its memory becomes the new state's. A harmful update is detected on the device and
leaves parameters, optimizer and average bit for bit unchanged; the step still counts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from mt3core.config.training import TrainingConfig
from mt3jax.compilation import keep_compiled_programs
from mt3jax.loading import network
from mt3jax.training.step.loss import LossSums, loss_sums
from mt3jax.training.step.optimizer import apply_directions, learning_rate, make_optimizer, update_average
from mt3jax.training.step.sharding import batch_shardings, check_batch, replicated
from mt3jax.training.step.state import TrainState, params_shardings, state_shardings_of

# Of the running mean of gradient norms: it forgets after about a hundred updates.
NORM_DECAY = 0.99


class Rejection(enum.IntEnum):
    """Why an update was not applied; with the same names as the rules in `SafetyConfig`."""

    NONE = 0
    NOT_FINITE = 1
    SPIKE = 2

    @property
    def reason(self) -> str:
        found = {"NOT_FINITE": "the loss or the gradient was not finite", "SPIKE": "the gradient's norm was a spike"}
        return found.get(self.name, "")


Batch = Mapping[str, Array]
Metrics = dict[str, Array]


def make_train_step(config: TrainingConfig, mesh: Mesh) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled step; it is compiled when first called, and for each shape of batch.

    The batch must be packed in one group per device of the mesh. The result only depends on the mesh by rounding,
    dropout included.

    Returns:
        `f(state, batch) -> (state, metrics)`; the metrics are scalars unless noted otherwise: `loss`, `cross_entropy`
        and `z_loss` per target token, `gradient_norm` (before clipping), `learning_rate`, `num_tokens`, `rejection` (a
        `Rejection`), `skipped_in_row`, `correct` and `count` (event types,). Raises `UsageError` like
        `check_batch` does.
    """
    check_batch(config, mesh)
    keep_compiled_programs()
    optimizer, rate_of = make_optimizer(config.optimizer), learning_rate(config)
    shardings = state_shardings_of(config, mesh)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        # Gathered once for all microbatches; the gradients are then summed into what each device keeps.
        gathered = lax.with_sharding_constraint(state.params, replicated(mesh))
        sums, gradients = accumulate(config, gathered, batch, mesh, key, shardings.params)
        per_token = 1.0 / jnp.maximum(sums.num_tokens, 1.0)
        if config.loss.normalise == "tokens":
            gradients = jax.tree.map(lambda g: g * per_token, gradients)
        norm = optax.tree.norm(gradients)
        rejection = judge(config, state, sums.loss, norm)
        is_applied = (rejection == Rejection.NONE) & (sums.num_tokens > 0)
        rate = rate_of(state.step)
        directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = apply_directions(state.params, directions, rate)
        decay = config.optimizer.ema_decay
        ema = update_average(state.ema, params, decay, state.step) if decay else None
        updated = (params, opt_state, ema, running_mean(state.norm_mean, norm))
        kept = (state.params, state.opt_state, state.ema, state.norm_mean)
        params, opt_state, ema, norm_mean = jax.tree.map(
            lambda new, old: jnp.where(is_applied, new, old), updated, kept
        )
        is_skipped = (rejection != Rejection.NONE).astype(jnp.int32)
        new_state = TrainState(
            params=params,
            opt_state=opt_state,
            ema=ema,
            step=state.step + 1,
            norm_mean=norm_mean,
            num_skipped=state.num_skipped + is_skipped,
            skipped_in_row=(state.skipped_in_row + is_skipped) * is_skipped,
        )
        metrics = {
            **{name: getattr(sums, name) * per_token for name in ("loss", "cross_entropy", "z_loss")},
            "gradient_norm": norm,
            "learning_rate": rate,
            "num_tokens": sums.num_tokens,
            "rejection": rejection,
            "skipped_in_row": new_state.skipped_in_row,
            "correct": sums.correct,
            "count": sums.count,
        }
        return new_state, metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_shardings(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(config: TrainingConfig, mesh: Mesh) -> Callable[[Any, Batch], LossSums]:
    """The compiled `f(params, batch) -> LossSums` over the whole batch, without dropout; sums, not means."""
    keep_compiled_programs()

    def evaluate(params: Any, batch: Batch) -> LossSums:
        model = network(config.model, lax.with_sharding_constraint(params, replicated(mesh)))
        parts = lax.map(lambda part: loss_sums(model, part, config, mesh.size, None, mesh), dict(batch))
        return jax.tree.map(lambda sums: sums.sum(0), parts)

    return jax.jit(
        evaluate,
        in_shardings=(params_shardings(config.model, mesh), batch_shardings(mesh)),
        out_shardings=replicated(mesh),
    )


def accumulate(
    config: TrainingConfig,
    params: Any,
    batch: Batch,
    mesh: Mesh,
    key: Key[Array, ""],
    shardings: Any,
) -> tuple[LossSums, Any]:
    """Loss and gradient summed over the tokens of all microbatches, one after the other; gradients in float32."""

    def of_part(part: Batch, part_key: Key[Array, ""]) -> tuple[LossSums, Any]:
        def loss(params: Any) -> tuple[Float[Array, ""], LossSums]:
            sums = loss_sums(network(config.model, params), dict(part), config, mesh.size, part_key, mesh)
            return sums.loss, sums

        gradients, sums = jax.grad(loss, has_aux=True)(params)
        gradients = jax.tree.map(lambda g: g.astype(jnp.float32), gradients)
        # Gathered first: the split of the parameters must not determine that of the backward pass.
        gradients = lax.with_sharding_constraint(gradients, replicated(mesh))
        return sums, lax.with_sharding_constraint(gradients, shardings)

    def add_part(total: tuple[LossSums, Any], numbered: tuple[Int[Array, ""], Batch]) -> tuple[Any, None]:
        number, part = numbered
        return jax.tree.map(jnp.add, total, of_part(part, jax.random.fold_in(key, number))), None

    num_parts = next(iter(batch.values())).shape[0]
    if num_parts == 1:
        return of_part({name: array[0] for name, array in batch.items()}, jax.random.fold_in(key, 0))
    shapes = jax.eval_shape(of_part, {name: array[0] for name, array in batch.items()}, key)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = lax.scan(add_part, nothing, (jnp.arange(num_parts), dict(batch)))
    return total


def judge(config: TrainingConfig, state: TrainState, loss: Float[Array, ""], norm: Float[Array, ""]) -> Int[Array, ""]:
    """The `Rejection` of an update, `NONE` for one that may be applied."""
    is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    is_spike = jnp.zeros((), bool)
    if config.safety.spike_factor:
        limit = config.safety.spike_factor * state.norm_mean
        is_spike = (state.step >= config.optimizer.warmup_steps) & (state.norm_mean > 0) & (norm > limit)
    found = jnp.where(is_spike, Rejection.SPIKE.value, Rejection.NONE.value)
    return jnp.where(is_finite, found, Rejection.NOT_FINITE.value).astype(jnp.int32)


def running_mean(mean: Float[Array, ""], norm: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(mean > 0, NORM_DECAY * mean + (1 - NORM_DECAY) * norm, norm)
