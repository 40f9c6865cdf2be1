"""`mt3 transcribe --format jsonl -o -` writes notes while decoding."""

import json
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
