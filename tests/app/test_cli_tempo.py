"""`mt3 transcribe` with a tempo, a time signature and a grid: what is written, what is said, what is refused."""

import json

import pretty_midi
import pytest

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax"),
]


def test_a_given_tempo_is_in_every_format(folder, model, capsys):
    options = ["--tempo", "97", "--time-signature", "3/4", "--quantise", "1/16", "--format", "mid,json"]
    assert run(["transcribe", "song.wav", "--model", model, *options]) == 0
    err = capsys.readouterr().err
    assert "song.wav: 97 beats a minute, 3/4, the first bar at " in err
    assert "moved" not in err  # there are no notes
    midi = pretty_midi.PrettyMIDI(str(folder / "song.mid"))
    assert midi.get_tempo_changes()[1][-1] == pytest.approx(97, abs=0.01)
    assert (midi.time_signature_changes[-1].numerator, midi.time_signature_changes[-1].denominator) == (3, 4)
    found = json.loads((folder / "song.json").read_text())
    assert found["grid"] == "1/16"
    assert found["tempo"]["time_signature"] == "3/4"


def test_a_tempo_that_cannot_be_found_is_a_sentence(folder, model, capsys):
    assert run(["transcribe", "song.wav", "--model", model, "--tempo", "auto"]) == 0
    assert "song.wav: No tempo was found" in capsys.readouterr().err
    assert pretty_midi.PrettyMIDI(str(folder / "song.mid")).get_tempo_changes()[1].tolist() == [120.0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--tempo", "fast"], "fast cannot be read"),
        (["--tempo", "5"], "--tempo 5 is not a tempo. Give 20 to 400 beats per minute, or auto."),
        (["--time-signature", "4"], "'4' is not a time signature. Write it as 4/4, 3/4 or 6/8."),
        (["--quantise", "16"], "--quantise 16 is not a note value."),
    ],
)
def test_wrong_words_are_refused_before_the_model_is_loaded(folder, options, sentence, capsys):
    assert run(["transcribe", "song.wav", "--model", "nowhere", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_package_is_reported_before_the_model_is_loaded(folder, monkeypatch, capsys):
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name != "librosa")
    assert run(["transcribe", "song.wav", "--model", "nowhere", "--tempo", "auto"]) == 1
    assert "Finding the tempo needs librosa, which is not installed." in capsys.readouterr().err


def test_a_sheet_has_bars_without_being_asked(folder, model, capsys):
    assert run(["transcribe", "song.wav", "--model", model, "-o", "song.musicxml"]) == 0
    assert "No tempo was found" in capsys.readouterr().err  # it was looked for
    assert (folder / "song.musicxml").read_text().startswith('<?xml version="1.0" encoding="UTF-8"?>')
    assert run(["transcribe", "song.wav", "--model", model, "-o", "-", "--format", "MusicXML", "--tempo", "90"]) == 0
    assert '<sound tempo="90.000" />' in capsys.readouterr().out


def test_pages_need_musescore(folder, monkeypatch, capsys):
    monkeypatch.setattr("mt3music.musescore.shutil.which", lambda name: None)
    assert run(["transcribe", "song.wav", "--model", "nowhere", "--format", "mid,pdf"]) == 1
    assert "PDF is made by MuseScore, which is not installed." in capsys.readouterr().err
