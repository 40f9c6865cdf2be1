"""A user's own pairs, wherever they lie, and names of all sorts."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_datasets import midi_of

from mt3core.errors import DatasetError, UsageError
from mt3data.readers import folder
from mt3data.readers.file_names import split_by_name, track_name
from mt3data.readers.labels import track_notes
from mt3data.readers.locate import find_dataset, read_dataset, recognise
from mt3data.readers.tracks import MIX

pytestmark = pytest.mark.unit


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_pairs_are_found_in_all_folders(tmp_path):
    touch(
        tmp_path, "a.wav", "a.mid", "x/b.FLAC", "x/b.MIDI", "x/y/c.mp3", "x/y/c.mid", ".hidden/d.wav", ".hidden/d.mid"
    )
    touch(tmp_path, "readme.txt", "x/.b.wav", "audio/e.wav", "midi/e.mid")
    dataset = folder.read(tmp_path)
    assert sorted(track.name for track in dataset.tracks) == ["a", "audio__e", "x__b", "x__y__c"]
    assert dataset.defects == ()
    by_name = {track.name: track for track in dataset.tracks}
    assert by_name["x__b"].audio == tmp_path / "x" / "b.FLAC"
    assert by_name["audio__e"].midi == tmp_path / "midi" / "e.mid"
    assert by_name["a"].split == split_by_name("a")


def test_halves_are_reported_and_the_rest_goes_on(tmp_path):
    touch(tmp_path, "a.wav", "a.mid", "alone.wav", "x/other.mid", "two/f.wav", "three/f.wav", "four/f.mid", "a.flac")
    dataset = folder.read(tmp_path)
    assert [track.name for track in dataset.tracks] == ["a"]
    found = sorted((one.track, one.stem, one.kind, one.skips) for one in dataset.defects)
    assert found == [
        ("a", MIX, "left_aside", False),
        ("alone", MIX, "missing_midi", True),
        ("four__f", MIX, "missing_audio", True),
        ("three__f", MIX, "missing_midi", True),
        ("two__f", MIX, "missing_midi", True),
        ("x__other", MIX, "missing_audio", True),
    ]
    said = [one.message for one in dataset.defects]
    assert f"{tmp_path}/alone.wav has no MIDI file of the same name." in said
    assert f"{tmp_path}/a.flac is ignored: a.wav has the same name." in said


def test_split_folders_and_the_rule_for_the_rest(tmp_path):
    touch(tmp_path, "train/a.wav", "train/a.mid", "Val/b.wav", "Val/b.mid", "set/test/c/c.wav", "set/test/c/c.mid")
    touch(tmp_path, "train/audio/d.wav", "train/midi/d.mid", "test/audio/d.wav", "test/midi/d.mid")
    dataset = folder.read(tmp_path)
    assert {track.name: track.split for track in dataset.tracks} == {
        "train__a": "train",
        "train__audio__d": "train",
        "Val__b": "validation",
        "set__test__c__c": "test",
        "test__audio__d": "test",
    }
    shares = [split_by_name(f"piece {number}") for number in range(2000)]
    assert 0.77 < shares.count("train") / 2000 < 0.83
    assert 0.08 < shares.count("validation") / 2000 < 0.12
    assert split_by_name("piece 1") == split_by_name("piece 1") == shares[1]


def test_names_that_are_no_utf8(tmp_path):
    for suffix in (b".wav", b".mid"):
        path = os.fsencode(tmp_path) + b"/caf\xe9" + suffix
        with open(path, "wb"):
            pass
    with open(os.fsencode(tmp_path) + b"/lost\xff.wav", "wb"):
        pass
    dataset = folder.read(tmp_path)
    (track,) = dataset.tracks
    assert track.name.encode().startswith(b"caf_xe9-")
    assert track.audio.is_file()
    (lost,) = dataset.defects
    assert lost.message.endswith(r"lost\xff.wav has no MIDI file of the same name.")
    assert lost.message.encode()
    midi_of([(0.0, 1.0, 60)], track.midi)
    assert len(track_notes(track)) == 1


def test_names_that_would_become_one(tmp_path):
    touch(tmp_path, "a/b.wav", "a/b.mid", "a__b.wav", "a__b.mid", "a?b.wav", "a?b.mid", "a*b.wav", "a*b.mid")
    names = [track.name for track in folder.read(tmp_path).tracks]
    assert len(set(names)) == 4
    assert not any(char in name for name in names for char in "?*/")


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_track_names_are_valid_file_names(first, second):
    name = track_name(first)
    assert 0 < len(name.encode()) <= 160
    assert "/" not in name
    assert "\0" not in name
    assert name == track_name(first)
    assert name not in (".", "..")
    if track_name(second) == name:
        assert track_name(first.replace("/", "__")) == track_name(second.replace("/", "__"))


def test_nothing_to_read(tmp_path):
    with pytest.raises(DatasetError, match=r"no audio file with a MIDI file of the same name. Put piece.wav"):
        folder.read(touch(tmp_path, "a.wav"))
    with pytest.raises(DatasetError, match="There is no folder"):
        folder.read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"has no default folder\. Pass its folder"):
        find_dataset("folder")


def test_found_by_its_layout(tmp_path):
    touch(tmp_path, "a.wav", "a.mid")
    assert recognise(tmp_path) == "folder"
    assert [track.name for track in read_dataset("folder", tmp_path).tracks] == ["a"]
    (tmp_path / "train" / "Track00001").mkdir(parents=True)
    assert recognise(tmp_path) == "slakh"


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "x/a.wav", "x/a.mid")
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    assert [track.name for track in folder.read(tmp_path).tracks] == ["x__a"]


def test_linked_folders_are_read_once_each(tmp_path):
    elsewhere = touch(tmp_path / "elsewhere", "a.wav", "a.mid")
    root = touch(tmp_path / "root", "own/b.wav", "own/b.mid")
    (root / "link").symlink_to(elsewhere)
    (root / "other link").symlink_to(elsewhere)
    (root / "a name before").symlink_to(root / "own")
    (root / "loop").symlink_to(root / "loop")
    dataset = folder.read(root)
    assert sorted(track.name for track in dataset.tracks) == ["link__a", "own__b"]
    assert dataset.defects == ()


def test_a_set_that_would_have_no_training_is_all_training(tmp_path):
    names = [name for name in (f"piece {number}" for number in range(200)) if split_by_name(name) != "train"][:2]
    touch(tmp_path, *(f"{name}{suffix}" for name in names for suffix in (".wav", ".mid")))
    assert [track.split for track in folder.read(tmp_path).tracks] == ["train", "train"]
    touch(tmp_path, "train/more.wav", "train/more.mid")
    assert {track.name: track.split for track in folder.read(tmp_path).tracks} == {
        "train__more": "train",
        **{name: split_by_name(name) for name in names},
    }
