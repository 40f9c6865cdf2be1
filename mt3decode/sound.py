"""What a recording itself says about an onset that windows hear: how loud its partials are before, at and after it.

The network writes what it hears, but hardly how well it hears it: to it, a note an octave too high, or one that rang on
from before, looks much like a right one. So the levels of the recording are weighed beside the windows' word
(`agreement.py`). They come from two spectra: a long one tells semitones apart, a short one tells when. Each window
gives those of its kept part, where both have all their samples within it; so they are the same whether a recording is
read whole, in pieces or in part. All are natural logarithms of amplitudes, a row for each frame.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mt3core.config.model import ModelConfig, SpectrogramConfig
from mt3core.segments import AudioSegment

Rows = Float[np.ndarray, "frames levels"]
LONG_SECONDS, SHORT_SECONDS = 0.256, 0.064
LOWEST_PITCH, HIGHEST_PITCH = 9, 119
_SEMITONES_BESIDE = 0.45  # of a pitch that count as it
_BANDS_HZ = ((30, 120), (120, 300), (300, 900), (900, 2500), (2500, 5000), (5000, 8000))
_LEAST = 1e-5
_NUM_PITCHES = HIGHEST_PITCH - LOWEST_PITCH + 1
_LONG, _SHORT = 0, _NUM_PITCHES  # the first columns of the two spectra's pitches
_BANDS = slice(2 * _NUM_PITCHES, 2 * _NUM_PITCHES + len(_BANDS_HZ))
_LEVEL = 2 * _NUM_PITCHES + len(_BANDS_HZ)
NUM_LEVELS = _LEVEL + 1
# In semitones above a pitch: itself and its partials up to the sixth, what would be there an octave lower or between
# the partials if it were a partial itself, and its neighbours.
_PARTIALS = np.array([0, 12, 19, 24, 28, 31, -12, 7, 16, -1, 1])
_STRONGEST = np.array([0, 12, 19, 24])
# Drum keys of General MIDI: bass drums, snares, hi-hats, cymbals; all others are the last kind.
_DRUM_KINDS = ((35, 36), (37, 38, 39, 40), (42, 44, 46), (49, 51, 52, 53, 55, 57, 59))
# Frames from an onset, the first and the one after the last; of 16 ms with `small`, so that a long spectrum has 16.
_LONG_BEFORE, _LONG_AT, _LONG_AFTER = (-8, -2), (1, 6), (8, 16)
_SHORT_BEFORE, _SHORT_AT, _DRUM_BEFORE, _DRUM_AFTER = (-4, -1), (-1, 4), (-5, -1), (5, 9)
_NEAR, _AROUND = (-1, 6), (-64, 16)
FRAMES_BEFORE, FRAMES_AFTER = 64, 16  # of an onset, which matter to its features
NUM_PITCHED_FEATURES = 3 * len(_PARTIALS) + 2 * len(_STRONGEST) + 2
NUM_DRUM_FEATURES = 4 * len(_BANDS_HZ) + len(_DRUM_KINDS) + 1


class Levels(NamedTuple):
    """The levels of frames that follow one another, and which frame of the recording is the first."""

    first_frame: int
    rows: Rows


def levels_of(
    window: AudioSegment, samples: Float[np.ndarray, " samples"], hop: int, is_last: bool, config: ModelConfig
) -> Levels:
    """Those of a window's own frames, which no other gives: its middle, and what is outside of all middles.

    `samples` are the recording's from the window's start on, and `hop` is the number of frames between windows.
    """
    edge = (config.network.input_frames - hop) // 2
    frames = range(edge if window.index else 0, window.num_frames if is_last else edge + hop)
    own = samples[: window.num_frames * config.spectrogram.hop_samples]
    return Levels(window.first_frame + frames.start, levels(own, frames, config.spectrogram))


def levels(samples: Float[np.ndarray, " samples"], frames: range, config: SpectrogramConfig) -> Rows:
    """Those of some frames of these samples, the first of which begins with sample 0; around them is silence."""
    spectra = _spectra(config)
    long, short = (spectrum(samples, frames) for spectrum in spectra)
    rows = np.empty((len(frames), NUM_LEVELS), np.float32)
    for spectrum, amplitudes, first in zip(spectra, (long, short), (_LONG, _SHORT), strict=True):
        rows[:, first : first + _NUM_PITCHES] = spectrum.loudest(amplitudes)
    power = np.square(short)
    rows[:, _BANDS] = np.sqrt(np.stack([power[:, band].sum(axis=1) for band in spectra[1].bands], axis=1))
    rows[:, _LEVEL] = np.sqrt(power.sum(axis=1))
    return np.log(rows + _LEAST)


class _Spectrum:
    """Amplitudes of a Hann window of so many seconds, centred on the start of each frame."""

    def __init__(self, seconds: float, config: SpectrogramConfig) -> None:
        rate_hz, self._hop = config.sample_rate_hz, config.hop_samples
        self._size = size = 2 ** round(math.log2(seconds * rate_hz))
        window = np.hanning(size + 1)[:-1].astype(np.float32)
        self._window = window / window.sum()
        last = size // 2  # bin
        edges: list[int] = []
        for pitch in range(LOWEST_PITCH, HIGHEST_PITCH + 1):
            low, high = (
                440 * 2 ** ((pitch - 69 + beside) / 12) * size / rate_hz
                for beside in (-_SEMITONES_BESIDE, _SEMITONES_BESIDE)
            )
            # The bins within, or if these are few, those around.
            first, end = (math.ceil(low), math.floor(high)) if high - low > 2 else (math.floor(low), math.ceil(high))
            edges += [min(first, last), min(end, last) + 1]
        self._edges = edges
        self.bands = [slice(int(low * size / rate_hz) or 1, int(high * size / rate_hz) + 1) for low, high in _BANDS_HZ]

    def __call__(self, samples: Float[np.ndarray, " samples"], frames: range) -> Float[np.ndarray, "frames bins"]:
        size = self._size
        begin = frames.start * self._hop - size // 2
        end = begin + (len(frames) - 1) * self._hop + size
        own = samples[max(begin, 0) : max(end, 0)]
        before = max(-begin, 0)
        padded = np.pad(own, (before, max(end - begin - before - len(own), 0)))
        around = np.lib.stride_tricks.sliding_window_view(padded, size)[:: self._hop]
        return np.abs(np.fft.rfft(around * self._window, axis=1)).astype(np.float32)

    def loudest(self, amplitudes: Float[np.ndarray, "frames bins"]) -> Float[np.ndarray, "frames pitches"]:
        """The loudest bin of each pitch."""
        edged = np.concatenate([amplitudes, np.zeros_like(amplitudes[:, :1])], axis=1)  # an edge must be a bin
        return np.maximum.reduceat(edged, self._edges, axis=1)[:, ::2]


@lru_cache
def _spectra(config: SpectrogramConfig) -> tuple[_Spectrum, _Spectrum]:
    return _Spectrum(LONG_SECONDS, config), _Spectrum(SHORT_SECONDS, config)


class SoundSoFar:
    """The levels of a recording's frames, added in order and forgotten in order."""

    def __init__(self) -> None:
        self._first: int | None = None  # frame of those that are known
        self._rows: Rows = np.zeros((0, NUM_LEVELS), np.float32)

    def add(self, levels: Levels) -> None:
        """Frames that follow those before; the first to be added may be anywhere in the recording."""
        if self._first is None:
            self._first = levels.first_frame
        self._rows = np.concatenate([self._rows, levels.rows])

    def forget(self, until: int) -> None:
        """The frames before one."""
        if self._first is not None and until > self._first:
            count = min(until - self._first, len(self._rows))
            self._rows, self._first = self._rows[count:], self._first + count

    def pitched(self, frame: int, pitch: int) -> list[float]:
        """Features of a pitched onset."""
        level = self._span(frame, _NEAR, _LEVEL).max()
        columns = _within(pitch - LOWEST_PITCH + _PARTIALS)
        before = _mean(self._span(frame, _LONG_BEFORE, columns))
        at = self._span(frame, _LONG_AT, columns).max(axis=0)
        after = _mean(self._span(frame, _LONG_AFTER, columns))
        columns = _SHORT + _within(pitch - LOWEST_PITCH + _STRONGEST)
        short_before = self._span(frame, _SHORT_BEFORE, columns).min(axis=0)
        short_at = self._span(frame, _SHORT_AT, columns).max(axis=0)
        level_rise = self._span(frame, _SHORT_AT, _LEVEL).max() - self._span(frame, _SHORT_BEFORE, _LEVEL).min()
        return [
            *_clipped(at - before, -2, 4).tolist(),
            *np.maximum(at - level, -8).tolist(),
            *_clipped(after - at, -3, 1).tolist(),
            *_clipped(short_at - short_before, -2, 5).tolist(),
            *np.maximum(short_at - level, -8).tolist(),
            float(level - self._span(frame, _AROUND, _LEVEL).max()),
            min(max(float(level_rise), 0.0), 5.0),
        ]

    def drum(self, frame: int, key: int) -> list[float]:
        """Features of a drum hit."""
        at = self._span(frame, _SHORT_AT, _BANDS).max(axis=0)
        level = self._span(frame, _SHORT_AT, _LEVEL).max()
        kinds = [float(key in keys) for keys in _DRUM_KINDS]
        return [
            *_clipped(at - self._span(frame, _DRUM_BEFORE, _BANDS).min(axis=0), -1, 5).tolist(),
            *(at - self._span(frame, _AROUND, _BANDS).max(axis=0)).tolist(),
            *_clipped(_mean(self._span(frame, _DRUM_AFTER, _BANDS)) - at, -4, 1).tolist(),
            *np.maximum(at - level, -8).tolist(),
            *kinds,
            1.0 - sum(kinds),
        ]

    def _span(self, frame: int, span: tuple[int, int], columns: int | slice | np.ndarray) -> np.ndarray:
        """Of the frames around one that exist, or of the nearest."""
        assert self._first is not None
        here, count = frame - self._first, len(self._rows)
        begin, end = max(here + span[0], 0), min(here + span[1], count)
        if begin >= end:
            begin = min(begin, count - 1)
            end = begin + 1
        rows = self._rows[begin:end]
        return rows.take(columns, axis=1) if isinstance(columns, np.ndarray) else rows[:, columns]


# There are dozens of candidates in a second: NumPy's own `clip` and `mean` take much longer.


def _clipped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.minimum(np.maximum(values, low), high)


def _mean(rows: np.ndarray) -> np.ndarray:
    return np.add.reduce(rows, axis=0) / np.float32(len(rows))


def _within(columns: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(columns, 0), _NUM_PITCHES - 1)
