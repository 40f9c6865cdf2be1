"""Keys, chords, progressions and voicings. Pitches are MIDI numbers; a pitch class is a pitch modulo 12."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic_minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
# Degrees of the scale, from 0, one per bar.
PROGRESSIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "pop": ((0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4), (0, 3, 4, 3), (0, 2, 3, 4), (3, 4, 2, 5), (0, 3, 5, 4)),
    "jazz": ((1, 4, 0, 0), (0, 5, 1, 4), (2, 5, 1, 4), (1, 4, 2, 5), (3, 6, 2, 5), (0, 3, 1, 4), (5, 1, 4, 0)),
    "classical": ((0, 4, 0, 4), (0, 3, 4, 0), (0, 5, 3, 1, 4, 4, 0, 0), (0, 4, 5, 2, 3, 0, 3, 4), (0, 1, 4, 0)),
    "blues": ((0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4), (0, 3, 0, 0, 3, 3, 0, 0, 4, 3, 0, 0)),
    "modal": ((0, 6, 0, 6), (0, 3, 0, 3), (0, 1, 0, 1), (0, 6, 5, 6), (0, 0, 3, 0), (0, 2, 6, 0)),
    "fifths": ((0, 3, 6, 2, 5, 1, 4, 0), (5, 1, 4, 0, 3, 6, 2, 5)),
    "drone": ((0,), (0, 0, 0, 6)),
}
VOCABULARIES = ("triads", "sevenths", "ninths", "suspended", "power", "dominants", "open")
_SECONDARY_DOMINANTS = 0.12  # share of bars whose second half leads to the next chord by its dominant


@dataclass(frozen=True)
class Key:
    """A tonic (pitch class) and a mode of `MODES`."""

    tonic: int
    mode: str

    @property
    def scale(self) -> tuple[int, ...]:
        return MODES[self.mode]

    def pitch(self, degree: int) -> int:
        """The pitch of a degree counted from the tonic in octave 0 (MIDI 0 to 11); 7 degrees are an octave."""
        octave, step = divmod(degree, len(self.scale))
        return 12 * octave + self.tonic + self.scale[step]

    def degrees(self, low: int, high: int) -> list[int]:
        """The degrees with pitches from `low` to `high`."""
        return [degree for degree in range(80) if low <= self.pitch(degree) <= high]


@dataclass(frozen=True)
class Chord:
    """A root (pitch class) and semitones above it, starting with 0."""

    root: int
    intervals: tuple[int, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys((self.root + interval) % 12 for interval in self.intervals))


def diatonic(key: Key, degree: int, vocabulary: str, rng: np.random.Generator) -> Chord:
    """The chord on a degree of the key, in one of `VOCABULARIES`."""
    root = key.pitch(degree)
    sizes = {"sevenths": 4, "ninths": 5}
    stacked = tuple(key.pitch(degree + 2 * place) - root for place in range(sizes.get(vocabulary, 3)))
    if vocabulary == "power":
        stacked = (0, 7)
    elif vocabulary == "dominants":
        stacked = (0, 4, 7, 10)
    elif vocabulary == "open":
        stacked = (0, 7, 14)
    elif vocabulary == "suspended" and rng.random() < 0.4:
        stacked = (0, 5, 7) if rng.random() < 0.6 else (0, 2, 7)
    return Chord(root % 12, stacked)


def chord_bars(key: Key, family: str, vocabulary: str, bars: int, rng: np.random.Generator) -> list[list[Chord]]:
    """Chords for this many bars, one or two per bar, from a repeated progression of a family."""
    choices = PROGRESSIONS[family]
    degrees = choices[int(rng.integers(len(choices)))]
    halves = family != "blues" and rng.random() < 0.3  # two degrees of the progression share a bar
    result = []
    for bar in range(bars):
        here = (
            [degrees[(2 * bar + half) % len(degrees)] for half in range(2)] if halves else [degrees[bar % len(degrees)]]
        )
        chords = [diatonic(key, degree, vocabulary, rng) for degree in here]
        following = degrees[(bar + 1) % len(degrees)]
        leads = len(chords) == 1 and vocabulary in ("triads", "sevenths", "ninths")
        if leads and rng.random() < _SECONDARY_DOMINANTS:
            chords.append(Chord((key.pitch(following) + 7) % 12, (0, 4, 7, 10)))
        result.append(chords)
    return result


@lru_cache(maxsize=1 << 14)
def voiced(chord: Chord, low: int, high: int, count: int, near: float, wide: bool = False) -> tuple[int, ...]:
    """At most `count` pitches of a chord between `low` and `high`, ascending, with their middle closest to `near`.

    `wide` uses every second of the available pitches.
    """
    pitches = [pitch for pitch in range(low, high + 1) if pitch % 12 in chord.classes]
    step = 2 if wide and len(pitches) >= 2 * count else 1
    begins = range(max(1, len(pitches) - step * (count - 1)))
    windows = [tuple(pitches[at : at + step * count : step]) for at in begins]
    return min(windows, key=lambda window: abs(sum(window) / len(window) - near)) if pitches else ()


@lru_cache(maxsize=1 << 16)
def nearest(classes: tuple[int, ...], pitch: int, low: int, high: int) -> int:
    """The pitch of these classes in the range that is closest to `pitch`."""
    within = [one for one in range(low, high + 1) if one % 12 in classes]
    return min(within, key=lambda one: (abs(one - pitch), one)) if within else min(max(pitch, low), high)
