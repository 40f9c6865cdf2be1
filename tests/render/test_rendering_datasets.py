"""Data sets rendered in the three layouts from tiny MIDI files: what lies where, and that it holds together."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from midi_files import PIANO, write_band, write_song

from mt3app.cli import run
from mt3core.errors import OutputError, UsageError
from mt3core.notes.midi_reading import read_content, read_midi
from mt3render import stems as stems_module
from mt3render.dataset import Rendering, check_rendering, render_dataset
from mt3render.slakh_metadata import slakh_metadata, stem_fields
from mt3render.soundfonts import default_sound_font
from mt3render.variation import draw_tuning

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.integration
RATE = 16_000


@pytest.fixture(scope="module")
def midi_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("midi")
    for number in range(4):
        write_band(folder / f"song {number}.mid", shift=number)
    effects = [(PIANO, [(0.0, 0.5, 60, 80)]), (125, [(0.0, 1.0, 60, 80)])]
    write_song(folder / "with effects.mid", effects)
    return folder


def rendering(layout, **changes):
    return Rendering(layout, **{"engine": "auto", "sample_rate_hz": RATE, **changes})


@pytest.fixture(scope="module")
def slakh(midi_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("slakh") / "out"
    report = render_dataset(midi_dir, out, rendering("slakh"))
    assert report.count("written") == 5
    return out


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()
    }


def read(path):
    audio, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE
    return audio.astype(np.int64)


def test_a_kill_while_earlier_pieces_are_removed_leaves_no_part_of_one(slakh, midi_dir, tmp_path, monkeypatch):
    """A track's folder counts as finished when it exists, so half of one would have stayed for ever."""
    out = tmp_path / "out"
    shutil.copytree(slakh, out)
    remove, removed = shutil.rmtree, []

    def die_in_the_second(path, *arguments, **options):
        removed.append(path)
        if len(removed) == 2:
            raise KeyboardInterrupt
        return remove(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            render_dataset(midi_dir, out, rendering("slakh"), overwrite=True)
    assert len(list(out.glob("*/Track*"))) == 3
    report = render_dataset(midi_dir, out, rendering("slakh"))
    assert (report.count("written"), report.count("skipped")) == (2, 3)
    assert files_of(out) == files_of(slakh)
    assert not list(out.rglob(".*"))


def test_slakh_has_the_real_layout(slakh):
    tracks = sorted(slakh.glob("*/Track*"))
    assert [track.name for track in sorted(tracks, key=lambda path: path.name)] == [
        f"Track{number:05d}" for number in range(1, 6)
    ]
    assert {track.parent.name for track in tracks} <= {"train", "validation", "test"}
    for track in tracks:
        metadata = yaml.safe_load((track / "metadata.yaml").read_text())
        assert len(metadata["UUID"]) == 32
        assert metadata["audio_dir"] == f"{track.name}/stems"
        rendered = [name for name, stem in metadata["stems"].items() if stem["audio_rendered"]]
        assert sorted(path.stem for path in (track / "stems").glob("*.flac")) == rendered
        assert sorted(path.stem for path in (track / "MIDI").glob("*.mid")) == rendered
        assert soundfile.info(track / "mix.flac").channels == 1
        for name in rendered:
            stem = metadata["stems"][name]
            (instrument,) = read_content(track / "MIDI" / f"{name}.mid", drop_empty=True).instruments
            assert instrument.is_drum == stem["is_drum"]
            assert stem["program_num"] == (128 if stem["is_drum"] else instrument.program)


def test_slakh_fields_are_those_of_the_real_file(slakh, dataset_layouts):
    real = yaml.safe_load(
        (dataset_layouts / "slakh_layout/slakh2100_flac_redux/train/Track00001/metadata.yaml").read_text()
    )
    ours = yaml.safe_load(next(slakh.glob("*/Track00001/metadata.yaml")).read_text())
    assert list(ours) == list(real)
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in real.items()}
    assert set(ours["stems"]["S00"]) == set(real["stems"]["S00"])
    effects = yaml.safe_load(next(slakh.glob("*/Track00005/metadata.yaml")).read_text())["stems"]["S01"]
    assert effects.keys() == real["stems"]["S06"].keys()  # never rendered: no loudness
    assert effects["inst_class"] == real["stems"]["S06"]["inst_class"] == "Sound Effects"
    assert effects["plugin_name"] == real["stems"]["S06"]["plugin_name"]


def test_sound_effects_are_in_the_source_only(slakh):
    (track,) = slakh.glob("*/Track00005")
    assert [path.name for path in (track / "MIDI").iterdir()] == ["S00.mid"]
    assert [one.program for one in read_content(track / "all_src.mid", drop_empty=True).instruments][1] == 125


def test_a_mix_is_the_sum_of_its_stems(slakh):
    for track in slakh.glob("*/Track*"):
        total = sum(read(path) for path in (track / "stems").glob("*.flac"))
        mix = read(track / "mix.flac")
        np.testing.assert_array_equal(mix, total)
        assert np.abs(mix).max() <= 10 ** (-1 / 20) * 32767 + 5
        assert np.abs(mix).max() > 10_000


def test_stems_sound_where_their_labels_say(slakh):
    for path in slakh.glob("*/Track00001/MIDI/*.mid"):
        audio = read(path.parent.parent / "stems" / f"{path.stem}.flac")
        notes = read_midi(path)
        assert len(audio) / RATE >= notes["offset"].max()
        for onset, offset in zip(notes["onset"], notes["offset"], strict=True):
            assert np.abs(audio[round(onset * RATE) : round(offset * RATE)]).max() > 30
        first = notes["onset"].min()
        assert not audio[: max(round(first * RATE) - 2, 0)].any()


def test_the_notes_are_those_of_the_source(slakh, midi_dir):
    for number in range(4):
        (track,) = slakh.glob(f"*/Track{number + 1:05d}")
        source, written = read_midi(midi_dir / f"song {number}.mid"), read_midi(track / "all_src.mid")

        def key(notes):
            return sorted((round(note[0], 3), round(note[1], 3), *note[2:4], note[5]) for note in notes.tolist())

        assert key(written) == key(source)


def test_processes_and_runs_do_not_change_a_byte(slakh, midi_dir, tmp_path):
    render_dataset(midi_dir, tmp_path / "again", rendering("slakh"), processes=2)
    assert files_of(tmp_path / "again") == files_of(slakh)


def test_a_seed_changes_instruments_and_levels(slakh, midi_dir, tmp_path):
    render_dataset(midi_dir, tmp_path / "other", rendering("slakh", seed=1), limit=2)
    theirs = files_of(tmp_path / "other")
    ours = files_of(slakh)
    mixes = [name for name in theirs if name.endswith("mix.flac")]
    assert len(mixes) == 2
    assert all(theirs[name] != ours[name] for name in mixes)


def test_maestro_has_the_real_layout(midi_dir, tmp_path):
    source = tmp_path / "in"
    pedal = [(0.2, 127), (1.8, 0)]
    write_song(source / 'Bach/Fuge, "grün"/one.mid', [(PIANO, [(0.0, 0.5, 60, 80), (1.0, 1.2, 62, 80)], pedal)])
    write_band(source / "Chopin/Étude/two.mid")
    out = tmp_path / "out"
    assert render_dataset(source, out, rendering("maestro")).count("written") == 2
    with open(out / "maestro-v3.0.0.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = json.loads((out / "maestro-v3.0.0.json").read_text())
    assert [row["canonical_composer"] for row in rows] == ["Bach", "Chopin"]
    assert rows[0]["canonical_title"] == 'Fuge, "grün"'
    for number, row in enumerate(rows):
        assert {key: str(columns[key][str(number)]) for key in row} == row
        info = soundfile.info(out / row["audio_filename"])
        assert (info.channels, info.format, info.subtype) == (2, "WAV", "PCM_16")
        assert info.duration == float(row["duration"])
        assert row["midi_filename"].startswith(f"{row['year']}/")
        assert row["midi_filename"].endswith(".midi")
        (piano,) = read_content(out / row["midi_filename"], drop_empty=True).instruments
        assert (piano.program, piano.is_drum) == (0, False)
    (piano,) = read_content(out / rows[0]["midi_filename"], drop_empty=True).instruments
    assert piano.controls.tolist() == [[0.2, 64, 127], [1.8, 64, 0]]
    audio = np.abs(read(out / rows[0]["audio_filename"])).max(axis=1)
    assert audio[round(0.7 * RATE) : round(0.9 * RATE)].max() > 30  # held by the pedal


def test_maestro_columns_are_those_of_the_real_files(dataset_layouts):
    from mt3render.maestro_index import COLUMNS, TABLE_NAME

    real = dataset_layouts / "maestro-v3.0.0"
    with open(real / f"{TABLE_NAME}.csv", encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert tuple(json.loads((real / f"{TABLE_NAME}.json").read_text())) == COLUMNS


def test_folder_has_pairs(midi_dir, tmp_path):
    out = tmp_path / "out"
    render_dataset(midi_dir, out, rendering("folder"), limit=2)
    audio = sorted(out.glob("*/*.flac"))
    assert len(audio) == 2
    for path in audio:
        assert path.with_suffix(".mid").exists()
        assert len(read_midi(path.with_suffix(".mid")))


def test_the_engine_that_needs_nothing_plays_drums_too(midi_dir, tmp_path):
    out = tmp_path / "out"
    render_dataset(midi_dir, out, rendering("slakh", engine="pretty_midi"), limit=1)
    (track,) = out.glob("*/Track*")
    for path in (track / "stems").glob("*.flac"):
        assert np.abs(read(path)).max() > 300
    metadata = yaml.safe_load((track / "metadata.yaml").read_text())
    assert metadata["stems"]["S00"]["plugin_name"].startswith("sines")


def test_a_bad_file_is_named_and_left_out(midi_dir, tmp_path, capsys):
    source = shutil.copytree(midi_dir, tmp_path / "in")
    (source / "bad.mid").write_bytes(b"MThd\0\0\0\6\0\1\0\1\1\340MTrk")
    write_song(source / "silent.mid", [(PIANO, [])])
    out = str(tmp_path / "out")
    arguments = ["render", str(source), out, "--layout", "maestro", "--rate", str(RATE), "--processes", "1"]
    assert run(arguments) == 1
    said = capsys.readouterr().err
    assert "bad.mid cannot be read as a MIDI file" in said
    assert "silent.mid has no notes to play." in said
    assert "5 pieces rendered" in said
    assert "Failed and left out: bad.mid, silent.mid" in said
    assert len((tmp_path / "out/maestro-v3.0.0.csv").read_text().splitlines()) == 6
    assert run(arguments) == 1
    assert "0 pieces rendered (0.0 min" in capsys.readouterr().err
    (source / "bad.mid").unlink()
    (source / "silent.mid").unlink()
    assert run(arguments) == 0


def test_a_finished_track_is_kept_and_an_unfinished_one_made(slakh, midi_dir, tmp_path):
    out = shutil.copytree(slakh, tmp_path / "out")
    whole = files_of(out)
    (gone,) = out.glob("*/Track00002")
    (kept,) = out.glob("*/Track00003")
    before = (kept / "mix.flac").stat().st_mtime_ns
    shutil.rmtree(gone)
    (out / ".raw-left").mkdir()
    (gone.parent / f".{gone.name}.abcdef").mkdir()
    report = render_dataset(midi_dir, out, rendering("slakh"))
    assert (report.count("written"), report.count("skipped")) == (1, 4)
    assert (kept / "mix.flac").stat().st_mtime_ns == before
    assert files_of(out) == whole
    assert not list(out.rglob(".*"))


def test_folders_of_other_renderings_are_not_mixed(slakh, midi_dir, tmp_path):
    out = shutil.copytree(slakh, tmp_path / "out")
    with pytest.raises(OutputError, match="was rendered with a different seed"):
        render_dataset(midi_dir, out, rendering("slakh", seed=5))
    report = render_dataset(midi_dir, out, rendering("slakh", seed=5), limit=1, overwrite=True)
    assert report.count("written") == 1
    foreign = tmp_path / "foreign"
    write_band(foreign / "mine.mid")
    with pytest.raises(OutputError, match="contains files that were not rendered by mt3 render"):
        render_dataset(midi_dir, foreign, rendering("slakh"), overwrite=True)


def test_a_full_disk_ends_the_run_with_a_sentence(midi_dir, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stems_module.soundfile, "SoundFile", full)
    with pytest.raises(OutputError, match=r"Cannot write .* \(No space left on device\). Free some disk space"):
        render_dataset(midi_dir, tmp_path / "out", rendering("slakh"))
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["rendering.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--layout", "musdb"], 2, "Unknown layout 'musdb'. Choose slakh, maestro, folder."),
        (["--layout", "slakh", "--engine", "timidity"], 2, "Unknown engine 'timidity'."),
        (["--layout", "slakh", "--programs", "all"], 2, "Unknown choice 'all'. Choose keep, class, any."),
        (["--layout", "slakh", "--tuning-cents", "a,b"], 2, "'a,b' is not a range."),
        (["--layout", "slakh", "--tuning-cents", "5,-5"], 2, "The tuning range 5 to -5 cents is not valid."),
        (["--layout", "slakh", "--tuning-cents", "0,60"], 2, "The tuning range 0 to 60 cents is not valid."),
        (["--layout", "slakh", "--sound-font", "none.sf2"], 1, "none.sf2 cannot be read: No such file or directory."),
        (["--layout", "slakh", "--engine", "pretty_midi", "--sound-font", "a.sf2"], 2, "cannot play sound fonts."),
    ],
)
def test_what_cannot_be_done_is_said(midi_dir, tmp_path, capsys, arguments, code, sentence):
    assert run(["render", str(midi_dir), str(tmp_path / "out"), *arguments]) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_sound_fonts_are_all_used(tmp_path):
    first, second = tmp_path / "first.sf2", tmp_path / "second.sf2"
    for path in (first, second):
        shutil.copy(default_sound_font(), path)
    settled = check_rendering(rendering("slakh", sound_fonts=(first, second)))
    if not settled.sound_fonts or settled.engine == "pretty_midi":
        pytest.skip("needs an engine that plays sound fonts")
    source = tmp_path / "in"
    for number in range(4):
        write_band(source / f"{number}.mid", number)
    render_dataset(source, tmp_path / "out", settled)
    text = "".join(path.read_text() for path in Path(tmp_path, "out").glob("*/*/metadata.yaml"))
    assert "first.sf2:" in text
    assert "second.sf2:" in text
    with pytest.raises(UsageError, match="of 200 minutes cannot be rendered"):
        check_rendering(rendering("slakh", most_minutes=200.0))


@pytest.mark.parametrize("engine", ["auto", "pretty_midi"])
def test_each_piece_has_a_tuning_of_its_own_and_labels_stay(midi_dir, tmp_path, engine):
    for name, tuning in (("plain", (0.0, 0.0)), ("tuned", (-20.0, 24.0))):
        render_dataset(midi_dir, tmp_path / name, rendering("slakh", engine=engine, tuning_cents=tuning), limit=2)
    plain, tuned = files_of(tmp_path / "plain"), files_of(tmp_path / "tuned")
    assert plain.keys() == tuned.keys()
    labels = [name for name in plain if name.endswith(".mid")]
    assert len(labels) > 2
    assert all(plain[name] == tuned[name] for name in labels)
    assert all(plain[name] != tuned[name] for name in plain if name.endswith("mix.flac"))
    drawn = [draw_tuning((-20.0, 24.0), 0, f"song {number}.mid") for number in range(40)]
    assert len(set(drawn)) == 40
    assert -20 <= min(drawn) < -10
    assert 15 < max(drawn) <= 24
    assert draw_tuning((3.0, 3.0), 0, "a.mid") == 3.0


def test_drums_are_not_tuned(tmp_path):
    write_song(tmp_path / "in/drums.mid", [(None, [(0.0, 0.1, 36, 90), (0.5, 0.6, 42, 90)])])
    for name, tuning in (("plain", (0.0, 0.0)), ("tuned", (30.0, 30.0))):
        render_dataset(tmp_path / "in", tmp_path / name, rendering("folder", tuning_cents=tuning))
    plain, tuned = files_of(tmp_path / "plain"), files_of(tmp_path / "tuned")
    assert [plain[name] == tuned[name] for name in sorted(plain)] == [False, True, True]  # rendering.json differs


def test_a_run_with_a_tuning_goes_on_where_it_was(midi_dir, tmp_path):
    settings = rendering("folder", tuning_cents=(-20.0, 24.0))
    assert render_dataset(midi_dir, tmp_path / "out", settings, limit=1).count("written") == 1
    assert render_dataset(midi_dir, tmp_path / "out", settings, limit=2).count("skipped") == 1
    with pytest.raises(OutputError, match="was rendered with a different tuning_cents"):
        render_dataset(midi_dir, tmp_path / "out", rendering("folder"), limit=2)


def test_metadata_survives_odd_names():
    text = slakh_metadata(
        "Track00001", "0" * 32, 'odd: "name"\n# €.mid', 0.5, {"S00": stem_fields(55, False, "a:0:1", -13)}
    )
    read_back = yaml.safe_load(text)
    assert read_back["UUID"] == "0" * 32
    assert read_back["lmd_midi_dir"] == 'odd: "name"\n# €.mid'
    assert read_back["stems"]["S00"]["plugin_name"] == "a:0:1"
    assert read_back["stems"]["S00"]["midi_program_name"] == "Orchestra Hit"
    assert read_back["stems"]["S00"]["program_num"] == 55


def test_one_split_that_takes_everything_is_said(tmp_path, capsys):
    music = tmp_path / "music"
    for number in range(3):
        write_song(music / f"all/MIDI/{number}.mid", [(PIANO, [(0.0, 0.2, 60 + number, 80)])])
    command = ["--layout", "folder", "--engine", "pretty_midi", "--rate", "8000", "--processes", "1"]
    assert run(["render", str(music), str(tmp_path / "out"), *command]) == 0
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if "in the split" in line]
    assert line.startswith("All 3 pieces are in the split ")
    assert "put MIDI files into folders called " in line
    assert line.endswith(f"Or render {music}/all/MIDI instead: files in one folder inside others stay together.")
    (music / "all/MIDI/validation").mkdir()
    (music / "all/MIDI/train").mkdir()
    for number in range(3):
        name = "validation" if number else "train"
        (music / f"all/MIDI/{number}.mid").rename(music / f"all/MIDI/{name}/{number}.mid")
    assert run(["render", str(music), str(tmp_path / "other"), *command]) == 0
    assert " split" not in capsys.readouterr().err
