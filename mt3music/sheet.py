"""Notes as bars of written music: parts, staves, voices, and values with ties, dots, triplets and rests.

Time is counted in units of a 24th of a quarter, in which 1/32 notes and triplets are whole. Each beat is written in
sixteenths (or the finer grid that the notes were moved to) or in triplets, whichever its onsets are nearer to. A note
that ends just before the next one of its voice is written up to it. Each voice of a bar is complete: its values add up
to the bar.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mt3core.notes.table import Note, note_table
from mt3core.notes.tempo_map import TempoMap

QUARTER = 24  # units
_BINARY, _FINE, _TRIPLET = QUARTER // 4, QUARTER // 8, QUARTER // 3
_TRIPLET_GAIN = 0.5  # triplets must fit this much better: most beats have none
_TRIPLET_MISS = 0.1  # quarters by which sixteenths must be off
_GAP = QUARTER // 2  # a shorter silence is a matter of playing, not of writing
MOST_VOICES = 2
TWO_STAFF_PROGRAMS = frozenset((*range(0, 8), *range(16, 21), 46))  # pianos, organs, harp; from 0
_SPLIT_PITCH, _SPLIT_RANGE = 60, range(53, 68)
_HAND_SEMITONES = 14


@dataclass(frozen=True)
class Value:
    """A written note, chord or rest: its length in units, and how it is tied. `pitches` is empty for a rest."""

    length: int
    pitches: tuple[int, ...] = ()
    tied_from: frozenset[int] = frozenset()
    tied_to: frozenset[int] = frozenset()
    in_triplet: bool = False
    opens_triplet: bool = False
    closes_triplet: bool = False
    is_whole_bar: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar: its length in units, and for each staff its voices; a pick-up is shorter than the others."""

    start: int
    length: int
    staves: tuple[tuple[tuple[Value, ...], ...], ...]
    is_pick_up: bool = False


@dataclass(frozen=True)
class SheetPart:
    """One instrument."""

    program: int
    is_drum: bool
    bars: tuple[Bar, ...]
    staff_pitches: tuple[tuple[int, ...], ...]  # what each staff has, for its clef


@dataclass(frozen=True)
class _Written:
    """A note in units."""

    start: int
    end: int
    pitch: int


@dataclass(frozen=True)
class Frame:
    """Where bars and beats are, in units from the first beat, and which beats are in triplets."""

    bar_starts: tuple[int, ...]  # the end of the last bar too
    beat: int
    bar: int
    triplet_beats: frozenset[int]
    step: int


def sheet_parts(notes: Sequence[Note], tempo: TempoMap, is_fine: bool = False) -> tuple[list[SheetPart], Frame]:
    """The parts in order of their first notes, drums last. `is_fine` writes 1/32 notes."""
    table = note_table(list(notes))
    per_beat = float(tempo.time_signature.beat_quarters) * QUARTER
    starts, ends = (np.maximum(tempo.beats_at(table[name]) * per_beat, 0.0) for name in ("onset", "offset"))
    frame = _frame(starts, ends, tempo, _FINE if is_fine else _BINARY)
    groups: dict[tuple[bool, int], list[_Written]] = defaultdict(list)
    for start, end, note in zip(starts.tolist(), ends.tolist(), notes, strict=True):
        begin = _nearest(start, frame)
        written = _Written(begin, max(_nearest(end, frame), begin + 1), note.pitch)
        groups[note.is_drum, 0 if note.is_drum else note.program].append(written)
    parts = []
    for (is_drum, program), written_notes in sorted(groups.items(), key=lambda one: (one[0][0], one[1][0].start)):
        staves = [written_notes]
        if program in TWO_STAFF_PROGRAMS and not is_drum:
            staves = _hands(written_notes, frame)
        voices = [_voices(staff, frame, is_drum) for staff in staves]
        bars = tuple(_bar(number, voices, frame) for number in range(len(frame.bar_starts) - 1))
        pitches = tuple(tuple(note.pitch for note in staff) for staff in staves)
        parts.append(SheetPart(program, is_drum, bars, pitches))
    return _without_silent_end(parts, frame)


def _without_silent_end(parts: list[SheetPart], frame: Frame) -> tuple[list[SheetPart], Frame]:
    """Without bars at the end in which nobody plays: a last note that sounds a little longer is not written there."""
    num_bars = max((number + 1 for part in parts for number, bar in enumerate(part.bars) if _plays(bar)), default=1)
    cut = replace(frame, bar_starts=frame.bar_starts[: num_bars + 1])
    return [replace(part, bars=part.bars[:num_bars]) for part in parts], cut


def _plays(bar: Bar) -> bool:
    return any(value.pitches for staff in bar.staves for voice in staff for value in voice)


def _frame(starts: np.ndarray, ends: np.ndarray, tempo: TempoMap, step: int) -> Frame:
    signature = tempo.time_signature
    beat = int(signature.beat_quarters * QUARTER)
    bar = beat * signature.beats_per_bar
    first = tempo.first_downbeat * beat
    last = max(float(ends.max(initial=0.0)), first + 1.0)
    num_bars = max(int(np.ceil((last - first - step / 2) / bar)), 1)
    bar_starts = (*([0] if first else []), *(first + bar * number for number in range(num_bars + 1)))
    triplets = _triplet_beats(starts, step) if beat == QUARTER else frozenset()
    return Frame(bar_starts, beat, bar, triplets, step)


def _triplet_beats(starts: np.ndarray, step: int) -> frozenset[int]:
    """The quarters whose onsets are nearer to thirds than to the binary grid."""
    found = set()
    beats = np.floor((starts + step / 4) / QUARTER).astype(int)
    for beat in np.unique(beats).tolist():
        inside = np.unique(np.rint(starts[beats == beat])) - beat * QUARTER
        binary, thirds = (np.abs(inside - np.rint(inside / one) * one).mean() for one in (step, _TRIPLET))
        if binary >= min(_TRIPLET_MISS * QUARTER, step / 4) * 0.5 and thirds < _TRIPLET_GAIN * binary:
            found.add(beat)
    return frozenset(found)


def _nearest(place: float, frame: Frame) -> int:
    """The nearest place that can be written."""
    beat = int(place // QUARTER)
    step = _TRIPLET if beat in frame.triplet_beats else frame.step
    return min(beat * QUARTER + round((place - beat * QUARTER) / step) * step, frame.bar_starts[-1])


def _hands(notes: list[_Written], frame: Frame) -> list[list[_Written]]:
    """The notes of the right and of the left hand: each bar is divided at the widest gap near middle C."""
    by_bar: dict[int, list[_Written]] = defaultdict(list)
    for note in notes:
        by_bar[bisect.bisect_right(frame.bar_starts, note.start)].append(note)
    right: list[_Written] = []
    left: list[_Written] = []
    for inside in by_bar.values():
        pitches = sorted({note.pitch for note in inside})
        split = _SPLIT_PITCH
        if pitches[-1] - pitches[0] <= _HAND_SEMITONES:
            split = pitches[0] if sum(pitches) >= _SPLIT_PITCH * len(pitches) else pitches[-1] + 1
        else:
            gaps = [(high - low, high) for low, high in pairwise(pitches) if high in _SPLIT_RANGE]
            split = max(gaps, key=lambda gap: (gap[0], -abs(gap[1] - _SPLIT_PITCH)))[1] if gaps else _SPLIT_PITCH
        right += [note for note in inside if note.pitch >= split]
        left += [note for note in inside if note.pitch < split]
    return [right, left]


@dataclass(frozen=True)
class _Chord:
    start: int
    end: int
    pitches: frozenset[int]


def _voices(notes: list[_Written], frame: Frame, is_drum: bool) -> list[list[_Chord]]:
    """One or two voices of chords that do not overlap, in order."""
    voices: list[list[_Chord]] = [[] for _ in range(MOST_VOICES)]
    by_start: dict[int, list[_Written]] = defaultdict(list)
    for note in _struck_once(notes):
        by_start[note.start].append(note)
    starts = sorted(by_start)
    for start, following in pairwise([*starts, frame.bar_starts[-1]]):
        here = by_start[start]
        if is_drum:  # how long a drum sounds is not written
            bar = frame.bar_starts[bisect.bisect_right(frame.bar_starts, start) - 1]
            most = min(following, (start // frame.beat + 1) * frame.beat) - start
            voices[0].append(_Chord(start, start + _longest(start - bar, most, start, frame, False), _pitches(here)))
            continue
        groups = _chords_of(here, start, following)
        for group in groups:
            _place(group, voices)
    return [voice if is_drum else _tidy(voice, frame) for voice in voices if voice]


def _struck_once(notes: list[_Written]) -> list[_Written]:
    """A note ends where its pitch begins again; of two that begin together the longer stays."""
    by_pitch: dict[int, dict[int, int]] = defaultdict(dict)
    for note in notes:
        ends = by_pitch[note.pitch]
        ends[note.start] = max(note.end, ends.get(note.start, 0))
    return [
        _Written(start, ends[start] if following is None else min(ends[start], following), pitch)
        for pitch, ends in by_pitch.items()
        for start, following in pairwise([*sorted(ends), None])
        if start is not None
    ]


def _chords_of(notes: list[_Written], start: int, following: int) -> list[_Chord]:
    """Notes that begin together as at most two chords: those of one length, the rest with the longest of them."""
    by_end: dict[int, list[_Written]] = defaultdict(list)
    for note in notes:
        # Up to the next onset if it ends about there.
        end = following if abs(following - note.end) < _GAP and following > start else note.end
        by_end[max(end, start + 1)].append(note)
    ends = sorted(by_end, key=lambda end: (-len(by_end[end]), -end))
    first = _Chord(start, ends[0], _pitches(by_end[ends[0]]))
    others = [note for end in ends[1:] for note in by_end[end]]
    if not others:
        return [first]
    rest = _pitches(others) - first.pitches
    return [first, _Chord(start, max(ends[1:]), rest)] if rest else [first]


def _pitches(notes: Iterable[_Written]) -> frozenset[int]:
    return frozenset(note.pitch for note in notes)


def _place(chord: _Chord, voices: list[list[_Chord]]) -> None:
    """Into the first voice that is free; if none is, the one that began earlier ends here."""
    for voice in voices:
        if not voice or voice[-1].end <= chord.start:
            voice.append(chord)
            return
    for voice in voices:
        if voice[-1].start < chord.start:
            voice[-1] = replace(voice[-1], end=chord.start)
            voice.append(chord)
            return
    voices[0][-1] = replace(voices[0][-1], pitches=voices[0][-1].pitches | chord.pitches)


def _tidy(voice: list[_Chord], frame: Frame) -> list[_Chord]:
    """Chords up to the next one where the silence between is short, and on places that can be written."""
    tidy = []
    for chord, following in zip(voice, [*voice[1:], None], strict=True):
        limit = frame.bar_starts[-1] if following is None else following.start
        end = _nearest(chord.end, frame)
        if following is not None and 0 < limit - end < _GAP:
            end = limit
        if limit - end >= _GAP and end - chord.start >= QUARTER and end // QUARTER not in frame.triplet_beats:
            end = round(end / _GAP) * _GAP  # where a long note stops before a rest is not written to the sixteenth
        smallest = _TRIPLET if chord.start // QUARTER in frame.triplet_beats else frame.step
        end = min(max(end, chord.start + smallest), limit)
        if end > chord.start:
            tidy.append(replace(chord, end=end))
    return tidy


def _bar(number: int, staves: list[list[list[_Chord]]], frame: Frame) -> Bar:
    start, end = frame.bar_starts[number : number + 2]
    written = []
    for voices in staves:
        lines = [_line(voice, start, end, frame) for voice in voices]
        silence = (Value(end - start, is_whole_bar=True),)
        first, *others = [line if any(value.pitches for value in line) else silence for line in lines] or [silence]
        written.append((first, *(line for line in others if line is not silence)))
    return Bar(start, end - start, tuple(written), end - start < frame.bar)


def _line(voice: list[_Chord], start: int, end: int, frame: Frame) -> tuple[Value, ...]:
    """One voice of one bar: chords, and rests between them."""
    values: list[Value] = []
    place = start
    first = bisect.bisect_left([chord.end for chord in voice], start + 1)
    for chord in voice[first:]:
        if chord.start >= end:
            break
        values += _split(place, max(chord.start, start), frozenset(), start, frame, False, False)
        begin, stop = max(chord.start, start), min(chord.end, end)
        values += _split(begin, stop, chord.pitches, start, frame, chord.start < start, chord.end > end)
        place = stop
    values += _split(place, end, frozenset(), start, frame, False, False)
    return tuple(_with_brackets(values, start, frame))


def _split(
    begin: int, end: int, pitches: frozenset[int], bar: int, frame: Frame, goes_on: bool, continues: bool
) -> list[Value]:
    """A stretch as values that can be written, tied to each other."""
    values = []
    place = begin
    while place < end:
        length = _longest(place - bar, end - place, place, frame, not pitches)
        tied_from = pitches if place > begin or goes_on else frozenset()
        tied_to = pitches if place + length < end or continues else frozenset()
        in_triplet = place // QUARTER in frame.triplet_beats and (length % _TRIPLET == 0) and length < QUARTER
        values.append(Value(length, tuple(sorted(pitches)), tied_from, tied_to, in_triplet))
        place += length
    return values


def _longest(at: int, most: int, place: int, frame: Frame, is_rest: bool) -> int:
    """The longest value that may begin `at` units after the bar line, without hiding where the beats are."""
    to_beat = frame.beat - at % frame.beat
    beat_after = (place // QUARTER + 1) * QUARTER
    if place // QUARTER in frame.triplet_beats and (at % QUARTER or most < QUARTER):
        return min(most, beat_after - place)
    if at % frame.beat == 0 and most >= frame.beat:
        if is_rest:
            return (
                2 * QUARTER if frame.beat == QUARTER and at % (2 * QUARTER) == 0 and most >= 2 * QUARTER else frame.beat
            )
        return _on_beat(at, most, frame, place)
    inside = min(most, to_beat)
    if frame.beat == QUARTER and at % QUARTER == QUARTER // 2 and most >= QUARTER and not is_rest:
        # A quarter between two beats, but not over the middle of the bar.
        starts_half = at % (2 * QUARTER) == QUARTER // 2
        if starts_half and place // QUARTER + 1 not in frame.triplet_beats:
            return QUARTER
    for value in (36, 24, 18, 12, 6, 3):
        is_dotted = value in (36, 18)
        if value <= inside and not (is_rest and is_dotted) and at % _BINARY == 0:
            return value
    return min(inside, _FINE)


def _on_beat(at: int, most: int, frame: Frame, place: int) -> int:
    """The longest value from a beat on."""
    if frame.beat != QUARTER:
        lengths = [beats * frame.beat for beats in (4, 2, 1)]
        return next(one for one in lengths if one <= most and (one == frame.beat or at % one == 0))
    for value in (96, 72, 48, 36):
        is_placed = {96: at % 96 == 0, 72: at in (0, 24), 48: at % 96 != 72, 36: True}[value]
        ends_in_triplet = value == 36 and (place + value) // QUARTER in frame.triplet_beats
        if value <= most and is_placed and not ends_in_triplet:
            return value
    return QUARTER


def _with_brackets(values: list[Value], start: int, frame: Frame) -> list[Value]:
    """Marks the first and the last value of each triplet."""
    place, result = start, []
    for number, value in enumerate(values):
        following = values[number + 1] if number + 1 < len(values) else None
        end = place + value.length
        opens = value.in_triplet and place % QUARTER == 0
        closes = value.in_triplet and (end % QUARTER == 0 or following is None or not following.in_triplet)
        result.append(replace(value, opens_triplet=opens, closes_triplet=closes))
        place = end
    return result
