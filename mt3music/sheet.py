"""Notes as bars of written music: parts, staves, voices, and values with ties, dots, triplets and rests.

Time is counted in units of a 24th of a quarter, in which 1/32 notes and triplets are whole. Each beat is written in
sixteenths (or the finer grid that the notes were moved to) or in triplets, whichever the onsets of the part
are nearer to. Each voice of a bar is complete: its values add up to the bar. `voices.py` says what voices there are.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mt3core.notes.table import Note, note_table
from mt3core.notes.tempo_map import TempoMap
from mt3music.voices import QUARTER, TRIPLET, Chord, Frame, Staff, Written, hands, staff_of

_BINARY, _FINE = QUARTER // 4, QUARTER // 8
_TRIPLET_GAIN = 0.5  # triplets must fit this much better: most beats have none
_TRIPLET_MISS = 0.05  # quarters by which sixteenths must be off
_TRIPLET_SHARE = 0.25  # of a part's beats, if one of its beats with a single note off the beat is to be in triplets
# An instrument with this few notes, of all with pitch, is most likely one that a model took another for.
_MOST_STRAY, _STRAY_SHARE = 4, 0.05
TWO_STAFF_PROGRAMS = frozenset((*range(0, 8), *range(16, 21), 46))  # pianos, organs, harp; from 0


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
    is_hidden: bool = False  # a rest before or after a held note, which a reader needs not see


@dataclass(frozen=True)
class Voice:
    """The values of one voice in one bar, and whether its stems go up (None: as the notes lie)."""

    values: tuple[Value, ...]
    has_stems_up: bool | None = None


@dataclass(frozen=True)
class Bar:
    """One bar: its length in units, and for each staff its voices from above; a pick-up is shorter than the others."""

    start: int
    length: int
    staves: tuple[tuple[Voice, ...], ...]
    is_pick_up: bool = False


@dataclass(frozen=True)
class SheetPart:
    """One instrument."""

    program: int
    is_drum: bool
    bars: tuple[Bar, ...]
    staff_pitches: tuple[tuple[int, ...], ...]  # what each staff has, for its clef


def sheet_parts(notes: Sequence[Note], tempo: TempoMap, is_fine: bool = False) -> tuple[list[SheetPart], Frame]:
    """The parts in order of their first notes, drums last. `is_fine` writes 1/32 notes."""
    table = note_table(list(notes))
    per_beat = float(tempo.time_signature.beat_quarters) * QUARTER
    starts, ends = (np.maximum(tempo.beats_at(table[name]) * per_beat, 0.0) for name in ("onset", "offset"))
    frame = _frame(ends, tempo, _FINE if is_fine else _BINARY)
    parts = []
    for (is_drum, program), members in sorted(_members(notes).items(), key=lambda one: (one[0][0], starts[one[1][0]])):
        own = replace(frame, triplet_beats=_triplet_beats(starts[members], frame))
        written = [_written(starts[number], ends[number], notes[number].pitch, own) for number in members]
        sets = hands(written) if program in TWO_STAFF_PROGRAMS and not is_drum else [written]
        staves = [Staff(_drum_line(one, own)) if is_drum else staff_of(one, own) for one in sets]
        bars = tuple(_bar(number, staves, own) for number in range(len(own.bar_starts) - 1))
        parts.append(SheetPart(program, is_drum, bars, tuple(tuple(note.pitch for note in one) for one in sets)))
    return _without_silent_end(parts, frame)


def _members(notes: Sequence[Note]) -> dict[tuple[bool, int], list[int]]:
    """The notes' numbers by part (whether it is drums, and its program). Stray notes join the largest part."""
    groups: dict[tuple[bool, int], list[int]] = defaultdict(list)
    for number, note in enumerate(notes):
        groups[note.is_drum, 0 if note.is_drum else note.program].append(number)
    pitched = {key: members for key, members in groups.items() if not key[0]}
    num_pitched = sum(map(len, pitched.values()))
    for key, members in pitched.items():
        largest = max(pitched, key=lambda one: len(pitched[one]))
        if key != largest and len(members) <= min(_MOST_STRAY, _STRAY_SHARE * num_pitched):
            groups[largest] += groups.pop(key)
    return {key: sorted(members) for key, members in groups.items()}


def _written(start: float, end: float, pitch: int, frame: Frame) -> Written:
    begin = frame.nearest(start)
    return Written(begin, max(frame.nearest(end), begin + 1), pitch)


def _without_silent_end(parts: list[SheetPart], frame: Frame) -> tuple[list[SheetPart], Frame]:
    """Without bars at the end in which nobody plays: a last note that sounds a little longer is not written there."""
    num_bars = max((number + 1 for part in parts for number, bar in enumerate(part.bars) if _plays(bar)), default=1)
    cut = replace(frame, bar_starts=frame.bar_starts[: num_bars + 1])
    return [replace(part, bars=part.bars[:num_bars]) for part in parts], cut


def _plays(bar: Bar) -> bool:
    return any(value.pitches for staff in bar.staves for voice in staff for value in voice.values)


def _frame(ends: np.ndarray, tempo: TempoMap, step: int) -> Frame:
    signature = tempo.time_signature
    beat = int(signature.beat_quarters * QUARTER)
    bar = beat * signature.beats_per_bar
    first = tempo.first_downbeat * beat
    last = max(float(ends.max(initial=0.0)), first + 1.0)
    num_bars = max(int(np.ceil((last - first - step / 2) / bar)), 1)
    bar_starts = (*([0] if first else []), *(first + bar * number for number in range(num_bars + 1)))
    return Frame(bar_starts, beat, bar, frozenset(), step)


def _triplet_beats(starts: np.ndarray, frame: Frame) -> frozenset[int]:
    """The quarters whose onsets are nearer to thirds than to the binary grid.

    One note off the beat is too little evidence, unless many beats of the part are like that (a swing), or the beat
    before or after it is in triplets without doubt.
    """
    if frame.beat != QUARTER:
        return frozenset()
    near: dict[int, bool] = {}  # by beat: whether both thirds are there
    beats = np.floor((starts + frame.step / 4) / QUARTER).astype(int)
    num_divided = 0
    for beat in np.unique(beats).tolist():
        inside = np.unique(np.rint(starts[beats == beat])) - beat * QUARTER
        num_divided += bool((np.rint(inside / frame.step) % (QUARTER // frame.step)).any())
        binary, thirds = (np.abs(inside - np.rint(inside / one) * one).mean() for one in (frame.step, TRIPLET))
        if binary >= min(_TRIPLET_MISS * QUARTER, frame.step / 8) and thirds < _TRIPLET_GAIN * binary:
            near[beat] = len(set(np.rint(inside / TRIPLET) % 3) - {0}) == 2
    is_usual = len(near) >= _TRIPLET_SHARE * num_divided
    sure = {beat for beat, is_whole in near.items() if is_whole}
    return frozenset(beat for beat in near if is_usual or sure & {beat - 1, beat, beat + 1})


def _drum_line(notes: Sequence[Written], frame: Frame) -> tuple[Chord, ...]:
    """Drum hits; how long they sound is not written, so each is as long as can be written without a rest or a tie."""
    by_start: dict[int, set[int]] = defaultdict(set)
    for note in notes:
        by_start[note.start].add(note.pitch)
    chords = []
    for start, following in pairwise([*sorted(by_start), frame.bar_starts[-1]]):
        bar = frame.bar_starts[frame.bar_of(start)]
        most = min(following, (start // frame.beat + 1) * frame.beat) - start
        if most > 0:
            end = start + _longest(start - bar, most, start, frame, False)
            chords.append(Chord(start, end, frozenset(by_start[start])))
    return tuple(chords)


def _bar(number: int, staves: Sequence[Staff], frame: Frame) -> Bar:
    start, end = frame.bar_starts[number : number + 2]
    return Bar(
        start, end - start, tuple(_voices(staff, start, end, frame) for staff in staves), end - start < frame.bar
    )


def _voices(staff: Staff, start: int, end: int, frame: Frame) -> tuple[Voice, ...]:
    """The voices of a staff in a bar: those that play, or a rest."""
    above, line, below = (_line(voice, start, end, frame) for voice in (staff.above, staff.line, staff.below))
    playing = [one for one in (above, line, below) if any(value.pitches for value in one)]
    if not playing:
        return (Voice((Value(end - start, is_whole_bar=True),)),)
    if len(playing) == 1:
        return (Voice(playing[0]),)
    # Where one voice goes on, a rest in the other says nothing that its notes do not.
    voices = []
    for place, values in enumerate(playing):
        shown = tuple(replace(one, is_hidden=not one.pitches) for one in values) if values is not line else values
        is_up = place == 0 if len(playing) == 2 or values is not line else None
        voices.append(Voice(shown, is_up))
    return tuple(voices)


def _line(voice: Sequence[Chord], start: int, end: int, frame: Frame) -> tuple[Value, ...]:
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
        in_triplet = place // QUARTER in frame.triplet_beats and (length % TRIPLET == 0) and length < QUARTER
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
