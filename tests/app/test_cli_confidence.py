"""What `mt3 transcribe` says of how sure the model is of the notes, and what is done with it."""

import csv
import json

import numpy as np
import pytest
import soundfile
from inventive import Inventive
from small_models import RATE_HZ

from mt3app.cli import run
from mt3core.transcription import Transcription
from mt3eval.reading.reading import read_with_remarks

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, holding `song.wav`; in the place of every model, notes are invented."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", np.random.default_rng(1).normal(0, 0.1, 12 * RATE_HZ), RATE_HZ)
    monkeypatch.setattr("mt3app.commands.transcribe.load_transcriber", lambda *arguments: Inventive())
    return tmp_path


def test_every_text_format_says_how_sure_the_notes_are(folder):
    assert run(["transcribe", "song.wav", "-o", "out/", "--format", "json,jsonl,csv"]) == 0
    notes = json.loads((folder / "out/song.json").read_text())["notes"]
    assert len(notes) > 20
    for note in notes:
        sure = note["confidence"]
        assert list(sure) == ["onset", "pitch", "program", "note"]
        assert all(0 < value <= 1 for value in sure.values())
        assert sure["note"] == pytest.approx(sure["onset"] * sure["pitch"] * sure["program"], abs=2e-4)
    lines = [json.loads(line) for line in (folder / "out/song.jsonl").read_text().splitlines()]
    table = list(csv.DictReader((folder / "out/song.csv").read_text().splitlines()))
    assert [line["confidence"] for line in lines] == [note["confidence"]["note"] for note in notes]
    assert [float(row["confidence"]) for row in table] == [line["confidence"] for line in lines]


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_evaluation_reads_what_transcription_writes(folder, format):
    assert run(["transcribe", "song.wav", "-o", f"a.{format}"]) == 0
    assert run(["transcribe", "song.wav", "-o", "b.json"]) == 0
    performance, remarks = read_with_remarks(f"a.{format}")
    written = Transcription.load("b.json").notes
    assert performance.confidences is not None
    assert performance.confidences.tolist() == [round(note.confidence.note, 4) for note in written]
    assert performance.notes["pitch"].tolist() == [note.pitch for note in written]
    assert remarks == ()
