"""MIDI files: what is written, what is read back, and what broken files are answered with."""

import io

import mido
import numpy as np
import pretty_midi
import pytest
from conftest import shared_path
from hypothesis import given, settings
from hypothesis import strategies as st
from note_lists import BAND, assert_same_notes

from mt3core.errors import MidiError, OutputError
from mt3core.notes.midi_reading import read_content, read_midi
from mt3core.notes.midi_writing import midi_bytes, sharing_remark, write_midi
from mt3core.notes.table import NOTE_DTYPE, Note, note_table, to_notes

pytestmark = pytest.mark.unit


def parse(data):
    return mido.MidiFile(file=io.BytesIO(data))


def track_names(midi):
    return [track.name for track in midi.tracks]


def channels(track):
    return {message.channel for message in track if not message.is_meta}


def ports(track):
    return [message.port for message in track if message.type == "midi_port"]


# Writing


def test_form_of_the_file():
    midi = parse(midi_bytes(BAND))
    assert midi.type == 1
    assert midi.ticks_per_beat == 500
    assert track_names(midi) == ["", "Drums", "Acoustic Grand Piano", "Electric Bass (finger)"]
    conductor = midi.tracks[0]
    assert {message.type for message in conductor} == {"time_signature", "set_tempo", "end_of_track"}
    assert [message.tempo for message in conductor if message.type == "set_tempo"] == [500_000]
    assert [channels(track) for track in midi.tracks[1:]] == [{9}, {1}, {2}]
    programs = [[m.program for m in track if m.type == "program_change"] for track in midi.tracks[1:]]
    assert programs == [[0], [0], [33]]
    assert not any(ports(track) for track in midi.tracks)


def test_times_are_whole_milliseconds():
    midi = parse(midi_bytes([Note(1.23, 2.3456, 60)]))
    ticks = np.cumsum([message.time for message in midi.tracks[1]])
    notes = [tick for tick, message in zip(ticks, midi.tracks[1], strict=True) if message.type == "note_on"]
    assert notes == [1230, 2346]


def test_the_ten_millisecond_grid_is_met_exactly():
    notes = [Note(step / 100, step / 100 + 0.01, 60) for step in range(0, 3000, 7)]
    assert_same_notes(read_midi(midi_bytes(notes)), notes)


def test_same_notes_give_same_bytes():
    assert midi_bytes(BAND) == midi_bytes(note_table(reversed(BAND)))


def test_no_notes_are_a_valid_file():
    data = midi_bytes([])
    assert len(parse(data).tracks) == 1
    assert len(read_midi(data)) == 0
    assert read_midi(data).dtype == NOTE_DTYPE
    assert read_content(data, drop_empty=True).instruments == ()


def test_notes_without_length_get_one():
    notes = [Note(1.0, 1.0, 60), Note(2.0, 2.0004, 61), Note(3.0, 3.0, 36, 100, 0, True)]
    lengths = [note.offset - note.onset for note in to_notes(read_midi(midi_bytes(notes)))]
    np.testing.assert_allclose(lengths, 0.001, atol=1e-9)


def test_overlaps_of_one_pitch_are_cut_and_nothing_hangs():
    notes = [Note(0.0, 3.0, 60), Note(1.0, 2.0, 60), Note(1.0, 4.0, 60, 50), Note(4.0, 5.0, 60), Note(0.0, 9.0, 61)]
    data = midi_bytes(notes)
    expected = [Note(0.0, 1.0, 60), Note(0.0, 9.0, 61), Note(1.0, 4.0, 60, 50), Note(4.0, 5.0, 60)]
    assert_same_notes(read_midi(data), expected)
    assert_no_note_hangs(data)


def test_the_same_pitch_of_other_instruments_is_left_alone():
    notes = [Note(0.0, 3.0, 60, program=0), Note(1.0, 2.0, 60, program=40), Note(1.5, 2.5, 60, is_drum=True)]
    assert_same_notes(read_midi(midi_bytes(notes)), notes)


def assert_no_note_hangs(data):
    """Every note-on is answered by a note-off before the same pitch starts again on that channel and port."""
    for track in parse(data).tracks:
        sounding = set()
        for message in track:
            if message.type == "note_on" and message.velocity > 0:
                assert message.note not in sounding
                sounding.add(message.note)
            elif message.type in ("note_on", "note_off"):
                sounding.remove(message.note)
        assert not sounding


def crowd(count):
    """Notes of many instruments at the same times and pitches, and drums; instrument `number` has `number + 1` notes.

    Programs count downward, so that the last tracks and the lowest programs are not the largest.
    """
    notes = [
        Note(0.3 * step, 0.3 * step + 0.2, 60 + step % 3, 100, 127 - number)
        for number in range(count)
        for step in range(number + 1)
    ]
    return [*notes, Note(0.75, 0.8, 36, 100, 0, True)]


def played_without_ports(data):
    """(onset tick, pitch, channel, program) of every note, as a player hears them that merges all tracks: of a channel
    it knows only the program that was set last, wherever it was."""
    programs, played, tick = {}, [], 0
    for message in mido.merge_tracks(parse(data).tracks):
        tick += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on" and message.velocity:
            played.append((tick, message.note, message.channel, programs[message.channel]))
    return played


@pytest.mark.parametrize("count", [1, 14, 15, 16, 20, 31, 128])
def test_every_instrument_sounds_like_itself_without_ports(count):
    notes = crowd(count)
    data = midi_bytes(notes)
    played = played_without_ports(data)
    heard = sorted((tick, pitch, program) for tick, pitch, channel, program in played if channel != 9)
    assert heard == sorted((round(n.onset * 1000), n.pitch, n.program) for n in notes if not n.is_drum)
    assert [note[2] for note in played if note[1] == 36] == [9]
    assert not any(ports(track) for track in parse(data).tracks)
    assert_same_notes(read_midi(data), sorted(notes, key=lambda n: (n.onset, n.is_drum, n.program, n.pitch)))


@pytest.mark.parametrize("count", [14, 15, 16, 20, 31, 128])
def test_the_instruments_with_most_notes_have_a_channel_each(count):
    users = {}
    for *_, channel, program in played_without_ports(midi_bytes(crowd(count))):
        users.setdefault(channel, set()).add(program)
    del users[9]
    alone = set().union(*(programs for programs in users.values() if len(programs) == 1))
    num_alone = count if count <= 15 else 14
    assert alone == {127 - number for number in range(count - num_alone, count)}  # the largest
    assert len(users) == min(count, 15)


@pytest.mark.parametrize("count", [16, 31])
def test_a_player_without_ports_hears_every_instrument(count):
    """The same through TinySoundFont's own reader, which merges tracks in its way."""
    player = pytest.importorskip("tinysoundfont.midi")
    notes = [note for note in crowd(count) if not note.is_drum]
    programs, heard = {}, []
    for event in player.load_memory(midi_bytes(notes)):
        if isinstance(event.action, player.ProgramChange):
            programs[event.channel] = event.action.program
        elif isinstance(event.action, player.NoteOn) and event.action.velocity:
            heard.append((round(event.t * 1000), event.action.key, programs[event.channel]))
    assert sorted(heard) == sorted((round(note.onset * 1000), note.pitch, note.program) for note in notes)


def test_fifteen_instruments_and_drums_share_no_channel():
    """Sixteen tracks: pretty_midi would give the first and the last of them one channel."""
    tracks = parse(midi_bytes(crowd(15))).tracks[1:]
    assert sorted(channel for track in tracks for channel in channels(track)) == list(range(16))


def test_the_user_is_told_of_shared_channels():
    assert sharing_remark([*crowd(15)]) == ""
    assert sharing_remark(crowd(17)) == (
        "There are 17 pitched instruments, and MIDI has 15 channels for them: in a MIDI file those with the fewest "
        "notes share one (Helicopter, Applause, Gunshot)."
    )
    assert sharing_remark(crowd(128)).endswith(" and 106 more).")


def test_the_sample_of_twenty_instruments_keeps_its_sounds():
    """The file as this project once wrote it: five instruments, the piano among them, had others' sounds."""
    source = shared_path("hard_inputs/midi/midi_20_instruments_4_on_port_1.mid")
    before = read_midi(source)
    wanted = sorted((round(n.onset * 1000), n.pitch, n.program) for n in to_notes(before) if not n.is_drum)

    def heard(data):
        played = played_without_ports(data)
        return sorted((tick, pitch, program) for tick, pitch, channel, program in played if channel != 9)

    assert heard(source.read_bytes()) != wanted
    assert heard(midi_bytes(before)) == wanted
    assert read_midi(midi_bytes(before)).tolist() == before.tolist()


def test_drums_of_any_program_share_one_track():
    notes = [Note(0.0, 0.1, 36, 100, 0, True), Note(1.0, 1.1, 38, 100, 25, True)]
    data = midi_bytes(notes)
    assert track_names(parse(data)) == ["", "Drums"]
    assert [note.program for note in to_notes(read_midi(data))] == [0, 0]


@pytest.mark.parametrize(("end", "ticks"), [(8_000.0, 500), (20_000.0, 100), (80_000.0, 50)])
def test_long_pieces_get_a_coarser_grid_that_can_be_read(end, ticks):
    notes = [Note(0.0, 1.0, 60), Note(end, end + 0.5, 62)]
    data = midi_bytes(notes)
    assert parse(data).ticks_per_beat == ticks
    assert_same_notes(read_midi(data), notes)


def test_notes_of_days_are_refused():
    with pytest.raises(MidiError, match="too long for a MIDI file"):
        midi_bytes([Note(0.0, 200_000.0, 60)])


@pytest.mark.parametrize(
    "note", [Note(1.0, 0.5, 60), Note(float("nan"), 1.0, 60), Note(0.0, 1.0, 128), Note(0.0, 1.0, 60, 0)]
)
def test_impossible_notes_are_named(note):
    with pytest.raises(MidiError, match="Note 1 "):
        midi_bytes([Note(0.0, 1.0, 60), note])


def test_write_midi_is_whole_or_absent(tmp_path):
    write_midi(BAND, tmp_path / "deep" / "song.mid")
    assert (tmp_path / "deep" / "song.mid").read_bytes() == midi_bytes(BAND)
    with pytest.raises(MidiError):
        write_midi([Note(1.0, 0.0, 60)], tmp_path / "bad.mid")
    assert not (tmp_path / "bad.mid").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_midi(BAND, tmp_path / "file" / "song.mid")


STEPS = st.integers(0, 3000)
NOTES = st.lists(
    st.builds(
        lambda onset, length, pitch, velocity, program, is_drum: Note(
            onset / 100, (onset + length) / 100, pitch, velocity, 0 if is_drum else program, is_drum
        ),
        *(STEPS, st.integers(0, 300), st.integers(58, 62), st.integers(1, 127), st.integers(0, 24), st.booleans()),
    ),
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(NOTES)
def test_round_trip(notes):
    data = midi_bytes(notes)
    assert_no_note_hangs(data)
    found = read_midi(data)
    # All that may change: simultaneous equal notes become one, overlaps are cut, no note is without length.
    assert {key(note) for note in to_notes(found)} == {key(note) for note in notes}
    assert len(found) == len({key(note) for note in notes})
    longest = {}
    for note in sorted(notes, key=lambda note: (note.offset, note.velocity)):
        longest[key(note)] = note
    for note in to_notes(found):
        next_onsets = [other[1] / 100 for other in longest if other[0] == key(note)[0] and other[1] > key(note)[1]]
        original = longest[key(note)]
        expected = min([max(original.offset, original.onset + 0.001), *next_onsets])
        assert note.offset == pytest.approx(expected, abs=1e-6)
        assert note.onset == pytest.approx(original.onset, abs=1e-6)
        assert note.velocity == original.velocity
    # Once clean, always the same.
    assert midi_bytes(found) == data


def key(note):
    return (note.pitch, note.program, note.is_drum), round(note.onset * 100)


def test_what_is_written_is_what_pretty_midi_reads():
    midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_bytes(BAND)))
    assert [(i.program, i.is_drum, i.name) for i in midi.instruments] == [
        (0, True, "Drums"),
        (0, False, "Acoustic Grand Piano"),
        (33, False, "Electric Bass (finger)"),
    ]
    assert midi.get_end_time() == pytest.approx(2.0)
