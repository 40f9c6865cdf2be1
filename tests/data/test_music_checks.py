"""What librosa hears beside the labels, and recordings changed in pitch and length whose labels follow."""

import numpy as np
import pytest

pytest.importorskip("librosa")

from mt3core.errors import UsageError
from mt3core.notes.table import Note, note_table
from mt3data.checks.music_checks import Music, check_music, hear_music, tuning_cents
from mt3data.prepare.effects import change_audio, change_notes, check_effects

pytestmark = pytest.mark.integration

RATE_HZ = 16_000
ONSETS = 0.5 + np.cumsum(np.random.default_rng(0).uniform(0.25, 0.5, 28))
PITCHES = 48 + (7 * np.arange(len(ONSETS))) % 30
NOTES = note_table([Note(onset, onset + 0.3, int(pitch), 90, 0) for onset, pitch in zip(ONSETS, PITCHES, strict=True)])


def play(cents=0.0, late_seconds=0.0, attack_seconds=0.003):
    """Struck tones with five harmonics."""
    samples = np.zeros(round((ONSETS[-1] + 1) * RATE_HZ), np.float32)
    seconds = np.arange(round(0.4 * RATE_HZ)) / RATE_HZ
    for onset, pitch in zip(ONSETS + late_seconds, PITCHES, strict=True):
        hz = 440 * 2 ** ((pitch - 69 + cents / 100) / 12)
        tone = sum(np.sin(2 * np.pi * hz * number * seconds) / 2**number for number in range(1, 6))
        start = round(onset * RATE_HZ)
        samples[start : start + len(seconds)] += (
            0.3 * tone * np.exp(-6 * seconds) * np.minimum(1, seconds / attack_seconds)
        )
    return samples


def rises(samples, near_seconds):
    """When the level first comes half-way to its highest within 80 ms of each time."""
    level = np.sqrt(np.convolve(np.square(samples), np.ones(32) / 32, "same"))
    found = []
    for time in near_seconds:
        first = max(0, round((time - 0.08) * RATE_HZ))
        part = level[first : round((time + 0.08) * RATE_HZ)]
        before = part[: RATE_HZ // 50].mean()
        found.append((first + np.argmax(part >= (before + part.max()) / 2)) / RATE_HZ)
    return np.array(found)


@pytest.mark.parametrize("cents", [-40, -13, 0, 22])
def test_tuning_is_heard_to_two_cents(cents):
    assert tuning_cents(play(cents), RATE_HZ) == pytest.approx(cents, abs=2)


@pytest.mark.parametrize("late_seconds", [-0.03, 0.0, 0.03])
def test_onsets_are_heard_where_they_are(late_seconds):
    music = hear_music(play(late_seconds=late_seconds), RATE_HZ, NOTES)
    assert music.heard_share > 0.9
    assert music.late_seconds == pytest.approx(late_seconds, abs=0.004)


def test_labels_of_other_music_are_not_heard():
    other = NOTES.copy()
    other["onset"] = np.sort(np.random.default_rng(1).uniform(0.5, ONSETS[-1], len(NOTES)))
    assert hear_music(play(), RATE_HZ, other).heard_share < 0.6


def test_few_onsets_slow_instruments_and_silence_leave_it_open():
    strings = NOTES.copy()
    strings["program"] = 48
    assert hear_music(play(), RATE_HZ, strings).late_seconds is None
    assert hear_music(play(), RATE_HZ, NOTES[:10]).late_seconds is None
    assert hear_music(np.zeros(RATE_HZ * 4, np.float32), RATE_HZ, NOTES) == Music()
    drums = NOTES.copy()
    drums["is_drum"] = True
    assert hear_music(play(), RATE_HZ, drums).tuning_cents is None


def test_defects_say_how_far_and_leave_nothing_out(tmp_path):
    path = tmp_path / "a.wav"
    late, tuned = check_music("a", "mix", path, hear_music(play(38, 0.03), RATE_HZ, NOTES))
    assert (late.kind, late.skips) == ("offset_labels", False)
    assert "after their labels" in late.message
    assert (tuned.kind, tuned.skips) == ("other_tuning", False)
    assert "(a' at 449." in tuned.message
    assert check_music("a", "mix", path, hear_music(play(10, 0.01), RATE_HZ, NOTES)) == []


@pytest.mark.parametrize(("semitones", "stretch"), [(2, 1.0), (-3, 1.0), (0, 1.2), (0, 0.85), (3, 1.1)])
def test_labels_follow_a_changed_recording(semitones, stretch):
    samples = play()
    changed, notes = change_audio(samples, RATE_HZ, semitones, stretch), change_notes(NOTES, semitones, stretch)
    assert len(changed) == round(len(samples) * stretch)
    np.testing.assert_array_equal(notes["pitch"], NOTES["pitch"] + semitones)
    # Against the rises of the unchanged recording, since those of a tone are a little after its onset.
    rising = rises(samples, NOTES["onset"]) - NOTES["onset"]
    moved = rises(changed, notes["onset"]) - notes["onset"] - rising * stretch
    assert abs(np.median(moved)) < 0.005
    assert np.quantile(np.abs(moved), 0.9) < 0.012
    assert tuning_cents(changed, RATE_HZ) == pytest.approx(0, abs=5)
    second = 69 + 12 * np.log2(_loudest_hz(changed, notes[3]) / 440)
    assert round(second) == notes["pitch"][3]


def test_what_leaves_midi_is_left_out_and_drums_stay():
    notes = note_table([Note(0, 1, 126, 90, 0), Note(0, 1, 36, 90, 0, True)])
    assert change_notes(notes, 3, 1.0)["pitch"].tolist() == [36]


@pytest.mark.parametrize(("semitones", "stretch"), [(13, 1.0), (-13, 1.0), (0, 0.4), (0, 2.5), (0, float("nan"))])
def test_effects_that_are_no_music_are_refused(semitones, stretch):
    with pytest.raises(UsageError):
        check_effects(semitones, stretch)


def _loudest_hz(samples, note):
    part = samples[round((note["onset"] + 0.03) * RATE_HZ) :][: RATE_HZ // 8]
    return np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 16)).argmax() * RATE_HZ / (1 << 16)
