"""SLAKH's editions, by files rather than by flags, and tracks with something missing."""

import json
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from tiny_datasets import melody, midi_of, slakh_track

from mt3core.errors import DatasetError, MidiError
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import DRUM_PROGRAM
from mt3data.readers import slakh
from mt3data.readers.defects import skipped
from mt3data.readers.labels import stem_notes, track_notes
from mt3data.readers.slakh_problems import PROBLEM_STEMS
from mt3data.readers.tracks import MIX

pytestmark = pytest.mark.unit


def messages(dataset, stem=None):
    return [one.message for one in dataset.defects if stem in (None, one.stem)]


def small_track(root, name="Track00001", split="train", stems=("S00", "S01"), yaml=None):
    """A track without sound: readers do not open audio."""
    folder = root / split / name if split else root / name
    (folder / "stems").mkdir(parents=True)
    (folder / "mix.flac").touch()
    lines = [f"UUID: {name}", "stems:"]
    for number, stem in enumerate(stems):
        (folder / "stems" / f"{stem}.flac").touch()
        midi_of(melody(5, seed=number), folder / "MIDI" / f"{stem}.mid", program=number)
        lines += [f"  {stem}: {{program_num: {number}, is_drum: false, inst_class: Piano, audio_rendered: true}}"]
    (folder / "metadata.yaml").write_text(yaml or "\n".join(lines))
    return folder


@pytest.mark.parametrize("edition", ["slakh2100_flac_redux", "babyslakh_16k"])
def test_the_true_layouts_give_the_same_track(dataset_layouts, edition):
    dataset = slakh.read(dataset_layouts / "slakh_layout" / edition)
    track = dataset.tracks[0]
    assert (track.name, track.split, track.licence) == ("Track00001", "train", "CC BY 4.0")
    assert track.audio.stem == "mix"
    assert [stem.name for stem in track.stems] == [f"S{n:02}" for n in range(11) if n != 6]
    assert all(stem.audio.is_file() and stem.midi.is_file() for stem in track.stems)
    drums = [stem for stem in track.stems if stem.is_drum]
    assert [(stem.program, stem.instrument_class) for stem in drums] == [(DRUM_PROGRAM, "Drums")]
    assert [stem.program for stem in track.stems] == [30, 128, 1, 33, 52, 17, 26, 30, 22, 22]
    assert [one for one in dataset.defects if one.track == "Track00001"] == []


def test_the_truth_of_a_mix_is_the_sum_of_its_stems(dataset_layouts):
    (track,) = slakh.read(dataset_layouts / "slakh_layout" / "slakh2100_flac_redux").tracks
    notes = track_notes(track)
    parts = [stem_notes(track, stem) for stem in track.stems]
    # The two harmonicas (S09, S10) share a program: what they play together counts once.
    assert max(map(len, parts)) < len(notes) <= sum(map(len, parts))
    assert np.count_nonzero(notes["is_drum"]) == len(parts[1])
    assert set(notes["program"].tolist()) == {0, 1, 17, 22, 26, 30, 33, 52}
    assert 103 not in notes["program"]  # S06, never rendered; it is in all_src.mid
    whole = read_midi(track.audio.parent / "all_src.mid")
    assert 103 in whole["program"]
    keys = list(zip(notes["is_drum"], notes["program"], notes["pitch"], notes["onset"], strict=True))
    assert len(set(keys)) == len(keys)


def test_equal_notes_that_overlap_are_trimmed(tmp_path):
    folder = small_track(tmp_path, stems=("S00",))
    midi_of([(0.0, 2.0, 60), (1.0, 3.0, 64)], folder / "MIDI" / "S00.mid")
    other = small_track(tmp_path, "Track00002", stems=("S00",))
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "stems" / "S01.flac").touch()
    midi_of([(1.5, 2.5, 60)], other / "MIDI" / "S01.mid", program=0)
    first, second = slakh.read(tmp_path).tracks
    assert track_notes(first)["offset"].tolist() == [2.0, 3.0]
    assert track_notes(second)["offset"].tolist() == [1.5, 3.0, 2.5]


def test_program_and_drum_flag_come_from_the_metadata(tmp_path):
    yaml = "stems:\n  S00: {program_num: 128, is_drum: true}\n  S01: {program_num: 40, is_drum: false}\n"
    small_track(tmp_path, yaml=yaml)
    (track,) = slakh.read(tmp_path).tracks
    assert [(s.program, s.is_drum, s.instrument_class) for s in track.stems] == [(128, True, "Drums"), (40, False, "")]
    notes = track_notes(track)
    assert {(int(n["program"]), bool(n["is_drum"])) for n in notes} == {(0, True), (40, False)}


def test_all_splits_and_none(tmp_path):
    for number, split in enumerate(["train", "validation", "test", "omitted", ""]):
        small_track(tmp_path, f"Track{number:05}", split)
    (tmp_path / "train" / ".DS_Store").touch()
    (tmp_path / "train" / "notes").mkdir()
    dataset = slakh.read(tmp_path)
    assert Counter(t.split for t in dataset.tracks) == {"train": 2, "validation": 1, "test": 1, "omitted": 1}
    assert dataset.defects == ()
    assert [track.name for track in dataset.split("train")] == ["Track00000", "Track00004"]


def test_linked_tracks_are_read_once_each(tmp_path):
    small_track(tmp_path / "pool", "Track00001", "")
    small_track(tmp_path / "set", "Track00002", "train")
    (tmp_path / "set/validation").mkdir()
    (tmp_path / "set/validation/Track00001").symlink_to(tmp_path / "pool/Track00001")
    (tmp_path / "set/train/Track00001").symlink_to(tmp_path / "pool/Track00001")
    (tmp_path / "set/train/Track00003").symlink_to(tmp_path / "set/train/Track00002")
    (tmp_path / "set/train/Track00004").symlink_to(tmp_path / "set/train/Track00004")
    dataset = slakh.read(tmp_path / "set")
    assert [(track.split, track.name) for track in dataset.tracks] == [
        ("train", "Track00002"),
        ("validation", "Track00001"),
    ]
    assert dataset.defects == ()


def test_a_folder_without_tracks_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"has no SLAKH tracks .* Use the folder"):
        slakh.read(tmp_path)


def test_a_stem_without_midi_spoils_the_mix_but_no_other_stem(tmp_path):
    (small_track(tmp_path) / "MIDI" / "S01.mid").unlink()
    dataset = slakh.read(tmp_path)
    assert skipped(dataset.defects) == {("Track00001", "S01"), ("Track00001", MIX)}
    assert (
        "S01.flac has no MIDI file of the same name, so the mix is left out; the other stems are used."
        in messages(dataset)[1]
    )
    train = dataset.split("train")[0]
    assert len(stem_notes(train, train.stems[0])) == 5
    with pytest.raises(DatasetError, match="Track00001 S01 has no MIDI"):
        track_notes(train)


def test_midi_without_a_stem_is_no_part_of_the_mix(tmp_path):
    folder = small_track(tmp_path, stems=("S00", "S01", "S02"))
    (folder / "stems" / "S01.flac").unlink()
    (folder / "stems" / "S02.flac").unlink()
    text = (folder / "metadata.yaml").read_text().splitlines()
    text[-1] = text[-1].replace("audio_rendered: true", "audio_rendered: false")
    (folder / "metadata.yaml").write_text("\n".join(text))
    dataset = slakh.read(tmp_path)
    assert [stem.name for stem in dataset.tracks[0].stems] == ["S00"]
    assert set(track_notes(dataset.tracks[0])["program"].tolist()) == {0}
    assert skipped(dataset.defects) == {("Track00001", "S01"), ("Track00001", MIX)}
    assert messages(dataset, "S01") == ["Track00001 S01 is marked as rendered, but its audio is missing."]


def test_without_stems_the_mix_is_used(tmp_path):
    folder = small_track(tmp_path, stems=("S00", "S01"))
    shutil.rmtree(folder / "stems")
    text = (folder / "metadata.yaml").read_text().splitlines()
    text[-1] = text[-1].replace("audio_rendered: true", "audio_rendered: false")
    (folder / "metadata.yaml").write_text("\n".join(text))
    dataset = slakh.read(tmp_path)
    assert [(stem.name, stem.audio) for stem in dataset.tracks[0].stems] == [("S00", None)]
    assert [(one.kind, one.skips) for one in dataset.defects] == [("no_stems", False)]


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("stems:\n  S00:\n    is_drum: false\n  S01: null\n", "does not give the program of Track00001 S00; its MIDI"),
        ("stems: [1, 2]\n", "metadata.yaml has no list of stems; the programs are those in its MIDI."),
        ("UUID: x\n", "metadata.yaml has no list of stems"),
        ("stems: {S00: {program_num: many}, S01: {program_num: 129}}", "not give the program of Track00001 S01"),
        ("stems:\n\t- S00: [", "metadata.yaml is not YAML ("),
        ("\x00\x01", "metadata.yaml is not YAML ("),
        ("a: 2018-99-99", "metadata.yaml is not YAML (month must be"),
    ],
)
def test_metadata_with_gaps_is_filled_from_the_midi(tmp_path, yaml, said):
    small_track(tmp_path, yaml=yaml)
    small_track(tmp_path, "Track00002")
    dataset = slakh.read(tmp_path)
    assert [[(s.name, s.program) for s in track.stems] for track in dataset.tracks] == [[("S00", 0), ("S01", 1)]] * 2
    assert any(said in message for message in messages(dataset))
    assert skipped(dataset.defects) == frozenset()


def test_missing_metadata_and_mix_are_told(tmp_path):
    folder = small_track(tmp_path)
    (folder / "metadata.yaml").unlink()
    (folder / "mix.flac").unlink()
    dataset = slakh.read(tmp_path)
    assert "metadata.yaml cannot be read (No such file or directory)" in messages(dataset, MIX)[0]
    assert f"There is no mix in {folder}." in messages(dataset, MIX)
    assert skipped(dataset.defects) == {("Track00001", MIX)}


def test_a_broken_midi_is_the_stems_own_affair(tmp_path):
    folder = small_track(tmp_path)
    (folder / "MIDI" / "S01.mid").write_bytes(b"no MIDI")
    (track,) = slakh.read(tmp_path).tracks
    assert len(stem_notes(track, track.stems[0])) == 5
    with pytest.raises(MidiError, match=r"S01.mid cannot be read as a MIDI file"):
        stem_notes(track, track.stems[1])


def test_twenty_stems(tmp_path):
    small_track(tmp_path, stems=[f"S{n:02}" for n in range(20)])
    (track,) = slakh.read(tmp_path).tracks
    assert len(set(track_notes(track)["program"].tolist())) == 20


def test_the_same_source_in_two_splits_is_kept_in_the_test_set(tmp_path):
    for name, split in (("Track00001", "train"), ("Track00002", "test"), ("Track00003", "omitted")):
        folder = small_track(tmp_path, name, split)
        (folder / "metadata.yaml").write_text(f"{(folder / 'metadata.yaml').read_text()}\nUUID: same")
    small_track(tmp_path, "Track00001", "omitted")
    dataset = slakh.read(tmp_path)
    assert skipped(dataset.defects) == {("Track00001", MIX)}
    assert "Track00001 (train) has the same source (UUID same) of Track00002 (test)." in messages(dataset)
    assert "Track00001 is in train and in omitted; the one in train is used." in messages(dataset)


def test_known_problem_stems_are_those_of_the_published_list(dataset_layouts, tmp_path):
    published = json.loads((dataset_layouts / "slakh_splits" / "problem_stems.json").read_text())
    ours = {
        track: {stem: kind.replace("_", "-")} for kind, all_ in PROBLEM_STEMS.items() for track, stem in all_.items()
    }
    assert ours == published


def test_known_problem_stems_are_left_out_of_the_true_set_only(tmp_path):
    for name, split in (("Track00357", "train"), ("Track01918", "test"), ("Track00404", "train")):
        stem = {"Track00357": "S03", "Track01918": "S10", "Track00404": "S03"}[name]
        folder = small_track(tmp_path, name, split, stems=("S00", stem))
        text = (folder / "metadata.yaml").read_text()
        (folder / "metadata.yaml").write_text(f"{text}\nlmd_midi_dir: lmd_matched/O/x.mid")
    dataset = slakh.read(tmp_path)
    assert skipped(dataset.defects) == {("Track00357", "S03"), ("Track00357", MIX), ("Track01918", "S10")}
    assert messages(dataset, "S03") == [
        "The audio of Track00357 S03 is known to be noise.",
        "The notes of Track00404 S03 are known to be too short; it is used unchanged.",
    ]
    assert "the mix still stays in the test set" in "".join(messages(dataset, MIX))
    folder = tmp_path / "train" / "Track00357" / "metadata.yaml"
    folder.write_text(folder.read_text().replace("lmd_matched", "made_up"))
    assert ("Track00357", "S03") not in skipped(slakh.read(tmp_path).defects)


def test_reading_opens_no_audio(tmp_path):
    folder = slakh_track(tmp_path)
    for path in (folder / "mix.flac", folder / "stems" / "S00.flac"):
        path.write_bytes(b"")
        os.chmod(path, 0)
    assert slakh.read(tmp_path).defects == ()
