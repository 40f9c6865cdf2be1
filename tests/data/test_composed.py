"""Pieces composed by rule, and the data set made of them."""

import numpy as np
import pytest

from mt3core.config.training import DataConfig, TrainingConfig
from mt3core.errors import DatasetError
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import note_table, trim_overlapping, validate_notes
from mt3data.examples.chunk_table import ChunkTable
from mt3data.prepare import composed
from mt3data.prepare.composed import composed_manifest, with_composed_data
from mt3data.prepare.manifest import MANIFEST_NAME, check_shards, read_manifest
from mt3render.composition import BASS, FLUTE, GUITAR
from mt3render.composition import compose as compose_piece

pytestmark = pytest.mark.integration


def test_a_piece_is_music_that_can_be_written_and_read():
    tables = [note_table(compose_piece(number)) for number in range(30)]
    for table in tables:
        validate_notes(table)
        pitched, drums = table[~table["is_drum"]], table[table["is_drum"]]
        assert 60 < len(table) < 250
        assert 10 < table["offset"].max() < 20
        assert set(pitched["program"].tolist()) == {BASS, GUITAR, FLUTE}
        assert len(drums) > 20
        assert len(trim_overlapping(pitched)) == len(pitched)
        for program in (BASS, GUITAR, FLUTE):  # one note at a time
            line = pitched[pitched["program"] == program]
            assert (line["offset"][:-1] <= line["onset"][1:]).all()
    every = np.concatenate(tables)
    ranges = {p: every["pitch"][(every["program"] == p) & ~every["is_drum"]] for p in (BASS, GUITAR, FLUTE)}
    assert all(20 > pitches.max() - pitches.min() > 10 for pitches in ranges.values())


def test_pieces_are_the_same_each_time_and_differ_from_each_other():
    assert compose_piece(3) == compose_piece(3)
    assert compose_piece(3) != compose_piece(3, seed=1)
    assert len({tuple(compose_piece(number)) for number in range(50)}) == 50


def test_a_data_set_is_made_once_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path))
    monkeypatch.setattr(composed, "compose", lambda number: compose_piece(number)[:30])  # a few seconds each
    said = []
    config = with_composed_data(TrainingConfig("x", data=DataConfig(composed_pieces=2)), said.append)
    manifest = read_manifest(config.data.manifest)
    check_shards(manifest)
    assert [line.split(",")[0] for line in said] == [
        "Composing 2 pieces and rendering them with " + said[0].split()[-2] + " ...",
        "Data: 2 composed pieces",
    ]
    tracks = {split: set(manifest["track"][manifest["split"] == split].tolist()) for split in manifest["split"]}
    assert {split: len(names) for split, names in tracks.items()} == {"train": 2, "validation": 1, "test": 1}
    assert sorted(set(manifest["stem"].tolist())) == ["S00", "S01", "S02", "S03", "mix"]
    assert ChunkTable.from_manifest(manifest).has_notes.all()
    written = read_midi(next(tmp_path.glob("composed-*/rendered/test/*/all_src.mid")))
    expected = note_table(compose_piece(3)[:30])
    for name in ("onset", "pitch", "program", "is_drum"):
        np.testing.assert_array_equal(np.sort(written[name]), np.sort(expected[name]))

    monkeypatch.setattr(composed, "_render", None)  # nothing is rendered any more
    again = with_composed_data(TrainingConfig("x", data=DataConfig(composed_pieces=2)), said.append)
    assert again == config
    assert "pieces in" in said[-1]
    assert with_composed_data(TrainingConfig("x")) == TrainingConfig("x")


def test_what_cannot_be_rendered_leaves_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setattr(composed, "compose", lambda number: [])
    with pytest.raises(DatasetError, match="The composed piece 0 cannot be rendered"):
        composed_manifest(1, lambda line: None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_has_made_meanwhile_stays(tmp_path, monkeypatch):
    place = tmp_path / "composed-1-abc"

    def another_is_faster(num_pieces, new, rendering):
        (place / "cache").mkdir(parents=True)
        (place / "cache" / MANIFEST_NAME).write_text("theirs")
        return 1.0

    monkeypatch.setattr(composed, "_fingerprint", lambda num_pieces, rendering: "abc")
    monkeypatch.setattr(composed, "_render", another_is_faster)
    monkeypatch.setattr(composed, "_prepare", lambda rendered, out: None)
    manifest = composed_manifest(1, lambda line: None, tmp_path)
    assert manifest.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [place]
