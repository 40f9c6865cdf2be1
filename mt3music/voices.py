"""Who plays what on a staff: the hands of a piano, and the lines of chords that are written as voices.

Most of what a staff has is one line, in which each chord ends when the next begins: on a piano, and in what a model
hears of it, notes sound on into the following ones, which is not written. A note is held, in a second voice, if it
outlasts several others and lies above or below all of them.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

QUARTER = 24  # units
TRIPLET = QUARTER // 3
_HALF_BEAT = QUARTER // 2
# A note that begins alone is held while three others come and go; of a chord, its outer note while one does. What is
# played legato overlaps by up to half of a note, which is then the whole of the next.
_HELD_ALONE, _HELD_FROM_CHORD = 3, 1
_MEETS = QUARTER // 8  # units by which an end and an onset differ that are heard together
_SHORTER = 2  # times: the notes of a chord that end before its held one
_STACCATO = 1 / 3  # of the time to the next beat: a shorter note is followed by a rest
_LEAST_OVER_BAR = QUARTER  # what is shorter beyond a bar line, before a rest, is not written

# The hands, chosen with the scores of ASAP, whose tracks are the hands: 90 % of the notes are as written there.
_LOWEST_SPLIT, _HIGHEST_SPLIT, _MIDDLE_SPLIT = 40, 84, 60
_HAND_SEMITONES = 14
_HAND_WINDOW = QUARTER  # before and after an onset: what a hand plays without moving
_WIDEST_GAP = 12
_SPAN_COST, _GAP_GAIN, _MOVE_COST, _MIDDLE_COST = 2.0, 0.2, 1.0, 0.2  # for a semitone


@dataclass(frozen=True)
class Written:
    """A note in units."""

    start: int
    end: int
    pitch: int


@dataclass(frozen=True)
class Chord:
    """Notes of one voice that begin and end together, in units."""

    start: int
    end: int
    pitches: frozenset[int]


@dataclass(frozen=True)
class Frame:
    """Where bars and beats are, in units from the first beat, and which beats are in triplets."""

    bar_starts: tuple[int, ...]  # the end of the last bar too
    beat: int
    bar: int
    triplet_beats: frozenset[int]
    step: int

    def nearest(self, place: float) -> int:
        """The nearest place that can be written."""
        beat = int(place // QUARTER)
        step = TRIPLET if beat in self.triplet_beats else self.step
        return min(beat * QUARTER + round((place - beat * QUARTER) / step) * step, self.bar_starts[-1])

    def bar_of(self, place: int) -> int:
        """The number of the bar in which a place is."""
        return max(bisect.bisect_right(self.bar_starts, place) - 1, 0)


@dataclass(frozen=True)
class Staff:
    """The voices of a staff: its line, and the chords that are held above or below it."""

    line: tuple[Chord, ...]
    above: tuple[Chord, ...] = ()
    below: tuple[Chord, ...] = ()


def hands(notes: Sequence[Written]) -> list[list[Written]]:
    """The notes of the right and of the left hand.

    For each onset a pitch divides the hands, such that neither spans much more than it can reach, the gap between them
    is wide, and the pitch changes little from onset to onset; the best sequence of such pitches is found.
    """
    ordered = sorted(notes, key=lambda note: note.start)
    starts, pitches = (np.array([getattr(note, name) for note in ordered], int) for name in ("start", "pitch"))
    onsets = np.unique(starts)
    if not len(onsets):
        return [[], []]
    splits = np.arange(_LOWEST_SPLIT, _HIGHEST_SPLIT + 1)
    move = _MOVE_COST * np.abs(splits[:, None] - splits)
    total, previous = np.zeros(len(splits)), np.zeros((len(onsets), len(splits)), int)
    for number, onset in enumerate(onsets.tolist()):
        first, last = np.searchsorted(starts, [onset - _HAND_WINDOW, onset + _HAND_WINDOW])
        reached = total[:, None] + move
        previous[number] = reached.argmin(0)
        total = reached.min(0) + _cost_of_splits(splits, np.unique(pitches[first:last]))
    best = int(total.argmin())
    split_at = {}
    for number in range(len(onsets) - 1, -1, -1):
        split_at[int(onsets[number])] = int(splits[best])
        best = int(previous[number, best])
    right = [note for note in ordered if note.pitch >= split_at[note.start]]
    left = [note for note in ordered if note.pitch < split_at[note.start]]
    return [right, left]


def _cost_of_splits(splits: np.ndarray, pitches: np.ndarray) -> np.ndarray:
    place = np.searchsorted(pitches, splits)
    has_right, has_left = place < len(pitches), place > 0
    lowest = np.where(has_right, pitches[np.minimum(place, len(pitches) - 1)], splits + _WIDEST_GAP // 2)
    highest = np.where(has_left, pitches[np.maximum(place - 1, 0)], splits - _WIDEST_GAP // 2)
    spans = np.where(has_right, pitches[-1] - lowest, 0), np.where(has_left, highest - pitches[0], 0)
    too_wide = sum(np.maximum(span - _HAND_SEMITONES, 0) for span in spans)
    gap = np.minimum(lowest - highest, _WIDEST_GAP)
    return _SPAN_COST * too_wide - _GAP_GAIN * gap + _MIDDLE_COST * np.abs(splits - _MIDDLE_SPLIT)


def staff_of(notes: Iterable[Written], frame: Frame) -> Staff:
    """The voices of notes with pitch. At most one note is held at a time."""
    struck = [note for note in _struck_once(notes) if note.start < frame.bar_starts[-1]]
    held = _held(struck)
    line = _chords(note for note in struck if note not in held)
    chords = [Chord(note.start, note.end, frozenset([note.pitch])) for note in held]
    written = dict(zip(held, _tidy(chords, frame), strict=True))
    above, below = (tuple(chord for note, chord in written.items() if held[note] is side) for side in (True, False))
    return Staff(tuple(_tidy(line, frame)), above, below)


def _struck_once(notes: Iterable[Written]) -> list[Written]:
    """In order; a note ends where its pitch begins again, and of two that begin together the longer stays."""
    by_pitch: dict[int, dict[int, int]] = defaultdict(dict)
    for note in notes:
        ends = by_pitch[note.pitch]
        ends[note.start] = max(note.end, ends.get(note.start, 0))
    struck = [
        Written(start, ends[start] if following is None else min(ends[start], following), pitch)
        for pitch, ends in by_pitch.items()
        for start, following in pairwise([*sorted(ends), None])
        if start is not None
    ]
    return sorted(struck, key=lambda note: (note.start, note.pitch))


def _held(notes: list[Written]) -> dict[Written, bool]:
    """The notes that are held, in order, and whether they lie above the others. `notes` are in order."""
    held: dict[Written, bool] = {}
    starts = [note.start for note in notes]
    onsets = [*sorted(set(starts)), max((note.end for note in notes), default=0)]
    free = 0
    for number, onset in enumerate(onsets[:-1]):
        first, second = bisect.bisect_left(starts, onset), bisect.bisect_right(starts, onset)
        together = notes[first:second]
        for note in () if onset < free else (together[0], together[-1]):
            length = note.end - onset
            # Those of other notes that begin while it sounds, and do not only meet its end.
            last = bisect.bisect_left(starts, note.end - _MEETS)
            others = [one for one in (*together, *notes[second:last]) if one is not note]
            num_outlasted = bisect.bisect_right(onsets, note.end + _MEETS) - number - 2
            is_of_chord = any((one.end - onset) * _SHORTER <= length for one in together)
            if length < QUARTER or num_outlasted < (_HELD_FROM_CHORD if is_of_chord else _HELD_ALONE):
                continue  # not held long enough
            is_above = note.pitch > max(one.pitch for one in others)
            if is_above or note.pitch < min(one.pitch for one in others):
                held[note] = is_above
                free = note.end
                break
    return held


def _chords(notes: Iterable[Written]) -> list[Chord]:
    """Notes that begin together, until the longest of them ends or the next begin."""
    by_start: dict[int, list[Written]] = defaultdict(list)
    for note in notes:
        by_start[note.start].append(note)
    chords = []
    for start, following in pairwise([*sorted(by_start), None]):
        assert start is not None
        end = max(note.end for note in by_start[start])
        pitches = frozenset(note.pitch for note in by_start[start])
        chords.append(Chord(start, end if following is None else min(end, following), pitches))
    return chords


def _tidy(voice: list[Chord], frame: Frame) -> list[Chord]:
    """Chords up to the next one or to the next beat: a short silence is a matter of playing, not of writing."""
    tidy = []
    for chord, following in zip(voice, [*voice[1:], None][: len(voice)], strict=True):
        limit = frame.bar_starts[-1] if following is None else following.start
        end = min(_written_end(chord, frame), limit)
        bar_line = frame.bar_starts[frame.bar_of(chord.end - 1)]
        if chord.start < bar_line < end and (following is None or end < limit):
            end = end if chord.end - bar_line >= _LEAST_OVER_BAR else bar_line
        tidy.append(replace(chord, end=end))
    return tidy


def _written_end(chord: Chord, frame: Frame) -> int:
    """The beat at which a chord ends; half a beat if it is short."""
    unit = QUARTER if frame.beat % QUARTER == 0 else _HALF_BEAT
    beat = (max(chord.end - 1, chord.start) // unit) * unit
    begin = max(beat, chord.start)  # of what sounds in the last beat
    sounds, room = chord.end - begin, beat + unit - begin
    if beat > chord.start and sounds < _STACCATO * unit:
        return beat
    if unit == QUARTER and room > _HALF_BEAT and sounds < _STACCATO * room:
        return beat + (TRIPLET if beat // QUARTER in frame.triplet_beats else _HALF_BEAT)
    return beat + unit
