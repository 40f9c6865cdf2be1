"""Preparation of each kind of data set, and what is noted about recordings."""

import dataclasses

import numpy as np
import pytest
import small_datasets
import soundfile
from preparing import chunks_of, run

from mt3app.cli_data import PrepareOptions
from mt3app.commands.prepare import prepare_dataset
from mt3app.progress import Reporter
from mt3core.errors import DatasetError
from mt3core.files import size_in_words
from mt3core.notes.midi_writing import write_midi
from mt3data.prepare.manifest import check_shards, read_manifest

pytestmark = pytest.mark.integration


def test_what_does_not_fit_the_audio_is_noted(tmp_path, capsys):
    root = tmp_path / "pieces"
    small_datasets.write_pair(root / "train", "loud", 2.0, 1)
    soundfile.write(root / "train/loud.wav", 5 * small_datasets.tone(2.0), 16_000, subtype="FLOAT")
    small_datasets.write_pair(root / "train", "long_notes", 2.0, 2)
    write_midi(
        [(0.5, 9.0, 60, 80, 0, False), (1.9, 5.0, 62, 80, 0, False), (2.5, 3.0, 64, 80, 0, False)],
        root / "train/long_notes.mid",
    )
    small_datasets.write_pair(root / "train", "nothing", 2.0, 3)
    soundfile.write(root / "train/nothing.wav", np.zeros(32_000), 16_000)
    small_datasets.write_pair(root / "train", "rest", 2.0, 3)
    soundfile.write(root / "train/rest.wav", np.zeros(32_000), 16_000)
    write_midi([], root / "train/rest.mid")
    assert prepare_dataset(PrepareOptions("folder", root, tmp_path / "cache", processes=1), Reporter()) == 0
    assert "nothing.wav is silent throughout but has 4 notes." in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "cache")
    words = dict(zip(manifest["track"].tolist(), manifest["defects"].tolist(), strict=True))
    assert words["train__loud"].startswith("clipped:")
    assert words["train__long_notes"] == "notes_past_audio:1"
    assert words["train__rest"] == "silent"
    assert "train__nothing" not in words
    (chunk,) = chunks_of(tmp_path / "cache", track="train__long_notes")
    assert chunk.piece_notes["offset"].tolist() == [9.0, 5.0]


def test_odd_audio_is_used_and_said(tmp_path, capsys):
    root = tmp_path / "pieces"
    small_datasets.write_pair(root / "train", "plain", 2.0, 1)
    small_datasets.write_pair(root / "train", "antiphase", 2.0, 2)
    mono = small_datasets.tone(2.0)
    soundfile.write(root / "train/antiphase.wav", np.stack([mono, -mono], axis=1), 16_000, subtype="FLOAT")
    assert prepare_dataset(PrepareOptions("folder", root, tmp_path / "cache", processes=1), Reporter()) == 0
    assert "antiphase.wav: Its channels are in antiphase" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "cache")
    words = dict(zip(manifest["track"].tolist(), manifest["defects"].tolist(), strict=True))
    assert words == {"train__plain": "", "train__antiphase": "odd_audio"}
    (chunk,) = chunks_of(tmp_path / "cache", track="train__antiphase")
    assert np.abs(chunk.audio).max() > 3000


def test_slakh_keeps_stems_apart_and_sums_their_notes_for_the_mix(tmp_path):
    root = tmp_path / "slakh2100_flac_redux"
    small_datasets.write_slakh_track(root / "train/Track00001")
    small_datasets.write_slakh_track(root / "omitted/Track00002")
    out = tmp_path / "cache"
    assert run(root, out, kind="slakh") == 0
    manifest = read_manifest(out)
    assert set(manifest["track"]) == {"Track00001"}  # what the publisher omits is left out
    rows = {
        s: (manifest["program"][i], manifest["is_drum"][i], manifest["instrument_class"][i])
        for i, s in enumerate(manifest["stem"])
    }
    assert rows == {
        "mix": (-1, False, ""),
        "S00": (4, False, "Piano"),
        "S01": (33, False, "Bass"),
        "S02": (128, True, "Drums"),
    }
    stems = [chunks_of(out, stem=stem)[0].piece_notes for stem in ("S00", "S01", "S02")]
    assert {(int(n["program"]), bool(n["is_drum"])) for table in stems for n in table} == {
        (4, False),
        (33, False),
        (0, True),
    }
    mix = chunks_of(out, stem="mix")[0].piece_notes
    assert sorted(mix.tolist()) == sorted(np.concatenate(stems).tolist())
    assert (manifest["licence"] == "CC BY 4.0").all()


def test_a_broken_stem_costs_neither_the_mix_nor_the_others(tmp_path):
    track = small_datasets.write_slakh_track(tmp_path / "slakh/train/Track00001")
    (track / "stems/S01.flac").write_bytes(b"fLaC and nothing else")
    assert run(tmp_path / "slakh", tmp_path / "cache", kind="slakh") == 1
    assert set(read_manifest(tmp_path / "cache")["stem"]) == {"mix", "S00", "S02"}


def test_a_missing_stem_and_its_mix_are_named_and_counted(tmp_path, capsys):
    track = small_datasets.write_slakh_track(tmp_path / "slakh/train/Track00001")
    small_datasets.write_slakh_track(tmp_path / "slakh/validation/Track00002")
    (track / "stems/S01.flac").unlink()
    options = PrepareOptions("slakh", tmp_path / "slakh", tmp_path / "cache", processes=1)
    assert prepare_dataset(options, Reporter()) == 1
    said = capsys.readouterr().err
    assert "Left out: Track00001 S01: Track00001 S01 is marked as rendered, but its audio is missing." in said
    assert "Left out: Track00001: Track00001 S01 is marked as rendered, but its audio is missing, so the mix" in said
    assert "2 recordings could not be used and are left out; the rest is ready." in said
    manifest = read_manifest(tmp_path / "cache")
    assert set(manifest["stem"][manifest["track"] == "Track00001"]) == {"S00", "S02"}


def test_one_split_that_takes_everything_is_said(tmp_path, capsys):
    for number in range(3):
        small_datasets.write_pair(tmp_path / "music/train", f"{number}", 1.5, number)
    options = PrepareOptions("folder", tmp_path / "music", tmp_path / "cache", processes=1)
    assert prepare_dataset(options, Reporter()) == 0
    said = capsys.readouterr().err
    assert (
        "All 3 recordings are in the split train: training goes on without validation."
        " To change this, put some into folders called validation." in said
    )
    (tmp_path / "music/train/2.wav").rename(tmp_path / "music/train/rest.wav")
    (tmp_path / "music/validation").mkdir()
    for suffix in (".wav", ".mid"):
        (tmp_path / f"music/train/1{suffix}").rename(tmp_path / f"music/validation/1{suffix}")
    assert prepare_dataset(options, Reporter()) == 1
    assert " split" not in capsys.readouterr().err
    assert prepare_dataset(dataclasses.replace(options, splits="train", name="one"), Reporter()) == 1
    assert " split" not in capsys.readouterr().err  # it was asked for


def test_sizes_are_those_of_the_shards(tmp_path, capsys):
    root = small_datasets.write_folder(tmp_path / "pieces", num_train=1)
    assert prepare_dataset(PrepareOptions("folder", root, tmp_path / "cache", processes=1), Reporter()) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "cache/folder").glob("*.array_record"))
    assert f"{size_in_words(size)} in total." in capsys.readouterr().err
    assert size_in_words(size).endswith(" kB")


def test_the_true_layout_of_maestro(dataset_layouts, tmp_path):
    out = tmp_path / "cache"
    code = run(dataset_layouts / "maestro_layout", out, kind="maestro")
    manifest = read_manifest(out)
    assert len(manifest) == 1
    assert manifest["duration_seconds"][0] == pytest.approx(2.0, abs=0.1)
    assert manifest["num_notes"][0] == 2
    assert "notes_past_audio" in manifest["defects"][0]
    assert manifest["licence"][0] == "CC BY-NC-SA 4.0"
    assert code == 0


def test_data_sets_share_a_manifest(tmp_path):
    pieces = small_datasets.write_folder(tmp_path / "pieces", num_train=2)
    out = tmp_path / "cache"
    small_datasets.write_slakh_track(tmp_path / "slakh/train/Track00001")
    assert run(pieces, out) == 0
    assert run(tmp_path / "slakh", out, kind="slakh") == 0
    assert run(pieces, out, name="again", splits="test") == 0
    manifest = read_manifest(out)
    assert list(dict.fromkeys(manifest["dataset"].tolist())) == ["again", "folder", "slakh"]
    check_shards(manifest)
    (out / "folder/train-00001.array_record").write_bytes(b"cut")
    with pytest.raises(DatasetError, match=r"train-00001.array_record is missing or was changed"):
        run(tmp_path / "slakh", out, kind="slakh")
