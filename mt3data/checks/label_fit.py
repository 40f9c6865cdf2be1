"""Whether a recording and its notes belong together: by the rhythm of onsets, by pitch, and whether it is music.

All three are rough tests that find clear errors; they ignore doubtful cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mt3core.notes.table import NoteTable

SAMPLE_RATE_HZ = 16_000
FRAMES_PER_SECOND = 100
_HOP_SAMPLES, _FFT_SAMPLES = 160, 512
_FRAMES_AT_ONCE = 4096
# Below this share of the loudest bin nothing counts as a change: 60 dB, about where reverberation ends.
_FLOOR = 1e-3

_FEWEST_ONSETS = 30
_LONGEST_LAG_FRAMES = 200
_TOLERANCE_FRAMES = 5  # the 50 ms within which an onset counts as found
_SLOW_ATTACK_FRAMES = 20  # strings and voices reach their loudest point later
# Measured on 16 real recordings and the stems and mixes of 24 rendered pieces: moving correct labels never made them
# fit 1.15 times as well. Labels of other pieces exceed the lower limit in three of four cases, the upper in two of
# three; so do labels moved by 0.15 to 1.1 s.
_DOUBTFUL_GAIN, _WRONG_GAIN = 1.15, 1.25
_CLEARLY_ONE_PLACE = 1.3
# Pads, effects: their onsets are up to half a second late, or cannot be determined.
_WITHOUT_ONSETS = frozenset([*range(88, 104), *range(119, 128)])
# For headers with a different rate than the samples have.
_RATE_RATIOS = (44_100 / 48_000, 48_000 / 44_100, 0.5, 2.0, 44_100 / 32_000, 32_000 / 44_100)

# Power spectral flatness of white noise is exp(-0.577) = 0.56 (Euler's constant); that of tones is below 0.1.
_NOISE_FLATNESS = 0.4

_PITCH_FFT_SAMPLES = 16_384  # bins of 1 Hz
_PITCH_WINDOWS = (4096, 2048)  # 256 and 128 ms, the first that the note is long enough for
_MOST_PITCHED_NOTES, _FEWEST_PITCHED_NOTES = 80, 12
_HIGHEST_HZ = 4000.0
_HARMONICS = np.arange(1, 7)
_SHIFTS = np.arange(-24, 25)
_CLEARLY_BETTER = 1.5
# Piano, guitar, bass, strings, brass, reed, pipe: harmonic, without the sub-octave that organs and synthesizers add.
_HARMONIC_PROGRAMS = frozenset([*range(0, 8), *range(24, 31), *range(32, 38), *range(40, 47), *range(56, 80)])


@dataclass(frozen=True)
class Sound:
    """What is heard in a recording: the strength of onsets in each frame of 10 ms, and how noise-like it is."""

    strength: Float[np.ndarray, " frames"]
    flatness: float  # median of the louder frames, 0 to 1


@dataclass(frozen=True)
class OnsetFit:
    """How well labelled onsets match the onset strength, compared with the same labels shifted by up to 2 s.

    `best_lag_seconds` is the shift that matches the audio best (positive if the audio is late); `gain` how much
    better than no shift it is; `distinction` how much better than any other shift. In a steady beat, labels
    fit nearly as well one beat later.
    """

    best_lag_seconds: float
    gain: float
    distinction: float

    @property
    def is_doubtful(self) -> bool:
        """Whether the labels fit slightly better with a shift."""
        return self.gain > _DOUBTFUL_GAIN

    @property
    def is_wrong(self) -> bool:
        """Whether the labels do not fit without a shift."""
        return self.gain > _WRONG_GAIN

    @property
    def is_shifted(self) -> bool:
        """Whether they clearly fit best with one particular shift."""
        return self.is_wrong and self.distinction > _CLEARLY_ONE_PLACE


def listen(samples: Float[np.ndarray, " samples"]) -> Sound:
    """Onset strength and flatness of audio at 16 kHz; the strength has one frame every 10 ms."""
    window = np.hanning(_FFT_SAMPLES).astype(np.float32)
    padded = np.pad(samples, (_FFT_SAMPLES // 2, _FFT_SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT_SAMPLES)[::_HOP_SAMPLES]
    frames = frames[: len(samples) // _HOP_SAMPLES + 1]
    # Loud and soft recordings get the same floor.
    floor = _FLOOR * max(float(np.abs(samples).max(initial=0.0)), 1e-9) * _FFT_SAMPLES / 4
    strength = np.zeros(len(frames), np.float32)
    power, flatness = np.zeros(len(frames), np.float32), np.zeros(len(frames), np.float32)
    before = np.full((2, _FFT_SAMPLES // 2 + 1), np.log(floor), np.float32)
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        magnitude = np.abs(np.fft.rfft(frames[first : first + _FRAMES_AT_ONCE] * window)).astype(np.float32)
        chosen = slice(first, first + len(magnitude))
        squared = np.square(magnitude[:, 2:-8]) + np.float32(1e-12)
        power[chosen] = squared.mean(axis=1)
        flatness[chosen] = np.exp(np.log(squared).mean(axis=1)) / power[chosen]
        level = np.concatenate([before, np.log(magnitude + np.float32(floor))])
        strength[chosen] = np.maximum(level[2:] - level[:-2], 0).mean(axis=1)
        before = level[-2:]
    loud = power > max(1e-4 * float(power.max(initial=0.0)), 1e-9)
    return Sound(strength, float(np.median(flatness[loud])) if loud.any() else 0.0)


def onset_fit(sound: Sound, notes: NoteTable, slow_attacks: bool = False) -> OnsetFit | None:
    """Compares labels with audio; None if there are fewer than 30 different onsets.

    `slow_attacks` lets the audio be up to 200 ms late, for single instruments.
    """
    onsets = notes["onset"][notes["is_drum"] | ~np.isin(notes["program"], list(_WITHOUT_ONSETS))]
    frames, counts = np.unique(np.rint(onsets * FRAMES_PER_SECOND).astype(np.int64), return_counts=True)
    inside = (frames >= 0) & (frames < len(sound.strength))
    frames, weights = frames[inside], counts[inside] / max(counts[inside].sum(), 1)
    reach = _LONGEST_LAG_FRAMES
    if len(frames) < _FEWEST_ONSETS or len(sound.strength) <= reach:
        return None
    # The root prevents a few loud hits from deciding alone.
    padded = np.pad(np.sqrt(sound.strength), reach, mode="reflect")
    lags = np.arange(-reach, reach + 1)
    score = np.array([padded[frames + reach + lag] @ weights for lag in lags])
    score -= np.median(score)
    late = _SLOW_ATTACK_FRAMES if slow_attacks else _TOLERANCE_FRAMES
    own = score[(lags >= -_TOLERANCE_FRAMES) & (lags <= late)].max()
    best = int(np.argmax(score))
    others = score[np.abs(lags - lags[best]) > _TOLERANCE_FRAMES].max()
    return OnsetFit(
        best_lag_seconds=float(lags[best] / FRAMES_PER_SECOND),
        gain=float(min(score[best] / max(own, 1e-9), 99.0)),
        distinction=float(min(score[best] / max(others, 1e-9), 99.0)),
    )


def rate_ratio(sound: Sound, notes: NoteTable) -> float | None:
    """The factor by which the sample rate of wrongly played audio is too high, if a common one explains it."""
    for ratio in _RATE_RATIOS:
        stretched = notes.copy()
        stretched["onset"] /= ratio
        found = onset_fit(sound, stretched)
        if found and not found.is_doubtful and found.distinction > _CLEARLY_ONE_PLACE:
            return ratio
    return None


def is_noise(sound: Sound) -> bool:
    """Whether a recording of a pitched instrument is white noise."""
    return sound.flatness > _NOISE_FLATNESS


def pitch_shift(samples: Float[np.ndarray, " samples"], notes: NoteTable) -> int | None:
    """How many semitones audio at 16 kHz is above its labels: 0 if they agree, None if undecided.

    Uses notes that sound alone, of instruments with harmonic tones. A pitch is present if its harmonics are
    loud and the frequencies half-way between them are not; the latter distinguishes it from the octave below.
    """
    spectra, hz, lowest_hz = _spectra_of_single_notes(samples, notes)
    if len(spectra) < _FEWEST_PITCHED_NOTES:
        return None
    scores = np.full((len(spectra), len(_SHIFTS)), np.nan)
    for column, shift in enumerate(_SHIFTS):
        fundamental = hz * 2.0 ** (shift / 12)
        audible = (fundamental >= lowest_hz) & (fundamental <= _HIGHEST_HZ)
        scores[audible, column] = _salience(spectra[audible], fundamental[audible])
    enough = np.isfinite(scores).sum(axis=0) >= _FEWEST_PITCHED_NOTES
    means = np.where(enough, np.nansum(scores, axis=0) / np.maximum(np.isfinite(scores).sum(axis=0), 1), -np.inf)
    best, own = int(np.argmax(means)), means[_SHIFTS == 0][0]
    if not np.isfinite(own) or means[best] < 0.1:
        return None
    # The same notes must agree: not all of them reach down to every shift.
    both = np.isfinite(scores[:, best]) & np.isfinite(scores[:, _SHIFTS == 0][:, 0])
    votes = (scores[both, best] > scores[both][:, _SHIFTS == 0][:, 0]).mean() if both.any() else 0.0
    if means[best] > _CLEARLY_BETTER * max(own, 0.0) and votes > 0.8:
        return int(_SHIFTS[best])
    return 0


def _spectra_of_single_notes(samples: np.ndarray, notes: NoteTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Magnitudes (notes, bins), each with its loudest bin as 1; labelled fundamentals; lowest pitch that is clear."""
    order = np.argsort(notes["onset"], kind="stable")
    onset, offset = notes["onset"][order], notes["offset"][order]
    hz = 440.0 * 2.0 ** ((notes["pitch"][order] - 69) / 12)
    latest_end = np.concatenate([[-np.inf], np.maximum.accumulate(offset)[:-1]])
    start = onset + 0.03  # past the noise of the attack
    alone_seconds = np.minimum(offset + 0.1, np.concatenate([onset[1:], [np.inf]])) - start
    pitched = ~notes["is_drum"][order] & np.isin(notes["program"][order], list(_HARMONIC_PROGRAMS))
    spectra, chosen, lowest = [], [], []
    for index in np.flatnonzero(pitched & (latest_end < onset + 0.03)):
        first = round(start[index] * SAMPLE_RATE_HZ)
        window = next((size for size in _PITCH_WINDOWS if alone_seconds[index] * SAMPLE_RATE_HZ >= 0.8 * size), 0)
        part = samples[first : first + window]
        # A window must contain several periods, or harmonics merge.
        lowest_hz = 8 * SAMPLE_RATE_HZ / window / 1.05 if window else np.inf
        if len(part) < window or hz[index] < lowest_hz or np.abs(part).max() < 1e-3:
            continue
        magnitude = np.abs(np.fft.rfft(part * np.hanning(window), _PITCH_FFT_SAMPLES))
        spectra.append(magnitude / magnitude.max())
        chosen.append(index)
        lowest.append(lowest_hz)
        if len(spectra) == _MOST_PITCHED_NOTES:
            break
    return np.array(spectra).reshape(len(spectra), _PITCH_FFT_SAMPLES // 2 + 1), hz[chosen], np.array(lowest)


def _salience(spectra: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """Mean level of the harmonics minus that half-way between them, on a scale of decibels from 0 (-50 dB) to 1."""
    level = np.clip(1 + 20 * np.log10(spectra + 1e-9) / 50, 0, 1)
    return _mean_level(level, hz[:, None] * _HARMONICS) - _mean_level(level, hz[:, None] * (_HARMONICS - 0.5))


def _mean_level(level: np.ndarray, hz: np.ndarray) -> np.ndarray:
    """Mean over the columns of `hz` (notes, places) of the loudest bin within 1.5 % of each place."""
    bins_per_hz = _PITCH_FFT_SAMPLES / SAMPLE_RATE_HZ
    steps = np.linspace(-0.015, 0.015, 7)
    bins = np.rint(hz[..., None] * (1 + steps) * bins_per_hz).astype(np.int64)
    inside = bins[..., 3] < level.shape[1] - 1
    rows = np.arange(len(level))[:, None, None]
    loudest = level[rows, np.minimum(bins, level.shape[1] - 1)].max(axis=2)
    return (loudest * inside).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
