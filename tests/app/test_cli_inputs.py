"""Recordings and models that are broken or unusual: each has its sentence and its exit code, or simply works."""

import json
import shutil

import numpy as np
import pretty_midi
import pytest
import soundfile
from small_models import RATE_HZ, with_few_tokens, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3convert.t5x import write_t5x

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]

WO = "target.decoder.layers_1.mlp.wo.kernel"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def t5x(folder, tiny_model):
    write_t5x(folder / "t5x", *with_few_tokens(tiny_model))
    write_wav(folder / "song.wav")
    return folder / "t5x"


def fails(capsys, *arguments):
    """Runs `mt3`, which must fail with one sentence and no traceback; returns the exit code and the sentence."""
    code = run(["transcribe", *arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mt3: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return code, err


def make_missing(path):
    pass


def make_text(path):
    path.write_text("These are words.\n" * 100)


def make_no_bytes(path):
    path.touch()


def make_no_samples(path):
    soundfile.write(path, np.zeros(0), RATE_HZ)


def make_nan(path):
    samples = np.zeros(RATE_HZ, np.float32)
    samples[8000] = np.nan
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")


def make_truncated_flac(path):
    noise = np.random.default_rng(0).normal(scale=0.1, size=RATE_HZ * 3)
    soundfile.write(path, noise, RATE_HZ, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("song.wav", make_missing, "There is no file song.wav. Check the name"),
        ("song.wav", make_text, "song.wav cannot be read as audio. Use a WAV, FLAC, MP3, Ogg"),
        ("song.wav", make_no_bytes, "song.wav is empty (0 bytes). Copy or download it again."),
        ("song.wav", make_no_samples, "song.wav contains no audio: 0 samples. Check the recording"),
        ("song.wav", make_nan, "song.wav has a sample that is not finite (NaN or infinity) at 0.500 s. Export the"),
        ("song.flac", make_truncated_flac, "song.flac is truncated"),
    ],
)
def test_broken_audio(folder, model, capsys, name, make, sentence):
    make(folder / name)
    code, err = fails(capsys, name, "--model", model)
    assert code == 1
    assert sentence in err
    assert not (folder / "song.mid").exists()


@pytest.mark.parametrize(
    "form",
    [
        {"seconds": 0.01},
        {"subtype": "PCM_24"},
        {"channels": 8},
        {"rate_hz": 96_000},
        {"rate_hz": 11_025},
        {"subtype": "PCM_24", "channels": 8, "rate_hz": 96_000},
    ],
    ids=str,
)
def test_unusual_audio_works(folder, model, capsys, form):
    write_wav(folder / "song.wav", **form)
    assert run(["transcribe", "song.wav", "--model", model, "--format", "mid,json"]) == 0
    pretty_midi.PrettyMIDI(str(folder / "song.mid"))
    duration = json.loads((folder / "song.json").read_text())["duration_seconds"]
    assert duration == pytest.approx(form.get("seconds", 0.5), abs=1e-3)


def test_a_whole_t5x_directory_works(t5x):
    assert run(["transcribe", "song.wav", "--model", str(t5x)]) == 0


def test_missing_arrays_are_listed(t5x, capsys):
    query = "target.encoder.layers_0.attention.query.kernel"
    for name in (WO, query):
        shutil.rmtree(t5x / name)
    code, err = fails(capsys, "song.wav", "--model", "t5x")
    assert code == 1
    assert f"2 missing: {WO}, {query}" in err


def test_a_truncated_chunk_is_named(t5x, capsys):
    (chunk,) = (path for path in (t5x / WO).iterdir() if path.name != ".zarray")
    chunk.write_bytes(chunk.read_bytes()[:20])
    code, err = fails(capsys, "song.wav", "--model", "t5x")
    assert code == 1
    assert WO in err


def test_a_wrong_shape_is_named(t5x, capsys):
    metadata = json.loads((t5x / WO / ".zarray").read_text())
    metadata["shape"] = [3, 8]
    (t5x / WO / ".zarray").write_text(json.dumps(metadata))
    code, err = fails(capsys, "song.wav", "--model", "t5x")
    assert code == 1
    assert f"1 of another shape: {WO} (is (3, 8), should be (16, 8))" in err


def test_a_pth_that_needs_code_is_refused(folder, capsys):
    torch = pytest.importorskip("torch")
    write_wav(folder / "song.wav")
    torch.save({"model": write_wav}, folder / "model.pth")
    code, err = fails(capsys, "song.wav", "--model", "model.pth")
    assert code == 1
    assert "model.pth" in err
    assert "code" in err


def test_a_newer_model_directory_says_update(folder, model, capsys):
    shutil.copytree(model, folder / "newer")
    config = json.loads((folder / "newer/config.json").read_text())
    (folder / "newer/config.json").write_text(json.dumps({**config, "format_version": 99}))
    write_wav(folder / "song.wav")
    code, err = fails(capsys, "song.wav", "--model", "newer")
    assert code == 1
    assert "The model has format version 99; this mt3kit reads up to 1. Install a newer release of mt3kit." in err


def test_a_folder_that_is_no_model_says_so(folder, capsys):
    (folder / "empty").mkdir()
    write_wav(folder / "song.wav")
    code, err = fails(capsys, "song.wav", "--model", "empty")
    assert code == 1
    assert "empty is not in a known form of weights." in err
