"""The key of a piece, and how its notes are spelled in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mt3core.notes.table import Note

# How well each step of a chromatic scale fits a key: Krumhansl and Kessler's ratings of probe tones (1982).
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_MOST_SECONDS = 2.0  # a longer note counts no more
# Names on the line of fifths, C at 0; those of a key lie from three below to eight above its major tonic.
_STEPS_BY_FIFTHS = "FCGDAEB"
_LOWEST_OF_KEY = -3
_MOST_ACCIDENTALS = 6


@dataclass(frozen=True)
class Key:
    """A key signature: sharps (flats, if negative), from -6 to 6, and whether the key is a minor one."""

    fifths: int = 0
    is_minor: bool = False

    def spelled(self, pitch: int) -> tuple[str, int, int]:
        """(step, alteration in semitones, octave) of a MIDI pitch; 60 is ("C", 0, 4)."""
        lowest = self.fifths + _LOWEST_OF_KEY
        fifths = lowest + (7 * pitch - lowest) % 12
        alteration, place = divmod(fifths + 1, 7)
        octave = (pitch - alteration) // 12 - 1
        return _STEPS_BY_FIFTHS[place], alteration, octave


def find_key(notes: Iterable[Note]) -> Key:
    """The key whose scale the pitched notes fit best, by correlation; C major without notes."""
    weights = np.zeros(12)
    for note in notes:
        if not note.is_drum:
            weights[note.pitch % 12] += min(note.offset - note.onset, _MOST_SECONDS)
    if weights.std() == 0:
        return Key()
    scores = []
    for is_minor, profile in ((False, _MAJOR), (True, _MINOR)):
        for tonic in range(12):
            fit = float(np.corrcoef(np.roll(profile, tonic), weights)[0, 1])
            fifths = (7 * (tonic + 3 * is_minor) + 5) % 12 - 5  # of the major key with the same signature, -5 to 6
            scores.append((fit, fifths, is_minor))
    _, fifths, is_minor = max(scores)
    return Key(fifths, is_minor)
