"""A small batch in all forms of its rows, for networks of `tiny_networks`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny_networks import random_arrays, random_log_mel, tiny

from mt3core.config.training import BatchConfig, LossConfig, TrainingConfig
from mt3jax import build_model
from mt3jax.row_packing import pack, pad
from mt3jax.training.step.loss import loss_sums

# Of six targets; the third is empty, as in the last batch of an evaluation.
LENGTHS = (5, 11, 0, 4, 9, 2)
BLOCK_TOKENS = 4
VOCAB_SIZE = 40  # more than there are tokens, so that each can be another

# Tiny programs run but once take far longer to optimise than to run.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    # Without YNNPACK, by which jaxlib 0.11.2 sums some bfloat16 products on CPUs in bfloat16: the gradient of a dense
    # layer over 8,192 tokens is 2 % wrong, where 0.2 % are the result's own rounding.
    "xla_cpu_experimental_ynn_fusion_type": "",
}


def training_config(form="gated", chunk_tokens=7, **network):
    """A network of one layer each, which is quickly compiled. The rows' 20 tokens are no multiple of the chunk."""
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 1, "vocab_size": VOCAB_SIZE}
    model = tiny(form, **(sizes | network))
    return TrainingConfig(
        "tiny", model, batch=BatchConfig(block_tokens=BLOCK_TOKENS), loss=LossConfig(1e-4, "sum", chunk_tokens)
    )


def computed(config, **compute):
    """The same with other fields of `compute`, also such as no run may have: float64 proves gradients."""
    changed = dataclasses.replace(config.compute)
    for name, value in compute.items():
        object.__setattr__(changed, name, value)
    return dataclasses.replace(config, compute=changed)


def targets(config):
    """All tokens different."""
    row_tokens, lengths = config.model.network.max_target_tokens, np.array(LENGTHS)
    places = np.arange(row_tokens) < lengths[:, None]
    found = np.zeros(places.shape, np.int32)
    found[places] = 1 + np.random.default_rng(5).permutation(VOCAB_SIZE - 1)[: lengths.sum()]
    return found


def part_of(config, form):
    """The batch `padded`, `packed` or packed in two `groups`, in all of which a row stays empty; number of groups."""
    num_groups = 2 if form == "groups" else 1
    rows = {"packed": 4, "groups": 3}
    arrays = pad(targets(config)) if form == "padded" else pack(targets(config), num_groups, rows[form], BLOCK_TOKENS)
    assert (arrays["segments"] == 0).all(axis=1).any()
    arrays = {"log_mel": random_log_mel(config.model, len(LENGTHS)), **arrays}
    return {name: jnp.asarray(array) for name, array in arrays.items()}, num_groups


def weights_of(config):
    """By PyTorch name, the matrices so small that no softmax is nearly hard."""
    return {
        name: array * np.float32(0.4 if array.ndim > 1 else 1.0) for name, array in random_arrays(config.model).items()
    }


def params_of(config, dtype=np.float32):
    """The network's graph and parameters."""
    graph, params = nnx.split(build_model(config.model, weights_of(config), "cpu"))
    return graph, jax.tree.map(lambda array: array.astype(dtype), params)


def loss_and_gradients(config, form, key=None, dtype=np.float32):
    """`LossSums`, and gradients of the parameters as NNX's state."""
    graph, params = params_of(config, dtype)
    part, num_groups = part_of(config, form)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(params, part, key):
        def loss(params):
            sums = loss_sums(nnx.merge(graph, params), part, config, num_groups, key)
            return sums.loss, sums

        gradients, sums = jax.grad(loss, has_aux=True)(params)
        return sums, gradients

    return run(params, part, key)


def distance(found, expected):
    """Norm of the difference of two trees relative to the second's, in float64."""
    found, expected = (
        np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (found, expected)
    )
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
