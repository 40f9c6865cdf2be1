"""`mt3 convert`, `mt3 parity` and `mt3 doctor` as a person meets them."""

import errno
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest
from small_models import save_model, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3app.commands import doctor
from mt3app.progress import describe
from mt3convert import sources
from mt3convert.t5x import write_t5x
from mt3core.model.directory import load_model_directory

pytestmark = pytest.mark.integration
needs_both = pytest.mark.skipif(not all(map(is_installed, PACKAGES)), reason="needs torch and jax")


@pytest.fixture
def folder(tmp_path, monkeypatch, no_models):
    """The current folder, with neither models nor caches from elsewhere."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_convert_says_what_it_found_and_wrote(folder, tiny_model, capsys):
    write_t5x("t5x", *tiny_model)
    assert run(["convert", "t5x", "models/tiny"]) == 0
    out, err = capsys.readouterr()
    config, arrays = load_model_directory("models/tiny")
    parameters = sum(array.size for array in arrays.values())
    assert out.splitlines() == [
        "Source:  t5x (T5X checkpoint)",
        f"Model:   tiny, 2 + 2 layers, {len(arrays)} arrays, {parameters:,} parameters",
        "Written: models/tiny (model directory)",
    ]
    assert err == ""
    assert config == tiny_model[0]


def test_convert_replaces_only_when_told(folder, tiny_model, capsys):
    write_t5x("t5x", *tiny_model)
    assert run(["convert", "t5x", "tiny", "--to", "t5x"]) == 0
    assert run(["convert", "t5x", "tiny"]) == 1
    assert "tiny already exists. Choose another path, or use --overwrite." in capsys.readouterr().err
    assert run(["convert", "t5x", "tiny", "--overwrite"]) == 0
    load_model_directory("tiny")


def test_convert_names_what_is_wrong(folder, capsys):
    assert run(["convert", "nothing", "out"]) == 1
    assert capsys.readouterr().err.startswith(
        "mt3: Model 'nothing' was not found: there is no such path, and no folder of that name in models or "
    )
    (folder / "text.txt").touch()
    assert run(["convert", "text.txt", "out"]) == 1
    assert "not in a known form" in capsys.readouterr().err
    assert run(["convert", "nothing", "out", "--to", "paper"]) == 2
    assert "Weights cannot be written as 'paper'. Choose model_directory, t5x, orbax, port." in capsys.readouterr().err


@needs_both
def test_parity_prints_a_table_and_json(folder, tiny_model, capsys):
    model = save_model(folder / "models/tiny", tiny_model)
    write_wav(folder / "song.wav", seconds=3)
    # Random weights make large logits, which float32 rounds coarsely.
    options = ["--seconds", "0.5", "--tolerance", "1e-2", "--json", "report.json"]
    assert run(["parity", "tiny", "song.wav", *options]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("tiny: 1 segments, ")
    assert "equal in all segments" in out
    assert "identical bytes" in out
    assert out.splitlines()[-1] == "The two networks are within tolerance (0.01)."
    report = json.loads((folder / "report.json").read_text())
    assert report["within_tolerance"]
    assert [stage["stage"] for stage in report["stages"]][-1] == "logits"
    assert run(["parity", model, "--seconds", "0.5", "--tolerance", "0", "--json", "-"]) == 1
    assert not json.loads(capsys.readouterr().out)["within_tolerance"]


def test_parity_needs_both_frameworks(folder, capsys, monkeypatch):
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name != "jax")
    assert run(["parity", "tiny"]) == 1
    expected = (
        "mt3 parity needs jax, which is not installed. Run: pip install jax (in a checkout of mt3kit: pip install "
    )
    assert expected in capsys.readouterr().err


def test_doctor_shows_versions_devices_and_folders(folder, tiny_model, capsys):
    save_model(folder / "models/mt3", tiny_model)
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["packages"]["numpy"] == np.__version__
    assert report["problems"] == []
    assert {"WAV", "FLAC", "OGG"} <= set(report["audio"]["libsndfile"])
    assert report["audio"]["pyav"] == {"version": av.__version__, "ffmpeg": av.ffmpeg_version_info}
    assert report["models"] == {"default": "models/mt3", "found": ["models/mt3"]}
    assert report["folders"]["cache"]["path"] == str(folder / "cache")
    assert report["folders"]["cache"]["free_gb"] > 0
    for name in PACKAGES:
        assert bool(report["devices"][name]) == is_installed(name)
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "models found:   models/mt3" in out
    assert f"compressed:     PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}" in out


def test_doctor_survives_and_names_what_is_broken(folder, capsys, monkeypatch):
    def break_down():
        raise OSError("libsndfile.so: cannot open")

    monkeypatch.setattr(doctor, "_sound_formats", break_down)
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "Problem: Audio files cannot be read: Unexpected OSError: libsndfile.so: cannot open." in out
    assert "default model:  No model was found, and none ships" in out


def test_a_closed_folder_is_a_sentence_whoever_looks_into_it(tmp_path, monkeypatch, capsys):
    """Path.is_file raises PermissionError below a folder that may not be entered, in whatever part of a command."""
    (tmp_path / "model").mkdir()

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(Path(path) / "config.json"))

    monkeypatch.setattr(sources, "is_model_directory", refuse)
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"mt3: {tmp_path}/model/config.json cannot be opened: permission denied. "
        "Check the permissions of the file and of its folders.\n"
    )
    assert describe(PermissionError(errno.EPERM, "no")).startswith("A file is closed: permission denied. ")
