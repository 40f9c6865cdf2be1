"""Files of notes of any system: what is read, what is refused, and that nothing is changed on the way."""

import contextlib
import io
import json
import struct

import mido
import numpy as np
import pytest
from conftest import shared_path
from hypothesis import given
from hypothesis import strategies as st

from mt3core.notes.midi import midi_bytes, read_midi
from mt3core.notes.table import Note, note_table
from mt3core.transcription import Transcription
from mt3eval.reading.midi_reading import parse_midi
from mt3eval.reading.reading import SUFFIXES, NotesFileError, Reading, read_performance, read_with_remarks

pytestmark = pytest.mark.unit

NOTES = [Note(0.5, 1.25, 60, 80, 0), Note(0.5, 0.75, 36, 90, 0, True), Note(1.0, 2.0, 64, 1, 127)]


def midi(*tracks, ticks_per_beat=500):
    """The bytes of a MIDI file; a track is a list of messages with times in ticks since the one before."""
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat)
    file.tracks = [mido.MidiTrack(track) for track in tracks]
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


def on(pitch, time=0, velocity=64, channel=0):
    return mido.Message("note_on", note=pitch, velocity=velocity, channel=channel, time=time)


def off(pitch, time=0, channel=0):
    return mido.Message("note_off", note=pitch, channel=channel, time=time)


def pedal(value, time=0, channel=0):
    return mido.Message("control_change", control=64, value=value, channel=channel, time=time)


def spans(notes):
    """(onset, offset, pitch) of each note."""
    return [tuple(row) for row in notes[["onset", "offset", "pitch"]].tolist()]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def assert_same(found, expected):
    assert found.dtype.names == expected.dtype.names
    for name in expected.dtype.names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9, rtol=0, err_msg=name)


# MIDI


@pytest.mark.parametrize("name", ["multi_rendered_gugs_earthday.orig.mid", "multi_rendered_gugs_jcycle.orig.mid"])
def test_published_files_read_as_pretty_midi_reads_them(name):
    data = shared_path(f"realdata/{name}").read_bytes()
    content = parse_midi(data)
    has_length = content.notes["offset"] > content.notes["onset"]
    assert_same(content.notes[has_length], read_midi(data))
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
    assert_same(parse_midi(data).notes, read_midi(data))


def test_notes_without_length_stay_and_unreleased_ones_are_told_of(tmp_path):
    path = write(tmp_path, "a.mid", midi([on(60), off(60), on(62), off(62, 500), on(64)]))
    performance, remarks = read_with_remarks(path)
    assert spans(performance.notes) == [(0.0, 0.0, 60), (0.0, 0.5, 62)]
    assert remarks == (
        f"{path}: 1 notes start and never end; they are left out",
        f"{path}: 1 notes have no length; each protocol has its own rule for them",
    )
    performance, remarks = read_with_remarks(path, Reading(drop_empty=True))
    assert spans(performance.notes) == [(0.0, 0.5, 62)]
    assert remarks[1] == f"{path}: 1 notes without length are left out, as asked for"


def test_a_note_off_ends_all_that_sound_but_what_starts_with_it():
    overlapping = midi([on(60), on(60, 100), off(60, 100), off(60, 100)])
    assert spans(parse_midi(overlapping).notes) == [(0.0, 0.2, 60), (0.1, 0.2, 60)]
    struck_again = midi([on(60), on(60, 100), off(60), off(60, 100)])
    assert spans(parse_midi(struck_again).notes) == [(0.0, 0.1, 60), (0.1, 0.2, 60)]
    for data in (overlapping, struck_again):
        assert_same(parse_midi(data).notes, read_midi(data))


def test_tempo_changes_of_any_track_count():
    tempo = mido.MetaMessage("set_tempo", tempo=1_000_000, time=500)
    data = midi([mido.MetaMessage("track_name", name="x")], [on(60), off(60, 1000)], [tempo])
    assert spans(parse_midi(data).notes) == [(0.0, 1.5, 60)]
    assert_same(parse_midi(data).notes, read_midi(data))


def test_programs_drums_and_controls():
    change = mido.Message("program_change", program=24, channel=0)
    data = midi([on(60), change, off(60, 100), on(62), off(62, 100), on(36, channel=9), off(36, 50, channel=9),
                 pedal(127, channel=9), pedal(100), pedal(0, 100)])  # fmt: skip
    content = parse_midi(data)
    assert content.notes[["pitch", "program", "is_drum"]].tolist() == [(60, 0, False), (62, 24, False), (36, 0, True)]
    assert content.controls.tolist() == [[0.25, 64.0, 100.0], [pytest.approx(0.35), 64.0, 0.0]]


def test_running_status_and_system_messages():
    events = bytes([0, 0xF0, 2, 1, 0xF7, 0, 0x90, 60, 64, 0, 62, 64, 0x83, 0x74, 60, 0, 0, 62, 0, 0, 0xFF, 0x2F, 0])
    data = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(events)) + events
    assert spans(parse_midi(data).notes) == [(0.0, 0.5, 60), (0.0, 0.5, 62)]


def test_a_status_goes_on_behind_a_meta_event():
    track = bytes([0, 0x90, 60, 64, 10, 0xFF, 0x01, 1, 65, 10, 60, 0, 0, 0xFF, 0x2F, 0])
    data = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(track)) + track
    assert parse_midi(data).notes["offset"].tolist() == [0.02]


def test_the_pedal_holds_its_own_channel(tmp_path):
    track = [pedal(127), on(60), on(67, channel=1), off(60, 100), off(67, channel=1), pedal(0, 400)]
    path = write(tmp_path, "a.mid", midi(track))
    assert spans(read_performance(path).notes) == [(0.0, 0.1, 60), (0.0, 0.1, 67)]
    held = read_performance(path, Reading(sustain=True))
    assert spans(held.notes) == [(0.0, 0.5, 60), (0.0, 0.1, 67)]
    assert_same(held.notes, read_midi(path, apply_sustain=True))
    assert held.controls.tolist() == [[0.0, 64.0, 127.0], [0.5, 64.0, 0.0]]


WHOLE = midi([on(60), off(60, 100)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not begin as one"),
        (b"RIFF" + WHOLE, "does not begin as one"),
        (WHOLE[:-3], "track 1 breaks off"),
        (WHOLE[:14], "it has 0 of 1 tracks"),
        (WHOLE[:12] + b"\xe0\x28" + WHOLE[14:], "film frames, 32 a second"),
        (WHOLE[:12] + b"\xe8\x00" + WHOLE[14:], "no ticks"),
        (WHOLE[:12] + b"\x00\x00" + WHOLE[14:], "no ticks"),
        (midi([mido.MetaMessage("set_tempo", tempo=0), on(60), off(60, 100)]), "a tempo without length"),
    ],
)
def test_broken_midi_is_refused_with_its_name(tmp_path, data, reason):
    path = write(tmp_path, "a.mid", data)
    with pytest.raises(NotesFileError, match=reason) as caught:
        read_performance(path)
    assert str(caught.value).startswith(f"{path} is not a MIDI file that can be read: ")


@pytest.mark.parametrize(("rate", "frames_per_second"), [(24, 24), (25, 25), (29, 30000 / 1001), (30, 30)])
def test_time_in_film_frames_goes_by_whatever_the_tempo(rate, frames_per_second):
    content = midi([mido.MetaMessage("set_tempo", tempo=9), on(60, 40), off(60, 1000)])
    notes = parse_midi(content[:12] + bytes([256 - rate, 40]) + content[14:]).notes
    assert notes["onset"].tolist() == [pytest.approx(1 / frames_per_second, abs=1e-12)]
    assert notes["offset"].tolist() == [pytest.approx(26 / frames_per_second, abs=1e-12)]


@given(data=st.data())
def test_damaged_files_are_read_or_refused(data, tmp_path_factory):
    whole = midi([on(60), pedal(3), off(60, 100), mido.MetaMessage("set_tempo", tempo=9)], [on(36, 3, 4, 9)])
    suffix = data.draw(st.sampled_from(SUFFIXES))
    content = bytearray(whole if suffix == ".mid" else b'[{"onset": 1, "offset": 2, "pitch": 60}, [1, 2, 3, 4, 5, 1]]')
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(NotesFileError):  # anything else that is raised fails the test
        read_performance(path)


# JSON and tables


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_what_mt3_writes_is_read(tmp_path, form):
    path = tmp_path / f"a.{form}"
    Transcription(NOTES, duration_seconds=2.0).save(path)
    performance, remarks = read_with_remarks(path)
    assert_same(performance.notes, note_table(NOTES))
    assert remarks == ()


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "mid"])
def test_no_notes_are_told_of(tmp_path, form):
    path = tmp_path / f"a.{form}"
    Transcription([]).save(path)
    performance, remarks = read_with_remarks(path)
    assert len(performance.notes) == 0
    assert f"{path}: there are no notes in it" in remarks


TABLES = {
    "tabs": "onset\toffset\tpitch\tvelocity\tprogram\tis_drum\n1.0\t2.0\t36\t90\t0\t1\n",
    "other names": "start_time_s,end_time_s,pitch_midi,velocity,is_drum,pitch_bend\n1.0,2.0,36,90,1,0\n",
    "capitals and spaces": "OnsetTime\tOffsetTime\tMidiPitch\tVelocity\tdrum\r\n1.0\t2.0\t36\t90\ttrue\r\n",
    "duration": "pitch;onset;duration;vel;drum\n36;1;1;90;1\n",
    "units": "Onset (s),offset [sec],pitch,velocity,is_drum\n1.0,2.0,36,90,1\n",
    "no header": "# a remark\n\n1.0 2.0 36 90 0 1\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_other_systems(tmp_path, name):
    performance = read_performance(write(tmp_path, "a.tsv", TABLES[name]))
    assert_same(performance.notes, note_table([Note(1.0, 2.0, 36, 90, 0, True)]))


def test_the_order_of_the_file_stays_and_missing_velocities_are_told_of(tmp_path):
    path = write(tmp_path, "a.csv", "onset,offset,pitch\n3,4,60\n1,2,61\n")
    performance, remarks = read_with_remarks(path)
    assert performance.notes[["onset", "velocity"]].tolist() == [(3.0, 100), (1.0, 100)]
    assert remarks == (f"{path}: says nothing of velocities; 100 is taken for all",)
    path = write(tmp_path, "b.jsonl", "[3, 4, 60, 90]\n[1, 2, 61]\n")
    assert read_with_remarks(path)[1] == (f"{path}: says nothing of velocities; 100 is taken for 1 notes",)


def test_columns_that_are_not_used_are_named(tmp_path):
    path = write(tmp_path, "a.csv", ",onset,offset,pitch,velocity,instrument,pitch_bend\n0,1,2,60,90,33,0\n")
    assert read_with_remarks(path)[1] == (f"{path}: has columns that are not used: instrument, pitch_bend",)


def test_confidences_and_controls_come_along(tmp_path):
    note = {"onset": 0, "offset": 1, "pitch": 60, "velocity": 64}
    text = json.dumps({"notes": [{**note, "confidence": 0.25}, {**note, "confidence": 1}], "controls": [[0, 64, 127]]})
    performance = read_performance(write(tmp_path, "a.json", text))
    assert performance.confidences.tolist() == [0.25, 1.0]
    assert performance.controls.tolist() == [[0.0, 64.0, 127.0]]
    some = json.dumps([{**note, "confidence": 0.25}, note])
    assert read_performance(write(tmp_path, "b.json", some)).confidences is None


@pytest.mark.parametrize("said", ["1", "1.0", "true"])
def test_a_drum_is_said_as_a_number_or_as_truth(tmp_path, said):
    hit = read_performance(write(tmp_path, "a.json", f"[[1, 2, 36, 64, 0, {said}], [1, 2, 60, 64, 0, 0]]"))
    assert hit.notes["is_drum"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "onset,offset,pitch\n1,nan,60\n", "has a time that is not a number"),
        ("a.csv", "onset,offset,pitch\n-0.5,1,60\n", "starts or ends before the recording"),
        ("a.csv", "onset,offset,pitch\n1,0.5,60\n", "ends before it starts"),
        ("a.csv", "onset,offset,pitch\n1,2,128\n", "has a pitch outside 0 to 127"),
        ("a.csv", "onset,offset,pitch,velocity\n1,2,60,0\n", "has a velocity outside 1 to 127"),
        ("a.csv", "onset,offset,pitch\n1,2,60.5\n", "line 2 has the pitch '60.5'; it has to be a whole number"),
        ("a.csv", "onset,offset,pitch\n1,2,60\n1,2\n", "line 3 has no pitch"),
        ("a.csv", "onset,offset,pitch,is_drum\n1,2,60,x\n", "line 2 has is_drum 'x'"),
        ("a.csv", "onset,offset,pitch,is_drum\n1,2,60,0.5\n", "line 2 has is_drum '0.5'; it has to be 0 or 1"),
        ("a.json", "[[1, 2, 60, 64, 0, 0.5]]", "note 1 has is_drum 0.5; it has to be 0 or 1"),
        ("a.json", "[[1, 2, 60, 64, 0, 1e999]]", "note 1 has is_drum inf; it has to be 0 or 1"),
        ("a.json", "[[1, 2, 60, 64, 0, NaN]]", "note 1 has is_drum nan; it has to be 0 or 1"),
        ("a.csv", "begin,offset,note_name\n1,2,C4\n", "its header names no column for onset and pitch"),
        ("a.json", '{"notes": [{"onset": NaN, "offset": 1, "pitch": 60}]}', "has a time that is not a number"),
        ("a.json", '{"schema_version": 1}', "it has no entry 'notes'"),
        ("a.json", '{"version": 9, "notes": [], "segments": []}', "a transcription of version 9, not 1"),
        ("a.json", "{", "Expecting property name"),
        ("a.jsonl", '{"onset": 1, "offset": 2, "pitch": 60}\n{', "line 2 is no JSON"),
        ("a.csv", b"\xff\xfe", "decode"),
    ],
)
def test_impossible_notes_are_refused_with_their_file(tmp_path, name, text, sentence):
    path = write(tmp_path, name, text)
    before = path.read_bytes()
    with pytest.raises(NotesFileError, match=sentence) as caught:
        read_performance(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_confidences_that_are_none_are_left_out_and_told_of(tmp_path):
    (tmp_path / "a.csv").write_text("onset,offset,pitch,confidence\n0,1,60,1.5\n1,2,60,0.5\n")
    performance, remarks = read_with_remarks(tmp_path / "a.csv", Reading())
    assert performance.confidences is None
    assert any("confidences" in remark for remark in remarks)


def test_confidences_go_where_the_pedal_takes_a_note_away(tmp_path):
    """Held, the first of two notes that begin together is the other's; whose confidence stayed would be a guess."""
    notes = [[0.0, 0.5, 60], [0.0, 0.6, 60], [1.0, 1.5, 62]]
    rows = [dict(zip(("onset", "offset", "pitch"), note, strict=True), confidence=0.5) for note in notes]
    values = {"notes": rows, "controls": [[0, 64, 127], [2, 64, 0]]}
    path = write(tmp_path, "a.json", json.dumps(values))
    assert read_performance(path).confidences.tolist() == [0.5] * 3
    held = read_performance(path, Reading(sustain=True))
    assert len(held.notes) == 2
    assert held.confidences is None
    path = write(tmp_path, "b.json", json.dumps({**values, "notes": rows[1:]}))
    assert read_performance(path, Reading(sustain=True)).confidences.tolist() == [0.5] * 2


def test_times_in_milliseconds_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("onset,offset,pitch\n0,600000,60\n")
    with pytest.raises(NotesFileError, match="Give times in seconds"):
        read_performance(tmp_path / "a.csv")


def test_what_is_no_file_of_notes(tmp_path):
    with pytest.raises(NotesFileError, match=r"a.wav is no file of notes.*\.mid.*\.csv"):
        read_performance(tmp_path / "a.wav")
    with pytest.raises(NotesFileError, match=r"a.mid cannot be read: No such file"):
        read_performance(tmp_path / "a.mid")
