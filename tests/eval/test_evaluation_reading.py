"""Files of notes of any system: what is read, what is refused, and that nothing is changed on the way."""

import contextlib
import json

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from midi_messages import midi, off, on, pedal, spans

from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import Note, note_table
from mt3core.transcription import Transcription
from mt3eval.reading.reading import SUFFIXES, NotesFileError, Reading, read_performance, read_with_remarks

pytestmark = pytest.mark.unit

NOTES = [Note(0.5, 1.25, 60, 80, 0), Note(0.5, 0.75, 36, 90, 0, True), Note(1.0, 2.0, 64, 1, 127)]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def assert_same(found, expected):
    assert found.dtype.names == expected.dtype.names
    for name in expected.dtype.names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9, rtol=0, err_msg=name)


# MIDI


def test_notes_without_length_stay_and_unreleased_ones_are_told_of(tmp_path):
    path = write(tmp_path, "a.mid", midi([on(60), off(60), on(62), off(62, 500), on(64)]))
    performance, remarks = read_with_remarks(path)
    assert spans(performance.notes) == [(0.0, 0.0, 60), (0.0, 0.5, 62)]
    assert remarks == (
        f"{path}: 1 note is never released; it is left out",
        f"{path}: 1 notes have no length; each protocol has its own rule for them",
    )
    performance, remarks = read_with_remarks(path, Reading(drop_empty=True))
    assert spans(performance.notes) == [(0.0, 0.5, 62)]
    assert remarks[1] == f"{path}: 1 notes without length are left out, as requested"


def test_the_pedal_holds_its_own_channel(tmp_path):
    track = [pedal(127), on(60), on(67, channel=1), off(60, 100), off(67, channel=1), pedal(0, 400)]
    path = write(tmp_path, "a.mid", midi(track))
    assert spans(read_performance(path).notes) == [(0.0, 0.1, 60), (0.0, 0.1, 67)]
    held = read_performance(path, Reading(sustain=True))
    assert spans(held.notes) == [(0.0, 0.5, 60), (0.0, 0.1, 67)]
    assert_same(held.notes, read_midi(path, sustain=True))
    assert held.controls.tolist() == [[0.0, 64.0, 127.0], [0.5, 64.0, 0.0]]


WHOLE = midi([on(60), off(60, 100)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"RIFF" + WHOLE[8:], "it has no MIDI header"),
        (WHOLE[:-3], "it is cut short within track 1"),
        (WHOLE[:14], "it has no tracks"),
        (WHOLE[:12] + b"\xe0\x28" + WHOLE[14:], "film frames at 32 per second"),
        (WHOLE[:12] + b"\xe8\x00" + WHOLE[14:], "0 ticks per film frame"),
        (WHOLE[:12] + b"\x00\x00" + WHOLE[14:], "0 ticks per quarter note"),
    ],
)
def test_broken_midi_is_refused_with_its_name(tmp_path, data, reason):
    path = write(tmp_path, "a.mid", data)
    with pytest.raises(NotesFileError, match=reason) as caught:
        read_performance(path)
    assert str(caught.value).startswith(f"{path} cannot be read as a MIDI file: ")


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
    assert f"{path}: it contains no notes" in remarks


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
    assert remarks == (f"{path}: has no velocities; 100 is assumed for all",)
    path = write(tmp_path, "b.jsonl", "[3, 4, 60, 90]\n[1, 2, 61]\n")
    assert read_with_remarks(path)[1] == (f"{path}: has no velocities; 100 is assumed for 1 notes",)


def test_columns_that_are_not_used_are_named(tmp_path):
    path = write(tmp_path, "a.csv", ",onset,offset,pitch,velocity,instrument,pitch_bend\n0,1,2,60,90,33,0\n")
    assert read_with_remarks(path)[1] == (f"{path}: has unused columns: instrument, pitch_bend",)


@pytest.mark.parametrize("suffix", ["mid", "json", "jsonl", "csv"])
def test_what_mt3_writes_is_read_without_remark(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Transcription([Note(0.0, 1.0, 60, 90, 40), Note(0.5, 0.6, 36, 90, 0, True)]).save(path)
    performance, remarks = read_with_remarks(path)
    assert remarks == ()
    assert_same(performance.notes, note_table([Note(0.0, 1.0, 60, 90, 40), Note(0.5, 0.6, 36, 90, 0, True)]))


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
        ("a.csv", "onset,offset,pitch\n1,2,60.5\n", "line 2 has the pitch '60.5'; it must be a whole number"),
        ("a.csv", "onset,offset,pitch\n1,2,60\n1,2\n", "line 3 has no pitch"),
        ("a.csv", "onset,offset,pitch,is_drum\n1,2,60,x\n", "line 2 has is_drum 'x'"),
        ("a.csv", "onset,offset,pitch,is_drum\n1,2,60,0.5\n", "line 2 has is_drum '0.5'; it must be 0 or 1"),
        ("a.json", "[[1, 2, 60, 64, 0, 0.5]]", "note 1 has is_drum 0.5; it must be 0 or 1"),
        ("a.json", "[[1, 2, 60, 64, 0, 1e999]]", "note 1 has is_drum inf; it must be 0 or 1"),
        ("a.json", "[[1, 2, 60, 64, 0, NaN]]", "note 1 has is_drum nan; it must be 0 or 1"),
        ("a.csv", "begin,offset,note_name\n1,2,C4\n", "its header names no column for onset and pitch"),
        ("a.json", '{"notes": [{"onset": NaN, "offset": 1, "pitch": 60}]}', "has a time that is not a number"),
        ("a.json", '{"schema_version": 1}', "it has no entry 'notes'"),
        ("a.json", '{"version": 9, "notes": [], "segments": []}', "a transcription of version 9, not 1 or 2"),
        ("a.json", "{", "Expecting property name"),
        ("a.jsonl", '{"onset": 1, "offset": 2, "pitch": 60}\n{', "line 2 is not JSON"),
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
    with pytest.raises(NotesFileError, match="Use times in seconds"):
        read_performance(tmp_path / "a.csv")


def test_what_is_no_file_of_notes(tmp_path):
    with pytest.raises(NotesFileError, match=r"a.wav cannot be read as a file of notes.*\.mid.*\.csv"):
        read_performance(tmp_path / "a.wav")
    with pytest.raises(NotesFileError, match=r"a.mid cannot be read: No such file"):
        read_performance(tmp_path / "a.mid")
