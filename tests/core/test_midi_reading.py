"""Reading MIDI files: against pretty_midi, by hand, and what broken files are answered with."""

import io
import struct
from functools import partial

import mido
import numpy as np
import pytest
from conftest import shared_path
from hypothesis import given, settings
from hypothesis import strategies as st
from midi_messages import control, midi, off, on, pedal, read_through_pretty_midi, spans
from note_lists import BAND, assert_same_notes

from mt3core.errors import MidiError
from mt3core.notes.midi_reading import read_content, read_midi
from mt3core.notes.midi_writing import midi_bytes, write_midi
from mt3core.notes.table import NOTE_DTYPE, Note, note_table

pytestmark = pytest.mark.unit

quarters = partial(midi, ticks_per_beat=480)


@pytest.mark.parametrize("name", ["multi_rendered_gugs_earthday.orig.mid", "multi_rendered_gugs_jcycle.orig.mid"])
def test_published_files_read_as_pretty_midi_reads_them(name):
    data = shared_path(f"realdata/{name}").read_bytes()
    content = read_content(data, drop_empty=False)
    has_length = content.notes["offset"] > content.notes["onset"]
    np.testing.assert_array_equal(content.notes[has_length], read_through_pretty_midi(data))
    np.testing.assert_array_equal(read_midi(data), read_through_pretty_midi(data))
    # pretty_midi gives a channel's first changes to each of its instruments, so they are counted in the messages.
    messages = [message for track in mido.MidiFile(file=io.BytesIO(data)).tracks for message in track]
    changes = [one for one in messages if one.type == "control_change" and one.channel != 9]
    assert content.controls[:, 1].sum() == sum(one.control for one in changes)
    assert content.controls[:, 2].sum() == sum(one.value for one in changes)
    assert (np.diff(content.controls[:, 0]) >= 0).all()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(1, 60), st.integers(0, 127), st.integers(1, 127), st.sampled_from([0, 5])
        ),
        max_size=12,
    )
)
def test_notes_come_back_from_midi(rows):
    notes = note_table([Note(on / 100, (on + length) / 100, *rest) for on, length, *rest in rows])
    data = midi_bytes(notes)
    np.testing.assert_array_equal(read_midi(data), read_through_pretty_midi(data))


def test_a_note_off_ends_all_that_sound_but_what_starts_with_it():
    overlapping = midi([on(60), on(60, 100), off(60, 100), off(60, 100)])
    assert spans(read_content(overlapping, drop_empty=False).notes) == [(0.0, 0.2, 60), (0.1, 0.2, 60)]
    struck_again = midi([on(60), on(60, 100), off(60), off(60, 100)])
    assert spans(read_content(struck_again, drop_empty=False).notes) == [(0.0, 0.1, 60), (0.1, 0.2, 60)]
    for data in (overlapping, struck_again):
        np.testing.assert_array_equal(read_midi(data), read_through_pretty_midi(data))


def test_tempo_changes_of_any_track_count():
    tempo = mido.MetaMessage("set_tempo", tempo=1_000_000, time=500)
    data = midi([mido.MetaMessage("track_name", name="x")], [on(60), off(60, 1000)], [tempo])
    assert spans(read_content(data, drop_empty=False).notes) == [(0.0, 1.5, 60)]


def test_programs_drums_and_controls():
    change = mido.Message("program_change", program=24, channel=0)
    data = midi([on(60), change, off(60, 100), on(62), off(62, 100), on(36, channel=9), off(36, 50, channel=9),
                 pedal(127, channel=9), pedal(100), pedal(0, 100)])  # fmt: skip
    content = read_content(data, drop_empty=False)
    assert content.notes[["pitch", "program", "is_drum"]].tolist() == [(60, 0, False), (62, 24, False), (36, 0, True)]
    assert content.controls.tolist() == [[0.25, 64.0, 100.0], [pytest.approx(0.35), 64.0, 0.0]]


def test_running_status_and_system_messages():
    events = bytes([0, 0xF0, 2, 1, 0xF7, 0, 0x90, 60, 64, 0, 62, 64, 0x83, 0x74, 60, 0, 0, 62, 0, 0, 0xFF, 0x2F, 0])
    data = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(events)) + events
    assert spans(read_content(data, drop_empty=False).notes) == [(0.0, 0.5, 60), (0.0, 0.5, 62)]


def test_a_status_goes_on_behind_a_meta_event():
    track = bytes([0, 0x90, 60, 64, 10, 0xFF, 0x01, 1, 65, 10, 60, 0, 0, 0xFF, 0x2F, 0])
    data = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(track)) + track
    assert read_content(data, drop_empty=False).notes["offset"].tolist() == [0.02]


@pytest.mark.parametrize(("rate", "frames_per_second"), [(24, 24), (25, 25), (29, 30000 / 1001), (30, 30)])
def test_time_in_film_frames_goes_by_whatever_the_tempo(rate, frames_per_second):
    content = midi([mido.MetaMessage("set_tempo", tempo=9), on(60, 40), off(60, 1000)])
    notes = read_content(content[:12] + bytes([256 - rate, 40]) + content[14:], drop_empty=False).notes
    assert notes["onset"].tolist() == [pytest.approx(1 / frames_per_second, abs=1e-12)]
    assert notes["offset"].tolist() == [pytest.approx(26 / frames_per_second, abs=1e-12)]


def test_the_pedal_holds_notes_of_its_own_instrument_only():
    held = [control(64, 127), on(60), off(60, 480), control(64, 0, 480)]
    dry = [mido.Message("program_change", program=5, channel=1), on(61, channel=1), off(61, 480, channel=1)]
    data = quarters([], held, dry)
    assert_same_notes(read_midi(data), [Note(0.0, 0.5, 60, 90, 0), Note(0.0, 0.5, 61, 90, 5)])
    assert_same_notes(read_midi(data, sustain=True), [Note(0.0, 1.0, 60, 90, 0), Note(0.0, 0.5, 61, 90, 5)])


def test_control_changes_are_given_an_instrument():
    data = quarters([control(7, 100), on(60, 480), control(64, 64, 240), off(60, 240), control(64, 0, 480)])
    (instrument,) = read_content(data, drop_empty=True).instruments
    np.testing.assert_allclose(instrument.controls, [(0.0, 7, 100), (0.75, 64, 64), (1.5, 64, 0)], atol=1e-6)
    assert len(instrument.notes) == 1


def test_an_instrument_without_control_changes():
    (instrument,) = read_content(midi_bytes([Note(0.0, 1.0, 60, program=3)]), drop_empty=True).instruments
    assert instrument.controls.shape == (0, 3)
    assert (instrument.name, instrument.program, instrument.is_drum) == ("Honky-tonk Piano", 3, False)


def test_tempo_changes_on_a_later_track_count():
    tempo = [mido.MetaMessage("set_tempo", tempo=1_000_000, time=480), mido.MetaMessage("marker", text="x", time=0)]
    notes = [on(60, 480), off(60, 480)]
    expected = [Note(0.5, 1.5, 60, 90, 0)]
    assert_same_notes(read_midi(quarters(tempo, notes)), expected)
    assert_same_notes(read_midi(quarters([mido.MetaMessage("track_name", name="x")], tempo, notes)), expected)


def test_file_of_type_0_and_its_channels():
    notes = [mido.Message("program_change", program=12, channel=3), on(60, channel=3), on(36, channel=9)]
    data = quarters([*notes, off(36, 48, channel=9), off(60, 432, channel=3)], type=0)
    assert_same_notes(read_midi(data), [Note(0.0, 0.5, 60, 90, 12), Note(0.0, 0.05, 36, 90, 0, True)])


def test_notes_never_released_are_left_out():
    assert_same_notes(read_midi(quarters([on(60), on(62), off(62, 480)])), [Note(0.0, 0.5, 62, 90, 0)])


def test_empty_tracks_are_skipped():
    data = quarters([], [on(60), off(60, 480)])
    empty = b"MTrk\0\0\0\0"
    data = data[:10] + bytes([0, 3]) + data[12:] + empty
    assert len(read_midi(data)) == 1


def test_from_a_path(tmp_path):
    write_midi(BAND, tmp_path / "song.mid")
    np.testing.assert_array_equal(read_midi(tmp_path / "song.mid"), read_midi(midi_bytes(BAND)))
    np.testing.assert_array_equal(read_midi(str(tmp_path / "song.mid")), read_midi(midi_bytes(BAND)))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MidiError, match=r"none\.mid cannot be read: No such file"):
        read_midi(tmp_path / "none.mid")
    with pytest.raises(MidiError, match="cannot be read: Is a directory"):
        read_midi(tmp_path)


GOOD = midi_bytes(BAND)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"MThd", b"RIFF" + bytes(100), b"not midi" * 50, GOOD[:20], GOOD[:60], GOOD[:-30]),
        GOOD[:40] + b"\xff" * 40 + GOOD[80:],
        b"MThd\0\0\0\x06\0\x01\0\0\x01\xe0",  # no tracks
        quarters([on(60, 0x0FFFFFFF), off(60, 1)]),  # a day of silence
    ],
)
def test_broken_files(data):
    with pytest.raises(MidiError, match="cannot be read as a MIDI file") as caught:
        read_midi(data)
    assert caught.value.next_step


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_never_shows_a_foreign_error(place, value):
    data = bytearray(GOOD)
    data[place] = value
    try:
        table = read_midi(bytes(data))
    except MidiError:
        return
    assert table.dtype == NOTE_DTYPE
