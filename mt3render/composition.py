"""Short pieces composed by rule from a seed: music that a small network can learn to transcribe in minutes.

A bass, a guitar that breaks chords, a flute and drums, each in a range of its own and with one note at a time. Key,
tempo, chords and lines differ from piece to piece; the harmony is diatonic, on an eighth-note grid.
"""

from __future__ import annotations

import numpy as np

from mt3core.notes.table import Note
from mt3render.variation import generator

GUITAR, BASS, FLUTE = 24, 33, 73  # General MIDI programs, counted from 0
KICK, SNARE, CLOSED_HAT = 36, 38, 42  # General MIDI drum notes
NUM_BARS = 6
EIGHTHS_PER_BAR = 8
KEYS = (0, 5, 7)  # C, F and G major: ten pitch classes
QUARTERS_PER_MINUTE = (84.0, 132.0)
_SCALE = (0, 2, 4, 5, 7, 9, 11)
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 4), (5, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 0))
_LOWEST = {BASS: 38, GUITAR: 55, FLUTE: 74}  # the octave and a half above these
_BASS_RHYTHMS = ((0, 4), (0, 3, 4, 7), (0, 2, 4, 6), (0, 4, 6))  # eighths of a bar at which a note starts
_FLUTE_RHYTHMS = ((0, 2, 4), (0, 3, 4, 6), (0, 1, 2, 4), (0, 4), (2, 4, 6), (0, 2, 3, 4, 6))
_GUITAR_RHYTHMS = ((0, 2, 4, 6), (0, 1, 2, 4, 6), (0, 2, 3, 4, 6, 7))
_GUITAR_ORDERS = ((0, 1, 2, 3), (0, 2, 1, 2), (2, 1, 0, 1), (0, 1, 2, 1))  # of the chord's notes
_SNARES = ((2, 6), (2, 6, 7), (4,))
_KICKS = ((0, 4), (0, 3, 4), (0, 5))
_GAP_SECONDS = 0.03  # so that a repeated note is struck again
_HIT_SECONDS = 0.05


def compose(number: int, seed: int = 0) -> list[Note]:
    """Piece `number` of a seed, sorted by onset; times in seconds on whole milliseconds."""
    rng = generator(seed, "composition", str(number))
    eighth_seconds = 30.0 / rng.uniform(*QUARTERS_PER_MINUTE)
    key = int(rng.choice(KEYS))
    progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
    notes: list[Note] = []
    for bar in range(NUM_BARS):
        root = progression[bar % len(progression)]
        begin = bar * EIGHTHS_PER_BAR
        for line in (_bass(rng, key, root), _guitar(rng, key, root), _flute(rng, key, root)):
            notes += [
                _note(begin + at, length, pitch, program, rng, eighth_seconds) for at, length, pitch, program in line
            ]
        notes += [_hit(begin + at, pitch, rng, eighth_seconds) for at, pitch in _drums(rng)]
    return sorted(notes, key=lambda note: (note.onset, note.is_drum, note.program, note.pitch))


_Line = list[tuple[int, int, int, int]]  # eighth in the bar, length in eighths, pitch, program


def _bass(rng: np.random.Generator, key: int, root: int) -> _Line:
    rhythm = _BASS_RHYTHMS[rng.integers(len(_BASS_RHYTHMS))]
    degrees = [root, *(root + int(rng.choice((0, 0, 4, 2))) for _ in rhythm[1:])]
    return _melody(BASS, key, rhythm, degrees)


def _guitar(rng: np.random.Generator, key: int, root: int) -> _Line:
    order = _GUITAR_ORDERS[rng.integers(len(_GUITAR_ORDERS))]
    chord = (root, root + 2, root + 4, root + 7)
    rhythm = _GUITAR_RHYTHMS[rng.integers(len(_GUITAR_RHYTHMS))]
    return _melody(GUITAR, key, rhythm, [chord[order[place % len(order)]] for place in range(len(rhythm))])


def _flute(rng: np.random.Generator, key: int, root: int) -> _Line:
    rhythm = _FLUTE_RHYTHMS[rng.integers(len(_FLUTE_RHYTHMS))]
    degree = root + int(rng.choice((0, 2, 4)))
    degrees = []
    for _ in rhythm:
        degrees.append(degree)
        degree += int(rng.choice((-2, -1, -1, 1, 1, 2)))
    return _melody(FLUTE, key, rhythm, degrees)


def _melody(program: int, key: int, rhythm: tuple[int, ...], degrees: list[int]) -> _Line:
    """One note after the other, each until the next starts."""
    ends = (*rhythm[1:], EIGHTHS_PER_BAR)
    spans = zip(rhythm, ends, degrees, strict=True)
    return [(at, end - at, _pitch(program, key, degree), program) for at, end, degree in spans]


def _pitch(program: int, key: int, degree: int) -> int:
    """A degree of the scale (7 is an octave) within an octave and a half above the instrument's lowest pitch."""
    octave, step = divmod(degree, len(_SCALE))
    lowest = _LOWEST[program]
    above = (key + _SCALE[step] - lowest) % 12
    return lowest + above + (12 if octave > 0 and above < 6 else 0)


def _drums(rng: np.random.Generator) -> list[tuple[int, int]]:
    kicks, snares = _KICKS[rng.integers(len(_KICKS))], _SNARES[rng.integers(len(_SNARES))]
    hats = range(0, EIGHTHS_PER_BAR, int(rng.choice((1, 2, 2, 2))))
    return [*((at, KICK) for at in kicks), *((at, SNARE) for at in snares), *((at, CLOSED_HAT) for at in hats)]


def _note(eighth: int, length: int, pitch: int, program: int, rng: np.random.Generator, eighth_seconds: float) -> Note:
    onset = eighth * eighth_seconds
    offset = onset + length * eighth_seconds - _GAP_SECONDS
    return Note(round(onset, 3), round(offset, 3), pitch, int(rng.integers(80, 110)), program)


def _hit(eighth: int, pitch: int, rng: np.random.Generator, eighth_seconds: float) -> Note:
    onset = round(eighth * eighth_seconds, 3)
    return Note(onset, round(onset + _HIT_SECONDS, 3), pitch, int(rng.integers(90, 115)), 0, True)
