"""Orbax checkpoints: bit-exact there and back, and training's own forms are read."""

import dataclasses
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mt3convert.orbax import is_orbax_directory, read_orbax, write_orbax
from mt3convert.sources import convert
from mt3convert.t5x import read_t5x, write_t5x
from mt3core.config.model import MT3
from mt3core.errors import ModelError, OutputError
from mt3core.model.directory import load_model_directory
from mt3core.model.parameters import parameters

checkpoint = pytest.importorskip("orbax.checkpoint")
pytestmark = pytest.mark.unit


def assert_equal(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])


def flax_tree(config, arrays):
    """Nested by Flax's names, with whole numbers for places in lists, as `nnx.to_pure_dict` gives it."""
    tree = {}
    for parameter in parameters(config.network):
        *parents, leaf = (int(part) if part.isdigit() else part for part in parameter.flax_name.split("."))
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
        branch[leaf] = parameter.flip(arrays[parameter.torch_name])
    return tree


def test_round_trip(tmp_path, tiny_model):
    write_orbax(tmp_path / "o", *tiny_model)
    assert is_orbax_directory(tmp_path / "o")
    config, arrays = read_orbax(tmp_path / "o")
    assert config == tiny_model[0]
    assert_equal(arrays, tiny_model[1])
    assert all(array.flags.writeable for array in arrays.values())
    with pytest.raises(OutputError, match="already exists"):
        write_orbax(tmp_path / "o", *tiny_model)
    write_orbax(tmp_path / "o", *tiny_model, overwrite=True)


def test_a_moved_checkpoint_is_read(tmp_path, tiny_model):
    write_orbax(tmp_path / "a", *tiny_model)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    shutil.rmtree(tmp_path / "a")
    assert_equal(read_orbax(tmp_path / "elsewhere" / "b")[1], tiny_model[1])


@pytest.mark.parametrize("inside_params", [True, False])
@pytest.mark.parametrize("with_config", [True, False])
def test_steps_of_a_training_run(tmp_path, make_weights, inside_params, with_config):
    """The last step's parameters, whether alone in their tree or beside the optimiser's state."""
    network = dataclasses.replace(MT3.network, num_encoder_layers=1, num_decoder_layers=1, num_heads=1, mlp_dim=16)
    config = dataclasses.replace(MT3, name="trained", network=network)
    with checkpoint.CheckpointManager(tmp_path / "run") as manager:
        for step in (9, 10):
            params = flax_tree(config, make_weights(config, step))
            tree = {"params": params, "opt_state": {"mean": np.ones(3)}, "step": np.int32(step)}
            items = {"state": checkpoint.args.StandardSave(tree if inside_params else params)}
            if with_config:
                items["config"] = checkpoint.args.JsonSave(config.to_dict())
            manager.save(step, args=checkpoint.args.Composite(**items))
        manager.wait_until_finished()
    found, arrays = read_orbax(tmp_path / "run")
    assert found.network == network
    assert (found == config) is with_config
    assert_equal(arrays, make_weights(config, 10))
    assert_equal(read_orbax(tmp_path / "run" / "9")[1], make_weights(config, 9))
    assert_equal(read_orbax(tmp_path / "run" / "9" / "state")[1], make_weights(config, 9))


@pytest.fixture
def run_of_three(tmp_path, tiny_model, make_weights):
    """The folder of a run with checkpoints after steps 9, 10 and 100."""
    for step in (9, 10, 100):
        write_orbax(tmp_path / "run" / str(step), tiny_model[0], make_weights(tiny_model[0], step))
    (tmp_path / "run" / "run.json").write_text("{}")
    return tmp_path / "run"


def cut(step):
    description = step / "params" / "_METADATA"
    description.write_bytes(description.read_bytes()[:100])


def without_parameters(step):
    shutil.rmtree(step / "params")


def diverged(step):
    from mt3convert.orbax import read_orbax as read

    config, arrays = read(step)
    write_orbax(step, config, {**arrays, "encoder.encoder_norm.weight": np.full(8, np.nan)}, overwrite=True)


@pytest.mark.parametrize(
    ("damage", "problem"), [(cut, "is damaged"), (without_parameters, "none of the items params"), (diverged, "NaN")]
)
def test_a_broken_newest_checkpoint_names_the_one_that_works(run_of_three, make_weights, tiny_model, damage, problem):
    damage(run_of_three / "100")
    with pytest.raises(ModelError, match=problem) as caught:
        convert(run_of_three, run_of_three.parent / "model")
    assert str(run_of_three / "100") in caught.value.problem
    assert caught.value.next_step == f"Use {run_of_three / '10'}, the newest one that can be read."
    convert(run_of_three / "10", run_of_three.parent / "model")
    assert_equal(load_model_directory(run_of_three.parent / "model")[1], make_weights(tiny_model[0], 10))
    damage(run_of_three / "10")
    with pytest.raises(ModelError, match="/9, the newest one that can be read"):
        read_orbax(run_of_three)
    damage(run_of_three / "9")
    with pytest.raises(ModelError, match=r"None of the earlier ones|no checkpoint that can be read"):
        convert(run_of_three, run_of_three.parent / "another")
    assert not (run_of_three.parent / "another").exists()


def test_missing_and_surplus_arrays_are_listed(tmp_path, tiny_model):
    config, arrays = tiny_model
    tree = flax_tree(config, arrays)
    del tree["encoder"]["layers"][0]["mlp"]["wo"]
    tree["decoder"]["extra"] = {"kernel": np.ones((2, 2), np.float32)}
    with checkpoint.Checkpointer(checkpoint.CompositeCheckpointHandler()) as checkpointer:
        saved = {
            "params": checkpoint.args.StandardSave(tree),
            "config": checkpoint.args.JsonSave(config.to_dict()),
        }
        checkpointer.save(tmp_path / "o", checkpoint.args.Composite(**saved))
    with pytest.raises(ModelError, match=r"1 missing: encoder\.layers\.0\.mlp\.wo\.kernel\. 1 surplus: decoder\.extra"):
        read_orbax(tmp_path / "o")


def test_no_checkpoint(tmp_path):
    assert not is_orbax_directory(tmp_path)
    with pytest.raises(ModelError, match="not an Orbax checkpoint"):
        read_orbax(tmp_path)


def test_damaged_data(tmp_path, tiny_model):
    write_orbax(tmp_path / "o", *tiny_model)
    description = tmp_path / "o" / "params" / "_METADATA"
    description.write_bytes(description.read_bytes()[:100])
    with pytest.raises(ModelError, match="is damaged"):
        read_orbax(tmp_path / "o")


def test_damaged_data_print_nothing_on_the_terminal(tmp_path, tiny_model, capfd):
    """One read that fails must not leave others behind, which would find no event loop when they end."""
    write_orbax(tmp_path / "o", *tiny_model)
    manifest = tmp_path / "o" / "params" / "manifest.ocdbt"
    content = manifest.read_bytes()
    for number in range(5):
        place = 40 + 10 * number
        manifest.write_bytes(content[:place] + b"damaged!" + content[place + 8 :])
        with pytest.raises(ModelError, match="is damaged"):
            read_orbax(tmp_path / "o")
        time.sleep(0.1)  # for what other threads would print
    assert capfd.readouterr() == ("", "")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 5), st.integers(1, 7)),
    activations=st.sampled_from([("gelu", "linear"), ("relu",), ("silu", "gelu", "linear")]),
    tied=st.booleans(),
    seed=st.integers(0, 99),
)
def test_chain_of_all_forms_is_bit_exact(make_weights, layers, sizes, activations, tied, seed):
    """T5X -> model directory -> Orbax -> model directory -> T5X, for networks of any form."""
    network = dataclasses.replace(
        MT3.network,
        num_encoder_layers=layers[0],
        num_decoder_layers=layers[1],
        num_heads=sizes[0],
        head_dim=sizes[1],
        emb_dim=2 * sizes[2],
        mlp_dim=sizes[3],
        vocab_size=11,
        mlp_activations=activations,
        logits_via_embedding=tied,
    )
    config = dataclasses.replace(MT3, name="any", network=network)
    arrays = make_weights(config, seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_t5x(place / "t5x", config, arrays)
        for source, destination in (("t5x", "first"), ("first", "o.orbax"), ("o.orbax", "second")):
            convert(place / source, place / destination)
        convert(place / "second", place / "back", to="t5x")
        for found, read in (load_model_directory(place / "second"), read_t5x(place / "back")):
            assert found == config
            assert_equal(read, arrays)
        files = ("config.json", "model.safetensors")
        assert all((place / "first" / n).read_bytes() == (place / "second" / n).read_bytes() for n in files)


@pytest.mark.integration
def test_published_weights_survive_the_chain(tmp_path, published_checkpoint, published_arrays):
    source = published_checkpoint
    for name in ("first", "o.orbax", "second"):
        convert(source, tmp_path / name)
        source = tmp_path / name
    config, arrays = load_model_directory(tmp_path / "second")
    assert config == published_arrays[0]
    assert_equal(arrays, published_arrays[1])
