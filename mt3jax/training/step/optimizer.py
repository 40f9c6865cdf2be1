"""The update rule: gradients in, directions out; the learning rate by step; the moving average of the parameters.

    directions, opt_state = make_optimizer(config).update(gradients, opt_state, params)
    params = params - learning_rate(config)(step) * directions

The rate is kept out of the Optax transformation, so that it follows the run's step even if updates were skipped.

Adafactor is T5X's with the settings of MT3 (t5x/adafactor.py): second moments factored over two dimensions of at
least 128, decaying with 1 - step ** -0.8 without an offset; 1e-30 added to squared gradients; each array's direction
clipped to a root mean square of 1, then multiplied by the array's own, of at least 1e-3; no momentum. Optax's parts
do the same in the same order (T5X multiplies rate and parameter scale first: the same product). Two things differ on
purpose. A global norm is clipped only if requested, before the statistics, as in T5X. Weight decay, which MT3 does
not have, is multiplied by the learning rate for all rules (not so in T5X and `optax.adafactor`) and leaves
the norms' scales alone.

Muon (Jordan 2024) is Optax's: the momentum of every matrix of the layers is made orthogonal by five Newton-Schulz
iterations and scaled to a root mean square of 0.2 (Liu et al. 2025, arXiv 2502.16982), close to AdamW's, so that
one learning rate serves both. Embedding and logits are tables with one row per token, not maps between activations, and
use AdamW together with the norms' scales; as in Optax, Nesterov's momentum is on for both.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, Int

from mt3core.config.training import OptimizerConfig, TrainingConfig

MIN_FACTORED_SIZE = 128
SQUARE_EPSILON = 1e-30
MIN_PARAMETER_SCALE = 1e-3
UPDATE_RMS = 1.0
MUON_RMS = 0.2
# The last parts of the paths of matrices that use AdamW under Muon.
TOKEN_TABLES = (("token_embedder", "embedding"), ("logits_dense", "kernel"))

Step = Int[Array, ""] | int


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Turns gradients into what is subtracted from the parameters, times the learning rate."""
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.kind == "adafactor":
        factored = optax.scale_by_factored_rms(
            decay_rate=config.adafactor_decay,
            min_dim_size_to_factor=MIN_FACTORED_SIZE,
            epsilon=SQUARE_EPSILON,
        )
        limits = (optax.clip_by_block_rms(UPDATE_RMS), optax.scale_by_param_block_rms(MIN_PARAMETER_SCALE))
        parts += [by_shape(optax.chain(factored, *limits))]
    elif config.kind == "muon":
        parts += [
            optax.contrib.muon(
                learning_rate=-1.0,  # Optax flips the sign for its own `apply_updates`; here directions are subtracted
                beta=config.muon_momentum,
                eps=config.adam_epsilon,
                adam_b1=config.adam_b1,
                adam_b2=config.adam_b2,
                muon_weight_dimension_numbers=orthogonalised,
                consistent_rms=MUON_RMS,
            )
        ]
    else:
        parts += [optax.scale_by_adam(config.adam_b1, config.adam_b2, config.adam_epsilon)]
    if config.weight_decay:
        parts += [optax.add_decayed_weights(config.weight_decay, mask=_is_matrix)]
    return optax.chain(*parts)


def learning_rate(config: TrainingConfig) -> Callable[[Step], Float[Array, ""]]:
    """The rate of an update by the number of updates before it.

    The warm-up rises by steps of peak / warmup_steps from 0 at the first update, as T5X's does: that update only forms
    statistics. `cosine` reaches its end at the last of `num_steps`.
    """
    optimizer = config.optimizer
    peak, warmup = optimizer.learning_rate, optimizer.warmup_steps

    def rate(step: Step) -> Float[Array, ""]:
        now = jnp.asarray(step, jnp.float32)
        if optimizer.schedule == "cosine":
            progress = jnp.clip((now - warmup) / max(config.num_steps - 1 - warmup, 1), 0.0, 1.0)
            factor = optimizer.end_factor + (1 - optimizer.end_factor) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        elif optimizer.schedule == "rsqrt":
            factor = jnp.sqrt(max(warmup, 1) / jnp.maximum(now, max(warmup, 1)))
        else:
            factor = jnp.ones(())
        return peak * jnp.minimum(now / warmup if warmup else 1.0, factor)

    return rate


def apply_directions(params: Any, directions: Any, rate: Float[Array, ""]) -> Any:
    return jax.tree.map(lambda p, d: (p - rate * d).astype(p.dtype), params, directions)


def update_average(average: Any, params: Any, decay: float, step: Step) -> Any:
    """The moving average after an update. It starts faster, with (1 + step) / (10 + step), as TensorFlow's does."""
    now = jnp.asarray(step, jnp.float32)
    keep = jnp.minimum(decay, (1 + now) / (10 + now))
    return jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, average, params)


def orthogonalised(params: Any) -> Any:
    """A tree like `params`: the axes that Muon uses as a matrix's rows and columns; None for arrays of AdamW."""

    def dimensions(path: tuple, leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        names = tuple(str(getattr(part, "key", part)) for part in path)
        is_table = any(names[-len(table) :] == table for table in TOKEN_TABLES)
        return optax.contrib.MuonDimensionNumbers() if leaf.ndim == 2 and not is_table else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _is_matrix(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


def by_shape(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule`, which must treat every array separately, applied to stacks of the arrays of one shape.

    A network has hundreds of arrays of few shapes, and each would need tiny programs.
    The state is that of `rule`, unstacked, so that checkpoints and shardings do not depend on it.
    """

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        form: Any = jax.tree.structure(params)
        flat: tuple[list[Any], Any] = jax.tree.flatten(state, is_leaf=lambda tree: jax.tree.structure(tree) == form)
        trees, state_form = flat
        # What the state keeps for each array, and for all together, such as the number of updates.
        axes = [0 if jax.tree.structure(tree) == form else None for tree in trees]
        kept = [jax.tree.leaves(tree) if axis == 0 else tree for tree, axis in zip(trees, axes, strict=True)]
        given, values = jax.tree.leaves(gradients), jax.tree.leaves(params)
        directions: list[Any] = [None] * len(values)
        new_kept: list[Any] = [[None] * len(values) if axis == 0 else None for axis in axes]

        state_axes = state_form.unflatten(axes)
        together = jax.vmap(rule.update, in_axes=(0, state_axes, 0), out_axes=(0, state_axes))
        for numbers in _numbers_by_shape(values):

            def stack(arrays: list[Any], numbers: list[int] = numbers) -> Any:
                return jnp.stack([arrays[number] for number in numbers])

            own = [stack(leaves) if axis == 0 else leaves for leaves, axis in zip(kept, axes, strict=True)]
            found, new_state = together(stack(given), state_form.unflatten(own), stack(values))
            for place, number in enumerate(numbers):
                directions[number] = found[place]
            for index, new in enumerate(state_form.flatten_up_to(new_state)):
                if axes[index] is None:
                    new_kept[index] = new
                    continue
                for place, number in enumerate(numbers):
                    new_kept[index][number] = new[place]
        rebuilt = [form.unflatten(new) if axis == 0 else new for new, axis in zip(new_kept, axes, strict=True)]
        return form.unflatten(directions), state_form.unflatten(rebuilt)

    return optax.GradientTransformation(rule.init, update)


def _numbers_by_shape(arrays: list[Any]) -> list[list[int]]:
    found = collections.defaultdict(list)
    for number, array in enumerate(arrays):
        found[array.shape].append(number)
    return list(found.values())
