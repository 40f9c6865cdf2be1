"""`mt3 data verify` and what it is made of, on data sets with one thing wrong each."""

import os
import shutil
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from tiny_datasets import melody, midi_of, plucked, slakh_track, write_audio

from mt3app.cli import run
from mt3core.errors import DatasetError
from mt3core.notes.midi_reading import read_content
from mt3data.checks.label_checks import check_pedal
from mt3data.checks.verify import check_track, verify
from mt3data.prepare.manifest import read_manifest
from mt3data.readers import folder, slakh
from mt3data.readers.defects import defect, read_defects, skipped, with_defects, write_defects
from mt3data.readers.labels import track_notes
from mt3data.readers.tracks import MIX

pytestmark = pytest.mark.integration
NOTES = melody(40)
SECONDS = 16.0


def pair(root, name="train/a", notes=NOTES, samples=None, rate_hz=16_000):
    """One recording with its MIDI in a user's folder; returns both paths."""
    midi = midi_of(notes, root / f"{name}.mid")
    samples = plucked(notes, SECONDS, rate_hz) if samples is None else samples
    return write_audio(root / f"{name}.flac", samples, rate_hz), midi


def found(dataset, **options):
    """{(track, stem, kind): (message, skips)}"""
    return {
        (one.track, one.stem, one.kind): (one.message, one.skips) for one in verify(dataset, processes=1, **options)
    }


def the_only(dataset, kind, **options):
    """The message of the only defect, which is of this kind."""
    (((_, _, said), (message, skips)),) = found(dataset, **options).items()
    assert said == kind
    return message, skips


@pytest.fixture(scope="module")
def good_slakh(tmp_path_factory):
    root = tmp_path_factory.mktemp("slakh")
    slakh_track(root, stems={"S00": (0, False, "Piano"), "S01": (128, True, "Drums"), "S02": (33, False, "Bass")})
    return root


@pytest.fixture
def slakh_copy(good_slakh, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(good_slakh, root)
    return root


def test_nothing_is_wrong_with_a_good_set(good_slakh, tmp_path):
    assert verify(slakh.read(good_slakh), processes=1) == ()
    pair(tmp_path)
    pair(tmp_path, "test/b", melody(40, seed=1), plucked(melody(40, seed=1), SECONDS, 44_100), 44_100)
    assert verify(folder.read(tmp_path), processes=1) == ()


def test_a_truncated_flac_and_an_empty_file_cost_only_themselves(slakh_copy):
    track = slakh_copy / "train" / "Track00001"
    whole = (track / "stems" / "S00.flac").read_bytes()
    (track / "stems" / "S00.flac").write_bytes(whole[: len(whole) // 2])
    (track / "stems" / "S02.flac").write_bytes(b"")
    slakh_track(slakh_copy, "Track00002", seed=1)
    defects = found(slakh.read(slakh_copy))
    assert set(defects) == {("Track00001", "S00", "truncated_audio"), ("Track00001", "S02", "empty_audio")}
    assert "S00.flac is truncated or damaged: it " in defects["Track00001", "S00", "truncated_audio"][0]
    assert defects["Track00001", "S02", "empty_audio"] == (f"{track}/stems/S02.flac is empty (0 bytes).", True)


def test_a_header_without_sound_and_what_is_no_audio(tmp_path):
    for name in "abc":
        pair(tmp_path, f"train/{name}", melody(40, seed=ord(name)), plucked(melody(40, seed=ord(name)), SECONDS))
    write_audio(tmp_path / "train" / "a.flac", np.zeros(0, np.float32))
    (tmp_path / "train" / "b.flac").write_text("no audio")
    defects = found(folder.read(tmp_path))
    assert set(defects) == {("train__a", MIX, "empty_audio"), ("train__b", MIX, "unreadable_audio")}
    assert set(found(folder.read(tmp_path), listen=False)) == set(defects)


def test_silence_noise_and_sound_without_notes(slakh_copy):
    stems = slakh_copy / "train" / "Track00001" / "stems"
    write_audio(stems / "S00.flac", np.zeros(256_000, np.float32))
    write_audio(stems / "S02.flac", np.random.default_rng(0).normal(0, 0.1, 256_000))
    midi_of([], slakh_copy / "train" / "Track00001" / "MIDI" / "S01.mid", is_drum=True)
    defects = found(slakh.read(slakh_copy))
    assert defects["Track00001", "S00", "silent_audio"] == (f"{stems}/S00.flac is silent but has 40 notes.", True)
    assert defects["Track00001", "S01", "no_notes"] == (f"{stems}/S01.flac has sound but no notes.", True)
    assert defects["Track00001", "S02", "noise"] == (f"{stems}/S02.flac is noise, not music.", True)
    assert defects["Track00001", MIX, "mix_with_wrong_stem"][1]


def test_notes_past_the_end_are_counted(tmp_path):
    pair(tmp_path, samples=plucked(NOTES, 10.0))
    late = sum(note[0] >= 10.0 for note in NOTES)
    message, skips = the_only(folder.read(tmp_path), "notes_past_end")
    assert message.startswith(f"{late} of 40 notes of train__a start after the end of its audio (10.0 s; the last note")
    assert not skips


def test_midi_that_ends_late_and_audio_that_goes_on(tmp_path):
    pair(tmp_path, notes=[*NOTES, (15.0, 25.0, 50)])
    assert the_only(folder.read(tmp_path), "midi_longer") == (
        "The notes of train__a end at 25.0 s, its audio at 16.0 s; their ends are kept.",
        False,
    )
    more = np.concatenate([plucked(NOTES, SECONDS), plucked(NOTES * 1, SECONDS), plucked(NOTES, SECONDS)])
    pair(tmp_path, samples=more)
    message, skips = the_only(folder.read(tmp_path), "audio_longer")
    assert message.startswith("train__a continues for ")
    assert not skips


@pytest.mark.parametrize("delta", [b"\xff\xff\xff\x7f", b"\x8f\xff\xff\xff\xff\xff\xff\xff\x76"])
def test_midi_with_negative_or_huge_times(tmp_path, delta):
    """A program that writes a negative step as if it had no sign makes more bytes of it than there may be."""
    pair(tmp_path, "train/b")
    _, midi = pair(tmp_path, "test/a", melody(40, seed=1), plucked(melody(40, seed=1), SECONDS))
    events = b"\x00\xff\x51\x03\x07\xa1\x20\x00\x90\x3c\x40\x60\x80\x3c\x40" + delta + b"\x90\x3c\x40\x60\x80\x3c\x40"
    events += b"\x00\xff\x2f\x00"
    midi.write_bytes(b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk" + len(events).to_bytes(4, "big") + events)
    message, skips = the_only(folder.read(tmp_path), "unreadable_midi")
    assert "a.mid cannot be read as a MIDI file" in message
    assert skips


def test_a_broken_midi_in_a_stem_spoils_the_mix_only(slakh_copy):
    midi = slakh_copy / "train" / "Track00001" / "MIDI" / "S00.mid"
    midi.write_bytes(midi.read_bytes()[:30])
    defects = verify(slakh.read(slakh_copy), processes=1)
    assert skipped(defects) == {("Track00001", "S00"), ("Track00001", MIX)}
    assert any("so the mix is left out; the other stems are used." in one.message for one in defects)


def test_tempo_changes_on_another_track_move_no_label(tmp_path):
    """Half the notes at 120, the others at 60 quarters a minute, said on the second track."""
    _, path = pair(tmp_path)
    midi = mido.MidiFile(path)
    half = NOTES[20][0]
    notes = midi.tracks[1]
    seconds = 0.0
    for place, message in enumerate(notes):
        seconds += message.time / 1000
        if seconds >= half - 1e-9:
            notes.insert(place, mido.MetaMessage("set_tempo", tempo=1_000_000, time=message.time))
            message.time = 0
            for later in notes[place + 2 :]:
                later.time = round(later.time / 2)
            break
    midi.save(path)
    (track,) = folder.read(tmp_path).tracks
    assert track_notes(track)["onset"] == pytest.approx(sorted(note[0] for note in NOTES), abs=0.05)
    message, skips = the_only(folder.read(tmp_path), "tempo_on_other_track")
    assert message.endswith("all tempo changes are used.")
    assert not skips


def test_odd_audio_is_used(tmp_path):
    root = tmp_path / "pairs"
    samples = plucked(NOTES, SECONDS, 16_000)
    pair(root, samples=np.stack([samples, -samples], axis=1))
    message, skips = the_only(folder.read(root), "odd_audio")
    assert message.endswith(
        "a.flac: Its channels are in antiphase, so that their mean is all but silent; their difference was used."
    )
    assert not skips


def test_sample_rates(tmp_path, slakh_copy):
    root = tmp_path / "pairs"
    pair(root, samples=plucked(NOTES, SECONDS, 8000), rate_hz=8000)
    message, skips = the_only(folder.read(root), "low_sample_rate")
    assert message.endswith("a.flac has a sample rate of 8000 Hz; it is resampled and has no content above 4000 Hz.")
    assert not skips
    pair(root, samples=plucked(NOTES, SECONDS, 48_000), rate_hz=44_100)  # the header is wrong
    message, skips = the_only(folder.read(root), "wrong_sample_rate")
    assert "plays at 0.9187 times its speed, as if its sample rate were wrong." in message
    assert skips
    stem = slakh_copy / "train" / "Track00001" / "stems" / "S00.flac"
    samples, _ = soundfile.read(stem)
    write_audio(stem, samples[: 14 * 16_000].repeat(2), 32_000)
    kinds = {kind: skips for (_, _, kind), (_, skips) in found(slakh.read(slakh_copy)).items()}
    assert kinds["other_sample_rate"] is kinds["other_length"] is False


def test_labels_that_do_not_fit(tmp_path):
    for name in ("shifted", "wrong"):
        pair(tmp_path / name, notes=NOTES, samples=plucked(NOTES, SECONDS, shift_seconds=0.7))
    midi_of(melody(40, seed=7), tmp_path / "wrong" / "train" / "a.mid")
    message, skips = the_only(folder.read(tmp_path / "shifted"), "shifted_labels")
    assert message.endswith("a.flac is about 0.70 s later than its notes.") or "0.69 s later" in message
    assert skips
    message, skips = the_only(folder.read(tmp_path / "wrong"), "wrong_labels")
    assert message.endswith("a.flac do not belong to its audio.")
    assert skips


def test_a_bass_an_octave_off(slakh_copy):
    track = slakh_copy / "train" / "Track00001"
    notes = [(0.4 * k, 0.4 * k + 0.38, pitch) for k, (_, _, pitch) in enumerate(melody(38, lowest=40, highest=52))]
    midi_of(notes, track / "MIDI" / "S02.mid", program=33)
    write_audio(track / "stems" / "S02.flac", plucked(notes, SECONDS, shift_semitones=12))
    message, skips = the_only(slakh.read(slakh_copy), "wrong_octave")
    assert message == f"{track}/stems/S02.flac sounds an octave above its notes."
    assert skips


def test_the_same_notes_in_two_splits(tmp_path):
    pair(tmp_path, "train/a")
    pair(
        tmp_path, "test/b", [(on + 0.5, off + 0.5, p) for on, off, p in NOTES], plucked(NOTES, 17.0, shift_seconds=0.5)
    )
    pair(tmp_path, "train/again")
    defects = verify(folder.read(tmp_path), processes=1)
    assert skipped(defects) == {("train__a", MIX), ("train__again", MIX)}
    assert "train__a (train) has the same notes as those of test__b (test)." in [one.message for one in defects]


@pytest.mark.parametrize(
    ("controls", "kinds"),
    [
        ([], ["no_pedal"]),
        ([(1.0, 127), (2.0, 0)], []),
        ([(1.0, 127), (2.0, 0), (90.0, 100)], ["pedal_not_released"]),
        ([(1.0, 127), (90.0, 0)], ["pedal_stuck"]),
    ],
)
def test_pedals(tmp_path, controls, kinds):
    path = midi_of([*NOTES, (95.0, 96.0, 60)], tmp_path / "a.midi", controls=controls)
    assert [one.kind for one in check_pedal("a", path, read_content(path, drop_empty=True))] == kinds


def test_a_check_that_fails_unexpectedly_ends_no_other(tmp_path, monkeypatch):
    pair(tmp_path)
    (track,) = folder.read(tmp_path).tracks
    monkeypatch.setattr("mt3data.checks.verify.hear", lambda *_: 1 / 0)
    (one,) = check_track(track).defects
    assert one.message == "The check of train__a failed (ZeroDivisionError: division by zero)."


def test_tables_come_back_as_they_were(tmp_path):
    defects = (
        defect("a", MIX, "missing_audio", os.fsdecode(b"caf\xe9.wav is\nnot there")),
        defect("b", "S01", "long_note", "long", skips=False),
    )
    table, text = write_defects(tmp_path / "out", "slakh", reversed(defects))
    assert read_defects(table) == defects
    assert text.read_text().splitlines() == [
        "slakh: 2 defects",
        r"left out  a  missing_audio: caf\xe9.wav is not there",
        "used      b S01  long_note: long",
    ]
    table.write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="not a readable table of defects"):
        read_defects(table)


def test_a_table_belongs_to_its_data_set(tmp_path):
    pair(tmp_path)
    dataset = folder.read(tmp_path)
    table, _ = write_defects(tmp_path / "out", "folder", [defect("train__a", MIX, "noise", "noise")])
    told = with_defects(dataset, table)
    assert skipped(told.defects) == {("train__a", MIX)}
    assert with_defects(told, table).defects == told.defects
    table, _ = write_defects(tmp_path / "out", "folder", [defect("other", MIX, "noise", "noise")])
    with pytest.raises(DatasetError, match="belongs to another data set: it names other"):
        with_defects(dataset, table)


def test_the_command_tells_writes_and_ends_as_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair(tmp_path / "set", "train/a")
    pair(tmp_path / "set", "test/b", melody(40, seed=1), plucked(melody(40, seed=1), SECONDS))
    assert run(["data", "verify", "folder", "set", "--processes", "2"]) == 0
    out, err = capsys.readouterr()
    assert "folder in set: 2 tracks (train 1, test 1), 0.0 h of audio" in out
    assert "Nothing is wrong; mt3 prepare can use all of it." in out
    assert "cache/folder-defects/defects.parquet" in err
    Path("set/train/a.flac").write_bytes(b"")
    assert run(["data", "verify", "set", "-o", "found", "--processes", "1", "-q"]) == 1
    assert capsys.readouterr() == ("", "")
    assert [one.kind for one in read_defects(Path("found/defects.parquet"))] == ["empty_audio"]
    assert run(["data", "verify", "set", "--processes", "1", "-q", "--quick"]) == 1
    Path("set/train/a.flac").write_bytes(Path("set/test/b.flac").read_bytes())  # not its notes
    assert run(["data", "verify", "set", "-o", "found", "--processes", "1", "-q"]) == 1
    assert "train__a" in {one.track for one in read_defects(Path("found/defects.parquet"))}
    assert run(["prepare", "folder", "set", "--processes", "1", "-q", "--defects", "found/defects.parquet"]) == 1
    assert set(read_manifest(Path("cache/chunk_manifest.parquet"))["track"].tolist()) == {"test__b"}
    assert run(["data", "verify", "nowhere"]) == 2
    assert "nowhere is neither a kind of data set nor a folder. Choose from maestro" in capsys.readouterr().err


def test_a_folder_whose_name_is_no_utf8(tmp_path, capsys):
    root = tmp_path / os.fsdecode(b"M\xfcnchen")
    audio, _ = pair(root, os.fsdecode(b"train/gr\xfc\xdfe"))
    audio.write_bytes(audio.read_bytes()[:1000])
    out = tmp_path / "out"
    assert run(["data", "verify", "folder", str(root), "-o", str(out), "--processes", "1"]) == 1
    said, _ = capsys.readouterr()
    assert said.startswith(f"folder in {tmp_path}/M\\xfcnchen: 1 tracks")
    (one,) = read_defects(out / "defects.parquet")
    assert one.kind == "truncated_audio"
    assert r"M\xfcnchen/train/gr\xfc\xdfe.flac is truncated" in one.message


def test_the_true_layouts_are_verified(dataset_layouts, tmp_path, capsys):
    place = str(dataset_layouts / "maestro_layout")
    assert run(["data", "verify", place, "-o", str(tmp_path / "maestro"), "--processes", "1"]) == 0
    assert "4195 of 4197 notes" in (tmp_path / "maestro" / "defects.txt").read_text()
    place = str(dataset_layouts / "slakh_layout" / "slakh2100_flac_redux")
    assert run(["data", "verify", "slakh", place, "-o", str(tmp_path / "slakh"), "--processes", "1"]) == 1
    defects = read_defects(tmp_path / "slakh" / "defects.parquet")
    # Cut short by their publisher: only the mix and one stem have notes within their two seconds.
    assert skipped(defects) == {("Track00001", f"S{n:02}") for n in range(1, 11) if n != 6}
    assert {one.kind for one in defects if one.stem == MIX} == {"notes_past_end"}
