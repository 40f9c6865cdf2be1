"""Checkpoints of a run: the same bits back on any mesh, whatever killed the writer or became of the files."""

# ruff: noqa: E402

import errno
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
import numpy as np
import optax
from checkpoint_writer import assert_is, numbers_of, run_config, shapes_of, state_of

from mt3convert.orbax import read_orbax
from mt3convert.sources import convert
from mt3core.errors import ModelError, TrainingError
from mt3core.model.directory import load_model_directory
from mt3core.model.parameters import parameters
from mt3jax.loading import flatten
from mt3jax.training.run import checkpoints as module
from mt3jax.training.run.checkpoints import Checkpoints, LastAndBest
from mt3jax.training.run.checksums import find_damage, record_checksums
from mt3jax.training.run.run_record import has_checkpoints, read_run_record
from mt3jax.training.step.state import TrainState

pytestmark = pytest.mark.unit
PROGRAM = Path(__file__).parents[1] / "helpers" / "checkpoint_writer.py"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run's folder with the steps 3 and 6."""
    run = tmp_path_factory.mktemp("written") / "run"
    with Checkpoints(run, run_config()) as checkpoints:
        for step in (3, 6):
            checkpoints.save(state_of(run_config(), step), {"next_example": step})
    return run


@pytest.fixture
def run(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run")


def steps_in(run):
    return sorted(int(entry.name) for entry in run.iterdir() if entry.name.isdigit())


def torch_arrays(config, params):
    flat = flatten(params)
    return {p.torch_name: p.flip(flat[p.flax_name]) for p in parameters(config.model.network)}


def assert_arrays(found, expected):
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == np.ascontiguousarray(expected[name]).tobytes() for name in found)


def start(*arguments, **environment):
    root = PROGRAM.parents[1]
    variables = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "JAX_PLATFORMS": "cpu", **environment}
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


# ---- There and back


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_same_bits_come_back(tmp_path, ema_decay):
    """Also where the next step overwrites the state at once."""
    config = run_config(ema_decay)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    with Checkpoints(tmp_path / "run", config) as checkpoints:
        assert checkpoints.restore(shapes_of(config)) is None
        assert not has_checkpoints(tmp_path / "run")
        state = state_of(config, 5)
        checkpoints.save(state, {"next_example": 40, "fingerprint": {"config": "ab"}}, {"validation/loss": 0.5})
        overwrite(state)
        checkpoints.save(state_of(config, 5), {}, {})  # is there already
        checkpoints.wait()
        assert (tmp_path / "run/5").is_dir()
    with Checkpoints(tmp_path / "run", config) as checkpoints:
        restored = checkpoints.restore(shapes_of(config))
        assert_is(restored.state, config, 5)
        assert restored.data_state == {"next_example": 40, "fingerprint": {"config": "ab"}}
        assert restored.metrics == {"validation/loss": 0.5}
    expected = numbers_of(config, 5)
    model, arrays = read_orbax(tmp_path / "run")
    assert model == config.model
    assert_arrays(arrays, torch_arrays(config, expected.ema if ema_decay else expected.params))


def test_any_kind_of_leaf_comes_back(tmp_path):
    params = {"layers": {0: {"kernel": jnp.arange(6, dtype=jnp.bfloat16) / 7}, 1: {"kernel": jnp.ones((4, 3))}}}
    rms, trace = optax.scale_by_factored_rms(min_dim_size_to_factor=2), optax.trace(0.9, accumulator_dtype=jnp.bfloat16)
    optimizer = optax.chain(optax.identity(), rms, trace)
    counters = {name: jnp.int32(number) for number, name in enumerate(("step", "num_skipped", "skipped_in_row"), 7)}
    opt_state = (optimizer.init(params), None, {"count": jnp.uint8(200)}, [jnp.float32(np.nan), jnp.array([True])])
    state = TrainState(params, opt_state, None, norm_mean=jnp.float32(-0.0), **counters)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    with Checkpoints(tmp_path / "run", run_config()) as checkpoints:
        checkpoints.save(state, {})
        found = checkpoints.restore(shapes).state
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_two_processes_with_other_meshes_go_on(run):
    """One process and device has written it; two processes of two devices each read it and write the next."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = [
        start(
            *("join", run, 6),
            XLA_FLAGS="--xla_force_host_platform_device_count=2",
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    for process in joined:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert find_damage(run / "7") == ""
    assert json.loads((run / "7" / "checksums.json").read_text())["files"].keys() >= {"params/_METADATA"}
    with Checkpoints(run, run_config()) as checkpoints:
        restored = checkpoints.restore(shapes_of(run_config()))
    assert_is(restored.state, run_config(), 7)
    assert (restored.data_state, restored.metrics) == ({"next_example": 6}, {"validation/loss": 1.0})
    assert [change["field"] for change in read_run_record(run)["earlier"][-1]["changed_after"]] == ["compute.fsdp"]


# ---- What may happen to a writer


# TensorStore's other reads end after the first that failed, as the files went away, has ended them all.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_at_any_moment(tmp_path):
    """Writers are killed while checkpoints are read; each goes on after the last that was there, bit for bit."""
    run, config = tmp_path / "run", run_config(keep_last=1, keep_best=0)
    writers = start("kill", run, 4, 1)
    steps = [0]
    while writers.poll() is None:
        time.sleep(0.2)
        try:
            _, arrays = read_orbax(run)
        except ModelError:  # nothing is there yet
            assert steps == [0]
            continue
        expected = torch_arrays(config, numbers_of(config, step_of(config, arrays, steps[-1])).ema)
        assert_arrays(arrays, expected)
        steps.append(step_of(config, arrays, steps[-1]))
    output, errors = writers.communicate()
    assert writers.returncode == 0, errors
    assert int(output.split()[-1]) > 0, "no writer was interrupted in the middle"
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    last = max(steps_in(run))
    with Checkpoints(run, config, say=pytest.fail) as checkpoints:
        assert_is(checkpoints.restore(shapes_of(config)).state, config, last)
    assert not list(run.glob("*tmp*"))


def test_opening_removes_what_was_half_written(run):
    (run / "9.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    (run / "9.orbax-checkpoint-tmp" / "params" / "part").write_text("a part")
    (run / "12.orbax-checkpoint-tmp-1700000000").mkdir()
    before = steps_in(run)
    with Checkpoints(run, run_config()):
        assert not list(run.glob("*tmp*"))
    assert steps_in(run) == before


def test_one_process_at_a_time(run):
    with Checkpoints(run, run_config()):
        _, errors = start("open", run).communicate(timeout=120)
        assert "Another process is training in" in errors
    other = start("open", run)
    _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors


def step_of(config, arrays, first):
    """The step that these parameters are of: not before `first`."""
    name = "decoder.final_layer_norm.weight" if "decoder.final_layer_norm.weight" in arrays else min(arrays)
    for step in range(max(first, 1), first + 100):
        if torch_arrays(config, numbers_of(config, step).ema)[name].tobytes() == arrays[name].tobytes():
            return step
    raise AssertionError(f"these are the parameters of no step from {first} on")


def test_no_room(run, monkeypatch, tmp_path):
    config, size = run_config(), sum(leaf.nbytes for leaf in jax.tree.leaves(numbers_of(run_config(), 1)))
    free = [size * 3 // 2 + module.SPARE_BYTES]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, free[0]))
    with Checkpoints(tmp_path / "new", config) as checkpoints, pytest.raises(TrainingError, match="too little space"):
        checkpoints.restore(shapes_of(config))
    with Checkpoints(run, config) as checkpoints:
        checkpoints.restore(shapes_of(config))  # one is enough where old ones make room
        free[0] = size // 2
        with pytest.raises(TrainingError, match=r"for checkpoint 7: [\d.]+ kB free"):
            checkpoints.save(state_of(config, 7), {})
    assert steps_in(run) == [3, 6]


@pytest.mark.parametrize("in_next", [False, True])
def test_what_fails_aside_is_named(run, monkeypatch, in_next):
    config = run_config()

    def fail(directory):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "record_checksums", fail)
    with Checkpoints(run, config) as checkpoints:
        checkpoints.save(state_of(config, 7), {})
        with pytest.raises(TrainingError, match=r"Checkpoint 7 could not be written to .*No space left"):
            checkpoints.save(state_of(config, 8), {}) if in_next else checkpoints.wait()
        monkeypatch.setattr(module, "record_checksums", record_checksums)
        assert not list(run.glob("*tmp*"))
        assert_is(checkpoints.restore(shapes_of(config)).state, config, 6)
        checkpoints.save(state_of(config, 8), {})
    assert steps_in(run) == [6, 8]


# ---- What may happen to files


def largest(step):
    return max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(step):
    path = largest(step / "train")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(step):
    path = largest(step / "params")
    path.write_bytes(path.read_bytes()[:-1])


def lose_one(step):
    (step / "data" / "metadata").unlink()


def lose_record_and_more(step):
    (step / "checksums.json").unlink()
    largest(step / "train").unlink()


def spoil_record(step):
    (step / "checksums.json").write_text('{"files": ')


DAMAGE = {
    flip: r"train/\S+ has different contents than were written",
    truncate: r"params/\S+ has [\d,]+ bytes instead of [\d,]+",
    lose_one: "data/metadata is missing",
    lose_record_and_more: ".",
    spoil_record: "checksums.json cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_the_one_before_a_broken_one(run, damage):
    config, said = run_config(), []
    damage(run / "6")
    if damage in (truncate, spoil_record):
        with pytest.raises(ModelError, match=f"{run / '6'} is damaged: {DAMAGE[damage]}"):
            read_orbax(run)
        assert read_orbax(run / "3")[0] == config.model
    with Checkpoints(run, config, said.append) as checkpoints:
        restored = checkpoints.restore(shapes_of(config))
        assert_is(restored.state, config, 3)
        assert restored.data_state == {"next_example": 3}
        assert len(said) == 1
        match = f"Checkpoint 6 is damaged \\({DAMAGE[damage]}.*\\); it was renamed to 6.broken. Checkpoint 3 is used"
        assert re.search(match, said[0]), said
        if damage is flip:
            checkpoints.save(state_of(config, 6), {})  # the run comes to this number again
            assert_is(checkpoints.restore(shapes_of(config)).state, config, 6)


def test_all_broken(run):
    for step in ("3", "6"):
        truncate(run / step)
    with Checkpoints(run, run_config()) as checkpoints, pytest.raises(TrainingError, match="None of the 2 checkpoints"):
        checkpoints.restore(shapes_of(run_config()))
    assert steps_in(run) == [3, 6]  # whatever it was may be mended


# ---- What is kept


def test_the_last_and_the_best_stay(tmp_path):
    config = run_config(keep_last=1, keep_best=1)
    metrics = {
        1: {"validation/loss": 2.0, "validation/note_f1": 0.9},
        2: {"validation/loss": 1.0, "validation/note_f1": 0.1},
        3: {"validation/loss": math.nan, "validation/note_f1": 0.5},
        4: None,
    }
    for step, figures in metrics.items():  # opened again each time: what is best is known from the files
        with Checkpoints(tmp_path / "run", config) as checkpoints:
            checkpoints.save(state_of(config, step), {}, figures)
    assert steps_in(tmp_path / "run") == [1, 2, 4]


def test_kept_by_each_figure():
    policy = LastAndBest(keep_last=2, keep_best=2)
    policy.metrics = {step: {"validation/loss": abs(step - 5), "validation/note_f1": -step} for step in range(1, 9)}
    assert policy.kept(list(range(1, 11))) == {5, 4, 1, 2, 9, 10}  # of 4 and 6, which are equal, the earlier
    policy.keep_best = 0
    assert policy.kept(list(range(1, 11))) == {9, 10}
    assert policy.kept([7]) == {7}


def test_a_run_becomes_a_model_directory(run, tmp_path):
    for other in ("tensorboard", "pictures", "9.orbax-checkpoint-tmp", "9.orbax-checkpoint-tmp/params", "8.broken"):
        (run / other).mkdir()
    (run / "metrics.jsonl").write_text("{}\n")
    convert(run, tmp_path / "model")
    config, arrays = load_model_directory(tmp_path / "model")
    assert config == run_config().model
    assert_arrays(arrays, torch_arrays(run_config(), numbers_of(run_config(), 6).ema))
