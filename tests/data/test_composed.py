"""Pieces composed by rule, and the data set made of them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mt3core.config.training import DataConfig, TrainingConfig
from mt3core.errors import DatasetError
from mt3core.files import folder_bytes, size_in_words
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import note_table, trim_overlapping, validate_notes
from mt3data.examples.chunk_table import ChunkTable
from mt3data.prepare import composed
from mt3data.prepare.composed import composed_manifest, engine_of, with_composed_data
from mt3data.prepare.manifest import MANIFEST_NAME, check_shards, read_manifest
from mt3render.composition import BASS, FLUTE, GUITAR
from mt3render.composition import compose as compose_piece

pytestmark = pytest.mark.integration
SIZE_LINE = "They take {} and are kept for the next run; see mt3 data cache."


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
        "Composing 2 pieces and rendering them with " + engine_of(config.data.manifest),
        "Data: 2 composed pieces",
        SIZE_LINE.format(size_in_words(folder_bytes(next(tmp_path.glob("composed-*"))))),
    ]
    assert all(str(next(tmp_path.glob("composed-*"))) in line for line in said[:2])
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


# ---- A run that is resumed


@pytest.fixture
def engines(monkeypatch):
    """Says which synthesizers are found; the pieces are not rendered, but made of a few bytes."""

    def make(folder, rendering):
        (folder / "cache").mkdir(parents=True)
        (folder / "cache" / MANIFEST_NAME).write_text(rendering.engine)
        return 1.0

    monkeypatch.setattr(composed, "_render", lambda num_pieces, new, rendering: make(new, rendering))
    monkeypatch.setattr(composed, "_prepare", lambda rendered, out: None)

    def install(*names):
        monkeypatch.setattr("mt3render.engines._is_installed", lambda name: name in names)

    return install


CONFIG = TrainingConfig("x", data=DataConfig(composed_pieces=2))


def test_a_resumed_run_keeps_its_pieces_whatever_synthesizer_is_found(tmp_path, monkeypatch, engines):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    engines("pretty_midi")
    begun = with_composed_data(CONFIG, lambda line: None).data.manifest
    assert engine_of(begun) == "pretty_midi"
    engines("tinysoundfont", "fluidsynth", "pretty_midi")
    said = []
    resumed = with_composed_data(CONFIG, said.append, begun)
    assert resumed.data.manifest == begun
    assert said == [f"Data: the composed pieces that the run began with, in {Path(begun).parents[1]}"]
    assert with_composed_data(CONFIG, said.append).data.manifest != begun  # a new run takes the best


def test_pieces_that_are_gone_are_made_again_with_the_synthesizer_of_the_run(tmp_path, monkeypatch, engines):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    engines("pretty_midi")
    begun = Path(with_composed_data(CONFIG, lambda line: None).data.manifest)
    shutil.rmtree(begun.parents[1])
    engines("tinysoundfont", "pretty_midi")
    found = Path(with_composed_data(CONFIG, lambda line: None, str(begun)).data.manifest)
    assert found == begun
    assert found.read_text() == "pretty_midi"
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "moved"))  # the whole cache has moved
    (tmp_path / "cache").rename(tmp_path / "moved")
    found = Path(with_composed_data(CONFIG, lambda line: None, str(begun)).data.manifest)
    assert found == tmp_path / "moved" / begun.relative_to(tmp_path / "cache")


def test_pieces_that_are_gone_and_cannot_be_made_again(tmp_path, monkeypatch, engines):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    engines("tinysoundfont", "pretty_midi")
    begun = Path(with_composed_data(CONFIG, lambda line: None).data.manifest)
    shutil.rmtree(begun.parents[1])
    engines("pretty_midi")
    with pytest.raises(DatasetError) as caught:
        with_composed_data(CONFIG, lambda line: None, str(begun))
    assert caught.value.problem == (
        f"The composed pieces that the run began with are gone: there is no {begun}, and tinysoundfont, which played "
        "them, is not installed."
    )
    assert caught.value.next_step.startswith(
        f"Install it: pip install --no-deps tinysoundfont. Or restore {begun.parents[1]}"
    )
    other = begun.parents[1].with_name("composed-2-0123456789ab") / "cache" / begun.name  # of another release
    with pytest.raises(DatasetError, match=r"and this version of the program makes other ones\. Restore "):
        with_composed_data(CONFIG, lambda line: None, str(other))
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_engine_of_pieces_made_by_an_earlier_release(tmp_path, monkeypatch, engines):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path))
    engines("pretty_midi")
    begun = Path(with_composed_data(CONFIG, lambda line: None).data.manifest)
    (begun.parents[1] / "made.json").unlink()
    assert engine_of(begun) == "pretty_midi"
    assert engine_of(tmp_path / "cache" / "chunk_manifest.parquet") == ""


def test_the_place_does_not_depend_on_the_current_folder(tmp_path, monkeypatch, engines):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MT3_CACHE", "here")
    engines("pretty_midi")
    assert Path(with_composed_data(CONFIG, lambda line: None).data.manifest).is_relative_to(tmp_path / "here")
