"""The stored forms of a result."""

import csv
import dataclasses
import io
import json
import os
import sys

import numpy as np
import pretty_midi
import pytest

from mt3core.decoding import Decoding
from mt3core.errors import MT3Error, OutputError
from mt3core.notes.instruments import instrument_name
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import Confidence, Note, to_notes
from mt3core.transcription import FORMATS, SegmentTokens, Transcription, known_format

pytestmark = pytest.mark.unit


@pytest.fixture
def result():
    return Transcription(
        notes=[
            Note(onset=0.0, offset=0.5, pitch=60, velocity=127, program=0, is_drum=False),
            Note(onset=0.1 + 0.2, offset=0.31000000000000005, pitch=36, velocity=100, program=0, is_drum=True),
            Note(onset=2.05, offset=4.0, pitch=72, velocity=1, program=40, is_drum=False),
        ],
        segments=[SegmentTokens(0.0, [1134, 1], 0, 0), SegmentTokens(2.04, [1134, 40, 1], 3, 2)],
        duration_seconds=4.25,
        model="mt3",
        audio="Lied ohne Wörter.mp3",
    )


def test_json_has_exactly_the_published_keys(result):
    values = result.to_json()
    assert list(values) == ["version", "model", "audio", "duration_seconds", "notes", "segments"]
    assert list(values["notes"][0]) == ["onset", "offset", "pitch", "velocity", "program", "is_drum", "instrument"]
    assert list(values["segments"][0]) == ["start_seconds", "tokens", "invalid_events", "dropped_events"]
    assert values["version"] == 3
    remarked = dataclasses.replace(result, remark="The recording is silent.")
    assert set(remarked.to_json()) - set(values) == {"remark"}
    assert Transcription.from_json(remarked.to_json()) == remarked


def test_json_round_trip_is_exact(result, tmp_path):
    result.save(tmp_path / "song.json")
    assert Transcription.load(tmp_path / "song.json") == result
    assert "Wörter" in (tmp_path / "song.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("decoding", "stored"),
    [
        (Decoding(max_tokens=128, overlap=2), {"max_tokens": 128, "overlap": 2}),
        (
            Decoding("beam", 4, grammar=True, programs=(0, 32), drums=False),
            {"method": "beam", "num_beams": 4, "grammar": True, "programs": (0, 32), "drums": False},
        ),
        (Decoding(grammar=True, programs=()), {"grammar": True, "programs": ()}),
    ],
)
def test_json_says_how_the_notes_were_written(result, tmp_path, decoding, stored):
    written = dataclasses.replace(result, decoding=decoding)
    assert written.to_json()["decoding"] == stored
    written.save(tmp_path / "song.json")
    assert Transcription.load(tmp_path / "song.json") == written


@pytest.mark.parametrize(
    "stored",
    [{"overlap": "2"}, {"num_beams": True}, {"programs": ["0"]}, {"programs": 3}, {"overlap": 3}, {"x": 1}, []],
)
def test_an_impossible_decoding_is_refused(result, stored):
    with pytest.raises(MT3Error, match="missing or unknown entries"):
        Transcription.from_json({**result.to_json(), "decoding": stored})


def with_confidences(result):
    """The same, with other confidences for each note."""
    notes = [
        dataclasses.replace(note, confidence=Confidence(1 / 3, 0.5, 1.0 / (number + 1), 1 / 6 / (number + 1)))
        for number, note in enumerate(result.notes)
    ]
    return dataclasses.replace(result, notes=notes[::-1])


def test_json_has_confidences_in_parts(result, tmp_path):
    sure = with_confidences(result)
    values = sure.to_json()
    assert list(values["notes"][0]) == [*list(result.to_json()["notes"][0]), "confidence"]
    parts = [note["confidence"] for note in values["notes"]]
    assert parts[0] == {"onset": 0.3333, "pitch": 0.5, "program": 1.0, "note": 0.1667}
    assert [one["note"] for one in parts] == [0.1667, 0.0833, 0.0556], "they are sorted with their notes"
    sure.save(tmp_path / "a.json")
    loaded = Transcription.load(tmp_path / "a.json")
    assert loaded == sure
    assert [dataclasses.asdict(note.confidence) for note in loaded.notes] == parts
    assert loaded.to_bytes("json") == sure.to_bytes("json")


def test_tables_have_one_confidence_in_the_last_column(result):
    sure = with_confidences(result)
    header, *rows = sure.to_bytes("csv").decode().splitlines()
    assert header.endswith(",instrument,confidence")
    assert [row.split(",")[-1] for row in rows] == ["0.1667", "0.0833", "0.0556"]
    lines = [json.loads(line) for line in sure.to_bytes("jsonl").splitlines()]
    assert [line["confidence"] for line in lines] == [0.1667, 0.0833, 0.0556]
    assert list(lines[0])[-1] == "confidence"
    assert "confidence" not in json.loads(result.to_bytes("jsonl").splitlines()[0])


def test_files_of_version_2_are_read(result):
    old = with_confidences(result).to_json() | {"version": 2}
    for note in old["notes"]:
        del note["confidence"]
    assert [note.confidence for note in Transcription.from_json(old).notes] == [None] * 3


@pytest.mark.parametrize(
    "confidence", [0.5, "high", [], {}, {"onset": 1.0, "pitch": 1.0, "program": 1.0}]
    + [{"onset": 1.0, "pitch": 1.0, "program": 1.0, "note": value} for value in (1.5, -0.1, "1", None, float("nan"))],
)  # fmt: skip
def test_confidences_that_are_none_are_refused(result, confidence):
    values = result.to_json()
    values["notes"][0]["confidence"] = confidence
    with pytest.raises(MT3Error, match="has missing or unknown entries"):
        Transcription.from_json(values)


def test_json_of_a_file_whose_name_is_not_utf_8(result, tmp_path):
    odd = dataclasses.replace(result, audio=os.fsdecode(b"caf\xe9 \xc3\xa9.wav"))
    odd.save(tmp_path / "a.json")
    assert Transcription.load(tmp_path / "a.json") == odd


def test_midi_holds_the_notes(result, tmp_path):
    for name in ("song.mid", "song.MIDI"):
        result.save(tmp_path / name)
        notes = to_notes(read_midi(tmp_path / name))
        assert len(notes) == 3
        for found, expected in zip(notes, result.notes, strict=True):
            assert (found.pitch, found.velocity, found.program) == (expected.pitch, expected.velocity, expected.program)
            assert found.is_drum == expected.is_drum
            assert (found.onset, found.offset) == pytest.approx((expected.onset, expected.offset), abs=1e-6)


def test_pretty_midi_has_what_the_file_has(result, tmp_path):
    midi = result.to_pretty_midi()
    result.save(tmp_path / "song.mid")
    saved = pretty_midi.PrettyMIDI(str(tmp_path / "song.mid"))
    assert len(midi.instruments) == len(saved.instruments) > 1
    for one, other in zip(midi.instruments, saved.instruments, strict=True):
        assert (one.program, one.is_drum, one.name) == (other.program, other.is_drum, other.name)
        found = [(note.start, note.end, note.pitch, note.velocity) for note in one.notes]
        expected = [(note.start, note.end, note.pitch, note.velocity) for note in other.notes]
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(found, expected, atol=1e-9)
    assert Transcription([]).to_pretty_midi().instruments == []


def test_jsonl_is_a_note_a_line(result, tmp_path):
    result.save(tmp_path / "song.jsonl")
    lines = (tmp_path / "song.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row.pop("instrument") for row in rows] == ["Acoustic Grand Piano", "Drums", "Violin"]
    assert [Note(**row) for row in rows] == [
        result.notes[0],
        Note(onset=0.3, offset=0.31, pitch=36, velocity=100, program=0, is_drum=True),
        result.notes[2],
    ]


def test_csv_is_a_table_with_a_header(result, tmp_path):
    result.save(tmp_path / "song.csv")
    data = (tmp_path / "song.csv").read_bytes()
    assert b"\r" not in data
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert rows[1] == {
        "onset": "0.3",
        "offset": "0.31",
        "pitch": "36",
        "velocity": "100",
        "program": "0",
        "is_drum": "1",
        "instrument": "Drums",
        "confidence": "",
    }
    assert [row["is_drum"] for row in rows] == ["0", "1", "0"]
    assert [row["instrument"] for row in rows] == ["Acoustic Grand Piano", "Drums", "Violin"]


def test_names_are_those_of_general_midi():
    assert [instrument_name(program) for program in range(128)] == [
        pretty_midi.program_to_instrument_name(program) for program in range(128)
    ]
    assert instrument_name(40, is_drum=True) == "Drums"
    assert instrument_name(200) == "Program 200"
    assert instrument_name(1.5) == "Program 1.5"  # nothing else is made of it


def test_notes_are_in_order_of_onset_in_every_form(result, tmp_path):
    """Also where they were given, or stored by an earlier release, in another order."""
    together = [Note(1.0, 3.0, 60), Note(1.0, 2.0, 64), Note(1.0, 2.5, 50, program=5), Note(1.0, 1.1, 36, is_drum=True)]
    expected = [Note(0.5, 9.0, 72), *together, Note(1.5, 1.6, 40)]
    shuffled = Transcription(sorted(expected, key=lambda note: note.offset), audio="x")
    assert shuffled.notes == expected
    assert [note["onset"] for note in shuffled.to_json()["notes"]] == [0.5, 1, 1, 1, 1, 1.5]
    lines = [json.loads(line) for line in shuffled.to_bytes("jsonl").splitlines()]
    table = list(csv.DictReader(io.StringIO(shuffled.to_bytes("csv").decode())))
    order = [(note.onset, note.pitch) for note in expected]
    assert [(line["onset"], line["pitch"]) for line in lines] == order
    assert [(float(row["onset"]), int(row["pitch"])) for row in table] == order
    for instrument in shuffled.to_pretty_midi().instruments:
        onsets = [note.start for note in instrument.notes]
        assert onsets == sorted(onsets)
    old = shuffled.to_json() | {"version": 1, "notes": [dataclasses.asdict(note) for note in reversed(expected)]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Transcription.load(tmp_path / "old.json") == shuffled


@pytest.mark.parametrize("name", ["mid", "midi", "MIDI", ".Midi", " mid"])
def test_midi_has_two_names(name, result, tmp_path):
    assert known_format(name) == "mid"
    assert result.to_bytes(name).startswith(b"MThd")
    result.save(tmp_path / "song", name)
    result.write(stream := io.BytesIO(), name)
    assert stream.getvalue() == (tmp_path / "song").read_bytes() == result.to_bytes("mid")


@pytest.mark.parametrize("format", FORMATS)
def test_no_notes(format, tmp_path):
    Transcription(notes=[]).save(tmp_path / "song", format=format)
    data = (tmp_path / "song").read_bytes()
    assert data.startswith({"mid": b"MThd", "json": b"{", "jsonl": b"", "csv": b"onset,offset"}[format])
    assert bool(data) == (format != "jsonl")


def test_a_named_format_goes_before_the_suffix(result, tmp_path):
    result.save(tmp_path / "song.txt", format="json")
    assert Transcription.load(tmp_path / "song.txt") == result


@pytest.mark.parametrize("format", FORMATS)
def test_streams_get_the_same_bytes(result, format):
    expected = result.to_bytes(format)
    binary, beneath = io.BytesIO(), io.BytesIO()
    result.write(binary, format)
    assert binary.getvalue() == expected
    text = io.TextIOWrapper(beneath, encoding="utf-8", newline="\n")
    result.write(text, format)
    text.flush()
    assert beneath.getvalue() == expected


def test_text_streams_without_bytes_beneath(result):
    text = io.StringIO()
    result.write(text, "csv")
    assert text.getvalue().encode() == result.to_bytes("csv")
    with pytest.raises(OutputError, match=r"MIDI cannot .* text stream"):
        result.write(text, "mid")


@pytest.mark.parametrize(("name", "format"), [("song.wav", None), ("song", None), ("song.mid", "xml"), ("song.", None)])
def test_unknown_formats_name_the_choices(result, tmp_path, name, format):
    with pytest.raises(OutputError, match="Choose from mid, json, jsonl, csv"):
        result.save(tmp_path / name, format)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "song.json"
    path.write_text("before")
    with pytest.raises(ValueError, match="JSON compliant"):
        Transcription(notes=[Note(float("nan"), 1.0, 60)]).save(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *(
            (name, value)
            for name in ("onset", "offset")
            for value in ("1", None, [], True, float("nan"), float("inf"), 10**400)
        ),
        *((name, value) for name in ("pitch", "velocity", "program") for value in ("1", None, 1.5, True, 2**31, {})),
        *(("is_drum", value) for value in (0, "", None)),
    ],
)
def test_values_that_are_not_those_of_a_note_are_refused(result, entry, value):
    """They would fail later, in other words."""
    values = result.to_json()
    values["notes"][1][entry] = value
    with pytest.raises(MT3Error, match="has missing or unknown entries"):
        Transcription.from_json(values)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("model", 3), ("audio", None), ("remark", []), ("duration_seconds", "4"), ("segments", [{"start_seconds": "x"}])]
    + [("segments", [{"start_seconds": 0.0, "tokens": tokens}]) for tokens in ("ab", None, [1.5], [[1]], ["1"])],
)
def test_values_of_another_type_are_refused(result, entry, value):
    with pytest.raises(MT3Error, match="has missing or unknown entries"):
        Transcription.from_json({**result.to_json(), entry: value})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "not a transcription in JSON"),
        (b"[" * 100_000, "not a transcription in JSON"),
        (b"\xff\xfe", "not a transcription in JSON"),
        (b"[]", "has missing or unknown entries"),
        (b"{}", "has missing or unknown entries"),
        (b'{"version": 4}', "version 4; this mt3kit reads 3 and earlier"),
        (b'{"version": 1, "notes": [{"onset": 1}], "segments": []}', "has missing or unknown entries"),
        (b'{"version": 2, "notes": [1], "segments": []}', "has missing or unknown entries"),
        (b'{"version": 2, "notes": ["ab"], "segments": []}', "has missing or unknown entries"),
        (
            b'{"version": 2, "notes": [{"onset": 1, "instrument": "Tuba"}], "segments": []}',
            "missing or unknown entries",
        ),
    ],
)
def test_broken_files(tmp_path, content, sentence):
    path = tmp_path / "song.json"
    path.write_bytes(content)
    with pytest.raises(MT3Error, match=sentence):
        Transcription.load(path)


def test_missing_file(tmp_path):
    with pytest.raises(MT3Error, match="cannot be read: No such file"):
        Transcription.load(tmp_path / "none.json")


def test_text_formats_need_no_midi_library(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "mt3core.notes.midi_writing", None)
    assert result.to_bytes("jsonl")
    with pytest.raises(ImportError):
        result.to_bytes("mid")
