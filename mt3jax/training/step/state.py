"""The state that a run carries from step to step."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mt3core.config.model import ModelConfig
from mt3core.config.training import TrainingConfig
from mt3core.model.parameters import parameters
from mt3jax.compilation import keep_compiled_programs
from mt3jax.loading import given_params, nest
from mt3jax.model import Transformer
from mt3jax.training.step.optimizer import make_optimizer
from mt3jax.training.step.sharding import param_shardings, place, state_shardings


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """A pytree. Its leaves may be arrays, shapes or shardings.

    Attributes:
        params: nested dictionary in Flax's names (list places are integers), float32.
        opt_state: Optax's.
        ema: the parameters' moving average in the same form, or None.
        step: int32, number of updates tried so far, including skipped ones.
        norm_mean: float32, running mean of the gradient's norm over applied updates; 0 before the first.
        num_skipped: int32, number of updates that were not applied so far.
        skipped_in_row: int32, number of these since the last update that was applied.
    """

    params: Any
    opt_state: Any
    ema: Any
    step: Any
    norm_mean: Any
    num_skipped: Any
    skipped_in_row: Any


def init_state(config: TrainingConfig, mesh: Mesh, arrays: Mapping[str, np.ndarray] | None = None) -> TrainState:
    """A run's state before its first step, laid out over the mesh.

    Args:
        config: of the run; weights are drawn from its `seed`.
        mesh: where to put it.
        arrays: weights by PyTorch name and in PyTorch's shape (as `build_model` takes them) instead of drawn ones.

    Raises `ModelError` if `arrays` do not match the network.
    """
    params = drawn_params(config.model, config.seed) if arrays is None else given_params(config.model, arrays)
    # Each leaf in memory of its own, since all of it is donated to the first step.
    return place(_first_state(config, params), state_shardings_of(config, mesh))


def abstract_state(config: TrainingConfig, mesh: Mesh) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s with shardings: the form that a checkpoint is restored to."""
    shapes = _shapes(config)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings_of(config, mesh),
    )


def state_shardings_of(config: TrainingConfig, mesh: Mesh) -> TrainState:
    """The state's shardings."""
    shapes = _shapes(config)
    return state_shardings(shapes, shapes.params, mesh)


def abstract_params(config: ModelConfig) -> Any:
    """The parameters as shapes."""
    return nest({p.flax_name: jax.ShapeDtypeStruct(p.shape, jnp.float32) for p in parameters(config.network)})


def params_shardings(config: ModelConfig, mesh: Mesh) -> Any:
    return param_shardings(abstract_params(config), mesh)


def drawn_params(config: ModelConfig, seed: int) -> Any:
    """T5's initial weights, as host arrays: the same on every host and any mesh."""
    keep_compiled_programs()  # drawing is compiled for each shape, which takes seconds
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(Transformer(config, nnx.Rngs(seed)))))


def _shapes(config: TrainingConfig) -> TrainState:
    return jax.eval_shape(functools.partial(_first_state, config), abstract_params(config.model))


def _first_state(config: TrainingConfig, params: Any) -> TrainState:
    return TrainState(
        params=params,
        opt_state=make_optimizer(config.optimizer).init(params),
        ema=params if config.optimizer.ema_decay else None,
        step=np.zeros((), np.int32),
        norm_mean=np.zeros((), np.float32),
        num_skipped=np.zeros((), np.int32),
        skipped_in_row=np.zeros((), np.int32),
    )
