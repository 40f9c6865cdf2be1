"""Every command that reads MIDI reads the same notes from odd files, and remarks on what is odd."""

import itertools

import numpy as np
import pytest
from conftest import shared_path
from midi_messages import spans
from odd_midi import ODD, PLAIN_SPANS, REFUSED
from preparing import chunks_of
from small_datasets import tone
from tiny_datasets import write_audio

from mt3app.cli import run
from mt3core.notes import MIDI_SUFFIXES
from mt3core.notes.midi_reading import read_midi
from mt3data.prepare.manifest import read_manifest
from mt3data.readers.defects import read_defects

pytestmark = pytest.mark.integration

SECONDS = 4.0
LATE = ("32767_ticks", "twenty_million_ticks")  # notes after four seconds
SUFFIXES = [suffix for one in MIDI_SUFFIXES for suffix in (one, one.upper())]
NAMES = {f"train/{name}{suffix}": odd for (name, odd), suffix in zip(ODD.items(), itertools.cycle(SUFFIXES))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every odd file with a recording, under all suffixes of MIDI; two that cannot be read; one more for validation."""
    root = tmp_path_factory.mktemp("odd")
    recording = tone(SECONDS)
    for name, odd in NAMES.items():
        path = write_audio((root / name).with_suffix(".wav"), recording)
        (root / name).write_bytes(odd.data)
    for name in ("empty", "cut_in_a_track"):
        path = write_audio(root / f"train/refused_{name}.wav", recording)
        path.with_suffix(".mid").write_bytes(REFUSED[name][0])
    (root / "validation").mkdir()
    write_audio(root / "validation/plain.wav", recording)
    (root / "validation/plain.mid").write_bytes(ODD["plain"].data)
    return root


def lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.strip()]


def check_remarks(said, path_of):
    """Each remark is said with the name of its file, and none of a file without an oddity."""
    for name, odd in NAMES.items():
        found = [line for line in said if path_of(name) in line]
        if odd.remark:
            assert any(odd.remark in line for line in found), (name, found)
        else:
            assert found == []


def test_prepare(folder, tmp_path, capsys):
    assert run(["prepare", "folder", str(folder), "--out", str(tmp_path), "--processes", "1", "--verbose"]) == 1
    said = lines(capsys)
    check_remarks(said, lambda name: f"{folder / name}: ")
    for name in ("empty", "cut_in_a_track"):
        (line,) = [one for one in said if f"Left out: train__refused_{name}: " in one]
        assert REFUSED[name][1] in line
    assert "2 recordings could not be used and are left out; the rest is ready." in said
    for name, odd in NAMES.items():
        track = name.rpartition(".")[0].replace("/", "__")
        (chunk,) = chunks_of(tmp_path, track=track)
        expected = [span for span in odd.spans if span[0] < SECONDS]
        np.testing.assert_allclose(np.reshape(spans(chunk.piece_notes), (-1, 3)), np.reshape(expected, (-1, 3)))
    manifest = read_manifest(tmp_path)
    words = dict(zip(manifest["track"].tolist(), manifest["defects"].tolist(), strict=True))
    assert words["validation__plain"] == ""
    assert words["train__tempo_0"] == "odd_midi"


def test_the_same_remark_on_many_files_is_one_line(tmp_path, capsys):
    for number in range(5):
        path = write_audio(tmp_path / f"music/train/{number}.wav", tone(SECONDS))
        path.with_suffix(".mid").write_bytes(ODD["never_released"].data)
    files = [str(tmp_path / f"music/train/{number}.mid") for number in range(3)]
    command = ["folder", str(tmp_path / "music"), "--out", str(tmp_path / "cache"), "--processes", "1"]
    assert run(["prepare", *command]) == 0
    (line,) = [one for one in lines(capsys) if "never released" in one]
    matter = "5 files: 1 note is never released; it is left out: "
    assert line == f"{matter}{', '.join(files)} and 2 more (all with --verbose)"


def test_verify(folder, tmp_path, capsys):
    command = ["data", "verify", "folder", str(folder), "-o", str(tmp_path), "--processes", "1", "--quick"]
    assert run(command) == 1
    shown = capsys.readouterr().out
    assert "odd_midi" in shown
    defects = [one for one in read_defects(tmp_path / "defects.parquet") if one.kind == "odd_midi"]
    assert not any(one.skips for one in defects)
    check_remarks([one.message for one in defects], lambda name: f"{folder / name}: ")
    bad = {
        one.track: one.message for one in read_defects(tmp_path / "defects.parquet") if one.kind == "unreadable_midi"
    }
    assert set(bad) == {"train__refused_empty", "train__refused_cut_in_a_track"}
    assert "it is empty" in bad["train__refused_empty"]


def test_render(folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["render", str(folder), str(out), "--layout", "folder", "--engine", "pretty_midi", "--rate", "8000"]
    assert run([*command, "--programs", "keep", "--processes", "1", "--max-minutes", "1", "--verbose"]) == 1
    said = lines(capsys)
    shown = [line for line in said if ": skipped" not in line and "notes, " not in line]
    check_remarks(shown, lambda name: f"{name}: ")
    for name in ("empty", "cut_in_a_track"):
        assert any(f"refused_{name}.mid cannot be read as a MIDI file: {REFUSED[name][1]}" in line for line in said)
    for name, odd in NAMES.items():
        if name.split("/")[1].split(".")[0] in LATE:
            continue
        written = spans(read_midi(out / f"train/train_{name.split('/')[1].split('.')[0]}.mid"))
        np.testing.assert_allclose(written, odd.spans, atol=0.00051)


def test_evaluate(folder, capsys, tmp_path):
    truth = folder / "train"
    for path in truth.glob("refused_*.wav"):
        assert path.exists()
    command = ["evaluate", str(truth), str(truth), "-p", "hft_note", "--processes", "1", "--verbose"]
    assert run(command) == 1
    said = lines(capsys)
    check_remarks(said, lambda name: f"{folder / name}: ")
    assert sum(line.startswith("Not scored: ") for line in said) == 2
    (line,) = [one for one in said if "refused_empty" in one]
    assert "cannot be read as a MIDI file: it is empty. Copy or download it again." in line


def test_evaluate_of_a_data_set_remarks_on_its_labels(folder):
    from mt3app.commands.evaluate.config import select
    from mt3core.config.evaluation import EvaluationConfig, EvaluationData

    data = EvaluationData(variants=("folder",), folder=str(folder), split="train")
    selection = select(EvaluationConfig(name="odd", data=data))
    check_remarks([one.message for one in selection.odd], lambda name: f"{folder / name}: ")
    assert len(selection.failures) == 2


HARD = ("01_keysig_18_flats", "03_keysig_mode255", "09_track_length_too_long", "15_header_says_1_track_has_2")
HARD += ("24_last_note_never_released", "26_foreign_chunk_XFIH", "35_timesig_zero_numerator", "00_plain")


def test_hard_inputs_through_every_command(tmp_path, capsys):
    source = shared_path("hard_inputs/midi")
    pairs = tmp_path / "pairs/train"
    pairs.mkdir(parents=True)
    for name in (*HARD, "28_empty_0_bytes", "04_maps_ppq32767_160s"):
        (pairs / f"{name}.mid").write_bytes((source / f"{name}.mid").read_bytes())
        write_audio(pairs / f"{name}.wav", tone(SECONDS))
    cache, defects, rendered = tmp_path / "cache", tmp_path / "defects", tmp_path / "rendered"
    assert run(["prepare", "folder", str(pairs.parent), "--out", str(cache), "--processes", "1"]) == 1
    prepared = capsys.readouterr().err
    assert run(["data", "verify", "folder", str(pairs.parent), "-o", str(defects), "--processes", "1", "--quick"]) == 1
    verified = (defects / "defects.txt").read_text()
    command = ["render", str(pairs), str(rendered), "--layout", "folder", "--engine", "pretty_midi", "--rate", "8000"]
    assert run([*command, "--programs", "keep", "--processes", "1"]) == 1
    played = capsys.readouterr().err
    assert run(["evaluate", str(pairs), str(pairs), "-p", "hft_note", "--processes", "1"]) == 1
    scored = capsys.readouterr().err
    for name in HARD:
        (chunk,) = chunks_of(cache, track=f"train__{name}")
        assert spans(chunk.piece_notes) == list(PLAIN_SPANS), name
        (path,) = rendered.rglob(f"{name}.mid")
        np.testing.assert_allclose(spans(read_midi(path)), PLAIN_SPANS, atol=0.00051, err_msg=name)
        for said in (prepared, verified, played, scored):
            assert (f"{name}.mid: " in said) == (name != "00_plain"), (name, said)
    for said in (prepared, verified, played, scored):
        assert "28_empty_0_bytes.mid cannot be read as a MIDI file: it is empty" in said
        assert "1 note is never released; it is left out" in said
    (path,) = rendered.rglob("04_maps_ppq32767_160s.mid")
    late = read_midi(path)
    assert len(late) == 5
    assert late["onset"][-1] == pytest.approx(162.25, abs=0.001)
