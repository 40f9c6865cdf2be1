"""How much begins at each moment of a recording: the curve that beats are found in.

Two sources are added. The audio shows every attack, also of notes that were not transcribed; the notes say what begins:
a bass note, a kick or snare drum and a chord mark a beat more often than a note of a melody or a hi-hat.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from mt3core.extras import needed
from mt3core.notes.table import Note, NoteTable, note_table

FRAMES_PER_SECOND = 100
KICKS, SNARES, CRASHES = (35, 36), (37, 38, 39, 40), (49, 52, 55, 57)  # General MIDI drum notes
BASS_PROGRAMS = range(32, 40)  # General MIDI, from 0
BASS_PITCH = 48  # C3: below it a note is heard as bass, whoever plays it
_FFT_SAMPLES = 1024
_SPREAD_SECONDS = 0.015  # of a transcribed onset
_DRUM_WEIGHTS = {**dict.fromkeys(KICKS, 1.5), **dict.fromkeys(SNARES, 1.5), **dict.fromkeys(CRASHES, 1.0)}
_OTHER_DRUM_WEIGHT = 0.4
_BASS_WEIGHT = 1.5
_LONGEST_SECONDS = 1.0  # a longer note counts no more
_MOST_OF_ONE_ONSET = 4.0  # a chord of ten notes is no stronger than one of four
_SAME_ONSET_SECONDS = 0.03
_AUDIO_SHARE = 0.5


def onset_strength(
    samples: Float[np.ndarray, " samples"] | None, rate_hz: int, notes: Iterable[Note], end_seconds: float
) -> Float[np.ndarray, " frames"]:
    """The curve of a recording, 100 frames a second, with a standard deviation of 1; zeros if nothing begins.

    Without `samples` it is that of the notes alone. Raises `MissingExtraError` if librosa is needed and missing.
    """
    num_frames = int(np.ceil(end_seconds * FRAMES_PER_SECOND)) + 1
    by_notes = _scaled(strength_of_notes(note_table(list(notes)), num_frames))
    if samples is None:
        return by_notes
    by_audio = _scaled(_strength_of_audio(samples, rate_hz, num_frames))
    return _scaled(_AUDIO_SHARE * by_audio + (1 - _AUDIO_SHARE) * by_notes)


def is_bass(notes: NoteTable) -> np.ndarray:
    """Which notes are heard as bass, (notes,)."""
    of_bass = (notes["program"] >= BASS_PROGRAMS.start) & (notes["program"] < BASS_PROGRAMS.stop)
    return ~notes["is_drum"] & (of_bass | (notes["pitch"] < BASS_PITCH))


def note_weights(notes: NoteTable) -> Float[np.ndarray, " notes"]:
    """How strongly each note marks a beat."""
    seconds = np.clip(notes["offset"] - notes["onset"], 0.0, _LONGEST_SECONDS)
    weights = (0.5 + seconds) * np.where(is_bass(notes), _BASS_WEIGHT, 1.0)
    drums = [_DRUM_WEIGHTS.get(pitch, _OTHER_DRUM_WEIGHT) for pitch in notes["pitch"].tolist()]
    return np.where(notes["is_drum"], drums, weights)


def strength_of_notes(notes: NoteTable, num_frames: int) -> Float[np.ndarray, " frames"]:
    """The weights of the notes, each spread around its onset; together no more than four at one time."""
    strength = np.zeros(num_frames)
    if not len(notes):
        return strength
    order = np.argsort(notes["onset"], kind="stable")
    onsets, weights = notes["onset"][order], note_weights(notes)[order]
    firsts = np.concatenate([[True], np.diff(onsets) > _SAME_ONSET_SECONDS])
    groups = np.cumsum(firsts) - 1
    sums = np.bincount(groups, weights)
    times = np.bincount(groups, weights * onsets) / sums
    frames = np.arange(-6, 7)
    for time, weight in zip(times * FRAMES_PER_SECOND, np.minimum(sums, _MOST_OF_ONE_ONSET), strict=True):
        places = round(time) + frames
        inside = (places >= 0) & (places < num_frames)
        spread = np.exp(-0.5 * ((places - time) / (_SPREAD_SECONDS * FRAMES_PER_SECOND)) ** 2)
        strength[places[inside]] += weight * spread[inside]
    return strength


def _strength_of_audio(
    samples: Float[np.ndarray, " samples"], rate_hz: int, num_frames: int
) -> Float[np.ndarray, " frames"]:
    with needed("music", "Finding beats"):
        import librosa
    hop = rate_hz // FRAMES_PER_SECOND
    found = librosa.onset.onset_strength(y=samples, sr=rate_hz, hop_length=hop, n_fft=_FFT_SAMPLES)[:num_frames]
    return np.pad(found, (0, num_frames - len(found)))


def _scaled(strength: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " frames"]:
    deviation = strength.std()
    return strength / deviation if deviation > 0 else strength
