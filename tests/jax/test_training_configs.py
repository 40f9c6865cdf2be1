"""The configs that ship: each loads, fits together, and describes a network that can be built."""

import ast
import dataclasses
import itertools
import re

import numpy as np
import pytest

from mt3core.config.files import list_configs, load_config, shipped_folder
from mt3core.config.model import PRESETS
from mt3core.config.training import LossConfig
from mt3core.files import size_in_words
from mt3core.model.directory import check_fit
from mt3data.examples.examples import ExampleConfig
from mt3jax.training.loss_curve import read_curve

pytestmark = pytest.mark.unit

NAMES = ("finetune", "mt3", "multitrack_a100", "multitrack_full", "multitrack_test", "multitrack_tpu", "piano", "small")


def test_all_that_are_promised_are_there():
    assert tuple(path.stem for path, _ in list_configs()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_named_like_its_file_and_documented(name):
    config = load_config(name)
    assert config.name == name
    ExampleConfig(model=config.model)  # segments that divide the chunks
    text = (shipped_folder() / f"{name}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert re.search(r"^Aim: ", docstring, re.MULTILINE)
    assert re.search(r"^Data: ", docstring, re.MULTILINE)
    assert re.search(rf"^    mt3 train --config {name}\b", docstring, re.MULTILINE)
    assert re.search(r"^(Expected|Measured)", docstring, re.MULTILINE)
    assert "ot yet run" in docstring or re.search(r"\d+ (min|hours|h|s)\b", docstring)
    assert len(text.splitlines()) < 160


def test_every_config_describes_a_network():
    jax = pytest.importorskip("jax")
    from mt3core.model.parameters import parameters
    from mt3jax.training.step.state import abstract_params

    models = {load_config(name).model for name in NAMES}
    assert len(models) == 5
    for model in models:
        shapes = sorted(leaf.shape for leaf in jax.tree.leaves(abstract_params(model)))
        assert shapes == sorted(parameter.shape for parameter in parameters(model.network))


# Lengths of targets of a rendered SLAKH, each eighth of them, by input frames; docs/training.md has their means.
LENGTHS = {256: (2, 23, 47, 70, 96, 139, 198, 340, 684), 512: (2, 43, 90, 135, 187, 270, 380, 640, 1024)}
# Devices that a docstring names, and gigabytes of each; for the others one with 80. JAX takes three quarters by itself.
DEVICES = {"multitrack_tpu": (32, 32)}
ON_CPUS = ("multitrack_test", "small")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ON_CPUS])
def test_every_config_fits_the_devices_it_is_for(name):
    jax = pytest.importorskip("jax")
    from mt3jax.row_packing import choose_rows
    from mt3jax.training.run.estimate import forecast_lines
    from mt3jax.training.step.sharding import make_mesh

    config, (num_devices, gigabytes) = load_config(name), DEVICES.get(name, (1, 80))
    assert config.compute.dtype == "bfloat16"
    # One device's share; on GPUs with the fused attention that `auto` takes there.
    batch = dataclasses.replace(config.batch, examples=config.batch.examples // num_devices)
    attention = "xla" if "tpu" in name else "cudnn"
    config = dataclasses.replace(
        config, batch=batch, compute=dataclasses.replace(config.compute, attention=attention, data=1)
    )
    mesh = make_mesh(config.compute, jax.devices()[:1])
    network, parts = config.model.network, batch.accumulation
    points = LENGTHS[network.input_frames]
    lengths = np.interp(np.random.default_rng(0).uniform(0, 8, 2000), np.arange(9), points).astype(int)
    rows = choose_rows(lengths, batch.examples // parts, network.max_target_tokens, batch.block_tokens, parts)
    limit = gigabytes * 1_000_000_000 * 3 // 4
    said = "\n".join(forecast_lines(config, mesh, rows, lengths.mean(), memory_limit=limit))
    assert f"packed in {rows} rows per device" in said
    assert f" GB of {size_in_words(limit)} (" in said
    assert "DOES NOT FIT" not in said, said
    too_little = forecast_lines(config, mesh, rows, lengths.mean(), memory_limit=limit // 20)
    assert any(line.startswith("THIS DOES NOT FIT") and "batch.accumulation=2" in line for line in too_little)


def test_mt3_is_the_published_recipe():
    config = load_config("mt3")
    network, optimizer = config.model.network, config.optimizer
    assert config.model == PRESETS["mt3"]
    assert (network.num_encoder_layers, network.num_decoder_layers, network.dropout_rate) == (8, 8, 0.1)
    assert (optimizer.kind, optimizer.adafactor_decay) == ("adafactor", 0.8)
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.warmup_steps) == (1e-3, "constant", 1000)
    assert (optimizer.clip_norm, optimizer.weight_decay, optimizer.ema_decay) == (0.0, 0.0, 0.0)
    assert (config.num_steps, config.batch.examples) == (1_000_000, 256)
    assert config.loss == LossConfig(z_loss=1e-4, normalise="sum")
    assert config.compute.dtype == "bfloat16"  # which is what the original's products were on TPUs
    assert not config.data.augmentation.is_on


def test_the_others_are_what_they_say():
    full, piano, test = (load_config(name) for name in ("multitrack_full", "piano", "multitrack_test"))
    assert full.model == PRESETS["multitrack"]
    assert [choice.name for choice in full.data.datasets] == ["maestro", "slakh"]
    assert piano.model == PRESETS["ismir2021"]
    assert [choice.name for choice in piano.data.datasets] == ["maestro"]
    for name in ("multitrack_a100", "multitrack_tpu"):
        assert load_config(name).model == full.model
        assert load_config(name).data == full.data
    seen = {name: load_config(name).num_steps * load_config(name).batch.examples for name in NAMES}
    assert seen["multitrack_full"] == seen["multitrack_a100"] == seen["multitrack_tpu"] == 128_000_000
    assert load_config("finetune").init
    assert test.data.composed_pieces
    assert test.finish.transcribe


def test_small_is_a_curriculum_of_one_network():
    """Onsets first, then complete targets, then mixes; each run's weights fit the next."""
    runs = [load_config("small")]
    while runs[0].before is not None:
        runs.insert(0, runs[0].before)
    assert [run.name for run in runs] == ["onsets", "single", "small"]
    assert [run.model.network.max_target_tokens for run in runs] == [64, 128, 128]
    assert [run.model.vocabulary.onsets_only for run in runs] == [True, False, False]
    for before, after in itertools.pairwise(runs):
        check_fit(before.model, after.model, before.name)
    assert {run.optimizer.kind for run in runs} == {"muon"}
    assert all(run.data.augmentation.is_on for run in runs)
    assert {choice.name for choice in runs[-1].data.datasets} == {"small_piano", "small_multi", "small_drums"}


def test_the_stored_curve_belongs_to_its_config():
    config = load_config("multitrack_test")
    curve = read_curve(shipped_folder() / config.finish.curve)
    assert (curve.config, curve.num_steps) == (config.name, config.num_steps)
    assert 0 < curve.band < 0.5
    assert curve.losses[0] > 1.5 * curve.losses[-1]  # it learned when it was recorded
