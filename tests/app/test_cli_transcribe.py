"""`mt3 transcribe` with a tiny network of random weights: what is written, what is said, and the exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
from small_models import RATE_HZ, save_model, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model):
    return save_model(tmp_path_factory.mktemp("models") / "tiny", tiny_model)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, holding `song.wav` of half a second."""
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "song.wav")
    return tmp_path


def test_midi_is_written_beside_the_recording(folder, model, capsys):
    assert run(["transcribe", "song.wav", "--model", model]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("song.wav -> song.mid: ")
    assert "x real time)" in err
    assert len(err.splitlines()) == 1
    pretty_midi.PrettyMIDI(str(folder / "song.mid"))
    assert sorted(path.name for path in folder.iterdir()) == ["song.mid", "song.wav"]


def test_all_formats_at_once_say_the_same(folder, model, capsys):
    assert run(["transcribe", "song.wav", "--model", model, "-o", "out/", "--format", "mid,json,jsonl,csv", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    result = json.loads((folder / "out/song.json").read_text())
    assert set(result) == {"version", "model", "audio", "duration_seconds", "notes", "segments"}
    assert result["duration_seconds"] == pytest.approx(0.5)
    assert len(result["segments"]) == 1
    assert set(result["segments"][0]) == {"start_seconds", "tokens", "invalid_events", "dropped_events"}
    lines = (folder / "out/song.jsonl").read_text().splitlines()
    table = (folder / "out/song.csv").read_text().splitlines()
    assert len(lines) == len(table) - 1 == len(result["notes"])
    for line, note in zip(lines, result["notes"], strict=True):
        found = json.loads(line)
        assert found.pop("instrument") == note.pop("instrument")
        assert found == pytest.approx(note, abs=1e-6)


def test_standard_output_holds_data_only(folder, model, capfdbinary):
    assert run(["transcribe", "song.wav", "--model", model, "-o", "-", "--format", "json", "--verbose"]) == 0
    out, err = capfdbinary.readouterr()
    assert json.loads(out)["model"] == "tiny"
    assert b"Loaded tiny from" in err
    assert b"song.wav -> standard output: " in err
    assert run(["transcribe", "song.wav", "--model", model, "-o", "-", "-q"]) == 0
    out, err = capfdbinary.readouterr()
    assert out.startswith(b"MThd")
    assert err == b""


def test_lines_of_several_recordings_name_them(folder, model, capsys, monkeypatch):
    write_wav(folder / "other.wav", 2.5)
    assert run(["transcribe", "song.wav", "other.wav", "--model", model, "-o", "-", "--format", "jsonl"]) == 0
    names = [json.loads(line)["audio"] for line in capsys.readouterr().out.splitlines()]
    assert set(names) <= {"song.wav", "other.wav"}
    assert names == sorted(names, reverse=True)


def test_finished_files_are_skipped_unless_overwritten(folder, model, capsys):
    write_wav(folder / "music/a.wav")
    write_wav(folder / "music/deep/b.wav")
    (folder / "out").mkdir()
    (folder / "out/a.mid").write_bytes(b"mine")
    assert run(["transcribe", "music", "-o", "out", "--model", model]) == 0
    err = capsys.readouterr().err
    assert "music/a.wav: skipped, out/a.mid exists (--overwrite replaces it)" in err
    assert "music/deep/b.wav -> out/deep/b.mid: " in err
    assert (folder / "out/a.mid").read_bytes() == b"mine"
    # All finished: no model is needed.
    assert run(["transcribe", "music", "-o", "out", "--model", "nothing"]) == 0
    assert capsys.readouterr().err.count("skipped") == 2
    assert run(["transcribe", "music", "-o", "out", "--model", model, "--overwrite"]) == 0
    assert "skipped" not in capsys.readouterr().err
    assert (folder / "out/a.mid").read_bytes().startswith(b"MThd")


def test_a_batch_with_failures_finishes_the_rest_and_lists_them(folder, model, capsys):
    (folder / "noise.wav").write_text("no audio at all")
    write_wav(folder / "zz.wav")
    samples = np.full(RATE_HZ, np.nan, np.float32)
    soundfile.write(folder / "nan.wav", samples, RATE_HZ, subtype="FLOAT")
    assert run(["transcribe", "noise.wav", "nan.wav", "gone.wav", "zz.wav", "--model", model]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("mt3: noise.wav cannot be read as audio")
    assert lines[1].startswith("mt3: There is no file gone.wav.")
    assert lines[2].startswith("mt3: nan.wav has a sample that is not finite")
    assert lines[3].startswith("zz.wav -> zz.mid: ")
    assert lines[4:] == ["mt3: 3 of 4 files failed: noise.wav, gone.wav, nan.wav"]
    assert (folder / "zz.mid").exists()
    assert not (folder / "nan.mid").exists()


def test_an_unexpected_error_is_a_sentence_and_a_traceback_only_on_request(folder, model, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("the processor\n melted.")

    monkeypatch.setattr("mt3core.transcription.Transcription.save", fail)
    assert run(["transcribe", "song.wav", "--model", model]) == 1
    expected = "mt3: Unexpected RuntimeError: the processor melted."
    assert capsys.readouterr().err == f"{expected} Run again with --verbose to see where.\n"
    assert run(["transcribe", "song.wav", "--model", model, "--verbose"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(f"{expected}\n")


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (
            [],
            1,
            "and none ships with this copy of mt3kit. Get the published model: mt3 convert gs://mt3/checkpoints/mt3",
        ),
        (["--model", "nothing"], 1, "Model 'nothing' was not found"),
        (["--format", "mp3"], 2, "Unknown format 'mp3'. Choose from mid, json, jsonl, csv"),
        (["--backend", "tensorflow"], 2, "Unknown backend 'tensorflow'. Choose torch or jax."),
        (["--decoding", "guess"], 2, "Unknown decoding method 'guess'. Choose greedy, t5x, beam."),
        (["--decoding", "greedy", "--num-beams", "2"], 2, "uses one beam, not 2."),
        (["--device", "abacus"], 2, "'abacus'"),
        (["-o", "song.wav/below/x.mid"], 1, "song.wav is a file. Choose another path with -o."),
        (["--frobnicate"], 2, "No such option: --frobnicate"),
        (["--batch-size", "0"], 2, "batch-size"),
    ],
)
def test_wrong_options_have_a_sentence_and_an_exit_code(folder, capsys, no_models, model, options, code, sentence):
    given = options if "--model" in options or not options else ["--model", model, *options]
    assert run(["transcribe", "song.wav", *given]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert "Traceback" not in err
    assert not (folder / "song.mid").exists()


@pytest.mark.skipif(not is_installed("jax"), reason="needs jax")
def test_processes_for_jax_are_refused_before_weights_are_looked_for(folder, capsys):
    assert run(["transcribe", "song.wav", "--backend", "jax", "--processes", "2", "--model", "nothing"]) == 2
    assert "Only PyTorch decodes in several processes." in capsys.readouterr().err


@pytest.mark.parametrize("backend", PACKAGES)
def test_each_backend_transcribes(folder, model, backend, capsys):
    if not is_installed(backend):
        pytest.skip(f"{backend} is not installed")
    options = ["--backend", backend, "--device", "cpu", "--batch-size", "2", "--decoding", "beam", "--num-beams", "2"]
    assert run(["transcribe", "song.wav", "--model", model, "--verbose", *options]) == 0
    err = capsys.readouterr().err
    assert f"Imported {backend} in" in err
    if backend == "jax":
        assert "Compilation took" in err


def test_an_interrupt_exits_with_130_and_leaves_nothing(tmp_path, model):
    """A recording of an hour cannot be done before the signal arrives."""
    write_wav(tmp_path / "long.wav", seconds=3600)
    command = [sys.executable, "-c", "from mt3app.cli import main; main()"]
    with subprocess.Popen(
        [*command, "transcribe", "long.wav", "--model", model, "--verbose"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        for line in process.stderr:
            if line.startswith("Loaded"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert rest == "mt3: Interrupted.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_ends_from_outside_are_tidy_too(name, tmp_path):
    program = f"""
import os, signal, tempfile
from mt3app import cli
from mt3app.commands import doctor
def examine(as_json):
    with tempfile.TemporaryDirectory(dir="."):
        os.kill(os.getpid(), signal.{name})
        signal.pause()
doctor.examine = examine
cli.main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, "doctor"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_error():
    """As in `mt3 doctor | head -0`: nobody reads, and nothing is complained about."""
    imports = "from mt3app import cli\nfrom mt3app.commands import doctor\n"
    program = imports + "doctor.examine = lambda as_json: print('x' * 999999)\ncli.main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "doctor"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141
