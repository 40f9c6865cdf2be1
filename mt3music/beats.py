"""Finds the beats of a recording in a curve of onset strength and in its notes.

The curve's autocorrelation in windows of eight seconds says how strong each tempo is at each time, and the best path
through it, which changes tempo only for good reasons, is a tempo at each time (Viterbi). Its relatives (half, double,
two thirds, ...) are tried as well. A tempo that the whole recording keeps to gives four even grids, a quarter of a beat
apart. Any other is followed by the chain of moments with the most strength whose distances fit it (dynamic programming
after Ellis, "Beat Tracking by Dynamic Programming", 2007), or by the moments between them. Which of all these is meant
is decided in `beat_level.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int

from mt3core.notes.table import NoteTable
from mt3music.beat_level import BeatLevels, unusual
from mt3music.onset_strength import FRAMES_PER_SECOND

SLOWEST, FASTEST = 48.0, 230.0  # beats per minute
RELATIVES = (1.0, 1 / 2, 2.0, 2 / 3, 3 / 2, 3 / 4, 4 / 3, 1 / 3, 3.0)
_TEMPOS_PER_OCTAVE = 48
_WINDOW_FRAMES, _HOP_FRAMES = 8 * FRAMES_PER_SECOND, FRAMES_PER_SECOND
_PATH_PENALTY = 60.0  # per squared octave that the tempo changes in a second,
_MOST_PENALTY = 1.5  # but no more: a sudden change is possible
_USUAL_SHARE = 0.25  # of how usual a tempo is, beside its autocorrelation
_TIGHTNESS = 150.0  # how much a distance that is off costs, per squared natural logarithm
_LEAST_STRENGTH = 0.05  # of the autocorrelation: below it nothing repeats
_LEAST_ONSETS = 8
_LEAST_BEATS = 4
_STEADY = 0.8  # how well the windows of a recording must agree on a grid
# A grid fits two tempos of a simple relation. If this share of the windows lost so much with one tempo, there are two.
_MOST_LOST, _CHANGED_SHARE = 0.15, 0.38
_NEAR_TEMPO = 0.012  # a tempo of the path is known this well
_SAME_TEMPO = 0.02  # natural logarithm
_FINE_TEMPO = 1e-4
_HARMONICS = (1, 2, 4)  # beats, halves and quarters of beats show a tempo
_SMOOTHED_BEATS = 2  # on each side


@dataclass(frozen=True, eq=False)
class Beats:
    """Times of the beats in seconds, and whether they have one steady tempo."""

    seconds: Float[np.ndarray, " beats"]
    is_steady: bool


def find_beats(strength: Float[np.ndarray, " frames"], notes: NoteTable) -> Beats | None:
    """The beats of a curve of 100 frames a second; None if too little begins, or nothing repeats."""
    if len(strength) < 2 * FRAMES_PER_SECOND or _num_peaks(strength) < _LEAST_ONSETS:
        return None
    found = _periods(strength)
    if found is None:
        return None
    levels = BeatLevels(strength, notes)
    candidates = list(_candidates(strength, *found))
    if not candidates:
        return None
    best = max(candidates, key=lambda beats: levels.score(np.rint(beats.seconds * FRAMES_PER_SECOND).astype(int)))
    return best if best.is_steady else Beats(_smoothed(best.seconds), False)


def _num_peaks(strength: Float[np.ndarray, " frames"]) -> int:
    middle = strength[1:-1]
    return int(np.count_nonzero((middle > strength[:-2]) & (middle >= strength[2:]) & (middle > 1.0)))


def _candidates(
    strength: Float[np.ndarray, " frames"], periods: Float[np.ndarray, " frames"], whole: float, may_be_steady: bool
) -> Iterator[Beats]:
    """Grids of the periods at each frame, of that of the whole recording, and of their relatives."""
    middle = float(np.median(periods))
    tried: list[float] = []
    for relative, is_whole in product(RELATIVES, (False, True) if may_be_steady else (False,)):
        period = (whole if is_whole else middle) * relative
        if not FASTEST >= 60 * FRAMES_PER_SECOND / period >= SLOWEST:
            continue
        if any(abs(np.log(period / one)) < _SAME_TEMPO for one in tried):
            continue
        tried.append(period)
        period, start, agreement = steady_grid(strength, period) if may_be_steady else (period, 0.0, 0.0)
        if agreement >= _STEADY:
            for quarter in range(4):
                frames = np.arange(start + quarter * period / 4, len(strength) - 1, period)
                if len(frames) >= _LEAST_BEATS:
                    yield Beats(frames / FRAMES_PER_SECOND, True)
            continue
        if is_whole:
            continue
        chained = chain(strength, periods * relative) / FRAMES_PER_SECOND
        if len(chained) > _LEAST_BEATS:
            yield Beats(chained, False)
            yield Beats((chained[:-1] + chained[1:]) / 2, False)


def _periods(strength: Float[np.ndarray, " frames"]) -> tuple[Float[np.ndarray, " frames"], float, bool] | None:
    """Frames per beat at each frame, and in the whole recording; whether it may be one. None if nothing repeats."""
    count = round(np.log2(FASTEST / SLOWEST) * _TEMPOS_PER_OCTAVE)
    tempos = SLOWEST * 2 ** (np.arange(count + 1) / _TEMPOS_PER_OCTAVE)
    lags = 60 * FRAMES_PER_SECOND / tempos
    padded = np.pad(strength - strength.mean(), _WINDOW_FRAMES // 2)
    starts = range(0, len(strength), _HOP_FRAMES)
    saliences = np.array([_salience(padded[start : start + _WINDOW_FRAMES], lags) for start in starts])
    if saliences.max() < _LEAST_STRENGTH:
        return None
    path = _best_path(saliences - _USUAL_SHARE * unusual(tempos), tempos)
    whole = float(lags[saliences.mean(axis=0).argmax()])
    middle = int(np.median(path))
    around = saliences[:, max(middle - 1, 0) : middle + 2].max(axis=1)
    lost = saliences[np.arange(len(path)), path] - around
    octaves = np.log2(lags[path] / lags[middle])
    is_octave = (np.abs(octaves) > 0.5) & (np.abs(octaves - np.rint(octaves)) < _SAME_TEMPO)
    may_be_steady = bool(np.mean((lost > _MOST_LOST) & ~is_octave) < _CHANGED_SHARE)
    periods = np.interp(np.arange(len(strength)), np.arange(len(path)) * _HOP_FRAMES, lags[path])
    return periods, whole, may_be_steady


def _salience(window: Float[np.ndarray, " frames"], lags: Float[np.ndarray, " tempos"]) -> Float[np.ndarray, " tempos"]:
    """The mean autocorrelation of a window at one, two, three and four beats of each tempo, at most 1."""
    correlation = autocorrelation(window * np.hanning(len(window)))
    places = np.arange(len(correlation))
    return np.mean([np.interp(lags * beats, places, correlation) for beats in (1, 2, 3, 4)], axis=0)


def autocorrelation(signal: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " lags"]:
    """By lag in frames, 1 at lag 0; zeros for silence."""
    size = 1 << (2 * len(signal) - 1).bit_length()
    found = np.fft.irfft(np.abs(np.fft.rfft(signal, size)) ** 2, size)[: len(signal)]
    return found / found[0] if found[0] > 1e-9 else np.zeros(len(signal))


def _best_path(
    saliences: Float[np.ndarray, "windows tempos"], tempos: Float[np.ndarray, " tempos"]
) -> Int[np.ndarray, " windows"]:
    octaves = np.log2(tempos)
    change = -np.minimum(_PATH_PENALTY * (octaves[:, None] - octaves[None, :]) ** 2, _MOST_PENALTY)
    score, came_from = saliences[0], []
    for row in saliences[1:]:
        ways = score[:, None] + change
        came_from.append(ways.argmax(axis=0))
        score = ways.max(axis=0) + row
    path = [int(score.argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def chain(strength: Float[np.ndarray, " frames"], periods: Float[np.ndarray, " frames"]) -> Int[np.ndarray, " beats"]:
    """The frames of the beats: the chain with the most strength whose distances fit the periods."""
    total, came_from = strength.astype(np.float64), np.full(len(strength), -1)
    for frame in range(len(strength)):
        period = periods[frame]
        first, last = max(frame - round(2 * period), 0), frame - max(round(period / 2), 1)
        if last < 0:
            continue
        before = np.arange(first, last + 1)
        scores = total[before] - _TIGHTNESS * np.log((frame - before) / period) ** 2
        best = int(scores.argmax())
        if scores[best] > 0:
            total[frame] += scores[best]
            came_from[frame] = before[best]
    end = max(len(strength) - 1 - round(2 * float(np.median(periods))), 0)
    frame, found = end + int(total[end:].argmax()), []
    while frame >= 0:
        found.append(frame)
        frame = int(came_from[frame])
    return np.array(found[::-1])


def steady_grid(strength: Float[np.ndarray, " frames"], period: float) -> tuple[float, float, float]:
    """The even grid near a period of frames: its own period, a place of it, and how well the whole recording agrees.

    The place is that of a quarter of a beat. The agreement is 1 if all windows of eight seconds have the same phase.
    """
    signal, times = strength - strength.mean(), np.arange(len(strength))

    def power(periods: Float[np.ndarray, " periods"]) -> Float[np.ndarray, " periods"]:
        turns = np.exp(2j * np.pi * times / periods[:, None])
        return np.asarray(sum(np.abs((turns**harmonic) @ signal) for harmonic in _HARMONICS))

    # A peak of the spectrum is as narrow as the recording is long; four values across it are enough.
    step = max(period / len(strength) / _HARMONICS[-1] / 4, _FINE_TEMPO / 4)
    wide = period * (1 + np.arange(-_NEAR_TEMPO, _NEAR_TEMPO, step))
    size = 1 << (8 * len(strength) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(signal, size))
    powers = np.sum([spectrum[np.rint(harmonic * size / wide).astype(int)] for harmonic in _HARMONICS], axis=0)
    fine = wide[powers.argmax()] * (1 + step * np.linspace(-1, 1, 17))
    period = float(fine[power(fine).argmax()])
    # Windows count by how much begins in them, not by how well they fit.
    starts = range(0, len(signal), _WINDOW_FRAMES // 2)
    weights = np.array([strength[start : start + _WINDOW_FRAMES].sum() for start in starts])
    agreement = 0.0
    for harmonic in (2, 4):
        turned = signal * np.exp(2j * np.pi * harmonic * times / period)
        parts = np.array([turned[start : start + _WINDOW_FRAMES].sum() for start in starts])
        phases = parts / np.maximum(np.abs(parts), 1e-9)
        agreement = max(agreement, float(abs((phases * weights).sum()) / (weights.sum() + 1e-9)))
    place = float(np.angle(turned.sum()) / (2 * np.pi)) * period / 4
    return period, place % (period / 4), agreement


def _smoothed(seconds: Float[np.ndarray, " beats"]) -> Float[np.ndarray, " beats"]:
    """Each beat on the line through it and its neighbours; the frames of the curve and small errors vanish."""
    numbers, smooth = np.arange(len(seconds), dtype=np.float64), seconds.copy()
    for place in range(len(seconds)):
        near = slice(max(place - _SMOOTHED_BEATS, 0), place + _SMOOTHED_BEATS + 1)
        weights = 1.0 / (1.0 + np.abs(numbers[near] - place))
        smooth[place] = np.polyval(np.polyfit(numbers[near], seconds[near], 1, w=weights), place)
    return smooth if (np.diff(smooth) > 0).all() else seconds
