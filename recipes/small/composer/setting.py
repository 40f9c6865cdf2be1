"""The input of a texture: bars with their chords, and the setting of an instrument in a section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from composer.harmony import Chord, Key

# Start and length in quarters from the start of the piece, pitch, and strength relative to the layer's (velocity).
Event = tuple[float, float, int, float]
_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Metre:
    """A bar's length in quarters, with beats of `beat_quarters`; `compound` metres divide the beat by three."""

    name: str
    quarters: float
    beat_quarters: float

    @property
    def compound(self) -> bool:
        return self.beat_quarters == 1.5


METRES = {"4/4": Metre("4/4", 4.0, 1.0), "3/4": Metre("3/4", 3.0, 1.0), "6/8": Metre("6/8", 3.0, 1.5)}


@dataclass(frozen=True)
class Bar:
    """A bar: where it starts (quarters) and its chords, of equal length."""

    begin: float
    metre: Metre
    chords: tuple[Chord, ...]
    number: int  # in its section

    def chord_at(self, at: float) -> Chord:
        place = int((at - self.begin + 1e-6) / self.metre.quarters * len(self.chords))
        return self.chords[min(max(place, 0), len(self.chords) - 1)]

    def changes(self) -> list[tuple[float, float, Chord]]:
        """Start, length and chord of each change."""
        length = self.metre.quarters / len(self.chords)
        return [(self.begin + place * length, length, chord) for place, chord in enumerate(self.chords)]

    def steps(self, unit: float) -> list[float]:
        """Every `unit` quarters of the bar."""
        return [self.begin + place * unit for place in range(round(self.metre.quarters / unit))]


@dataclass(frozen=True)
class Setting:
    """An instrument in a section: its range, the key, the tempo and the random generator."""

    rng: np.random.Generator
    low: int
    high: int
    key: Key
    metre: Metre
    quarters_per_minute: float
    triplets: bool  # the section divides beats by three
    shortest_seconds: float  # between two notes of one line

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def quarters(self, seconds: float) -> float:
        return seconds * self.quarters_per_minute / 60

    def unit(self, *wanted: float) -> float:
        """One of these divisions (in quarters) that is not too fast to play; with triplets one that fits them."""
        if self.triplets and not self.metre.compound:
            wanted = tuple({0.25: 1 / 3, 0.5: 1 / 3, 0.125: 1 / 6}.get(one, one) for one in wanted)
        possible = [one for one in wanted if one >= self.quarters(self.shortest_seconds)]
        return float(self.rng.choice(possible or [max(wanted)]))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, choices: Sequence[_Choice]) -> _Choice:
        return choices[int(self.rng.integers(len(choices)))]


Texture = Callable[[Bar], list[Event]]
