"""Finding out what a source is, and converting."""

import json
import shutil

import numpy as np
import pytest

from mt3convert.sources import convert, identify, load
from mt3convert.t5x import read_t5x, write_t5x
from mt3core.errors import ModelError, OutputError, UsageError
from mt3core.model.directory import load_model_directory, save_model_directory

pytestmark = pytest.mark.unit


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty current directory and cache."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def t5x(home, tiny_model):
    write_t5x(home / "t5x", *tiny_model)
    return home / "t5x"


def test_kinds(home, t5x, tiny_model):
    save_model_directory(home / "model", *tiny_model)
    assert identify(t5x) == identify(str(t5x)) == identify(t5x / "checkpoint") == "t5x"
    assert identify(home / "model") == "model_directory"
    assert identify("gs://mt3/checkpoints/mt3") == identify("https://example.org/m") == "remote"
    pretrained = home / "pretrained"  # as in kunato's repository
    pretrained.mkdir()
    (pretrained / "config.json").write_text("{}")
    (pretrained / "mt3.pth").write_bytes(b"")
    assert identify(pretrained) == identify(pretrained / "mt3.pth") == "port"
    (home / "run" / "100" / "state").mkdir(parents=True)
    (home / "run" / "100" / "state" / "_METADATA").write_text("{}")
    assert identify(home / "run") == identify(home / "run" / "100") == "orbax"


def test_broken_forms_are_still_named(home, t5x, tiny_model):
    """So that the message says what is missing rather than that nothing is known."""
    (t5x / "checkpoint").unlink()
    assert identify(t5x) == "t5x"
    save_model_directory(home / "model", *tiny_model)
    (home / "model" / "config.json").unlink()
    assert identify(home / "model") == "model_directory"
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load(home / "model")


def test_unknown_forms(home):
    (home / "song.mp3").write_bytes(b"")
    (home / "empty").mkdir()
    for name in ("song.mp3", "empty"):
        with pytest.raises(ModelError, match="not in a known form"):
            identify(home / name)
    with pytest.raises(ModelError, match="There is no model at"):
        identify(home / "nowhere")


@pytest.mark.parametrize("form", ["t5x", "t5x/checkpoint", "model"])
def test_load(home, t5x, tiny_model, form):
    save_model_directory(home / "model", *tiny_model)
    loaded = load(home / form)
    assert loaded.config == tiny_model[0]
    assert loaded.kind == ("model_directory" if form == "model" else "t5x")
    assert loaded.notes == ()
    for name, array in tiny_model[1].items():
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_values_that_are_no_numbers(home, tiny_model):
    config, arrays = tiny_model
    broken = {**arrays, "decoder.decoder_norm.weight": np.full(8, np.nan, np.float32)}
    write_t5x(home / "diverged", config, broken)
    with pytest.raises(ModelError, match=r"NaN \(not a number\) in 1 of 51 arrays: decoder\.decoder_norm\.weight"):
        load(home / "diverged")


def test_a_model_of_a_newer_version(home, tiny_model):
    save_model_directory(home / "model", *tiny_model)
    path = home / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(ModelError, match="format version 99") as caught:
        load(home / "model")
    assert "newer release" in caught.value.next_step


def test_convert_to_a_model_directory(home, t5x, tiny_model):
    report = convert(t5x, home / "models" / "tiny")
    assert (report.source_kind, report.destination_kind) == ("t5x", "model_directory")
    assert report.num_arrays == len(tiny_model[1])
    assert report.num_parameters == sum(array.size for array in tiny_model[1].values())
    config, arrays = load_model_directory(home / "models" / "tiny")
    assert config == tiny_model[0]
    np.testing.assert_array_equal(arrays["decoder.logits_dense.weight"], tiny_model[1]["decoder.logits_dense.weight"])


def test_convert_to_a_port_and_back(home, t5x, tiny_model):
    pytest.importorskip("torch")
    assert convert(t5x, home / "mt3.pth").destination_kind == "port"
    report = convert(home / "mt3.pth", home / "back", to="t5x")
    assert report.source_kind == "port"
    assert len(report.notes) == 1
    config, arrays = read_t5x(home / "back")
    assert config == tiny_model[0]
    assert all(np.array_equal(arrays[name], array) for name, array in tiny_model[1].items())


@pytest.mark.parametrize("name", ["model", "model.pth"])
def test_nothing_is_overwritten_unasked(home, t5x, name):
    if name.endswith(".pth"):
        pytest.importorskip("torch")
    convert(t5x, home / name)
    with pytest.raises(OutputError, match="already exists"):
        convert(t5x, home / name)
    assert convert(t5x, home / name, overwrite=True).num_arrays


def test_the_destination_is_checked_before_the_source_is_read(home):
    (home / "model").mkdir()
    (home / "model" / "song.mid").write_bytes(b"")
    with pytest.raises(OutputError, match="already exists"):
        convert(home / "nowhere", home / "model")


def test_a_failed_conversion_leaves_nothing(home, t5x):
    shutil.rmtree(t5x / "target.decoder.logits_dense.kernel")
    with pytest.raises(ModelError, match=r"1 missing: target\.decoder\.logits_dense\.kernel"):
        convert(t5x, home / "model")
    assert not (home / "model").exists()


def test_unknown_destination_kind(home, t5x):
    with pytest.raises(UsageError, match="cannot be written as 'onnx'"):
        convert(t5x, home / "model", to="onnx")
