"""MAESTRO's metadata in its three forms, and what happens to a piece whose files or row are not as they should be."""

import json
import shutil
import unicodedata
from collections import Counter

import pytest
from tiny_datasets import midi_of

from mt3core.errors import DatasetError, UsageError
from mt3data.readers import maestro
from mt3data.readers.labels import track_notes
from mt3data.readers.locate import find_dataset, read_dataset, recognise
from mt3data.readers.tracks import MIX

pytestmark = pytest.mark.unit
HEADER = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"


def row(name, split="train", title="Piece", audio=None):
    return f'"Liszt, Franz","{title}",{split},2018,2018/{name}.midi,{audio or f"2018/{name}.wav"},1.5\n'


def write_set(root, rows, files=()):
    (root / "2018").mkdir(parents=True, exist_ok=True)
    (root / "maestro-v3.0.0.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    for name in files:
        (root / "2018" / f"{name}.midi").write_bytes(b"MThd")
        (root / "2018" / f"{name}.wav").write_bytes(b"RIFF")
    return root


def test_the_published_metadata_is_read_whole_from_csv_and_from_json(dataset_layouts, tmp_path):
    from_csv = maestro.read(dataset_layouts / "maestro-v3.0.0")
    assert Counter(track.split for track in from_csv.tracks) == {"train": 962, "validation": 137, "test": 177}
    assert len({track.name for track in from_csv.tracks}) == 1276
    shutil.copy(dataset_layouts / "maestro-v3.0.0" / "maestro-v3.0.0.json", tmp_path)
    from_json = maestro.read(tmp_path)
    assert [(t.name, t.split) for t in from_json.tracks] == [(t.name, t.split) for t in from_csv.tracks]
    kinds = Counter(defect.kind for defect in from_json.defects)
    assert kinds["missing_audio"] == kinds["missing_midi"] == 1276
    assert kinds["same_composition"] == 6  # as published: five compositions are in two splits
    assert not any(defect.skips for defect in from_json.defects if defect.kind == "same_composition")


def test_version_2_is_a_list(dataset_layouts):
    dataset = maestro.read(dataset_layouts / "maestro_layout")
    (track,) = dataset.tracks
    assert dataset.defects == ()
    assert track.audio.suffix == ".wav"
    assert track.midi.suffix == ".midi"
    assert (track.split, track.licence, track.stems) == ("train", "CC BY-NC-SA 4.0", ())
    held, struck = track_notes(track), track_notes(track, apply_sustain=False)
    assert len(held) == len(struck) == 4197
    assert (held["offset"] - held["onset"]).sum() > 1.2 * (struck["offset"] - struck["onset"]).sum()


def test_names_and_titles_with_all_sorts_of_characters(tmp_path):
    names = ["A, b--c__d", "Ünïcode 練習", "it's (2)"]
    rows = [row(f"{name}", title='Études, ""posth.""').replace(f"2018/{name}", f'"2018/{name}') for name in names]
    rows = [line.replace(".midi,", '.midi",').replace(".wav,", '.wav",') for line in rows]
    root = write_set(tmp_path, rows, names)
    mac = unicodedata.normalize("NFD", "Ünïcode 練習")
    (root / "2018" / "Ünïcode 練習.wav").rename(root / "2018" / f"{mac}.wav")
    dataset = maestro.read(root)
    assert sorted(track.name for track in dataset.tracks) == sorted(names)
    assert dataset.defects == ()
    assert {track.audio.name for track in dataset.tracks} == {"A, b--c__d.wav", f"{mac}.wav", "it's (2).wav"}


def test_other_suffixes_are_found(tmp_path):
    root = write_set(tmp_path, [row("a")])
    (root / "2018" / "a.mid").write_bytes(b"")
    (root / "2018" / "a.mp3").write_bytes(b"")
    (track,) = maestro.read(root).tracks
    assert (track.midi.name, track.audio.name) == ("a.mid", "a.mp3")


def test_a_bad_row_leaves_the_others(tmp_path):
    rows = [row("a"), row("b", split="trian"), "x,y\n", row("a"), row("c", audio="../../etc/c.wav"), row("d")]
    root = write_set(tmp_path, rows, "ad")
    dataset = maestro.read(root)
    assert [track.name for track in dataset.tracks] == ["a", "d"]
    assert [defect.message for defect in dataset.defects] == [
        "Row 2 of the metadata has the split 'trian', which is not one of train, validation, test.",
        "Row 3 of the metadata has no split.",
        "2018/a.midi is listed again in row 4; the first row is used.",
        "Row 5 of the metadata has the audio_filename '../../etc/c.wav', which is outside the data set.",
    ]
    assert [defect.skips for defect in dataset.defects] == [True, True, False, True]


def test_missing_files_are_named(tmp_path):
    dataset = maestro.read(write_set(tmp_path, [row("a"), row("b")], "b"))
    assert [(one.track, one.stem, one.kind) for one in dataset.defects] == [
        ("a", MIX, "missing_audio"),
        ("a", MIX, "missing_midi"),
    ]
    assert dataset.defects[0].message == f"There is no file {tmp_path}/2018/a.wav."
    assert (dataset.tracks[0].audio, dataset.tracks[0].midi) == (None, None)


def test_the_same_composition_in_two_splits_is_told(tmp_path):
    rows = [row("a"), row("b", split="test"), row("c", title="Another")]
    (found,) = maestro.read(write_set(tmp_path, rows, "abc")).defects
    assert found.message == "a (train) has the composition Liszt, Franz, Piece of b (test)."
    assert not found.skips


def test_unreadable_metadata_falls_back_to_the_other_file(tmp_path):
    root = write_set(tmp_path, [], "a")
    (root / "maestro-v3.0.0.csv").write_bytes(b"\xff\xfe\x00bad")
    columns = {"split": "test", "midi_filename": "2018/a.midi", "audio_filename": "2018/a.wav"}
    (root / "maestro-v3.0.0.json").write_text(json.dumps({name: {"0": value} for name, value in columns.items()}))
    dataset = maestro.read(root)
    assert [track.split for track in dataset.tracks] == ["test"]
    assert [(one.kind, one.skips) for one in dataset.defects] == [("bad_metadata", False)]
    (root / "maestro-v3.0.0.json").write_text("[{")
    with pytest.raises(DatasetError, match=r"maestro-v3.0.0.csv cannot be read .* Download the MAESTRO metadata"):
        maestro.read(root)


@pytest.mark.parametrize("content", ["3", '{"split": 3}', '{"split": {"0": "train"}}', ""])
def test_json_of_another_shape_is_refused(tmp_path, content):
    (tmp_path / "maestro-v3.0.0.json").write_text(content)
    with pytest.raises(DatasetError, match="cannot be read"):
        maestro.read(tmp_path)


def test_found_in_its_usual_place_by_path_and_inside_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=r"looked for datasets/maestro-v3.0.0/, datasets/maestro-v2.0.0/"):
        find_dataset("maestro")
    root = write_set(tmp_path / "datasets" / "maestro-v3.0.0", [row("a")], "a")
    assert recognise(root) == "maestro"
    for directory in (None, root, root.parent):
        assert [track.name for track in read_dataset("maestro", directory).tracks] == ["a"]
    with pytest.raises(DatasetError, match="There is no folder nowhere"):
        find_dataset("maestro", tmp_path.__class__("nowhere"))
    with pytest.raises(UsageError, match="Unknown kind of data set 'maestr'"):
        find_dataset("maestr")
    with pytest.raises(DatasetError, match="has no MAESTRO metadata"):
        read_dataset("maestro", root / "2018")


def test_the_pedal_is_applied_when_asked(tmp_path):
    root = write_set(tmp_path, [row("a")], "a")
    midi_of([(0.0, 0.5, 60), (1.0, 1.5, 62)], root / "2018" / "a.midi", controls=[(0.2, 127), (3.0, 0)])
    (track,) = maestro.read(root).tracks
    assert track_notes(track)["offset"].tolist() == [3.0, 3.0]
    assert track_notes(track, apply_sustain=False)["offset"].tolist() == [0.5, 1.5]
