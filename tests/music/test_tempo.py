"""Beats and bars: found, given as a number, read from a file, or by the network of `beat_this`."""

import dataclasses
import sys
import textwrap

import mido
import mir_eval
import numpy as np
import pytest
from metrical import band, scale, sound, transcription

from mt3core.errors import MissingExtraError, UsageError
from mt3core.notes.choosing import Excerpt
from mt3core.notes.table import Note
from mt3core.notes.tempo_map import TempoMap, TimeSignature
from mt3core.transcription import Transcription
from mt3music import add_tempo
from mt3music.tempo import NOT_FOUND, TempoChoice, is_available, weights_path

pytestmark = pytest.mark.unit


def beat_score(found, beats):
    return mir_eval.beat.f_measure(np.asarray(beats), np.asarray(found))


@pytest.mark.parametrize("start", [0.0, 0.02, 0.4, 3.0])
def test_a_scale_of_a_given_tempo_begins_with_a_bar(start):
    result = add_tempo(transcription(scale(2, 100, start)), 100)
    assert result.tempo.beat_seconds[0] == pytest.approx(start, abs=0.005)
    assert np.diff(result.tempo.beat_seconds) == pytest.approx(0.6)
    assert (result.tempo.time_signature, result.tempo.first_downbeat) == (TimeSignature(4, 4), 0)


@pytest.mark.parametrize("with_sound", [False, True])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_scale_of_sixteen_bars_is_followed(start, with_sound):
    notes = scale(16, 100, start)
    result = add_tempo(transcription(notes), "auto", sound(notes, 60 * 64 / 100 + 1) if with_sound else None)
    assert result.tempo.beats_per_minute == pytest.approx(100, abs=0.01)
    assert result.tempo.beat_seconds[0] == pytest.approx(start, abs=0.015)
    assert (result.tempo.time_signature, result.tempo.first_downbeat) == (TimeSignature(4, 4), 0)


@pytest.mark.parametrize("tempo", [80, 97, 128, 145])
@pytest.mark.parametrize(("size", "first"), [(4, 0), (4, 3), (3, 0), (3, 2)])
def test_bands_are_followed_with_their_bars(tempo, size, first):
    beats = 0.8 + 60 / tempo * np.arange(64)
    result = add_tempo(transcription(band(beats, size, first)))
    assert beat_score(result.tempo.beat_seconds, beats[:-1]) > 0.95
    assert result.tempo.time_signature.numerator == size
    assert result.tempo.first_downbeat == first
    assert result.tempo.is_steady


def test_without_drums_harmony_and_bass_make_the_bars():
    beats = 0.3 + 0.7 * np.arange(48)
    result = add_tempo(transcription(band(beats, 3, 1, drums=False)))
    assert (str(result.tempo.time_signature), result.tempo.first_downbeat) == ("3/4", 1)


def test_a_tempo_that_drifts_is_followed():
    lengths = 0.5 + 0.08 * np.sin(np.arange(100) / 12)
    beats = 0.5 + np.concatenate([[0.0], np.cumsum(lengths)])
    notes = band(beats)
    result = add_tempo(transcription(notes), "auto", sound(notes, beats[-1] + 1))
    assert not result.tempo.is_steady
    assert beat_score(result.tempo.beat_seconds, beats[:-1]) > 0.9


def test_a_sudden_change_of_tempo_is_followed():
    beats = 0.5 + np.concatenate([0.6 * np.arange(40), 0.6 * 40 + 0.45 * np.arange(40)])
    result = add_tempo(transcription(band(beats)))
    assert beat_score(result.tempo.beat_seconds, beats[:-1]) > 0.85


def test_a_whole_number_of_beats_a_minute_is_met_exactly():
    beats = 0.5 + 60 / 97 * np.arange(290)
    jitter = np.random.default_rng(0).normal(0, 0.008, len(beats))
    result = add_tempo(transcription(band(beats + jitter)))
    assert result.tempo.beats_per_minute == pytest.approx(97, abs=1e-9)
    assert np.abs(np.array(result.tempo.beat_seconds)[:289] - beats[:289]).max() < 0.01


@pytest.mark.parametrize(
    "notes", [[], [Note(1, 2, 60)], [Note(t, t + 0.1, 60) for t in (0.3, 0.9, 4.1, 7.7)]], ids=["none", "one", "few"]
)
def test_where_there_is_no_tempo_a_sentence_says_so(notes):
    before = Transcription(notes, duration_seconds=10.0, remark="It is odd.")
    result = add_tempo(before, "auto", (np.zeros(160_000, np.float32), 16_000), grid="1/16")
    assert result.tempo is None
    assert result.remark == f"It is odd.\n{NOT_FOUND}"
    assert result.notes == before.notes


def test_a_given_signature_is_kept():
    beats = 0.5 + 0.5 * np.arange(48)
    result = add_tempo(transcription(band(beats, 4)), 120, time_signature="6/8")
    assert result.tempo.time_signature == TimeSignature(6, 8)
    assert add_tempo(transcription(band(beats, 3)), "auto", time_signature="4/4").tempo.time_signature.numerator == 4


def test_an_excerpt_is_heard_alone():
    beats = 20 + 0.5 * np.arange(40)
    notes, earlier = band(beats), band(0.37 * np.arange(50))
    result = Transcription(notes, duration_seconds=41.0, excerpt=Excerpt(20.0, 40.0))
    found = add_tempo(result, "auto", sound([*earlier, *notes], 41.0)).tempo
    assert found.beats_per_minute == pytest.approx(120, abs=0.1)
    assert found.beat_seconds[0] == pytest.approx(20, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("0",), "not a tempo"),
        (("-100",), "not a tempo"),
        ((1000,), "not a tempo"),
        (("inf",), "cannot be read"),
        (("nowhere.mid",), "nowhere.mid cannot be read"),
        (("",), "cannot be read"),
    ],
)
def test_impossible_tempos_are_refused(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        add_tempo(transcription(scale()), *arguments)


def test_the_tempo_of_a_midi_file(tmp_path):
    tempo = TempoMap((0.5, 1.1, 1.8, 2.2, 2.9, 3.4), TimeSignature(3, 4), 1)
    notes = [Note(time, time + 0.1, 60) for time in tempo.beat_seconds]
    Transcription(notes, tempo=tempo).save(tmp_path / "played.mid")
    found = add_tempo(Transcription(notes), str(tmp_path / "played.mid")).tempo
    assert found.time_signature == TimeSignature(3, 4)
    bars = found.seconds_at(np.arange(found.first_downbeat, 6, 3.0))
    assert np.abs(bars - 1.1).min() < 0.001
    for beat in tempo.beat_seconds:
        assert np.abs(np.array(found.beat_seconds) - beat).min() < 0.001


def test_the_signature_of_a_midi_file_with_compound_bars(tmp_path):
    file = mido.MidiFile(ticks_per_beat=96)
    file.tracks.append(
        mido.MidiTrack(
            [
                mido.MetaMessage("time_signature", numerator=6, denominator=8),
                mido.MetaMessage("set_tempo", tempo=400_000),
                mido.MetaMessage("set_tempo", tempo=800_000, time=96 * 6),
            ]
        )
    )
    file.save(tmp_path / "six.mid")
    found = add_tempo(Transcription([Note(9, 9.5, 60)]), str(tmp_path / "six.mid")).tempo
    assert found.beat_seconds[:6] == pytest.approx((0, 0.6, 1.2, 1.8, 2.4, 3.6))
    assert str(found.time_signature) == "6/8"


def test_a_list_of_beats(tmp_path):
    path = tmp_path / "beats.txt"
    path.write_text("# by hand\n0.5 2\n1.0\t3\n1.5, 1\n2.0 2\n2.5 3\n\n3.0 1\n")
    found = add_tempo(transcription(scale()), str(path)).tempo
    assert found.beat_seconds == (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    assert (found.time_signature, found.first_downbeat) == (TimeSignature(3, 4), 2)
    path.write_text("\n".join(f"{0.6 * number}" for number in range(40)))
    assert add_tempo(transcription(scale(8)), str(path)).tempo.time_signature == TimeSignature(4, 4)


@pytest.mark.parametrize(
    "text", ["", "# nothing", "0.5\nsoon\n", "1\n", "2\n1\n", "nan\n1\n", "-1\n1\n", b"\xff\xfe\0", b"MThd\0"]
)
def test_files_without_beats_are_refused(text, tmp_path):
    path = tmp_path / "beats.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=r"beats\.txt"):
        add_tempo(transcription(scale()), str(path))


def test_without_librosa_only_a_given_tempo_is_possible(monkeypatch):
    monkeypatch.setattr("mt3core.extras.is_installed", lambda name: name != "librosa")
    with pytest.raises(MissingExtraError, match=r"librosa.*\[music\]"):
        TempoChoice.parse("auto", None, None).check()
    assert add_tempo(transcription(scale()), 100).tempo is not None


@pytest.fixture
def beat_this(tmp_path, monkeypatch):
    """A package of that name whose network says what the test wants, and a file for its weights."""
    (tmp_path / "beat_this").mkdir()
    (tmp_path / "beat_this/__init__.py").touch()
    (tmp_path / "beat_this/inference.py").write_text(
        textwrap.dedent("""
            calls = []
            class Audio2Beats:
                def __init__(self, checkpoint_path, device, dbn):
                    calls.append((checkpoint_path, device, dbn))
                def __call__(self, signal, sr):
                    calls.append((len(signal), sr))
                    beats = [0.5 + 0.4 * number for number in range(20)]
                    return beats, beats[1::3]
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "beat_this"]:
        del sys.modules[name]


def test_the_network_is_used_where_it_and_its_weights_are(beat_this):
    notes = scale(8, 100)
    assert not is_available()  # nothing is downloaded
    assert add_tempo(transcription(notes)).tempo.beats_per_minute == pytest.approx(100, abs=0.1)
    weights_path().parent.mkdir(parents=True)
    weights_path().touch()
    assert is_available()
    found = add_tempo(transcription(notes), "auto", sound(notes, 20.0)).tempo
    assert found.beat_seconds[:3] == pytest.approx((0.5, 0.9, 1.3))
    assert (found.time_signature, found.first_downbeat) == (TimeSignature(3, 4), 1)
    from beat_this.inference import calls

    assert calls == [(str(weights_path()), "cpu", False), (320_000, 16_000)]


def test_the_sentence_about_a_tempo():
    tempo = TempoMap.steady(97, 60, 0.5, TimeSignature(3, 4), 1)
    assert tempo.in_words == "97 beats a minute, 3/4, the first bar at 1.12 s."
    uneven = dataclasses.replace(tempo, beat_seconds=(0.0, 1.0, 1.5))
    assert uneven.in_words == "80 beats a minute on average, 3/4, the first bar at 1.00 s."


@pytest.mark.parametrize("tempo", [100, "auto"])
def test_a_first_note_that_was_missed_is_heard(tempo):
    notes = scale(16, 100, 0.5)
    result = add_tempo(transcription(notes[1:]), tempo, sound(notes, 40.0))
    assert result.tempo.beat_seconds[0] == pytest.approx(0.5, abs=0.015)
    assert result.tempo.first_downbeat == 0
