"""`mt3 transcribe --format jsonl` writes notes while decoding, and what is not the whole says so."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from inventive import Inventive
from small_models import RATE_HZ

from mt3app.cli import run
from mt3app.commands import transcribe as command

pytestmark = pytest.mark.unit


@pytest.fixture
def songs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(["a.wav", "b.wav"]):
        noise = np.random.default_rng(seed).normal(0, 0.1, 30 * RATE_HZ)
        soundfile.write(name, noise, RATE_HZ, subtype="PCM_16")


def use(monkeypatch, transcriber):
    monkeypatch.setattr(command, "choose_backend", lambda name: "torch")
    monkeypatch.setattr(command, "load_transcriber", lambda *arguments: transcriber)


def test_lines_are_those_of_the_file(songs, monkeypatch, capsys):
    use(monkeypatch, Inventive())
    assert run(["transcribe", "a.wav", "-o", "-", "--format", "jsonl"]) == 0
    lines = capsys.readouterr().out
    assert run(["transcribe", "a.wav", "-o", "a.jsonl"]) == 0
    assert lines == Path("a.jsonl").read_text(encoding="utf-8")
    assert len(lines.splitlines()) > 20
    assert run(["transcribe", "a.wav", "b.wav", "-o", "-", "--format", "jsonl"]) == 0
    named = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {values.pop("audio") for values in named} == {"a.wav", "b.wav"}
    assert "".join(json.dumps(values) + "\n" for values in named).startswith(lines)


def test_an_interruption_keeps_what_was_written(songs, monkeypatch, capsys):
    class Interrupted(Inventive):
        def generate_stream(self, log_mels, *unused):
            for number, generated in super().generate_stream(log_mels):
                if number == 10:
                    raise KeyboardInterrupt
                yield number, generated

    use(monkeypatch, Inventive())
    assert run(["transcribe", "a.wav", "-o", "-", "--format", "jsonl"]) == 0
    expected = capsys.readouterr().out
    use(monkeypatch, Interrupted())
    assert run(["transcribe", "a.wav", "-o", "-", "--format", "jsonl"]) == 130
    found = capsys.readouterr().out
    assert 10 < len(found.splitlines()) < len(expected.splitlines())
    assert expected.startswith(found)


SLOW = """
import time
from inventive import Inventive
from mt3app.cli import main
from mt3app.commands import transcribe as command
class Slow(Inventive):
    def generate_stream(self, log_mels, *unused):
        for number, generated in super().generate_stream(log_mels):
            time.sleep(SECONDS)
            yield number, generated
command.choose_backend = lambda name: "torch"
command.load_transcriber = lambda *arguments: Slow()
main()
"""
ROOT = Path(__file__).resolve().parents[2]


def start(seconds_a_segment, *arguments):
    """The command with a transcriber that takes so long for each segment."""
    program = SLOW.replace("SECONDS", str(seconds_a_segment))
    paths = [str(ROOT), str(ROOT / "tests/helpers")]
    return subprocess.Popen(
        [sys.executable, "-c", program, "transcribe", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.02)


def num_lines(path):
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


@pytest.mark.integration
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_file_keeps_its_notes_under_a_name_that_says_so(songs, ending):
    part, whole = Path("out/a.jsonl.part"), Path("out/a.jsonl")
    arguments = ("a.wav", "-o", "out/", "--format", "jsonl,mid", "--quiet")
    with start(0.3, *arguments) as process:
        wait_until(lambda: num_lines(part) > 10, process)
        process.send_signal(ending)
        _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if ending == signal.SIGINT else 128 + ending)
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.jsonl.part"]
    found = part.read_text(encoding="utf-8")
    seconds = re.search(r"a.wav -> out/a.jsonl.part: not the whole, but all notes that start before (\S+) s\n", said)
    with start(0, *arguments) as process:
        assert process.wait(60) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.jsonl", "a.mid"]
    expected = whole.read_text(encoding="utf-8")
    assert 10 < num_lines_of(found) < num_lines_of(expected)
    assert expected.startswith(found)
    complete = [line for line in expected.splitlines() if json.loads(line)["onset"] < float(seconds[1]) - 0.01]
    assert 5 < len(complete) <= num_lines_of(found)


def num_lines_of(text):
    assert text.endswith("\n")
    return len(text.splitlines())


@pytest.mark.integration
def test_interrupted_standard_output_says_how_far_it_goes(songs):
    with start(0.3, "a.wav", "-o", "-", "--format", "jsonl") as process:
        lines = [process.stdout.readline() for _ in range(10)]
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert all(json.loads(line) for line in [*lines, *rest.splitlines()])
    assert re.search(r"a.wav -> standard output: not the whole, but all notes that start before [\d.]+ s\n", said)
    assert said.endswith("mt3: Interrupted.\n")


def test_a_file_that_fails_in_the_middle_keeps_its_notes_too(songs, monkeypatch, capsys):
    soundfile.write("a.flac", soundfile.read("a.wav")[0], RATE_HZ)
    content = bytearray(Path("a.flac").read_bytes())
    content[-3000:-2900] = bytes(100)
    Path("damaged.flac").write_bytes(content)
    use(monkeypatch, Inventive())
    assert run(["transcribe", "damaged.flac", "b.wav", "--format", "jsonl"]) == 1
    said = capsys.readouterr().err
    assert "damaged.flac -> damaged.jsonl.part: not the whole, but all notes that start before" in said
    assert num_lines(Path("damaged.jsonl.part")) > 10
    assert not Path("damaged.jsonl").exists()
    assert Path("b.jsonl").exists()
    assert not Path("b.jsonl.part").exists()


def test_notes_on_a_grid_are_written_at_the_end(songs, monkeypatch):
    class Looking(Inventive):
        def generate_stream(self, log_mels, *unused):
            for number, generated in super().generate_stream(log_mels):
                assert not list(Path().glob("*.part")) or number == 0
                yield number, generated

    use(monkeypatch, Looking())
    assert run(["transcribe", "a.wav", "--format", "jsonl", "--tempo", "100", "--quantise", "1/16"]) == 0
    assert num_lines(Path("a.jsonl")) > 20
    assert not list(Path().glob("*.part"))


def test_a_part_that_cannot_be_written_is_a_sentence(songs, monkeypatch, capsys):
    Path("a.jsonl.part").mkdir()
    use(monkeypatch, Inventive())
    assert run(["transcribe", "a.wav", "--format", "jsonl"]) == 1
    assert "Cannot write a.jsonl.part: Is a directory" in capsys.readouterr().err
