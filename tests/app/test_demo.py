"""`mt3 demo`: the piece, how it is played, the files, and what is said where something is not installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
from small_models import save_model, with_few_tokens

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3app.commands import demo, demo_piece
from mt3core.errors import MidiError
from mt3core.model.directory import save_model_directory
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import Note, note_table
from mt3core.transcription import Transcription
from mt3eval.matching.onset_score import onset_score
from mt3render.engines import choose_engine
from mt3render.playing import DRUMS, SAMPLE_RATE_HZ, play_notes

pytestmark = pytest.mark.integration
needs_a_backend = pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax")

ROOT = Path(__file__).resolve().parents[2]
FILES = ["demo.wav", "piano_roll.png", "reference.mid", "transcription.json", "transcription.mid"]
# What PyTorch's users need not have; FluidSynth is a program and is not found without a PATH.
BEYOND_TORCH = [
    *("jax", "jaxlib", "flax", "optax", "orbax", "grain", "pyarrow", "array_record", "yaml", "tensorboardX"),
    *("matplotlib", "mir_eval", "scipy", "tensorstore", "msgpack", "librosa", "pyloudnorm", "tinysoundfont"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_model, no_models):
    """The current folder; a tiny model stands for the one that ships."""
    monkeypatch.chdir(tmp_path)
    save_model_directory(no_models / "small", *with_few_tokens(tiny_model))
    return tmp_path


def test_the_piece_is_music_for_a_band():
    notes = demo_piece.piece()
    assert notes == sorted(notes, key=lambda note: (note.onset, note.is_drum, note.program, note.pitch))
    assert 10 <= max(note.offset for note in notes) <= 20
    assert {note.program for note in notes if not note.is_drum} == set(demo_piece.LEVELS_DB)
    assert sum(note.is_drum for note in notes) > 100
    assert all(1 <= note.velocity <= 127 and note.offset > note.onset for note in notes)
    assert all(round(note.onset * 1000) == pytest.approx(note.onset * 1000, abs=1e-6) for note in notes)
    for program in demo_piece.LEVELS_DB:  # no string is struck again before it was let go
        ends: dict[int, float] = {}
        for note in notes:
            if note.program == program and not note.is_drum:
                assert note.onset > ends.get(note.pitch, 0.0)
                ends[note.pitch] = note.offset


def test_the_piece_scores_fully_against_itself():
    notes = demo_piece.piece()
    for drums in (False, True):
        assert onset_score(notes, notes, drums).f1 == 1.0


@needs_a_backend
def test_demo_renders_transcribes_scores_draws_and_names_its_files(folder, capsys):
    pytest.importorskip("matplotlib")
    assert run(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("Using the model small, which ships with mt3kit. To use Magenta's: mt3 convert gs://")
    lines = out.splitlines()
    assert lines[0].startswith(f"Rendered {len(demo_piece.piece())} notes, ")
    assert lines[1].startswith("Transcribed with tiny (")
    assert "x real time, without loading the model." in lines[1]
    assert [line.split()[0] for line in lines[4:6]] == ["pitched", "drums"]
    assert [line.split()[0] for line in lines[7:]] == [
        f"demo_output/{name}"
        for name in ("demo.wav", "reference.mid", "transcription.mid", "transcription.json", "piano_roll.png")
    ]
    assert sorted(path.name for path in (folder / "demo_output").iterdir()) == FILES
    found = Transcription.load("demo_output/transcription.json")
    assert (found.model, found.audio) == ("tiny", "demo_output/demo.wav")
    assert (folder / "demo_output/transcription.mid").read_bytes() == found.to_bytes("mid")
    assert soundfile.info("demo_output/demo.wav").duration == pytest.approx(found.duration_seconds, abs=0.01)
    assert (folder / "demo_output/piano_roll.png").read_bytes().startswith(b"\x89PNG")
    # Again, over what is there.
    assert run(["demo"]) == 0


@needs_a_backend
def test_a_model_that_is_named_is_taken(folder, tiny_model, capsys):
    assert run(["demo", "--model", save_model(folder / "mine", tiny_model), "-o", "there"]) == 0
    out, err = capsys.readouterr()
    assert not err or err.startswith("No notes were found")  # its weights are random
    assert "there/transcription.mid" in out


@needs_a_backend
def test_without_a_model_the_demo_says_what_to_do_before_anything_is_rendered(tmp_path, monkeypatch, no_models, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["demo"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mt3: No model was found, and none ships with this copy of mt3kit. Get the published model")
    assert list(tmp_path.iterdir()) == []


@needs_a_backend
@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("matplotlib", ["No picture: matplotlib not installed. Install it: pip install matplotlib"]),
        (
            "mir_eval",
            [
                "No score: mir_eval not installed. Install it: pip install mir_eval",
                "No picture: mir_eval not installed. Install it: pip install mir_eval",
            ],
        ),
    ],
)
def test_what_is_not_installed_is_left_out_and_said(folder, capsys, monkeypatch, absent, said):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, absent, None)
    assert run(["demo"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("No ")] == said
    assert ("Onsets within 50 ms (mir_eval):" in out) == (absent != "mir_eval")
    assert "piano_roll.png" not in out
    assert sorted(path.name for path in (folder / "demo_output").iterdir()) == [
        name for name in FILES if name != "piano_roll.png"
    ]


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("torch"), reason="needs torch")
def test_with_pytorch_alone(folder, no_models):
    """In a process that can import nothing that `[torch]` does not need."""
    program = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BEYOND_TORCH!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {BEYOND_TORCH!r} else find(name, package)
from pathlib import Path
from mt3core.model import search
search.shipped_folder = lambda: Path({str(no_models)!r})
from mt3app.cli import main
main()
"""
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "MT3_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "demo"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"Rendered {len(demo_piece.piece())} notes, 18.1 s (pretty_midi)."
    assert lines[1].startswith("Transcribed with tiny (torch): ")
    assert lines[2].startswith("No score: mir_eval, scipy not installed.")
    assert lines[3].startswith("No picture: mir_eval, scipy, matplotlib not installed.")
    assert sorted(path.name for path in (folder / "demo_output").iterdir()) == [
        name for name in FILES if name != "piano_roll.png"
    ]


def test_the_example_that_draws_the_demo_says_what_it_needs(tmp_path):
    pytest.importorskip("matplotlib", reason="needs Matplotlib")
    program = Path(__file__).resolve().parents[2] / "examples/picture.py"

    def picture(*arguments):
        return subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=False)

    assert (done := picture()).returncode == 2
    assert done.stderr.splitlines()[-1].endswith("the following arguments are required: folder, picture")
    assert (done := picture(tmp_path / "none", tmp_path / "x.png")).returncode == 1
    assert done.stderr.startswith("picture.py: There is no file ")
    assert len(done.stderr.splitlines()) == 1


@needs_a_backend
def test_the_example_draws_the_demo(folder, capsys):
    pytest.importorskip("matplotlib", reason="needs Matplotlib")
    assert run(["demo"]) == 0
    program = Path(__file__).resolve().parents[2] / "examples/picture.py"
    done = subprocess.run([sys.executable, program, "demo_output", "picture.png"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")


@needs_a_backend
def test_what_was_not_rendered_does_not_count_as_missed(folder, capsys, monkeypatch):
    """A drum that no sound font has (General MIDI ends at 81) and an engine that plays no drums at all."""
    notes = [*demo_piece.piece(), Note(1.0, 1.1, 120, 100, 0, True)]
    monkeypatch.setattr(demo_piece, "piece", lambda: notes)
    if choose_engine() != "pretty_midi":
        assert run(["demo"]) == 0
        assert "; 1 note that it cannot play was left out." in capsys.readouterr().out
        assert len(read_midi("demo_output/reference.mid")) == len(notes) - 1

    monkeypatch.setattr("mt3render.engines._is_installed", lambda name: name == "pretty_midi")
    monkeypatch.setattr("mt3render.sines._add_hits", lambda samples, notes, rate: None)
    assert run(["demo"]) == 0
    out = capsys.readouterr().out
    assert f"; {sum(note.is_drum for note in notes)} notes that it cannot play were left out" in out
    written = pretty_midi.PrettyMIDI("demo_output/reference.mid")
    assert not any(instrument.is_drum for instrument in written.instruments)
    drums = [line.split() for line in out.splitlines() if line.strip().startswith("drums")]
    assert all(columns[1] == "0" for columns in drums)


@pytest.mark.parametrize("engine", ["tinysoundfont", "pretty_midi"])
def test_notes_start_when_they_are_written(tmp_path, engine):
    """What plays must not delay: the score would blame the network for it."""
    if engine == "tinysoundfont" and importlib.util.find_spec("tinysoundfont") is None:
        pytest.skip("needs tinysoundfont")
    times = [0.5, 1.25, 2.0, 3.123]
    hits = [Note(time, time + 0.1, demo_piece.SNARE, 110, 0, True) for time in times]
    played = play_notes(hits, tmp_path / "hits.wav", engine)
    assert played.notes == hits
    samples, rate_hz = soundfile.read(tmp_path / "hits.wav", always_2d=True)
    assert rate_hz == SAMPLE_RATE_HZ
    assert samples.shape[1] == 2
    assert np.abs(samples).max() == pytest.approx(10 ** (-1 / 20), abs=0.01)
    for time in times:
        first = round(time * rate_hz)
        assert np.abs(samples[first - 500 : first]).max() < 0.05
        assert np.abs(samples[first : first + 500]).max() > 0.2


def test_levels_are_those_asked_for(tmp_path):
    """The same notes, drums louder against the rest: they then set the peak and the rest falls."""
    notes = [Note(0.0, 1.0, 69, 100, 73, False), Note(2.0, 2.1, demo_piece.KICK, 100, 0, True)]

    def ratio(**levels):
        play_notes(notes, tmp_path / "x.wav", "pretty_midi", **levels)
        samples, rate_hz = soundfile.read(tmp_path / "x.wav")
        middle = round(1.5 * rate_hz)
        return np.abs(samples[middle:]).max() / np.abs(samples[:middle]).max()

    assert ratio(levels_db={DRUMS: 6.0}) == pytest.approx(ratio() * 10 ** (6 / 20), rel=0.01)


def test_nothing_to_hear(tmp_path):
    for notes in ([], [Note(0.0, 1.0, 60, 0, 0, False)]):
        with pytest.raises(MidiError, match="None of these notes can be heard"):
            play_notes(note_table(notes), tmp_path / "x.wav", "pretty_midi")
    assert list(tmp_path.iterdir()) == []


def test_the_files_that_are_named_are_those_that_are_written():
    assert sorted(demo._FILES) == FILES
