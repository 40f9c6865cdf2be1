"""What a run's folder says of the run, and what may go on in it."""

# ruff: noqa: E402

import dataclasses
import json

import pytest

jax = pytest.importorskip("jax")

from checkpoint_writer import run_config

from mt3core.config.training import DataConfig, OptimizerConfig, SafetyConfig
from mt3core.errors import TrainingError
from mt3jax.training.run import run_record
from mt3jax.training.run.checkpoints import Checkpoints
from mt3jax.training.run.run_record import read_run_record

pytestmark = pytest.mark.unit


def test_a_run_goes_on_only_as_the_same(tmp_path):
    run, config = tmp_path / "run", run_config()
    Checkpoints(run, config).close()
    other = dataclasses.replace(
        config, seed=1, data=DataConfig(temperature=1.0), optimizer=OptimizerConfig(kind="adafactor", ema_decay=0.9)
    )
    with pytest.raises(TrainingError) as caught:
        Checkpoints(run, other)
    for part in ("seed (was 0, now 1)", 'optimizer.kind (was "adamw", now "adafactor")', "data.temperature"):
        assert part in caught.value.problem
    assert "Use the same values" in caught.value.next_step
    assert read_run_record(run)["config"]["seed"] == 0
    said = []
    free = dataclasses.replace(config, num_steps=5, safety=SafetyConfig(not_finite="skip"))
    Checkpoints(run, free, said.append).close()
    assert said == [
        'Resuming with changed values: num_steps (was 1000000, now 5), safety.not_finite (was "stop", now "skip").'
    ]
    record = read_run_record(run)
    assert record["config"]["data"]["manifest"] == config.data.manifest
    assert record["config"]["num_steps"] == 5
    assert record["versions"]["jax"] == jax.__version__
    assert [len(start["changed_after"]) for start in record["earlier"]] == [2]
    for unknown in (record["config"]["safety"], record["config"]["loss"]):  # as an older version has written it
        unknown.popitem()
    (run / "run.json").write_text(json.dumps(record))
    Checkpoints(run, free, pytest.fail).close()


def test_the_revision_of_a_checkout(monkeypatch):
    answers = {"ls-files": "", "rev-parse": "abc\n", "status": " M x.py\n"}
    monkeypatch.setattr(run_record, "_git", lambda root, command, *rest: answers.get(command))
    assert run_record.git_revision() == {"commit": "abc", "is_dirty": True}
    answers["status"] = ""
    assert run_record.git_revision() == {"commit": "abc", "is_dirty": False}
    del answers["ls-files"]  # installed below a checkout of something else
    assert run_record.git_revision() is None


def test_folders_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    for place, problem in (
        (tmp_path, "it contains thesis.tex, but no run.json"),
        (tmp_path / "thesis.tex", "is a file"),
    ):
        with pytest.raises(TrainingError, match=problem):
            Checkpoints(place, run_config())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("[]")
    with pytest.raises(TrainingError, match="not the record of a training run"):
        Checkpoints(broken, run_config())
