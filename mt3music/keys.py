"""The key of a piece, and how its notes are spelled in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mt3core.notes.table import Note

# How often each step of a scale is heard in pieces of a key, from the tonic: Albrecht and Shanahan, "The use of large
# corpora to train a new type of key-finding algorithm" (2013).
_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
_MOST_SECONDS = 2.0  # a longer note counts no more
# Names on the line of fifths, C at 0; those of a key lie from three below to eight above its major tonic.
_STEPS_BY_FIFTHS = "FCGDAEB"
_LOWEST_OF_KEY, _LEADING_OF_MINOR = -3, 8
_SHARPEST = 12  # B sharp
_MOST_ACCIDENTALS = 6


@dataclass(frozen=True)
class Key:
    """A key signature: sharps (flats, if negative), from -6 to 6, and whether the key is a minor one."""

    fifths: int = 0
    is_minor: bool = False

    def spelled(self, pitch: int) -> tuple[str, int, int]:
        """(step, alteration in semitones, octave) of a MIDI pitch; 60 is ("C", 0, 4).

        A double sharp is written as the leading note of a minor key only.
        """
        lowest = self.fifths + _LOWEST_OF_KEY
        fifths = lowest + (7 * pitch - lowest) % 12
        leading = self.fifths + _LEADING_OF_MINOR
        if fifths > _SHARPEST and not (self.is_minor and fifths == leading):
            fifths -= 12
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
