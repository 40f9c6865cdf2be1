"""Tempo maps in MIDI files: bars where they sound, onsets to a millisecond, as pretty_midi and mido read them."""

import io

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3core.errors import MidiError, MT3Error, UsageError
from mt3core.notes.midi_reading import read_content
from mt3core.notes.midi_writing import midi_bytes, pretty_midi_of
from mt3core.notes.table import Note
from mt3core.notes.tempo_map import TempoMap, TimeSignature
from mt3core.transcription import Transcription

pytestmark = pytest.mark.unit


def parse(data):
    return pretty_midi.PrettyMIDI(io.BytesIO(data))


def notes_at(onsets, length=0.1, pitch=60):
    return [Note(float(onset), float(onset) + length, pitch) for onset in onsets]


def onsets_by_mido(data):
    """Seconds of every note-on, by mido's own clock."""
    seconds, found = 0.0, []
    for message in mido.MidiFile(file=io.BytesIO(data)):
        seconds += message.time
        if message.type == "note_on" and message.velocity:
            found.append(seconds)
    return np.array(found)


def test_a_steady_map_is_one_tempo_and_one_signature():
    tempo = TempoMap.steady(97, 180)
    data = midi_bytes(notes_at(tempo.beat_seconds), tempo)
    conductor = mido.MidiFile(file=io.BytesIO(data)).tracks[0]
    assert [message.tempo for message in conductor if message.type == "set_tempo"] == [round(60e6 / 97)]
    signatures = [message for message in conductor if message.type == "time_signature"]
    assert [(one.numerator, one.denominator, one.time) for one in signatures] == [(4, 4, 0)]
    midi = parse(data)
    ticks = [midi.time_to_tick(note.start) for note in midi.instruments[0].notes]
    assert np.diff(ticks).tolist() == [midi.resolution] * (len(ticks) - 1)  # a quarter each, three minutes long


def test_bars_begin_where_they_sound_after_a_start_and_a_pick_up():
    tempo = TempoMap.steady(90, 30, 1.9, TimeSignature(3, 4), first_downbeat=1)
    data = midi_bytes(notes_at(tempo.beat_seconds), tempo)
    bars = parse(data).get_downbeats()
    wanted = np.array(tempo.beat_seconds)[1::3]
    assert all(np.abs(bars - time).min() < 0.001 for time in wanted[wanted < bars[-1]])
    signatures = parse(data).time_signature_changes
    # 1.9 s are three beats of about 0.67 s; with the pick-up four: one beat, then whole bars.
    assert [(one.numerator, one.denominator) for one in signatures] == [(1, 4), (3, 4)]


def test_a_first_beat_just_after_the_start_begins_the_file():
    tempo = TempoMap.steady(120, 10, 0.03)
    midi = parse(midi_bytes(notes_at(tempo.beat_seconds), tempo))
    assert [note.start for note in midi.instruments[0].notes] == pytest.approx(tempo.beat_seconds, abs=0.0006)
    assert [midi.time_to_tick(note.start) for note in midi.instruments[0].notes][1] == midi.resolution
    assert midi.get_tempo_changes()[1].max() < 960


@pytest.mark.parametrize(("signature", "quarters"), [("6/8", 1.5), ("3/4", 1), ("2/2", 2), ("7/8", 0.5), ("12/8", 1.5)])
def test_beats_have_the_length_that_the_signature_gives_them(signature, quarters):
    tempo = TempoMap.steady(60, 20, 0.0, TimeSignature.parse(signature))
    midi = parse(midi_bytes(notes_at(tempo.beat_seconds), tempo))
    ticks = [midi.time_to_tick(note.start) for note in midi.instruments[0].notes]
    assert ticks[1] == quarters * midi.resolution
    assert midi.get_tempo_changes()[1].tolist() == pytest.approx([60 * quarters])


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0, 8),
    st.lists(st.floats(0.2, 2.0), min_size=1, max_size=80),
    st.sampled_from(["4/4", "3/4", "6/8", "5/4", "2/2"]),
    st.integers(0, 1),
    st.lists(st.floats(0, 60), min_size=1, max_size=30, unique_by=lambda time: round(time, 2)),
)
def test_onsets_stay_where_they_sound(start, lengths, signature, downbeat, onsets):
    beats = tuple((start + np.concatenate([[0.0], np.cumsum(lengths)])).tolist())
    tempo = TempoMap(beats, TimeSignature.parse(signature), downbeat)
    data = midi_bytes([Note(onset, onset + 0.004, 60) for onset in onsets], tempo)
    for found in (
        onsets_by_mido(data),
        [note.start for note in parse(data).instruments[0].notes],
        read_content(data, drop_empty=True).notes["onset"],
    ):
        assert np.allclose(np.sort(found), np.sort(onsets), rtol=0, atol=0.001)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 8), st.lists(st.floats(0.2, 2.0), min_size=1, max_size=80))
def test_every_beat_is_a_whole_number_of_beats_from_the_start(start, lengths):
    beats = start + np.concatenate([[0.0], np.cumsum(lengths)])
    tempo = TempoMap(tuple(beats.tolist()))
    midi = parse(midi_bytes(notes_at(beats[1:], 0.01), tempo))
    quarters = np.array([midi.time_to_tick(note.start) for note in midi.instruments[0].notes]) / midi.resolution
    assert np.allclose(quarters, quarters[0] + np.arange(len(lengths)), atol=0.01)
    assert quarters[0] % 1 == pytest.approx(0, abs=0.01) or quarters[0] % 1 == pytest.approx(1, abs=0.01)


def test_a_slow_piece_has_ticks_of_a_millisecond():
    tempo = TempoMap.steady(25, 60)
    midi = parse(midi_bytes(notes_at([0.0, 1.0011, 30.0017]), tempo))
    assert [note.start for note in midi.instruments[0].notes] == pytest.approx([0.0, 1.0011, 30.0017], abs=0.0006)


def test_hours_get_a_coarser_grid_and_days_are_refused():
    long = [Note(0, 1, 60), Note(20_000, 20_001, 60)]
    midi = parse(midi_bytes(long, TempoMap.steady(200, 20_001)))
    assert [note.start for note in midi.instruments[0].notes] == pytest.approx([0, 20_000], abs=0.003)
    with pytest.raises(MidiError, match="too long for a MIDI file"):
        midi_bytes([Note(0, 86_000, 60)], TempoMap.steady(300, 86_000))
    with pytest.raises(MidiError):
        midi_bytes(notes_at([0]), TempoMap((0.0, 40.0)))


def test_positions_and_times_are_inverse_to_each_other():
    tempo = TempoMap((1.0, 1.5, 2.5, 3.0))
    assert tempo.beats_at(np.array([0.5, 1.0, 1.25, 2.0, 4.0])).tolist() == pytest.approx([-1, 0, 0.5, 1.5, 5])
    times = np.linspace(0, 6, 50)
    assert tempo.seconds_at(tempo.beats_at(times)) == pytest.approx(times)
    assert tempo.beats_per_minute == pytest.approx(90)
    assert not tempo.is_steady
    assert TempoMap.steady(83, 60).is_steady


@pytest.mark.parametrize("beats", [(), (1.0,), (1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, float("nan")), (0.0, 1e9)])
def test_impossible_beats_are_refused(beats):
    with pytest.raises(UsageError, match="beats"):
        TempoMap(beats)


@pytest.mark.parametrize("text", ["", "4", "4/3", "0/4", "4/16", "33/4", "4/4/4", "-3/4", "three"])
def test_impossible_signatures_are_refused(text):
    with pytest.raises(UsageError):
        TimeSignature.parse(text)
    with pytest.raises(UsageError, match="pick-up"):
        TempoMap((0.0, 1.0), TimeSignature(3, 4), 3)


def test_json_keeps_the_tempo_and_the_grid():
    tempo = TempoMap((0.5, 1.0, 1.6), TimeSignature(6, 8), 1)
    result = Transcription(notes_at([0.5]), tempo=tempo, grid="1/16")
    assert Transcription.from_json(result.to_json()) == result
    assert result.to_pretty_midi().get_tempo_changes()[1].tolist() != [120.0]
    assert "tempo" not in Transcription([]).to_json()
    assert "grid" not in Transcription([]).to_json()
    for change in (
        {"beat_seconds": "now"},
        {"first_downbeat": "0"},
        {"time_signature": 4},
        {"beat_seconds": ["1", "2"]},
    ):
        values = result.to_json()
        values["tempo"] |= change
        with pytest.raises(MT3Error):
            Transcription.from_json(values)


def test_without_notes_the_map_is_still_written():
    assert pretty_midi_of([], TempoMap.steady(77, 10)).get_tempo_changes()[1].tolist() == pytest.approx([77], abs=1e-3)
