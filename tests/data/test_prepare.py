"""Preparation: what lies in the shards, that it is the same whatever happened on the way, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_datasets
import soundfile
from preparing import chunks_of, contents, run

from mt3app import cli
from mt3app.cli_data import PrepareOptions
from mt3app.commands.prepare import prepare_dataset
from mt3app.progress import Reporter
from mt3core.errors import DatasetError, OutputError, ProcessError
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.midi_writing import write_midi
from mt3data.prepare import prepare, shards
from mt3data.prepare.chunks import to_int16
from mt3data.prepare.manifest import array_record_module, check_shards, read_manifest
from mt3data.prepare.prepare import estimated_bytes

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> Path:
    return small_datasets.write_folder(tmp_path_factory.mktemp("pieces") / "pieces")


@pytest.fixture(scope="module")
def undisturbed(pieces, tmp_path_factory) -> Path:
    """The folder of pieces prepared in one go, by one process."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(pieces, out) == 0
    return out


def test_the_chunks_are_the_recordings_and_their_notes(pieces, undisturbed):
    manifest = read_manifest(undisturbed)
    check_shards(manifest)
    assert set(zip(manifest["split"].tolist(), manifest["track"].tolist(), strict=True)) == {
        ("test", "test__last"),
        *(("train", f"train__piece{number}") for number in range(5)),
    }
    for name in ("train/piece0", "train/piece2"):
        chunks = chunks_of(undisturbed, track=name.replace("/", "__"))
        source, _ = soundfile.read(pieces / f"{name}.wav", dtype="int16")
        assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), source)
        notes = np.unique(np.concatenate([chunk.piece_notes for chunk in chunks]))
        assert notes.tolist() == np.unique(read_midi(pieces / f"{name}.mid")).tolist()


def test_rows_say_what_the_records_hold(undisturbed):
    manifest = read_manifest(undisturbed)
    is_long = manifest["track"] == "train__piece2"
    assert manifest["start_seconds"][is_long].tolist() == [0.0, 8.192, 16.384]
    assert manifest["duration_seconds"][is_long].tolist() == pytest.approx([8.192, 8.192, 20 - 16.384])
    # Notes every half second: 0 to 8.0; the one at 8.0 goes on to 8.4 and is counted twice.
    assert manifest["num_notes"][is_long].tolist() == [17, 17, 8]
    assert set(manifest["dataset"]) == {"folder"}
    assert set(manifest["stem"]) == {"mix"}
    assert set(manifest["defects"]) == {""}
    assert (manifest["program"] == -1).all()


def test_audio_of_another_rate_is_resampled(pieces, undisturbed):
    from mt3core.audio.load import load_audio

    (chunk,) = chunks_of(undisturbed, split="test")
    assert np.array_equal(chunk.audio, to_int16(load_audio(pieces / "test/last.flac"))[0])


def test_a_killed_run_goes_on_where_it_was_and_gives_the_same_bytes(pieces, undisturbed, tmp_path):
    out, marker = tmp_path / "cache", tmp_path / "marker"
    script = Path(__file__).parents[1] / "helpers" / "prepare_until.py"
    child = subprocess.Popen([sys.executable, str(script), str(pieces), str(out), str(marker)])
    try:
        wait_for(lambda: marker.exists() and (out / "folder/train-00004.json").exists())
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    wait_for(lambda: has_ended(int(marker.read_text())))
    before = contents(out)
    assert any(Path(name).name.startswith(".train-00002.array_record.") for name in before), "it left nothing half-done"
    assert "folder/train-00002.json" not in before
    assert "chunk_manifest.parquet" not in before
    finished = {path: path.stat().st_mtime_ns for path in out.glob("folder/train-0000[0134].*")}
    assert len(finished) == 8
    assert run(pieces, out) == 0
    assert contents(out) == contents(undisturbed)
    assert finished == {path: path.stat().st_mtime_ns for path in finished}, "finished shards were done again"


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def has_ended(process: int) -> bool:
    """Whether a process is gone, or only waits for somebody to ask for its exit code."""
    try:
        os.kill(process, 0)
        status = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    except ProcessLookupError:
        return True
    return not status.strip() or status.startswith("Z")


def test_parts_for_a_cluster_merge_to_the_same_bytes(pieces, undisturbed, tmp_path):
    assert run(pieces, tmp_path, shard="0/2") == 0
    with pytest.raises(DatasetError, match=r"3 of 6 shards .* are not finished, the first of them train-00001"):
        run(pieces, tmp_path, merge=True)
    assert run(pieces, tmp_path, shard="1/2") == 0
    assert not (tmp_path / "chunk_manifest.parquet").exists()
    assert run(pieces, tmp_path, merge=True) == 0
    assert contents(tmp_path) == contents(undisturbed)


def test_files_that_fail_are_left_out_and_done_when_they_are_mended(pieces, undisturbed, tmp_path, capsys):
    broken = tmp_path / "pieces"
    shutil.copytree(pieces, broken)
    (broken / "test/last.flac").write_bytes((pieces / "test/last.flac").read_bytes()[:20_000])
    (broken / "train/piece0.wav").write_bytes(b"")
    (broken / "train/piece3.mid").write_bytes(b"MThd and no more")
    out = tmp_path / "cache"
    assert prepare_dataset(PrepareOptions("folder", broken, out, processes=1), Reporter()) == 1
    said = capsys.readouterr().err
    assert "Left out: test__last: " in said
    assert "is truncated or damaged" in said
    assert "piece0.wav is empty (0 bytes)." in said
    assert "piece3.mid cannot be read as a MIDI file" in said
    assert "3 recordings could not be used" in said
    assert set(read_manifest(out)["track"]) == {"train__piece1", "train__piece2", "train__piece4"}
    check_shards(read_manifest(out))
    assert run(broken, out) == 1  # still broken, and said with --quiet too
    said = capsys.readouterr().err
    assert "piece0.wav is empty (0 bytes)." in said
    assert "hours in" not in said
    for name in ("test/last.flac", "train/piece0.wav", "train/piece3.mid"):
        shutil.copy(pieces / name, broken / name)
    assert run(broken, out) == 0
    assert contents(out) == contents(undisturbed)


def test_a_data_set_that_shrinks_or_changes_leaves_nothing_behind(pieces, tmp_path):
    changed = tmp_path / "pieces"
    shutil.copytree(pieces, changed)
    assert run(changed, tmp_path / "cache") == 0
    (changed / "train/piece4.wav").unlink()
    (changed / "train/piece4.mid").unlink()
    write_midi(small_datasets.scale(1.0), changed / "train/piece0.mid")
    assert run(changed, tmp_path / "cache") == 0
    assert run(changed, tmp_path / "again") == 0
    assert contents(tmp_path / "cache") == contents(tmp_path / "again")


def test_other_settings_are_refused_in_a_folder_begun_before(pieces, undisturbed):
    with pytest.raises(DatasetError, match="prepared with other settings \\(flac: false, now true\\)"):
        run(pieces, undisturbed, flac=True)
    with pytest.raises(DatasetError, match="sustain: true, now false"):
        run(pieces, undisturbed, sustain=False)
    with pytest.raises(DatasetError, match=r'splits: .*now \["train"\]'):
        run(pieces, undisturbed, splits="train")


def test_flac_gives_the_same_chunks_in_less_space(pieces, undisturbed, tmp_path):
    assert run(pieces, tmp_path, flac=True) == 0
    for packed, raw in zip(chunks_of(tmp_path), chunks_of(undisturbed), strict=True):
        assert np.array_equal(packed.audio, raw.audio)
        assert packed.piece_notes.tobytes() == raw.piece_notes.tobytes()
    name = "folder/train-00002.array_record"
    assert (tmp_path / name).stat().st_size < 0.8 * (undisturbed / name).stat().st_size


def test_a_full_disk_is_one_sentence_and_costs_one_shard(pieces, undisturbed, tmp_path, monkeypatch):
    written = []

    class FullDisk:
        """Room for three records."""

        def __init__(self, path, options):
            self.writer = array_record_module().ArrayRecordWriter(path, options)

        def __getattr__(self, name):
            return getattr(self.writer, name)

        def write(self, record):
            written.append(len(record))
            if len(written) > 3:
                raise RuntimeError("write() failed: No space left on device; writing x; at byte 7; Failed to flush")
            self.writer.write(record)

    class Module:
        ArrayRecordWriter = FullDisk

    monkeypatch.setattr(shards, "array_record_module", lambda: Module)
    with pytest.raises(
        OutputError, match=r"The disk is full: .*train-00002.array_record could not be written"
    ) as caught:
        run(pieces, tmp_path)
    assert "finished shards are kept" in caught.value.next_step
    left = contents(tmp_path)
    assert set(left) == {
        "folder",
        "folder/settings.json",
        *(f"folder/train-0000{number}.{suffix}" for number in (0, 1) for suffix in ("array_record", "json")),
    }
    monkeypatch.undo()
    assert run(pieces, tmp_path) == 0
    assert contents(tmp_path) == contents(undisturbed)


def test_too_little_space_is_seen_before_anything_is_done(pieces, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"needs about \d+ kB, but only 500 kB are free at .* free \d+ kB, or"):
        run(pieces, tmp_path)
    assert not list(tmp_path.glob("folder/*.array_record"))


def test_the_estimate_is_near_what_is_written(undisturbed):
    hour = estimated_bytes(3600, flac=False)
    assert hour == pytest.approx(16_000 * 2 * 3600, rel=0.05)
    assert estimated_bytes(3600, flac=True) < hour


def test_a_process_that_is_killed_ends_the_run_with_a_sentence(pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "write_unit", _end_this_process)
    with pytest.raises(ProcessError, match="A process that prepared shards was killed"):
        run(pieces, tmp_path, processes=2)


def test_recordings_at_another_pitch_and_length(pieces, undisturbed, tmp_path):
    pytest.importorskip("librosa")
    assert run(pieces, tmp_path, name="up", pitch_semitones=2, stretch=1.25) == 0
    plain, changed = chunks_of(undisturbed), chunks_of(tmp_path)
    assert sum(len(chunk.audio) for chunk in changed) == pytest.approx(
        1.25 * sum(len(chunk.audio) for chunk in plain), abs=len(changed)
    )
    first, second = plain[0].piece_notes, changed[0].piece_notes
    count = min(len(first), len(second))
    np.testing.assert_allclose(second["onset"][:count], 1.25 * first["onset"][:count])
    np.testing.assert_array_equal(second["pitch"][:count], first["pitch"][:count] + 2)
    settings = json.loads((tmp_path / "up" / "settings.json").read_text())
    assert (settings["pitch_semitones"], settings["stretch"]) == (2, 1.25)
    assert "stretch" not in (undisturbed / "folder" / "settings.json").read_text()


def _end_this_process(*arguments, **more):
    os._exit(9)


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["--shard", "2/2"], "--shard 2/2 is not of the form", 2),
        (["--shard", "0/2", "--merge"], "cannot be used together", 2),
        (["--stretch", "3"], "cannot be stretched to 3 times its length", 2),
        (["--pitch-semitones", "-20"], "-20 semitones are too many", 2),
        (["--splits", "trian"], "Unknown split trian", 2),
        (["--name", "a/b"], "is not a valid name for a data set", 2),
        (["--splits", "omitted"], "has nothing to prepare in omitted", 1),
    ],
)
def test_options_that_make_no_sense(pieces, tmp_path, capsys, arguments, sentence, code):
    assert cli.run(["prepare", "folder", str(pieces), "--out", str(tmp_path / "cache"), *arguments]) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
