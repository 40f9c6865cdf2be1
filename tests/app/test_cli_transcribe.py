"""`mt3 transcribe` with a tiny network of random weights: what is written, what is said, and the exit codes."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
from audio_files import encode, tone
from small_models import RATE_HZ, write_wav

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]

ROOT = Path(__file__).resolve().parents[2]
NOTES = "--no-grammar"  # only without the grammar do these weights write notes, whose absence would be remarked on


def test_midi_is_written_beside_the_recording(folder, model, capsys):
    assert run(["transcribe", "song.wav", "--model", model, NOTES]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("song.wav -> song.mid: ")
    assert "x real time)" in err
    assert len(err.splitlines()) == 1
    pretty_midi.PrettyMIDI(str(folder / "song.mid"))
    assert sorted(path.name for path in folder.iterdir()) == ["song.mid", "song.wav"]


def test_a_page_is_a_format_like_the_others(folder, model):
    assert run(["transcribe", "song.wav", "--model", model, "--format", "html,json", "-q"]) == 0
    page = (folder / "song.html").read_text()
    assert "<h1>song.wav</h1>" in page
    data = json.loads(page.split('id="piece-data">')[1].split("</script>")[0])
    assert data["notes"]["count"] == len(json.loads((folder / "song.json").read_text())["notes"])
    assert data["audio"].startswith("data:audio/wav;base64,")
    assert run(["transcribe", "song.wav", "--model", model, "-o", "other.html", "-q"]) == 0
    assert (folder / "other.html").read_text() == page


def test_all_formats_at_once_say_the_same(folder, model, capsys):
    formats = ["--format", "mid,json,jsonl,csv"]
    assert run(["transcribe", "song.wav", "--model", model, "-o", "out/", *formats, "-q", NOTES]) == 0
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
        assert found.pop("confidence") == note.pop("confidence")["note"]
        assert found == pytest.approx(note, abs=1e-6)


def test_one_of_several_tracks(folder, model, capsys):
    silence = np.zeros((RATE_HZ, 1), np.float32)
    encode("two.mp4", None, RATE_HZ, "aac", "mp4", tracks=[silence, tone(1.0, RATE_HZ)])
    assert run(["transcribe", "two.mp4", "--model", model, "--format", "json"]) == 0
    err = capsys.readouterr().err
    assert "two.mp4: It has 2 audio tracks; track 1" in err
    assert "two.mp4: The track that was read is silent; another one may be meant." in err
    assert "two.mp4: The recording is silent" in err
    remark = json.loads((folder / "two.json").read_text())["remark"]
    assert len(remark.splitlines()) == 3
    assert run(["transcribe", "two.mp4", "--model", model, "--track", "2", "-o", "second.mid"]) == 0
    err = capsys.readouterr().err
    assert "two.mp4: It has 2 audio tracks; track 2 was read, as asked." in err
    assert "silent" not in err
    assert run(["transcribe", "two.mp4", "--model", model, "--track", "3", "--overwrite"]) == 1
    assert "two.mp4 has 2 audio tracks; there is no track 3. Use --track 1 to 2." in capsys.readouterr().err


def test_damaged_recordings_are_kept_when_asked(folder, model, capsys):
    path = encode("song.mp3", tone(2.0, 44100), 44100, "libmp3lame", bit_rate=64_000)
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])
    assert run(["transcribe", "song.mp3", "--model", model, "-o", "out.mid"]) == 1
    err = capsys.readouterr().err
    assert "song.mp3 is truncated or damaged: it ends at 1.0 s of 2.0 s" in err
    assert "--damaged keep" in err
    assert not Path("out.mid").exists()
    assert run(["transcribe", "song.mp3", "--model", model, "-o", "out.mid", "--damaged", "keep"]) == 0
    assert "song.mp3: It is truncated: it ends at 1.0 s of 2.0 s; what is there was read." in capsys.readouterr().err
    assert Path("out.mid").exists()
    assert run(["transcribe", "song.mp3", "--model", model, "--damaged", "perhaps"]) == 2
    assert "--damaged perhaps is not known. Use --damaged refuse or --damaged keep." in capsys.readouterr().err


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


@pytest.fixture
def sent(monkeypatch):
    """Makes a file standard input."""

    opened = []

    def send(path):
        opened.append(io.TextIOWrapper(open(path, "rb")))  # noqa: SIM115 - closed below
        monkeypatch.setattr("sys.stdin", opened[-1])

    yield send
    for stream in opened:
        stream.close()


def test_a_minus_reads_standard_input(folder, model, capsys, sent):
    sent("song.wav")
    assert run(["transcribe", "song.wav", "--model", model, "-o", "named.json"]) == 0
    capsys.readouterr()
    assert run(["transcribe", "-", "--model", model, "-o", "sent.json"]) == 0
    assert capsys.readouterr().err.startswith("standard input -> sent.json: ")
    found, expected = (json.loads((folder / name).read_text()) for name in ("sent.json", "named.json"))
    assert found == {**expected, "audio": "-"}


def test_standard_input_beside_files(folder, model, capsys, sent):
    sent("song.wav")
    arguments = ["transcribe", "-", "song.wav", "--model", model, "--format", "jsonl"]
    assert run([*arguments, "-o", "-"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line["audio"] == "-"] == [
        {**line, "audio": "-"} for line in lines if line["audio"] == "song.wav"
    ]
    sent("song.wav")
    assert run([*arguments, "-o", "out"]) == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["song.jsonl", "stdin.jsonl"]


def test_nothing_sent_to_standard_input(folder, model, capsys, sent):
    (folder / "nothing").touch()
    sent("nothing")
    assert run(["transcribe", "-", "--model", model, "-o", "x.mid"]) == 1
    assert capsys.readouterr().err == "mt3: Standard input is empty (0 bytes). Check the program that sends it.\n"
    sys.stdin.isatty = lambda: True  # a terminal would wait for its user
    assert run(["transcribe", "-", "--model", model, "-o", "x.mid"]) == 1
    assert "Nothing is sent to standard input. Send a recording, as in: mt3 transcribe - -o" in capsys.readouterr().err
    assert run(["transcribe", "-", "--model", model]) == 2
    assert "Standard input has no name. Name the result, as in -o song.mid, or use -o -." in capsys.readouterr().err


def test_midi_instead_of_a_recording_points_to_the_output_option(folder, model, capsys):
    (folder / "made.mid").write_bytes(b"MThd" + bytes(99))
    (folder / "made.rmi").write_bytes(b"RIFF" + bytes(4) + b"RMID" + bytes(99))
    for name in ("made.mid", "made.rmi"):
        assert run(["transcribe", name, "--model", model]) == 1
        sentence = f"{name} cannot be read as audio: it is a MIDI file. To write it, use -o {name}."
        assert capsys.readouterr().err == f"mt3: {sentence}\n"
    assert run(["transcribe", "song.wav", "new.mid", "--model", model]) == 1
    assert "mt3: There is no file new.mid. To write it, use -o new.mid." in capsys.readouterr().err


def test_midi_is_a_name_of_the_format(folder, model):
    assert run(["transcribe", "song.wav", "--model", model, "--format", "MIDI,json", "-q"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["song.json", "song.mid", "song.wav"]
    assert run(["transcribe", "song.wav", "--model", model, "-o", "x.midi", "-q"]) == 0
    assert (folder / "x.midi").read_bytes() == (folder / "song.mid").read_bytes()


def test_recordings_of_one_name_are_both_written_and_then_finished(folder, model, capsys):
    write_wav(folder / "song.flac")
    assert run(["transcribe", ".", "--model", model]) == 0
    assert "keep it: song.flac.mid, song.wav.mid." in capsys.readouterr().err
    results = sorted(path.name for path in folder.glob("*.mid"))
    assert results == ["song.flac.mid", "song.wav.mid"]
    for gone in (None, "song.flac"):
        if gone:
            (folder / gone).unlink()
        assert run(["transcribe", ".", "--model", "nothing"]) == 0  # no model is needed
        err = capsys.readouterr().err
        assert "song.wav: skipped, song.wav.mid exists (--overwrite replaces it)" in err
        assert "Passed over" not in err or gone
        assert sorted(path.name for path in folder.glob("*.mid")) == results


def test_a_full_disk_behind_standard_output_is_a_sentence(folder, model):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    command = [sys.executable, "-c", "from mt3app.cli import main; main()", "transcribe", "song.wav", "--model", model]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, "-o", "-", "--format", "csv", "-q"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
    sentence = (
        "mt3: Cannot write to standard output: No space left on device. Free some space, or write to a file with -o."
    )
    assert (done.returncode, done.stderr.decode()) == (1, f"{sentence}\n")


def test_what_cannot_be_written_is_refused_before_the_model_is_looked_for(folder, capsys, monkeypatch):
    (folder / "song.mid").mkdir()
    assert run(["transcribe", "song.wav", "--model", "nothing"]) == 1
    assert capsys.readouterr().err == "mt3: Cannot write song.mid: it is a folder. Choose another path with -o.\n"
    assert run(["transcribe", "song.wav", "--model", "nothing", "-o", "x" * 252 + ".mid"]) == 1
    assert "x.mid: File name too long. Choose a shorter name.\n" in capsys.readouterr().err
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert run(["transcribe", "song.wav", "--model", "nothing", "-o", "x.mid"]) == 1
    assert "mt3: Cannot write x.mid: No space left on device. Free some space, or" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["song.mid", "song.wav"]


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
    assert run(["transcribe", "noise.wav", "nan.wav", "gone.wav", "zz.wav", "--model", model, NOTES]) == 1
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

    monkeypatch.setattr("mt3core.transcription.Transcription.to_bytes", fail)
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
def test_workers_for_jax_are_refused_before_weights_are_looked_for(folder, capsys):
    assert run(["transcribe", "song.wav", "--backend", "jax", "--processes", "2", "--model", "nothing"]) == 2
    assert "Only PyTorch decodes with several workers." in capsys.readouterr().err


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
