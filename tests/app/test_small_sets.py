"""A few recordings of one's own: the documented commands train on them at the first try."""

import dataclasses
import json

import numpy as np
import pytest
from prepared_chunks import Recording, prepare, random_notes
from small_datasets import write_pair

from mt3app.cli import run
from mt3app.cli_train import TrainOptions
from mt3app.commands.train import initial_arrays, settled_config, with_model_of_run
from mt3app.commands.train_finish import held_out_piece
from mt3app.progress import Reporter
from mt3core.config.data import DatasetChoice
from mt3core.config.files import load_config
from mt3core.config.model import MT3
from mt3core.errors import DatasetError, ModelError
from mt3core.model.directory import load_model_config
from mt3core.model.search import find_model
from mt3data.readers.file_names import split_by_name
from mt3jax.training.run.run_record import write_run_record

pytestmark = pytest.mark.integration
NAMES = [name for name in (f"song {number}" for number in range(50)) if split_by_name(name) == "train"][:3]


def recording(track, **values):
    rng = np.random.default_rng(0)
    audio = (rng.standard_normal(32_000) * 1000).astype(np.int16)
    return Recording(track, audio, random_notes(rng, 2.0, 10), **values)


def options(config, data, *changes, init=None):
    return TrainOptions(config=config, changes=changes, data=data, init=init)


def test_data_of_ones_own_take_the_place_of_composed_pieces(tmp_path):
    manifest = prepare(tmp_path / "own", [recording("a", dataset="folder")])
    config = settled_config(options("multitrack_test", manifest))
    assert (config.data.manifest, config.data.composed_pieces, config.data.datasets) == (str(manifest), 0, ())
    named = settled_config(options("multitrack_test", manifest, "data.datasets=folder"))
    assert named.data.datasets == (DatasetChoice("folder"),)
    composed = prepare(tmp_path / "composed", [recording("a", dataset="composed")])
    usual = load_config("multitrack_test").data.datasets
    assert settled_config(options("multitrack_test", composed)).data.datasets == usual
    assert settled_config(options("multitrack_test", tmp_path / "nowhere")).data.datasets == usual
    full = load_config("multitrack_full").data.datasets
    assert settled_config(options("multitrack_full", manifest)).data.datasets == full  # those were chosen


def test_fine_tuning_takes_the_model_of_the_weights(tmp_path):
    quiet = Reporter(quiet=True)
    small = load_model_config(find_model("small").source)
    config = settled_config(options("finetune", None, init="small"))
    found, arrays = initial_arrays(config, "small", quiet)
    assert small.agreement
    assert small.confidence
    small = dataclasses.replace(small, confidence=(), agreement=())  # they are about the weights
    assert found.model == small
    assert found == dataclasses.replace(config, model=small)
    assert arrays
    said = settled_config(options("finetune", None, "model.network.emb_dim=64", init="small"))
    with pytest.raises(ModelError, match="do not match the config"):
        initial_arrays(said, "small", quiet)
    with pytest.raises(ModelError, match="do not match the config"):
        initial_arrays(settled_config(options("piano", None, init="small")), "small", quiet)
    assert config.model == MT3  # as long as nothing was read
    tmp_path.joinpath("run").mkdir()
    write_run_record(tmp_path / "run", found)
    assert with_model_of_run(config, tmp_path / "run") == found
    assert with_model_of_run(config, tmp_path / "none") == config


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [(("train", "validation", "test"), "test"), (("train", "validation"), "validation"), (("train",), "train")],
)
def test_the_piece_at_the_end_is_held_out_if_any_is(tmp_path, splits, chosen):
    manifest = prepare(tmp_path, [recording(f"of {split}", split=split) for split in splits])
    config = settled_config(options("multitrack_test", manifest))
    piece, split = held_out_piece(config)
    assert (piece.track, split) == (f"of {chosen}", chosen)
    other = dataclasses.replace(config, finish=dataclasses.replace(config.finish, split="omitted"))
    with pytest.raises(DatasetError, match="no recordings in 'omitted'"):
        held_out_piece(other)


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Three pairs in `my_music`, all of which would be in the split train."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "programs"))
    for number, name in enumerate(NAMES):
        write_pair(tmp_path / "my_music", name, 4.0, number)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["--config", "multitrack_test"], ["--config", "finetune", "--init", "small"]], ids=["test", "finetune"]
)
def test_three_pairs_are_trained_on_at_the_first_try(three, capsys, command):
    pytest.importorskip("torch")
    assert run(["prepare", "folder", "my_music", "--out", "cache2", "--processes", "1"]) == 0
    said = capsys.readouterr().err
    assert "All 3 recordings are in the split train: training goes on without validation." in said
    values = ["num_steps=2", "batch.examples=4", "compute.dtype=float32", "report.tensorboard=false"]
    if command[1] == "multitrack_test":
        values += ["model.network.num_encoder_layers=1", "model.network.num_decoder_layers=1"]
    short = [word for value in values for word in ("--set", value)]
    assert run(["train", *command, "--data", "cache2", *short]) == 0
    out, err = capsys.readouterr()
    assert err.count("has no recordings in 'validation', so the run is not validated.") == 1
    assert ("Trained on: folder/" in out) == (command[1] == "multitrack_test")
    folder = three / "checkpoint" / command[1]
    assert (folder / "2").is_dir()
    reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert not any(name.startswith("validation/") for report in reports for name in report)
    assert run(["convert", f"checkpoint/{command[1]}", "models/mine"]) == 0
