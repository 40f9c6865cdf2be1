"""Forms, places, errors and estimates of a training step; nothing is compiled here."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_runs
from jax.sharding import PartitionSpec
from tiny_networks import random_arrays

from mt3core.config.model import ISMIR2021, MT3, MULTITRACK, ModelConfig
from mt3core.config.training import BatchConfig, ComputeConfig, OptimizerConfig, TrainingConfig
from mt3core.errors import ModelError, UsageError
from mt3core.model.parameters import parameters
from mt3jax.loading import flatten, given_params
from mt3jax.training.run import estimate
from mt3jax.training.run.estimate import memory_limit
from mt3jax.training.step.sharding import batch_shardings, check_batch, make_mesh, partition, to_global
from mt3jax.training.step.state import abstract_params, abstract_state, init_state, state_shardings_of
from mt3jax.training.step.train_step import accumulate, make_train_step

pytestmark = pytest.mark.unit


def mesh_of_one():
    return make_mesh(ComputeConfig(), jax.devices()[:1])


@dataclasses.dataclass(frozen=True)
class Devices:
    """Stands for a mesh of more devices than there are, where only its size is asked for."""

    size: int


def test_every_parameter_is_split_where_it_divides():
    for config in (MT3, MULTITRACK, ISMIR2021):
        for p in parameters(config.network):
            found = partition(p.flax_name, p.shape, 8)
            assert found == (PartitionSpec() if p.kind == "norm" else found)
            assert ("fsdp" in found) == (p.kind != "norm"), p.flax_name
    assert partition("a.kernel", (10, 8), 4) == PartitionSpec(None, "fsdp")
    assert partition("a.kernel", (10, 9), 4) == PartitionSpec()
    assert partition("decoder.token_embedder.embedding", (13, 8), 2) == PartitionSpec(None, "fsdp")
    with pytest.raises(ValueError, match=r"No sharding rule for the parameter a\.bias"):
        partition("a.bias", (8,), 2)


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_optimizers_keep_their_arrays_where_parameters_lie(kind):
    config = TrainingConfig("test", MT3, optimizer=OptimizerConfig(kind=kind, ema_decay=0.99))
    shapes = abstract_state(config, mesh_of_one())
    shardings = state_shardings_of(config, mesh_of_one())
    assert jax.tree.structure(shapes) == jax.tree.structure(shardings)
    split = [sharding.spec != PartitionSpec() for sharding in jax.tree.leaves(shardings.opt_state)]
    num_matrices = sum(p.kind != "norm" for p in parameters(MT3.network))
    # AdamW's two moments; of Adafactor's nothing, since every matrix of this network is factored.
    assert sum(split) == (2 * num_matrices if kind == "adamw" else 0)
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, shardings.ema, shardings.params))
    assert all(leaf.sharding is not None for leaf in jax.tree.leaves(shapes))


def test_a_drawn_state_and_a_given_one():
    # All matrices of one shape: drawing is compiled for each.
    sizes = {"num_heads": 2, "head_dim": 4, "mlp_dim": 8, "vocab_size": 8, "input_bands": 8}
    config = training_runs.training_config()
    network = dataclasses.replace(config.model.network, **sizes)
    spectrogram = dataclasses.replace(config.model.spectrogram, mel_bands=8)
    config = dataclasses.replace(config, model=ModelConfig("square", network, spectrogram))
    arrays = random_arrays(config.model)
    drawn, given = init_state(config, mesh_of_one()), init_state(config, mesh_of_one(), arrays)
    abstract = abstract_state(config, mesh_of_one())
    for state in (drawn, given):
        jax.tree.map(
            lambda leaf, form: (
                (leaf.shape, leaf.dtype, leaf.sharding) == (form.shape, form.dtype, form.sharding)
                or pytest.fail(f"{leaf} is not {form}")
            ),
            state,
            abstract,
        )
        pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
        assert len(set(pointers)) == len(pointers)  # or the first step could not take them all
    for p in parameters(config.model.network):
        assert (flatten(given.params)[p.flax_name] == p.flip(arrays[p.torch_name])).all()
        assert (flatten(given.ema)[p.flax_name] == flatten(given.params)[p.flax_name]).all()
    again = init_state(config, mesh_of_one())
    other = init_state(dataclasses.replace(config, seed=1), mesh_of_one())
    same = [
        jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), drawn.params, s.params)) for s in (again, other)
    ]
    assert same == [True, False]
    arrays.pop("encoder.encoder_norm.weight")
    with pytest.raises(ModelError, match=r"missing: encoder\.encoder_norm\.weight"):
        given_params(config.model, arrays)


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_are_float32_in_bfloat16(parts):
    config = training_runs.training_config(0.1, compute={"dtype": "bfloat16"}, batch={"accumulation": parts})
    mesh = mesh_of_one()
    batch = training_runs.step_batch(config, 0, mesh)
    shardings = state_shardings_of(config, mesh).params
    gradient = functools.partial(accumulate, config, mesh=mesh, shardings=shardings)
    sums, gradients = jax.eval_shape(
        lambda params, batch, key: gradient(params=params, batch=batch, key=key),
        abstract_params(config.model),
        {name: jnp.asarray(array) for name, array in batch.items()},
        jax.random.key(0),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((sums, gradients))} == {jnp.dtype(jnp.float32)}
    assert jax.tree.map(lambda g: g.shape, gradients) == jax.tree.map(lambda p: p.shape, abstract_params(config.model))


def test_what_a_step_takes_and_gives():
    config, mesh = training_runs.training_config(0.1), mesh_of_one()
    batch = to_global(training_runs.step_batch(config, 0, mesh), mesh)
    assert all(array.sharding == batch_shardings(mesh) for array in batch.values())
    state = abstract_state(config, mesh)
    after, metrics = jax.eval_shape(make_train_step(config, mesh), state, batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    vectors = {name for name, leaf in metrics.items() if leaf.shape}
    assert vectors == {"correct", "count"}
    assert {
        "loss",
        "cross_entropy",
        "z_loss",
        "gradient_norm",
        "learning_rate",
        "num_tokens",
        "rejection",
    } <= metrics.keys()


def test_meshes_that_cannot_be():
    devices = jax.devices()[:1] * 6  # what is checked comes before they are used
    assert dict(make_mesh(ComputeConfig(), devices[:1]).shape) == {"data": 1, "fsdp": 1}
    for changes, says in (
        ({"data": 4, "fsdp": 2}, "A mesh of 4 x 2 needs 8 devices; there are 6. Set compute.data=-1"),
        ({"fsdp": 4}, "6 devices cannot be split into rows of compute.fsdp=4. Choose compute.fsdp"),
        ({"data": -1, "fsdp": -1}, "one of the two may be -1"),
        ({"data": 0}, "compute.data=0 and compute.fsdp=1 do not form a mesh"),
    ):
        with pytest.raises(UsageError) as raised:
            make_mesh(ComputeConfig(**changes), devices)
        assert says in str(raised.value)


def test_batches_that_cannot_be_divided():
    config = TrainingConfig("test", batch=BatchConfig(examples=100, accumulation=2))
    check_batch(config, Devices(5))
    with pytest.raises(UsageError) as raised:
        check_batch(config, Devices(8))
    assert str(raised.value) == (
        "100 examples cannot be divided equally among 8 devices in 2 microbatches. Set batch.examples to 96 or 112."
    )
    with pytest.raises(UsageError, match=r"among 256 devices\. Set batch\.examples to 256\."):
        check_batch(dataclasses.replace(config, batch=BatchConfig(examples=100)), Devices(256))


def test_flops_are_those_of_the_products():
    assert estimate.num_parameters(MT3) == 45_896_704
    # Encoder with the keys and values of the cross-attention, and what a token adds to it.
    assert estimate.example_flops(MT3, 0) == pytest.approx(36.64e9, rel=1e-3)
    assert estimate.example_flops(MT3, 101) - estimate.example_flops(MT3, 100) == pytest.approx(0.15e9, rel=0.01)
    by_weights = 6 * sum(
        np.prod(p.shape) for p in parameters(MT3.network) if p.path.startswith("encoder") and p.kind == "linear"
    )
    attention = 3 * 8 * 4 * 256 * 384
    keys_and_values = 3 * 8 * 4 * 512 * 384
    assert estimate.example_flops(MT3, 0) == 256 * (by_weights + attention + keys_and_values)


def test_utilisation():
    assert estimate.mfu(1000.0, MT3, 100, 2, "NVIDIA H200") == pytest.approx(
        1000 * estimate.example_flops(MT3, 100) / (2 * 989e12)
    )
    assert estimate.mfu(1000.0, MT3, 100, 1, "cpu") is None
    assert estimate.run_seconds(TrainingConfig("test"), 100, 1, "cpu") is None
    kinds = (
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 PCIe",
        "TPU v5 lite",
        "TPU v5p",
        "TPU v6 lite",
    )
    assert [estimate.peak_flops(kind) for kind in kinds] == [312e12, 989e12, 756e12, 197e12, 459e12, 918e12]


def test_what_the_devices_have_is_asked_of_them():
    mesh = types.SimpleNamespace(local_devices=[types.SimpleNamespace(memory_stats=lambda: None)])
    assert memory_limit(mesh) is None
    mesh.local_devices += [types.SimpleNamespace(memory_stats=lambda s=s: {"bytes_limit": s}) for s in (9, 7)]
    assert memory_limit(mesh) == 7


def test_memory_is_counted_from_shapes():
    def of(**changes):
        optimizer = OptimizerConfig(kind="adamw", ema_decay=0.9)
        config = TrainingConfig("test", MT3, optimizer=optimizer, compute=ComputeConfig(**changes))
        return estimate.memory_estimate(config, mesh_of_one(), rows=40)

    plain, half, again = of(), of(dtype="bfloat16"), of(dtype="bfloat16", remat=True)
    size = 4 * estimate.num_parameters(MT3)
    assert plain.params == plain.average == size
    assert plain.optimizer == 2 * size + 4
    assert again.activations < half.activations / 4 < plain.activations / 4
    assert plain.total == sum(dataclasses.astuple(plain))
