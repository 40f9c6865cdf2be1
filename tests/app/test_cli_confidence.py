"""What `mt3 transcribe` says of how sure the model is of the notes, and what is done with it."""

import csv
import json
import re

import numpy as np
import pretty_midi
import pytest
import soundfile
from inventive import Inventive
from small_models import RATE_HZ

from mt3app.cli import run
from mt3app.commands.transcribe import least_certain
from mt3core.notes.table import Confidence, Note
from mt3core.notes.tempo_map import TempoMap, TimeSignature
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


def test_less_certain_notes_are_left_out_and_counted(folder, capsys):
    assert run(["transcribe", "song.wav", "-o", "all.json"]) == 0
    capsys.readouterr()
    assert run(["transcribe", "song.wav", "-o", "some.json", "--min-confidence", "0.25"]) == 0
    found, some = (Transcription.load(name).notes for name in ("all.json", "some.json"))
    assert some == [note for note in found if note.confidence.note >= 0.25]
    assert 0 < len(some) < len(found)
    remark = (
        f"As asked, no notes of a confidence below 0.25 ({len(found) - len(some)} left out): "
        f"{len(some)} of {len(found)} notes."
    )
    assert f"song.wav: {remark}\n" in capsys.readouterr().err
    assert remark in Transcription.load("some.json").remark
    assert json.loads((folder / "some.json").read_text())["choice"] == {"min_confidence": 0.25}


def test_confidence_as_velocity(folder):
    assert run(["transcribe", "song.wav", "-o", "out/", "--format", "mid,json", "--velocity", "confidence"]) == 0
    written = [note for one in pretty_midi.PrettyMIDI("out/song.mid").instruments for note in one.notes]
    velocities = {note.velocity for note in written}
    assert len(velocities) > 10
    expected = {1 + round(126 * note.confidence.note) for note in Transcription.load("out/song.json").notes}
    assert velocities <= expected  # notes that coincide are one in MIDI
    assert 1 <= min(velocities) <= max(velocities) <= 127


def test_the_least_certain_places_are_named(folder, capsys):
    assert run(["transcribe", "song.wav", "-o", "a.json", "--uncertain"]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    places = re.findall(r"(\d+) to (\d+) s \((\d+) notes?, mean confidence (0\.\d\d)\)", line)
    assert line.startswith("song.wav: The least certain places are ")
    assert sorted((int(start), int(end)) for start, end, *_ in places) == [(0, 5), (5, 10), (10, 15)]
    notes = Transcription.load("a.json").notes
    for start, end, count, mean in places:
        sure = [note.confidence.note for note in notes if int(start) <= note.onset < int(end)]
        assert (len(sure), round(float(np.mean(sure)), 2)) == (int(count), pytest.approx(float(mean), abs=0.011))
    assert [mean for *_, mean in places] == sorted(mean for *_, mean in places)
    assert run(["transcribe", "song.wav", "-o", "b.json"]) == 0
    assert "least certain" not in capsys.readouterr().err


def test_the_least_certain_three_of_many():
    def note(onset, sure):
        return Note(onset, onset + 1, 60, confidence=Confidence(1, 1, sure, sure))

    notes = [note(0, 0.9), note(12, 0.4), note(14.99, 0.6), note(15, 0.3), note(21, 0.1), note(31, 0.8)]
    assert least_certain([*notes, Note(40, 41, 60)]) == (
        "20 to 25 s (1 note, mean confidence 0.10), 15 to 20 s (1 note, mean confidence 0.30), "
        "10 to 15 s (2 notes, mean confidence 0.50)"
    )
    assert least_certain([]) == least_certain([Note(0, 1, 60)]) == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--min-confidence", "1.5"], "A confidence cannot be 1.5. Give a number from 0 to 1, as in 0.5."),
        (["--min-confidence", "-0.1"], "A confidence cannot be -0.1. Give a number from 0 to 1, as in 0.5."),
        (["--min-confidence", "nan"], "A confidence cannot be nan. Give a number from 0 to 1, as in 0.5."),
        (["--min-confidence", "high"], "Invalid value for '--min-confidence': use a number."),
        (["--velocity", "loud"], "Velocities cannot be taken from 'loud'. The only choice is confidence."),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(folder, capsys, options, sentence):
    assert run(["transcribe", "song.wav", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (folder / "song.mid").exists()


def test_with_a_tempo_the_least_certain_bars_are_named():
    def note(onset, sure):
        return Note(onset, onset + 1, 60, confidence=Confidence(1, 1, sure, sure))

    # A beat of pick-up, then bars of three half seconds from 0.5 s; a note heard just before a bar belongs to it.
    tempo = TempoMap.steady(120.0, 10.0, time_signature=TimeSignature(3, 4), first_downbeat=1)
    notes = [note(0.2, 0.9), note(0.48, 0.2), note(1.8, 0.4), note(3.49, 0.5), note(4.0, 0.7)]
    assert least_certain(notes, tempo) == (
        "bar 1 (2 notes, mean confidence 0.30), bar 3 (2 notes, mean confidence 0.60), "
        "the pick-up (1 note, mean confidence 0.90)"
    )
