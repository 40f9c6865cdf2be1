"""How loud a recording is, and that the user is told where a loud one gave nothing."""

import json
import math

import numpy as np
import pytest
import soundfile
from small_models import RATE_HZ, save_model

from mt3app.backend import PACKAGES, is_installed
from mt3app.cli import run
from mt3app.commands import transcribe as command
from mt3core.config.model import MT3
from mt3core.decoding import END_TOKEN, Generated
from mt3core.notes.table import Note
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3core.recording_level import clipping_remark, measure_level, remark_on
from mt3core.transcription import Transcription
from mt3decode.transcriber import BaseTranscriber

pytestmark = pytest.mark.unit

SECONDS = 24


def noise(seconds, amplitude, seed=0):
    """White noise; its average level is that of `amplitude`, its peak about 12 dB above."""
    values = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))
    return (amplitude * values).astype(np.float32)


def square(seconds, amplitude):
    values = np.full(round(seconds * RATE_HZ), amplitude, np.float32)
    values[1::2] *= -1
    return values


def notes(*spans):
    return [Note(onset, offset, 60) for onset, offset in spans]


FIRST = {kind: span[0] + NUM_SPECIAL_TOKENS for kind, span in Vocabulary(MT3.vocabulary).event_ranges.items()}
TOKENS = [FIRST["tie"], FIRST["velocity"] + 1, FIRST["drum"] + 38]  # a drum hit in every segment


class Deaf(BaseTranscriber):
    """Writes the same tokens for every segment: by default none."""

    def __init__(self, tokens=()):
        super().__init__(MT3, None)
        self.tokens = np.array([*tokens, END_TOKEN], np.int32)

    def generate_stream(self, log_mels, last_steps=None):
        return ((index, Generated(self.tokens, 0.0)) for index, _ in enumerate(log_mels))


def test_levels_of_known_signals():
    full = measure_level(square(3.2, 1.0), RATE_HZ)
    assert (full.peak_dbfs, full.average_dbfs) == pytest.approx((0, 0), abs=1e-6)
    assert full.sounding_seconds == pytest.approx(3.2)
    half = measure_level(square(3.2, 0.1), RATE_HZ)
    assert (half.peak_dbfs, half.average_dbfs) == pytest.approx((-20, -20), abs=1e-4)
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)
    assert measure_level(sine, RATE_HZ).average_dbfs == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=1e-3)


def test_pauses_do_not_count():
    samples = np.concatenate([square(2, 0.1), np.zeros(8 * RATE_HZ, np.float32)])
    level = measure_level(samples, RATE_HZ)
    assert level.average_dbfs == pytest.approx(-20, abs=1e-4)
    assert level.sounding_seconds == pytest.approx(2)


def test_silence_is_said_to_be_silence():
    assert remark_on(measure_level(np.zeros(SECONDS * RATE_HZ, np.float32), RATE_HZ), []) == (
        "The recording is silent: all samples are 0."
    )
    dither = square(SECONDS, 2**-15)
    assert remark_on(measure_level(dither, RATE_HZ), []) == "The recording is silent: its peak is -90 dBFS."
    assert remark_on(measure_level(dither, RATE_HZ), notes((1, 2))) == (
        "The recording is silent: its peak is -90 dBFS; the 1 note found in it may be an invention."
    )
    assert measure_level(np.zeros(0, np.float32), RATE_HZ).is_silent


def test_a_faint_recording_is_said_to_be_faint():
    assert remark_on(measure_level(square(SECONDS, 0.0015), RATE_HZ), []) == (
        "No notes were found; the recording is very quiet: -56 dBFS on average, its peak is -56 dBFS. Raise its level."
    )


def test_a_very_quiet_recording_is_said_to_be_so_whatever_was_found():
    found = notes((1, 2), (3, 4), (5, 6), (7, 8))
    for amplitude, level in [(0.0015, -56), (0.0099, -40)]:
        assert remark_on(measure_level(square(SECONDS, amplitude), RATE_HZ), found) == (
            f"The recording is very quiet: its peak is {level} dBFS. Notes may be missing; raise its level."
        )
    assert remark_on(measure_level(square(SECONDS, 0.011), RATE_HZ), found) == ""


def test_a_clipped_recording_is_said_to_be_so():
    """In the samples of the source: the mean of its channels and other rates have no flat tops."""
    sine = np.sin(2 * np.pi * 440 * np.arange(4 * 44_100) / 44_100)
    both = np.stack([np.clip(2 * sine, -1, 1), 0.1 * sine], axis=1)
    share = float((np.abs(both) >= 32767 / 32768).mean())
    assert 0.3 < share < 0.4
    found = Deaf(TOKENS).transcribe((both, 44_100)).remark
    assert found == (
        f"The recording is clipped: {100 * share:.1f} % of its samples are at full scale, 0 dBFS. Notes may be wrong "
        "or missing; record it at a lower level."
    )
    integers = (np.clip(2 * sine, -1, 1) * 32767).astype(np.int16)
    assert "clipped: 66.7 %" in Deaf(TOKENS).transcribe((integers, 44_100)).remark


def test_a_few_samples_at_full_scale_are_no_clipping():
    for share, is_clipped in [(0.0, False), (0.0009, False), (0.001, True), (1.0, True)]:
        assert bool(clipping_remark(share)) == is_clipped
    normalised = noise(4, 0.1)
    assert Deaf(TOKENS).transcribe((normalised / np.abs(normalised).max(), RATE_HZ)).remark == ""


def test_every_remark_has_a_line():
    faint_and_clipped = np.full(4 * RATE_HZ, 0.0015, np.float32)
    faint_and_clipped[: RATE_HZ // 4] = 1
    lines = Deaf().transcribe((faint_and_clipped, RATE_HZ)).remark.splitlines()
    assert [line.split(":")[0] for line in lines] == ["The recording is clipped", lines[1].split(":")[0]]
    assert lines[1].startswith("No notes were found")


def test_nothing_and_next_to_nothing_in_a_loud_recording():
    level = measure_level(square(SECONDS, 0.1), RATE_HZ)
    loud = "although the recording is loud enough: -20 dBFS on average over 24.0 s, its peak is -20 dBFS."
    assert remark_on(level, []).startswith(f"No notes were found, {loud} Listen whether there is music in it")
    assert remark_on(level, notes((1, 1.2))).startswith(f"Only 1 note found, {loud}")
    assert remark_on(level, notes((1, 1.2), (5, 5.1))).startswith(f"Only 2 notes found, {loud}")
    assert remark_on(level, notes((1, 1.2), (5, 5.1), (9, 9.1))) == ""  # one in eight seconds
    assert remark_on(level, notes((1, 4))) == ""  # a drone: an eighth of the time
    assert remark_on(level, notes((1, 2), (1, 2))) != ""  # twice the same second


@pytest.mark.parametrize("seconds", [0.3, 5])
def test_short_recordings_need_one_note(seconds):
    level = measure_level(square(seconds, 0.1), RATE_HZ)
    assert "No notes were found, although" in remark_on(level, [])
    assert remark_on(level, notes((0, 0.1))) == ""


def test_the_result_carries_the_remark():
    loud = Deaf().transcribe((noise(SECONDS, 0.1), RATE_HZ))
    assert loud.notes == []
    assert loud.remark.startswith("No notes were found, although the recording is loud enough: -20 dBFS on average")
    assert Deaf().transcribe((np.zeros(RATE_HZ, np.float32), RATE_HZ)).remark.startswith("The recording is silent")


def test_what_gives_notes_is_not_remarked_on():
    found = Deaf(TOKENS).transcribe((noise(SECONDS, 0.1), RATE_HZ))
    assert len(found.notes) > 5
    assert found.remark == ""


@pytest.fixture
def deaf_command(monkeypatch, tmp_path):
    """`mt3 transcribe` with a network that hears nothing, in a folder with recordings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "load_transcriber", lambda *arguments: Deaf())
    monkeypatch.setattr(command, "choose_backend", lambda name: "torch")
    soundfile.write("loud.wav", noise(12, 0.05), RATE_HZ)
    soundfile.write("silent.wav", np.zeros(RATE_HZ), RATE_HZ)
    return tmp_path


def test_the_user_is_told_in_a_line_for_each_recording(deaf_command, capsys):
    assert run(["transcribe", "loud.wav", "silent.wav", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("loud.wav -> loud.json: 0 notes, ")
    assert lines[1].startswith("loud.wav: No notes were found, although the recording is loud enough: -26 dBFS")
    assert lines[3] == "silent.wav: The recording is silent: all samples are 0."
    assert len(lines) == 4
    assert json.loads((deaf_command / "loud.json").read_text())["remark"] in lines[1]
    assert Transcription.load("silent.json").remark == "The recording is silent: all samples are 0."


def test_standard_output_and_quiet_runs_hold_no_remarks(deaf_command, capsys):
    assert run(["transcribe", "loud.wav", "-o", "-", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert out == "onset,offset,pitch,velocity,program,is_drum,instrument,confidence\n"
    assert "loud.wav: No notes were found" in err
    assert run(["transcribe", "loud.wav", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="needs torch or jax")
def test_the_demo_tells_it_too(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mt3app.commands.demo.load_transcriber", lambda *arguments: Deaf())
    assert run(["demo", "--model", save_model(tmp_path / "tiny", tiny_model)]) == 0
    assert capsys.readouterr().err.startswith("No notes were found, although the recording is loud enough: -")


def test_true_notes_of_real_recordings_are_not_remarked_on(realdata):
    from mt3core.audio.load import load_audio
    from mt3core.notes.midi_reading import read_midi
    from mt3core.notes.table import to_notes

    recordings = [path for path in sorted(realdata.glob("*")) if path.suffix in (".flac", ".ogg")][::4]
    assert recordings
    for path in recordings:
        level = measure_level(load_audio(path), RATE_HZ)
        assert remark_on(level, to_notes(read_midi(path.with_suffix(".mid")))) == "", path.name
        assert "loud enough" in remark_on(level, []), path.name
