"""Recordings with another pitch and length, made once while a data set is prepared; the labels follow.

librosa's phase vocoder and resampler, which read whole recordings: too slow for the workers of a training run.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mt3core.errors import UsageError
from mt3core.extras import needed
from mt3core.notes.table import NoteTable

MOST_SEMITONES = 12
SHORTEST, LONGEST = 0.5, 2.0
# 32 ms at 16 kHz. Of windows from 16 to 128 ms the longest that keeps onsets within 5 ms in the median (docs/data.md).
_FFT_SAMPLES, _HOP_SAMPLES = 512, 128
_NUM_PITCHES = 128


def check_effects(pitch_semitones: int, stretch: float) -> None:
    """Raises `UsageError` for changes so large that the result would no longer be music."""
    if abs(pitch_semitones) > MOST_SEMITONES:
        raise UsageError(f"{pitch_semitones} semitones are too many.", f"Use -{MOST_SEMITONES} to {MOST_SEMITONES}.")
    if not SHORTEST <= stretch <= LONGEST:
        raise UsageError(
            f"A recording cannot be stretched to {stretch:g} times its length.", f"Use {SHORTEST:g} to {LONGEST:g}."
        )


def change_audio(
    audio: Float[np.ndarray, " samples"], rate_hz: int, pitch_semitones: int, stretch: float
) -> Float[np.ndarray, " stretched"]:
    """Mono audio, higher by the semitones and `stretch` times as long. Raises `MissingExtraError` without librosa."""
    with needed("datasets", "Another pitch or length"):
        import librosa
    ratio = 2.0 ** (pitch_semitones / 12)
    # Stretched also by the factor that raising the pitch shortens it: one pass of the vocoder for both.
    rate, frames = 1 / (stretch * ratio), {"n_fft": _FFT_SAMPLES, "hop_length": _HOP_SAMPLES}
    longer = librosa.effects.time_stretch(audio, rate=rate, **frames)
    shifted = librosa.resample(longer, orig_sr=rate_hz * ratio, target_sr=rate_hz, res_type="soxr_hq")
    return librosa.util.fix_length(shifted, size=round(len(audio) * stretch)).astype(np.float32)


def change_notes(notes: NoteTable, pitch_semitones: int, stretch: float) -> NoteTable:
    """The notes of the audio from `change_audio`; pitches outside MIDI are left out, drums stay unchanged."""
    changed = notes.copy()
    changed["onset"] *= stretch
    changed["offset"] *= stretch
    changed["pitch"] += np.where(notes["is_drum"], 0, pitch_semitones).astype(changed["pitch"].dtype)
    return changed[(changed["pitch"] >= 0) & (changed["pitch"] < _NUM_PITCHES)]
