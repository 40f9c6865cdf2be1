"""What can be wrong with an audio file, alone and compared with its notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mt3core.audio.load import probe_audio, read_audio
from mt3core.errors import AudioError
from mt3core.notes.table import NoteTable
from mt3data.checks import label_fit
from mt3data.checks.label_fit import SAMPLE_RATE_HZ
from mt3data.readers.defects import defect
from mt3data.readers.tracks import MIX, Defect

_SILENCE = 1e-4  # -80 dB, three steps of 16 bits
_LISTENED_SECONDS = 240


@dataclass(frozen=True)
class Heard:
    """An audio file as far as it could be read; `samples` at 16 kHz, None if it was not decoded."""

    duration_seconds: float | None
    rate_hz: float | None
    samples: Float[np.ndarray, " samples"] | None
    defects: tuple[Defect, ...]


def hear(track: str, stem: str, path: Path, decode: bool) -> Heard:
    """Reads an audio file, or with `decode` false only its header."""
    try:
        info = probe_audio(path)
        loaded = read_audio(path, SAMPLE_RATE_HZ) if decode else None
    except (AudioError, MemoryError) as error:
        return Heard(None, None, None, (defect(track, stem, _kind(path, error), error),))
    samples = None if loaded is None else loaded.samples
    remarks = () if loaded is None else loaded.remarks
    found = [defect(track, stem, "odd_audio", f"{path}: {remark}", skips=False) for remark in remarks]
    if info.sample_rate_hz < SAMPLE_RATE_HZ:
        problem = (
            f"{path} has a sample rate of {info.sample_rate_hz:g} Hz; it is resampled"
            f" and has no content above {info.sample_rate_hz / 2:g} Hz."
        )
        found.append(defect(track, stem, "low_sample_rate", problem, skips=False))
    duration = info.duration_seconds if samples is None else len(samples) / SAMPLE_RATE_HZ
    return Heard(duration, info.sample_rate_hz, samples, tuple(found))


def check_sound(
    track: str, stem: str, path: Path, samples: Float[np.ndarray, " samples"], notes: NoteTable
) -> list[Defect]:
    """Silence, noise, and labels that do not fit; the same file gives the same answer."""
    if float(np.abs(samples).max(initial=0.0)) < _SILENCE:
        if not len(notes):
            return [defect(track, stem, "nothing_played", f"{path} is silent and has no notes.")]
        return [defect(track, stem, "silent_audio", f"{path} is silent but has {len(notes)} notes.")]
    if not len(notes):
        return [defect(track, stem, "no_notes", f"{path} has sound but no notes.")]
    first = max(0, int((float(notes["onset"].min()) - 1.0) * SAMPLE_RATE_HZ))
    samples = samples[first : first + _LISTENED_SECONDS * SAMPLE_RATE_HZ]
    if not len(samples):
        return []
    notes = notes.copy()
    for edge in ("onset", "offset"):
        notes[edge] -= first / SAMPLE_RATE_HZ
    sound = label_fit.listen(samples)
    if stem != MIX and not notes["is_drum"].any() and notes["program"][0] < 120 and label_fit.is_noise(sound):
        return [defect(track, stem, "noise", f"{path} is noise, not music.")]
    found = _check_onsets(track, stem, path, sound, notes)
    if len(np.unique(notes["program"])) == 1:
        found += _check_pitch(track, stem, path, samples, notes)
    return found


def _check_onsets(track: str, stem: str, path: Path, sound: label_fit.Sound, notes: NoteTable) -> list[Defect]:
    found = label_fit.onset_fit(sound, notes, slow_attacks=stem != MIX)
    if found is None or not found.is_doubtful:
        return []
    if not found.is_wrong:
        problem = f"The notes of {path} may not belong to its audio: shifted in time they fit slightly better."
        return [defect(track, stem, "doubtful_labels", problem, skips=False)]
    ratio = label_fit.rate_ratio(sound, notes)
    if ratio is not None:
        problem = f"{path} plays at {ratio:.4g} times its speed, as if its sample rate were wrong."
        return [defect(track, stem, "wrong_sample_rate", problem)]
    if found.is_shifted:
        way = "later" if found.best_lag_seconds > 0 else "earlier"
        problem = f"{path} is about {abs(found.best_lag_seconds):.2f} s {way} than its notes."
        return [defect(track, stem, "shifted_labels", problem)]
    return [defect(track, stem, "wrong_labels", f"The notes of {path} do not belong to its audio.")]


def _check_pitch(track: str, stem: str, path: Path, samples: np.ndarray, notes: NoteTable) -> list[Defect]:
    shift = label_fit.pitch_shift(samples, notes)
    if not shift:
        return []
    way = "above" if shift > 0 else "below"
    if shift % 12 == 0:
        octaves = "an octave" if abs(shift) == 12 else "two octaves"
        return [defect(track, stem, "wrong_octave", f"{path} sounds {octaves} {way} its notes.")]
    return [defect(track, stem, "wrong_pitch", f"{path} sounds {abs(shift)} semitones {way} its notes.")]


def _kind(path: Path, error: BaseException) -> str:
    """A word for what is wrong with an audio file that cannot be read."""
    problem = str(error)
    try:
        if path.stat().st_size == 0 or "contains no audio" in problem:
            return "empty_audio"
    except OSError:
        return "missing_audio"
    return "truncated_audio" if "is truncated or damaged" in problem else "unreadable_audio"
