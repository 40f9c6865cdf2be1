"""The piece of the demonstration: written for this project as notes, so that its transcription can be scored.

A bossa nova of nine bars in C major, sixteen seconds: flute, nylon guitar, electric bass and drums. It has the
project's own licence, as has the recording rendered from it.
"""

from __future__ import annotations

from mt3core.notes.table import Note

EIGHTH_SECONDS = 0.22  # 136 quarters per minute
EIGHTHS_PER_BAR = 8
GUITAR, BASS, FLUTE = 24, 33, 73  # General MIDI programs, counted from 0
KICK, CROSS_STICK, SNARE, CLOSED_HAT, CRASH = 36, 37, 38, 42, 49  # General MIDI drum notes
LOW_TOM, MIDDLE_TOM, HIGH_TOM = 45, 47, 50
LEVELS_DB = {FLUTE: 0.0, GUITAR: -3.0, BASS: -2.0}
DRUMS_LEVEL_DB = -5.0

_START_SECONDS = 0.5  # of silence, as before any performance
_GAP_SECONDS = 0.03  # a little shorter than written, so that a repeated note is struck again
_STRUM_SECONDS = 0.006  # from string to string
_ACCENTS = (10, -8, 2, -6, 6, -8, 2, -4)  # of the eighths in a bar, in steps of velocity
# Bass notes (root, fifth) and the guitar's strings from below.
_CHORDS = {
    "Dm9": ((38, 45), (53, 57, 60, 64)),
    "G13": ((43, 38), (53, 57, 59, 64)),
    "Cmaj9": ((36, 43), (52, 55, 59, 62)),
    "A7": ((45, 40), (55, 57, 61, 64)),
    "Em7": ((40, 47), (55, 59, 62, 64)),
    "C6/9": ((36, 43), (52, 57, 62, 67)),
}
_BARS = (("Dm9",), ("G13",), ("Cmaj9",), ("A7",), ("Dm9",), ("G13",), ("Em7", "A7"), ("Dm9", "G13"))
_LAST_CHORD = "C6/9"
# The flute's line, one bar per row: (eighth in the bar, length in eighths, pitch).
_MELODY = (
    ((0, 3, 81), (3, 1, 79), (4, 2, 77), (6, 2, 76)),
    ((0, 3, 74), (3, 1, 76), (4, 4, 71)),
    ((1, 1, 72), (2, 1, 74), (3, 2, 76), (5, 1, 79), (6, 2, 83)),
    ((0, 3, 81), (3, 1, 79), (4, 2, 76), (6, 2, 73)),
    ((0, 2, 74), (2, 1, 77), (3, 2, 81), (5, 1, 84), (6, 2, 81)),
    ((0, 3, 83), (3, 1, 81), (4, 2, 79), (6, 2, 76)),
    ((0, 1, 79), (1, 1, 76), (2, 2, 74), (4, 1, 73), (5, 1, 76), (6, 2, 79)),
    ((0, 2, 77), (2, 2, 74), (4, 1, 72), (5, 1, 71), (6, 2, 74)),
    ((0, 7, 76),),
)
_GUITAR_RHYTHM = ((0, 2), (3, 2), (6, 2)), ((2, 2), (5, 2))  # of two bars in turn: (eighth, length in eighths)
_CROSS_STICKS = (0, 3, 6), (2, 5)  # likewise
_BASS_RHYTHM = ((0, 3, 0), (3, 1, 1), (4, 3, 1), (7, 1, 0))  # (eighth, length in eighths, root or fifth)
_KICKS = (0, 3, 4, 7)
_FILL = ((4, SNARE), (5, HIGH_TOM), (6, MIDDLE_TOM), (7, LOW_TOM))  # at the end of the last bar but one


def piece() -> list[Note]:
    """The notes of the piece, sorted by onset; times in seconds on whole milliseconds."""
    notes: list[Note] = []
    for bar, chords in enumerate(_BARS):
        begin = bar * EIGHTHS_PER_BAR
        notes += _guitar(begin, chords, bar % 2) + _bass(begin, chords)
        notes += _drums(begin, bar % 2, has_crash=bar == 0, has_fill=bar == len(_BARS) - 1)
    notes += _ending(len(_BARS) * EIGHTHS_PER_BAR)
    for bar, line in enumerate(_MELODY):
        for eighth, length, pitch in line:
            notes.append(_note(bar * EIGHTHS_PER_BAR + eighth, length, pitch, 100, FLUTE))
    return sorted(notes, key=lambda note: (note.onset, note.is_drum, note.program, note.pitch))


def _guitar(begin: int, chords: tuple[str, ...], half: int) -> list[Note]:
    notes = []
    for eighth, length in _GUITAR_RHYTHM[half]:
        strings = _CHORDS[_chord_at(chords, eighth)][1]
        notes += [_note(begin + eighth, length, pitch, 78, GUITAR, string) for string, pitch in enumerate(strings)]
    return notes


def _bass(begin: int, chords: tuple[str, ...]) -> list[Note]:
    notes = []
    for eighth, length, which in _BASS_RHYTHM:
        # With two chords in a bar the second starts with its root.
        root_or_fifth = 0 if len(chords) > 1 and eighth == EIGHTHS_PER_BAR // 2 else which
        pitch = _CHORDS[_chord_at(chords, eighth)][0][root_or_fifth]
        notes.append(_note(begin + eighth, length, pitch, 92, BASS))
    return notes


def _drums(begin: int, half: int, has_crash: bool, has_fill: bool) -> list[Note]:
    fill = _FILL if has_fill else ()
    until = fill[0][0] if fill else EIGHTHS_PER_BAR
    hits = [(eighth, CLOSED_HAT, 76) for eighth in range(until)]
    hits += [(eighth, KICK, 96) for eighth in _KICKS if eighth < until]
    hits += [(eighth, CROSS_STICK, 92) for eighth in _CROSS_STICKS[half] if eighth < until]
    hits += [(eighth, pitch, 100) for eighth, pitch in fill]
    hits += [(0, CRASH, 84)] if has_crash else []
    return [_hit(begin + eighth, pitch, velocity) for eighth, pitch, velocity in hits]


def _ending(begin: int) -> list[Note]:
    (root, _), strings = _CHORDS[_LAST_CHORD]
    notes = [_note(begin, 7, pitch, 80, GUITAR, string) for string, pitch in enumerate(strings)]
    return [*notes, _note(begin, 7, root, 95, BASS), _hit(begin, KICK, 100), _hit(begin, CRASH, 92)]


def _chord_at(chords: tuple[str, ...], eighth: int) -> str:
    return chords[eighth * len(chords) // EIGHTHS_PER_BAR]


def _note(eighth: int, eighths: int, pitch: int, velocity: int, program: int, string: int = 0) -> Note:
    onset = _START_SECONDS + eighth * EIGHTH_SECONDS + string * _STRUM_SECONDS
    offset = _START_SECONDS + (eighth + eighths) * EIGHTH_SECONDS - _GAP_SECONDS
    return Note(round(onset, 3), round(offset, 3), pitch, velocity + _ACCENTS[eighth % EIGHTHS_PER_BAR], program, False)


def _hit(eighth: int, pitch: int, velocity: int) -> Note:
    onset = _START_SECONDS + eighth * EIGHTH_SECONDS
    accent = _ACCENTS[eighth % EIGHTHS_PER_BAR]
    return Note(round(onset, 3), round(onset + EIGHTH_SECONDS / 2, 3), pitch, velocity + accent, 0, True)
