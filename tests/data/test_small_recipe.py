"""recipes/small with tiny archives and sine waves: the music it makes, and data in one command."""

import dataclasses
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from small_sources import write_sources

from mt3core.notes.midi_reading import read_content
from mt3data.prepare.manifest import check_shards, read_manifest
from mt3render.soundfonts import default_sound_font, read_sound_font
from mt3render.sources import find_sources

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "small"
sys.path.append(str(RECIPE))

import archives  # noqa: E402
import bands  # noqa: E402
import music  # noqa: E402
import music_statistics  # noqa: E402
import piano  # noqa: E402
import playing  # noqa: E402
from sources import MUSIC  # noqa: E402

pytestmark = pytest.mark.integration
HOURS = {"piano": 0.45, "multi": 0.45, "drums": 0.15}


def load_data_script():
    """recipes/small/data.py; benchmarks have a module of that name too."""
    spec = importlib.util.spec_from_file_location("small_data", RECIPE / "data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_data"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with tiny archives, and the sources that describe them."""
    folder = tmp_path_factory.mktemp("sources")
    return folder, write_sources(folder, MUSIC)


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    folder, sources = tiny
    out = tmp_path_factory.mktemp("music")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(music, "MUSIC", sources)
        hours = music.make_music(folder, out, HOURS, 0, 1)
    return out, hours


def midi_files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("[!.]*/**/*.mid")}


def test_music_is_made_of_all_sources(made):
    out, hours = made
    kinds = {path.relative_to(out).parts[:2] for path in out.glob("[!.]*/**/*.mid")}
    found = {(kind.removesuffix(music.UNSEEN), corpus) for kind, corpus in kinds}
    assert found == {(kind, corpus) for kind, shares in music.SHARES.items() for corpus in shares}
    assert all(0.3 * HOURS[kind] < made_hours < 2 * HOURS[kind] for kind, made_hours in hours.items())
    for path in out.glob("[!.]*/**/*.mid"):
        instruments = read_content(path, drop_empty=True).instruments
        kind = path.relative_to(out).parts[0].removesuffix(music.UNSEEN)
        assert sum(len(instrument.notes) for instrument in instruments) > 10, path
        if kind == "piano":
            assert all(0 <= instrument.program <= 3 for instrument in instruments), path
        elif kind == "drums":
            assert all(instrument.is_drum for instrument in instruments), path
            pitches = np.concatenate([instrument.notes["pitch"] for instrument in instruments])
            assert not np.isin(pitches, (22, 26)).any(), f"{path}: edges of the TD-11's hi-hat"


def test_held_out_works_are_not_in_the_music(made):
    out, _ = made
    assert (out / ".unpacked" / "giantmidi" / "top" / "giantmidi-piano").is_dir()
    names = {path.parent.name for path in out.glob("piano*/giantmidi/**/*.mid")}
    assert names == {
        "aaaaaaaaaaa",
        "bbbbbbbbbbb",
    }  # the preludes, ccccccccccc, are left out; two movements are one work


def test_no_composition_is_in_two_splits(made):
    out, _ = made
    places = {}
    for kind in ("piano", "piano_unseen", "multi", "multi_unseen", "drums", "drums_unseen"):
        if (out / kind).is_dir():
            for source in find_sources(out / kind):
                places.setdefault("/".join(source.relative.split("/")[:2]), set()).add(source.split)
                assert (source.split == "train") != kind.endswith(music.UNSEEN), source.relative
    assert all(len(splits) == 1 for splits in places.values())
    assert {split for splits in places.values() for split in splits} >= {"train"}


def test_the_same_seed_gives_the_same_music_whatever_is_there_already(tiny, made, tmp_path, monkeypatch):
    folder, sources = tiny
    out, _ = made
    monkeypatch.setattr(music, "MUSIC", sources)
    kept = midi_files(out)
    assert music.make_music(folder, out, HOURS, 0, 1) == {"piano": 0.0, "multi": 0.0, "drums": 0.0}
    music.make_music(folder, tmp_path / "again", {kind: hours / 3 for kind, hours in HOURS.items()}, 0, 2)
    again = midi_files(tmp_path / "again")
    assert again
    assert {name: kept[name] for name in again} == again
    music.make_music(folder, tmp_path / "other", {"drums": HOURS["drums"]}, 1, 1)
    assert not any(kept.get(name) == data for name, data in midi_files(tmp_path / "other").items())


def test_drums_lie_on_the_bars_of_a_song(tiny, tmp_path):
    folder, sources = tiny
    place = archives.unpacked(sources[1], folder, tmp_path)
    (piece, *_) = music.find_pieces("pop909", place)
    bar_seconds, first_bar = bands.grid(piece.parts(), 120.0)
    assert bar_seconds == 2.0
    assert abs(first_bar % 0.5) < 0.02 or abs(first_bar % 0.5 - 0.5) < 0.02


def test_piano_reaches_the_density_that_is_drawn(tiny, tmp_path):
    folder, sources = tiny
    pieces = music.find_pieces("giantmidi", archives.unpacked(sources[0], folder, tmp_path))
    part = piano.as_piano(pieces[0].parts())
    rates = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        played = piano.piano_piece(part, 30.0, rng, lambda: part)
        assert played.notes["pitch"].min() >= playing.LOWEST
        assert played.notes["pitch"].max() <= playing.HIGHEST
        rates.append(playing.density([played]))
    assert 7 < np.mean(rates) < 14  # the passages have four notes a second
    assert max(rates) > 14


def test_statistics_have_a_figure_for_each_heading(made, capsys):
    out, _ = made
    assert music_statistics.main([str(out / "multi"), "--composed", "3", "--most-files", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {len(music_statistics.HEADINGS) + 1}


@pytest.mark.slow
def test_data_is_made_in_one_command_and_found_again(tiny, tmp_path, monkeypatch, capsys):
    folder, sources = tiny
    monkeypatch.setattr(music, "MUSIC", sources)
    monkeypatch.setattr(music, "MEAN_SECONDS", 20.0)
    monkeypatch.setattr(music, "SECONDS", (10.0, 20.0))
    data = load_data_script()
    command = ["--sources", str(folder), "--out", str(tmp_path / "data"), "--hours", "0.08", "--engine", "pretty_midi"]
    assert data.main([*command, "--processes", "1"]) == 0
    manifest = read_manifest(tmp_path / "data" / "cache")
    check_shards(manifest)
    splits = dict(zip(manifest["dataset"].tolist(), manifest["split"].tolist(), strict=True))
    assert {name for name in splits if not name.endswith(music.UNSEEN)} == {"small_piano", "small_multi", "small_drums"}
    unseen = [name.endswith(music.UNSEEN) for name in manifest["dataset"].tolist()]
    assert [split != "train" for split in manifest["split"].tolist()] == unseen
    assert {stem for stem in manifest["stem"].tolist() if stem.startswith("S")}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.flac")}
    capsys.readouterr()
    assert data.main([*command, "--processes", "1"]) == 0
    assert "0 pieces rendered" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.flac")} == before


def test_what_is_missing_is_said_in_a_sentence(tmp_path, capsys):
    data = load_data_script()
    assert data.main(["--sources", str(tmp_path), "--out", str(tmp_path / "data"), "--hours", "0.1"]) == 1
    assert "GiantMIDI-Piano" in capsys.readouterr().err
    assert data.main(["--sources", str(tmp_path / "no"), "--out", str(tmp_path / "data")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_sounds_are_sampled_instruments_and_fonts_without_what_is_played_wrongly(tmp_path, monkeypatch):
    data = load_data_script()
    (tmp_path / "sounds" / "train").mkdir(parents=True)
    font = tmp_path / "unpacked" / "font.sf2"
    font.parent.mkdir()
    shutil.copy(default_sound_font(), font)
    monkeypatch.setattr(data, "unpacked", lambda source, given, folder: font.parent)
    sources = [dataclasses.replace(data.SOUND_FONTS[0], without_programs=numbers) for numbers in ((), (0, 3))]
    sampled, plain, mended = data._all_sounds(tmp_path / "sounds" / "train", sources, data.Wanted(tmp_path))
    assert (sampled, plain) == (tmp_path / "sounds" / "train", font)
    assert mended != font
    lost = set(read_sound_font(font).presets) - set(read_sound_font(mended).presets)
    assert lost == {(0, 0), (0, 3)}
    assert data._all_sounds(tmp_path / "none", sources[:1], data.Wanted(tmp_path)) == (font,)
