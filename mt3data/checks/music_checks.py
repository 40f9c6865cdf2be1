"""What librosa hears in a recording: when its notes start relative to their labels, and how it is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mt3core.extras import needed
from mt3core.notes.table import NoteTable
from mt3data.readers.defects import defect
from mt3data.readers.tracks import Defect

_HEARD_SECONDS = 60  # from the first note on
_HOP_SAMPLES, _FFT_SAMPLES, _MEL_BANDS = 80, 512, 64  # 5 ms; at 16 kHz
_TUNING_FFT_SAMPLES = 4096
# Onset strength is highest one frame after a sudden tone starts.
_PEAK_DELAY_SECONDS = 0.005
_TOLERANCE_SECONDS = 0.05  # within which an onset counts as found
_FEWEST_ONSETS = 20
_EVIDENT_SHARE = 0.6
_LARGEST_OFFSET_SECONDS = 0.02
_LARGEST_TUNING_CENTS = 30.0  # concert pitches from 433 to 447 Hz are within it
# Struck and plucked: the sound starts when the note does. Others may take a tenth of a second.
_SUDDEN_PROGRAMS = frozenset([*range(16), *range(24, 40), 45, 46, *range(104, 109), *range(112, 116)])


@dataclass(frozen=True)
class Music:
    """How late a recording's notes sound relative to their labels, and its tuning, as far as can be determined.

    `late_seconds` is the median over the labelled onsets with a heard one within 50 ms, `heard_share` their share of
    all labelled onsets; `tuning_cents` is above 440 Hz for a', from -50 to 50.
    """

    late_seconds: float | None = None
    heard_share: float | None = None
    tuning_cents: float | None = None


def hear_music(samples: Float[np.ndarray, " samples"], rate_hz: int, notes: NoteTable) -> Music:
    """Listens to the first minute of music; `rate_hz` is 16,000. Raises `MissingExtraError` without librosa."""
    first_seconds = float(notes["onset"].min(initial=np.inf))
    start = max(0, round((first_seconds - 0.5) * rate_hz)) if np.isfinite(first_seconds) else 0
    part = np.ascontiguousarray(samples[start : start + _HEARD_SECONDS * rate_hz], np.float32)
    if len(part) < rate_hz or not part.any():
        return Music()
    is_sudden = notes["is_drum"] | np.isin(notes["program"], list(_SUDDEN_PROGRAMS))
    onsets = np.unique(notes["onset"][is_sudden]) - start / rate_hz
    onsets = onsets[(onsets >= 0) & (onsets < len(part) / rate_hz)]
    late, share = _timing(part, rate_hz, onsets) if len(onsets) >= _FEWEST_ONSETS else (None, None)
    return Music(late, share, None if notes["is_drum"].all() else tuning_cents(part, rate_hz))


def tuning_cents(samples: Float[np.ndarray, " samples"], rate_hz: int) -> float:
    """How far music is tuned above a' = 440 Hz, in cents from -50 to 50. Raises `MissingExtraError`."""
    with needed("datasets", "Hearing how a recording is tuned"):
        import librosa
    return 100 * float(librosa.estimate_tuning(y=samples, sr=rate_hz, n_fft=_TUNING_FFT_SAMPLES))


def tuned(cents: float) -> str:
    """`+12 cents (a' at 443.1 Hz)`"""
    return f"{cents:+.0f} cents (a' at {440 * 2 ** (cents / 1200):.1f} Hz)"


def check_music(track: str, stem: str, path: Path, music: Music) -> list[Defect]:
    """What is worth knowing before a recording is used; none of it causes anything to be left out."""
    found = []
    late, share, cents = music.late_seconds, music.heard_share, music.tuning_cents
    if late is not None and share is not None and share > _EVIDENT_SHARE and abs(late) > _LARGEST_OFFSET_SECONDS:
        way = "after" if late > 0 else "before"
        problem = f"The notes of {path} sound {1000 * abs(late):.0f} ms {way} their labels in the median."
        found.append(defect(track, stem, "offset_labels", f"{problem} They are used unchanged.", skips=False))
    if cents is not None and abs(cents) > _LARGEST_TUNING_CENTS:
        problem = f"{path} is tuned {tuned(cents)}; it is used unchanged."
        found.append(defect(track, stem, "other_tuning", problem, skips=False))
    return found


def _timing(samples: np.ndarray, rate_hz: int, onsets: np.ndarray) -> tuple[float | None, float]:
    """The median of the nearest heard onset minus the labelled one, within 50 ms; the share of onsets with one."""
    with needed("datasets", "Hearing onsets"):
        import librosa
    strength = librosa.onset.onset_strength(
        y=samples, sr=rate_hz, hop_length=_HOP_SAMPLES, n_fft=_FFT_SAMPLES, n_mels=_MEL_BANDS
    )
    heard = librosa.onset.onset_detect(onset_envelope=strength, sr=rate_hz, hop_length=_HOP_SAMPLES, units="time")
    if not len(heard):
        return None, 0.0
    heard = heard - _PEAK_DELAY_SECONDS
    after = np.clip(np.searchsorted(heard, onsets), 1, max(len(heard) - 1, 1))
    candidates = np.stack([heard[after - 1], heard[np.minimum(after, len(heard) - 1)]]) - onsets
    nearest = candidates[np.abs(candidates).argmin(axis=0), np.arange(len(onsets))]
    close = nearest[np.abs(nearest) <= _TOLERANCE_SECONDS]
    return (float(np.median(close)) if len(close) else None), len(close) / len(onsets)
