"""Textures that spell out the harmony: chords, broken chords and basses of many kinds.

Each function draws its pattern once, for a section, and returns a function that plays it bar by bar.
"""

from __future__ import annotations

from collections.abc import Callable

from composer.harmony import Chord, nearest, voiced
from composer.rhythms import COMPING, STRUMS, drawn_rhythm, spans
from composer.setting import Bar, Event, Setting, Texture


def block(setting: Setting) -> Texture:
    """Chords in a rhythm."""
    rhythm, count = drawn_rhythm(setting), int(setting.rng.integers(3, 6))

    def play(bar: Bar) -> list[Event]:
        return [
            (at, length * 0.95, pitch, 0.0)
            for at, length in spans(bar, rhythm)
            for pitch in _voicing(setting, bar.chord_at(at), count)
        ]

    return play


def pad(setting: Setting) -> Texture:
    """Each chord held until the next."""
    count, wide = int(setting.rng.integers(3, 6)), setting.chance(0.5)

    def play(bar: Bar) -> list[Event]:
        return [
            (at, length, pitch, 0.0)
            for at, length, chord in bar.changes()
            for pitch in voiced(chord, setting.low, setting.high, count, setting.middle, wide)
        ]

    return play


def alberti(setting: Setting) -> Texture:
    """Three notes of a chord, low - high - middle - high, repeated."""
    order, unit = setting.pick(((0, 2, 1, 2), (0, 1, 2, 1), (0, 2, 1, 2), (0, 1, 0, 2))), setting.unit(0.25, 0.25, 0.5)
    return _broken(setting, unit, order, 3, 1.0)


def arpeggio(setting: Setting) -> Texture:
    """Chords broken over one to four octaves: up, down, both, or in leaps."""
    count = int(setting.rng.integers(4, 14))
    up = tuple(range(count))
    drawn = tuple(setting.rng.permutation(count).tolist())
    order = setting.pick((up, up, up[::-1], (*up, *up[-2:0:-1]), (*up[::-1], *up[1:-1]), drawn))
    length = float(setting.rng.choice((1.0, 1.0, 3.0, 6.0)))
    return _broken(setting, setting.unit(0.25, 0.25, 1 / 6, 0.125, 0.5), order, count, length)


def broken_octaves(setting: Setting) -> Texture:
    """A low note and its octave in turn, as in the drum basses of sonatas."""
    unit = setting.unit(0.25, 0.25, 0.5, 0.125)

    def play(bar: Bar) -> list[Event]:
        events = []
        for place, at in enumerate(bar.steps(unit)):
            low = nearest((bar.chord_at(at).root,), setting.low + 8, setting.low, setting.high - 12)
            events.append((at, unit * 0.9, low + 12 * (place % 2), 0.0))
        return events

    return play


def repeated_chords(setting: Setting) -> Texture:
    """The same chord again and again."""
    unit, count = setting.unit(0.5, 0.25, 0.25, 1 / 3), int(setting.rng.integers(2, 5))
    share = float(setting.rng.choice((0.5, 0.7, 0.95)))

    def play(bar: Bar) -> list[Event]:
        return [
            (at, unit * share, pitch, _accent(bar, at))
            for at in bar.steps(unit)
            for pitch in _voicing(setting, bar.chord_at(at), count)
        ]

    return play


def tremolo(setting: Setting) -> Texture:
    """The low and the high half of a chord in fast alternation."""
    count = int(setting.rng.integers(2, 5))
    unit = setting.unit(0.125, 1 / 6)

    def play(bar: Bar) -> list[Event]:
        events = []
        for place, at in enumerate(bar.steps(unit)):
            pitches = _voicing(setting, bar.chord_at(at), count)
            half = max(1, len(pitches) // 2)
            events += [(at, unit * 0.9, pitch, -6.0) for pitch in (pitches[half:] if place % 2 else pitches[:half])]
        return events

    return play


def strum(setting: Setting) -> Texture:
    """A guitar's down and up strokes, string after string."""
    pattern = setting.pick(STRUMS[setting.metre.name])
    gap = setting.quarters(float(setting.rng.uniform(0.008, 0.025)))

    def play(bar: Bar) -> list[Event]:
        events = []
        for at, length in spans(bar, pattern):
            pitches = _voicing(setting, bar.chord_at(at), 5)
            upward = round((at - bar.begin) * 2) % 2 == 1
            for place, pitch in enumerate(pitches[::-1][:4] if upward else pitches):
                events.append((at + place * gap, length * 0.9, pitch, -8.0 if upward else 0.0))
        return events

    return play


def stride(setting: Setting) -> Texture:
    """Bass on the strong beats, chords on the others: march, ragtime, waltz."""
    octaves = setting.chance(0.4)

    def play(bar: Bar) -> list[Event]:
        events: list[Event] = []
        beat = bar.metre.beat_quarters if not bar.metre.compound else 0.5
        for place, at in enumerate(bar.steps(beat)):
            chord = bar.chord_at(at)
            group = place % 3 if bar.metre.quarters == 3.0 else place % 2
            if group == 0:
                pitch = _bass(setting, chord, 7 if place else 0)
                events += [(at, beat * 0.9, low, 4.0) for low in ((pitch, pitch + 12) if octaves else (pitch,))]
            else:
                pitches = voiced(chord, setting.low + 12, setting.high, 3, setting.high - 8)
                events += [(at, beat * 0.6, pitch, -4.0) for pitch in pitches]
        return events

    return play


def comping(setting: Setting) -> Texture:
    """Short chords off the beat."""
    patterns, count = COMPING[setting.metre.name], int(setting.rng.integers(3, 5))

    def play(bar: Bar) -> list[Event]:
        pattern = setting.pick(patterns)
        return [
            (at, min(length, 0.6) * 0.8, pitch, 0.0)
            for at, length in spans(bar, pattern)
            for pitch in _voicing(setting, bar.chord_at(at), count)
        ]

    return play


def root_bass(setting: Setting) -> Texture:
    """Roots, sometimes fifths and octaves, in a rhythm of its own."""
    rhythm, moves = drawn_rhythm(setting), setting.pick(((0,), (0, 0, 7), (0, 12), (0, 0, 7, 12)))

    def play(bar: Bar) -> list[Event]:
        return [
            (at, length * 0.92, _bass(setting, bar.chord_at(at), moves[place % len(moves)]), 0.0)
            for place, (at, length) in enumerate(spans(bar, rhythm))
        ]

    return play


def driving_bass(setting: Setting) -> Texture:
    """The root in even notes, or jumping octaves."""
    unit, leap = setting.unit(0.5, 0.5, 0.25), setting.pick((0, 0, 12))

    def play(bar: Bar) -> list[Event]:
        return [
            (at, unit * 0.85, _bass(setting, bar.chord_at(at), leap * (place % 2)), _accent(bar, at))
            for place, at in enumerate(bar.steps(unit))
        ]

    return play


def walking_bass(setting: Setting) -> Texture:
    """One note per beat: chord notes, and a step into the next chord."""
    line = [setting.low + 12]

    def play(bar: Bar) -> list[Event]:
        events = []
        for place, at in enumerate(bar.steps(1.0 if not bar.metre.compound else 0.5)):
            chord = bar.chord_at(at)
            if place == 0:
                line[0] = nearest((chord.root,), line[0], setting.low, setting.high)
            else:
                aim = line[0] + int(setting.rng.choice((-5, -3, -2, -1, 1, 2, 3, 5)))
                classes = chord.classes if setting.chance(0.6) else tuple(pitch % 12 for pitch in _scale(setting))
                line[0] = nearest(classes, aim, setting.low, setting.high)
            events.append((at, 0.9 if not bar.metre.compound else 0.45, line[0], 0.0))
        return events

    return play


def pedal_point(setting: Setting) -> Texture:
    """The tonic below everything, held or pulsing."""
    pitch, unit = nearest((setting.key.tonic,), setting.low + 6, setting.low, setting.high), setting.unit(0.5, 1.0)
    held = setting.chance(0.5)

    def play(bar: Bar) -> list[Event]:
        if held:
            return [(bar.begin, bar.metre.quarters, pitch, 0.0)]
        return [(at, unit * 0.8, pitch, _accent(bar, at)) for at in bar.steps(unit)]

    return play


def montuno(setting: Setting) -> Texture:
    """Syncopated octaves and chords, two bars long, as pianos play in salsa."""
    first, second = (0.0, 1.0, 1.5, 2.5, 3.5), (0.5, 1.5, 2.5, 3.5)

    def play(bar: Bar) -> list[Event]:
        events: list[Event] = []
        for place, offset in enumerate(at for at in (first, second)[bar.number % 2] if at < bar.metre.quarters):
            chord = bar.chord_at(bar.begin + offset)
            pitches = voiced(chord, setting.low, setting.high - 12, 3, setting.middle - 6)
            top = pitches[place % len(pitches)] if pitches else setting.low
            struck = [top, top + 12] if place % 2 else [*pitches[:2], top + 12]
            events += [(bar.begin + offset, 0.45, pitch, 0.0) for pitch in dict.fromkeys(struck)]
        return events

    return play


def power_riff(setting: Setting) -> Texture:
    """Root and fifth of a guitar, muted in sixteenths or held."""
    rhythm, muted = drawn_rhythm(setting, busy=True), setting.chance(0.5)

    def play(bar: Bar) -> list[Event]:
        events: list[Event] = []
        for at, length in spans(bar, rhythm):
            root = _bass(setting, bar.chord_at(at), 0)
            events += [(at, length * (0.5 if muted else 0.95), pitch, 0.0) for pitch in (root, root + 7, root + 12)]
        return events

    return play


def bells(setting: Setting) -> Texture:
    """Single chord notes here and there."""

    def play(bar: Bar) -> list[Event]:
        places = [at for at in bar.steps(0.5) if setting.chance(0.3)]
        return [
            (at, 1.5, nearest(bar.chord_at(at).classes, int(setting.rng.integers(setting.low, setting.high)),
                              setting.low, setting.high), 0.0)
            for at in places
        ]  # fmt: skip

    return play


def timpani(setting: Setting) -> Texture:
    """Root and fifth on strong beats, and rolls."""

    def play(bar: Bar) -> list[Event]:
        if setting.chance(0.25):
            unit, pitch = setting.unit(0.125), _bass(setting, bar.chords[0], 0)
            return [(at, unit, pitch, 8.0 * (at - bar.begin) - 12) for at in bar.steps(unit)]
        return [(at, length * 0.5, _bass(setting, chord, int(setting.rng.choice((0, 7)))), 0.0)
                for at, length, chord in bar.changes()]  # fmt: skip

    return play


def _broken(setting: Setting, unit: float, order: tuple[int, ...], count: int, length: float) -> Texture:
    def play(bar: Bar) -> list[Event]:
        events = []
        for place, at in enumerate(bar.steps(unit)):
            pitches = _voicing(setting, bar.chord_at(at), count)
            if pitches:
                events.append((at, unit * length, pitches[order[place % len(order)] % len(pitches)], _accent(bar, at)))
        return events

    return play


def _voicing(setting: Setting, chord: Chord, count: int) -> tuple[int, ...]:
    return voiced(chord, setting.low, setting.high, count, setting.middle)


def _bass(setting: Setting, chord: Chord, above: int) -> int:
    """The chord's root near the bottom of the range, or this many semitones above it if that is in the range."""
    root = nearest((chord.root,), setting.low + 6, setting.low, setting.high)
    return root + above if root + above <= setting.high else root


def _accent(bar: Bar, at: float) -> float:
    return 6.0 if abs((at - bar.begin) % bar.metre.beat_quarters) < 1e-3 else -3.0


def _scale(setting: Setting) -> list[int]:
    return [setting.key.pitch(degree) for degree in range(7)]


ACCOMPANIMENTS: dict[str, Callable[[Setting], Texture]] = {
    maker.__name__: maker
    for maker in (
        block, pad, alberti, arpeggio, broken_octaves, repeated_chords, tremolo, strum, stride, comping, root_bass,
        driving_bass, walking_bass, pedal_point, montuno, power_riff, bells, timpani,
    )
}  # fmt: skip
