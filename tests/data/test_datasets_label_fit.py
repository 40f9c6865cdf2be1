"""Audio against its labels: right ones pass, moved, foreign, transposed and stretched ones are found."""

import numpy as np
import pytest
from tiny_datasets import melody, plucked

from mt3core.audio.load import load_audio
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import note_table
from mt3data.checks.label_fit import Sound, is_noise, listen, onset_fit, pitch_shift, rate_ratio

pytestmark = pytest.mark.unit
NOTES = melody(80)
SECONDS = NOTES[-1][1] + 1


def table(notes, program=0):
    return note_table([(on, off, pitch, 100, program, False) for on, off, pitch in notes])


@pytest.fixture(scope="module")
def sound():
    return listen(plucked(NOTES, SECONDS))


def moved(seconds):
    return table([(on + seconds, off + seconds, pitch) for on, off, pitch in NOTES])


def test_onsets_are_strong_where_notes_begin(sound):
    assert len(sound.strength) == int(SECONDS * 16_000) // 160 + 1
    onsets = np.rint(np.array([note[0] for note in NOTES]) * 100).astype(int)
    near = np.max([sound.strength[onsets + k] for k in range(-3, 4)], axis=0)
    assert np.median(near) > 10 * np.median(sound.strength)


def test_right_labels_agree(sound):
    found = onset_fit(sound, table(NOTES))
    assert not found.is_doubtful
    assert abs(found.best_lag_seconds) <= 0.03


@pytest.mark.parametrize("seconds", [-1.1, -0.3, 0.15, 0.7])
def test_moved_labels_are_found_and_measured(sound, seconds):
    found = onset_fit(sound, moved(seconds))
    assert found.is_wrong
    assert found.is_shifted
    assert found.best_lag_seconds == pytest.approx(-seconds, abs=0.03)


def test_foreign_labels_are_found(sound):
    assert onset_fit(sound, table(melody(80, seed=5))).is_wrong
    assert rate_ratio(sound, table(melody(80, seed=5))) is None


def test_labels_that_are_loud_and_late_or_few_are_left_open(sound):
    late = listen(plucked(NOTES, SECONDS, shift_seconds=0.15))
    assert onset_fit(late, table(NOTES)).is_wrong
    assert not onset_fit(late, table(NOTES), slow_attacks=True).is_doubtful
    assert onset_fit(sound, table(NOTES[:20])) is None
    assert onset_fit(sound, table(melody(80, seed=5), program=89)) is None  # a pad
    assert onset_fit(Sound(np.zeros(50, np.float32), 0.0), table(NOTES)) is None


def test_silence_agrees_with_nothing_and_warns_of_nothing():
    quiet = listen(np.zeros(16_000 * 30, np.float32))
    assert quiet.flatness == 0
    assert onset_fit(quiet, table(NOTES)).gain <= 1


def test_a_wrong_sample_rate_is_recognised():
    stretched = [(on * 48 / 44.1, off * 48 / 44.1, pitch) for on, off, pitch in NOTES]
    sound = listen(plucked(stretched, SECONDS * 1.1))
    assert onset_fit(sound, table(NOTES)).is_wrong
    assert rate_ratio(sound, table(NOTES)) == pytest.approx(44.1 / 48)


def test_noise_is_told_from_tones(sound):
    rng = np.random.default_rng(0)
    assert not is_noise(sound)
    assert is_noise(listen(rng.normal(0, 0.1, 80_000).astype(np.float32)))


@pytest.mark.parametrize("shift", [-12, -5, 0, 12])
def test_transposed_audio_is_found(shift):
    """A bass, of which each note is alone for a quarter of a second."""
    notes = [(0.4 * k, 0.4 * k + 0.38, pitch) for k, (_, _, pitch) in enumerate(melody(30, lowest=40, highest=60))]
    audio = plucked(notes, 13.0, shift_semitones=shift)
    assert pitch_shift(audio, table(notes, program=33)) == shift


def test_pitch_stays_open_where_it_cannot_be_told():
    notes = [(0.4 * k, 0.4 * k + 0.38, pitch) for k, (_, _, pitch) in enumerate(melody(30, lowest=40, highest=60))]
    audio = plucked(notes, 13.0)
    assert pitch_shift(audio, table(notes, program=16)) is None  # an organ may sound an octave lower
    assert pitch_shift(audio, table(notes[:5], program=33)) is None
    chords = [(on, off, pitch + step) for on, off, pitch in notes for step in (0, 4)]
    assert pitch_shift(audio, table(chords, program=33)) is None
    assert pitch_shift(np.zeros(16_000, np.float32), table(notes, program=33)) is None


@pytest.mark.parametrize("name", ["drums_only_mdb_80srock", "guitar_real_guitarset_00_bn1_129_eb_solo"])
def test_real_recordings_agree_with_their_notes(realdata, name):
    samples, notes = load_audio(realdata / f"{name}.flac"), read_midi(realdata / f"{name}.mid")
    heard = listen(samples)
    assert not onset_fit(heard, notes).is_doubtful
    assert pitch_shift(samples, notes) in (0, None)
    late = notes.copy()
    late["onset"] += 0.3
    assert onset_fit(heard, late).is_wrong
