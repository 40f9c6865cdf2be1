"""Melodic textures: melodies, runs, counterpoint, riffs and the ways pianists double them."""

from __future__ import annotations

from collections.abc import Callable

from composer.harmony import nearest, voiced
from composer.rhythms import CELLS, TRIPLET_CELLS
from composer.setting import Bar, Event, Setting, Texture


def melody(setting: Setting) -> Texture:
    """A line of a few rhythmic cells: chord notes on beats, steps between, sometimes a leap or an ornament."""
    line = _Line(setting)
    cells = [_cell(setting) for _ in range(2)]

    def play(bar: Bar) -> list[Event]:
        cell = cells[bar.number % 2] if setting.chance(0.7) else _cell(setting)
        events: list[Event] = []
        at = bar.begin
        for length in cell:
            if length > 0:
                events += _ornamented(setting, line, (at, length * 0.96, line.next(bar, at), 0.0))
            at += abs(length)
        return [event for event in events if event[0] < bar.begin + bar.metre.quarters]

    return play


def octaves(setting: Setting) -> Texture:
    """A melody in octaves."""
    return _doubled(setting, melody, (-12,))


def thirds(setting: Setting) -> Texture:
    """A melody with a second voice a third or a sixth below, in the scale."""
    return _in_scale_below(setting, melody, 2 if setting.chance(0.6) else 5)


def chord_melody(setting: Setting) -> Texture:
    """A melody with chords below its notes on the beat, as in full-handed piano writing."""
    play_line = melody(setting)

    def play(bar: Bar) -> list[Event]:
        events: list[Event] = []
        for at, length, pitch, strength in play_line(bar):
            events.append((at, length, pitch, strength + 6))
            if abs((at - bar.begin) % bar.metre.beat_quarters) < 1e-3:
                below = voiced(bar.chord_at(at), max(setting.low, pitch - 13), pitch - 2, 3, pitch - 6)
                events += [(at, length, other, -4.0) for other in below]
        return events

    return play


def runs(setting: Setting) -> Texture:
    """Scales up and down in even fast notes, turning at the ends of the range and sometimes before."""
    unit = setting.unit(0.25, 0.25, 0.125, 1 / 6)
    degrees = setting.key.degrees(setting.low, setting.high)
    state = [int(setting.rng.integers(len(degrees))), 1]

    def play(bar: Bar) -> list[Event]:
        events = []
        for at in bar.steps(unit):
            events.append((at, unit * 0.95, setting.key.pitch(degrees[state[0]]), 0.0))
            if setting.chance(0.06) or not 0 <= state[0] + state[1] < len(degrees):
                state[1] = -state[1]
            state[0] = min(max(state[0] + state[1], 0), len(degrees) - 1)
        return events

    return play


def parallel_runs(setting: Setting) -> Texture:
    """Scales in both hands: octaves, thirds or sixths apart."""
    return _doubled(setting, runs, (-12,)) if setting.chance(0.6) else _in_scale_below(setting, runs, 9)


def contrary_runs(setting: Setting) -> Texture:
    """Scales in both hands in opposite directions."""
    play_run, centre = runs(setting), 2 * round(setting.middle)

    def play(bar: Bar) -> list[Event]:
        one = play_run(bar)
        classes = tuple(setting.key.pitch(degree) % 12 for degree in range(7))
        other = [(at, length, nearest(classes, centre - pitch, setting.low - 12, setting.high), strength)
                 for at, length, pitch, strength in one]  # fmt: skip
        return [*one, *(event for event, first in zip(other, one, strict=True) if event[2] != first[2])]

    return play


def figuration(setting: Setting) -> Texture:
    """Even fast notes that weave around chord notes: études, toccatas, fiddle tunes, solos."""
    unit = setting.unit(0.25, 0.25, 1 / 6, 0.125)
    line = _Line(setting)

    def play(bar: Bar) -> list[Event]:
        return [(at, unit * 0.95, line.next(bar, at), 0.0) for at in bar.steps(unit)]

    return play


def voice(setting: Setting) -> Texture:
    """A voice of counterpoint: mostly even notes of one or two lengths, rarely a rest."""
    line = _Line(setting)
    lengths = setting.pick(((0.5, 0.5, 1.0), (0.25, 0.25, 0.5), (0.5, 1.0, 1.0), (0.25, 0.5, 0.5, 1.0)))

    def play(bar: Bar) -> list[Event]:
        events, at = [], bar.begin
        while at < bar.begin + bar.metre.quarters - 1e-6:
            length = min(float(setting.rng.choice(lengths)), bar.begin + bar.metre.quarters - at)
            if not setting.chance(0.05):
                events.append((at, length * 0.97, line.next(bar, at), 0.0))
            at += length
        return events

    return play


def riff(setting: Setting) -> Texture:
    """A one-bar figure repeated over each chord."""
    cell = _cell(setting)
    moves = [int(move) for move in setting.rng.integers(-3, 6, len(cell))]

    def play(bar: Bar) -> list[Event]:
        events, at = [], bar.begin
        for length, move in zip(cell, moves, strict=True):
            root = nearest((bar.chord_at(at).root,), round(setting.middle), setting.low, setting.high)
            degrees = setting.key.degrees(setting.low, setting.high)
            place = min(range(len(degrees)), key=lambda one: abs(setting.key.pitch(degrees[one]) - root))
            if length > 0:
                degree = degrees[min(max(place + move, 0), len(degrees) - 1)]
                events.append((at, length * 0.8, setting.key.pitch(degree), 0.0))
            at += abs(length)
        return events

    return play


def repeated_notes(setting: Setting) -> Texture:
    """Each note struck several times, fast."""
    unit, times = setting.unit(0.25, 0.125, 1 / 6), int(setting.rng.integers(2, 7))
    line = _Line(setting)

    def play(bar: Bar) -> list[Event]:
        events, pitch = [], line.pitch
        for place, at in enumerate(bar.steps(unit)):
            if place % times == 0:
                pitch = line.next(bar, at)
            events.append((at, unit * 0.7, pitch, 0.0))
        return events

    return play


def planing(setting: Setting) -> Texture:
    """A chord moved in parallel along the scale."""
    play_line = melody(setting)
    shape = setting.pick(((0, 4, 7), (0, 5, 7), (0, 4, 7, 10), (0, 3, 7, 12), (0, 4, 8), (0, 7, 12, 16)))

    def play(bar: Bar) -> list[Event]:
        return [(at, length, pitch - 12 + step, -2.0 * (step > 0)) for at, length, pitch, _ in play_line(bar)
                for step in shape]  # fmt: skip

    return play


class _Line:
    """Where a line is, and how it continues."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.pitch = round(setting.middle + float(setting.rng.uniform(-4, 4)))
        self._direction = 1
        self._leaps = float(setting.rng.uniform(0.05, 0.35))

    def next(self, bar: Bar, at: float) -> int:
        setting, chord = self._setting, bar.chord_at(at)
        if setting.chance(0.3):
            self._direction = -self._direction
        step = int(setting.rng.choice((3, 4, 5, 7))) if setting.chance(self._leaps) else int(setting.rng.choice((1, 2)))
        aim = self.pitch + self._direction * step
        if not setting.low + 2 <= aim <= setting.high - 2:
            self._direction = -self._direction
            aim = self.pitch + self._direction * step
        on_beat = abs((at - bar.begin) % bar.metre.beat_quarters) < 1e-3
        classes = chord.classes if on_beat else tuple(setting.key.pitch(degree) % 12 for degree in range(7))
        found = nearest(classes, aim, setting.low, setting.high)
        if setting.chance(0.03):  # a chromatic neighbour
            found = min(max(found + self._direction, setting.low), setting.high)
        self.pitch = found
        return found


def _cell(setting: Setting) -> tuple[float, ...]:
    if setting.triplets and setting.metre.name == "4/4" and setting.chance(0.7):
        return setting.pick(TRIPLET_CELLS)
    return setting.pick(CELLS[setting.metre.name])


def _ornamented(setting: Setting, line: _Line, event: Event) -> list[Event]:
    at, length, pitch, strength = event
    if length >= 0.9 and setting.chance(0.04):  # a trill
        unit = max(setting.quarters(0.07), 0.1)
        return [(at + place * unit, unit, pitch + 2 * (place % 2), strength) for place in range(int(length / unit))]
    if setting.chance(0.04):  # a grace note
        before = setting.quarters(0.06)
        return [(max(at - before, 0.0), before, min(pitch + 2, setting.high), strength - 8), event]
    return [event]


def _doubled(setting: Setting, maker: Callable[[Setting], Texture], shifts: tuple[int, ...]) -> Texture:
    play_line = maker(setting)

    def play(bar: Bar) -> list[Event]:
        return [(at, length, pitch + shift, strength) for at, length, pitch, strength in play_line(bar)
                for shift in (0, *shifts)]  # fmt: skip

    return play


def _in_scale_below(setting: Setting, maker: Callable[[Setting], Texture], steps: int) -> Texture:
    play_line = maker(setting)
    degrees = setting.key.degrees(0, 127)
    pitches = [setting.key.pitch(degree) for degree in degrees]

    def below(pitch: int) -> int:
        place = min(range(len(pitches)), key=lambda one: abs(pitches[one] - pitch))
        return pitches[max(place - steps, 0)]

    def play(bar: Bar) -> list[Event]:
        one = play_line(bar)
        return [*one, *((at, length, below(pitch), strength - 4) for at, length, pitch, strength in one)]

    return play


LINES: dict[str, Callable[[Setting], Texture]] = {
    maker.__name__: maker
    for maker in (
        melody, octaves, thirds, chord_melody, runs, parallel_runs, contrary_runs, figuration, voice, riff,
        repeated_notes, planing,
    )
}  # fmt: skip
