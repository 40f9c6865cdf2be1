"""A piece from a number and a seed: style, key, metre, tempo and form are drawn, then played by rule and humanised.

for number in range(100):
    write_midi(compose_piece(number, seed=0), f"{number:03d}.mid")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from humanising import humanised

from composer.accompaniment import ACCOMPANIMENTS
from composer.drums import PATTERNS, Pattern, drum_bar, fill
from composer.harmony import Chord, Key, chord_bars, nearest, voiced
from composer.instruments import Instrument, drawn_program
from composer.melody import LINES
from composer.setting import METRES, Bar, Event, Metre, Setting, Texture
from composer.styles import STYLES, Layer, Style
from mt3core.errors import UsageError
from mt3core.notes.table import NOTE_DTYPE, Note, to_notes
from mt3render.score import Part
from mt3render.variation import generator

DURATION_SECONDS = (40.0, 90.0)
_FORMS = ("AABA", "ABAB", "AABB", "ABAC", "AAB", "ABA")
_TEXTURES = {**ACCOMPANIMENTS, **LINES}
_KEY_CHANGE = 0.2  # chance that the last section is in another key
_DRUM_VELOCITY = 92.0
_NO_PEDAL = np.empty((0, 2))


@dataclass(frozen=True)
class _Player:
    """A layer of the piece with its chosen instrument."""

    layer: Layer
    instrument: Instrument
    program: int

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest pitch: the instrument's, as far as the layer allows, at least an octave."""
        low = max(self.instrument.low, self.layer.low)
        high = min(self.instrument.high, self.layer.high)
        return (low, high) if high - low >= 12 else (self.instrument.low, self.instrument.high)


@dataclass(frozen=True)
class _Section:
    key: Key
    metre: Metre
    tempo: float
    shortest_seconds: float


def compose_piece(number: int, seed: int, style: str | None = None) -> list[Note]:
    """Piece `number` of a seed, in a drawn or given style, sorted by onset; times in seconds on whole milliseconds.

    Raises `UsageError` for a style that is not in `styles.STYLES`.
    """
    rng = generator(seed, "composer", str(number), style or "any")
    chosen = _style(style or str(rng.choice(list(STYLES))))
    tempo = float(rng.uniform(*chosen.tempo))
    metre = METRES[str(rng.choice(chosen.metres))]
    players = [_player(layer, rng) for layer in chosen.layers]
    swing = float(rng.uniform(*chosen.swing))
    events, drums = _played(chosen, metre, tempo, players, rng)
    tempo = _playable(events, drums, tempo, float(rng.uniform(*chosen.densest)), rng)
    parts = [
        _part(player.program, player.layer.velocity, played, metre, tempo, swing)
        for player, played in zip(players, events, strict=True)
    ]
    parts = [*_merged(parts), _part(0, _DRUM_VELOCITY, drums, metre, tempo, swing, is_drum=True)]
    sounding = humanised([part for part in parts if len(part.notes)], rng)
    table = np.concatenate([part.notes for part in sounding])
    table["onset"] = np.round(table["onset"], 3)
    table["offset"] = np.maximum(np.round(table["offset"], 3), table["onset"] + 0.001)
    order = np.lexsort((table["pitch"], table["program"], table["is_drum"], table["onset"]))
    return to_notes(table[order])


def _style(name: str) -> Style:
    if name not in STYLES:
        raise UsageError(f"Unknown style {name!r}.", f"Choose {', '.join(STYLES)}.")
    return STYLES[name]


def _player(layer: Layer, rng: np.random.Generator) -> _Player:
    instrument = layer.instruments[int(rng.integers(len(layer.instruments)))]
    return _Player(layer, instrument, drawn_program(instrument, rng))


def _played(
    style: Style, metre: Metre, tempo: float, players: Sequence[_Player], rng: np.random.Generator
) -> tuple[list[list[Event]], list[Event]]:
    """The events of every player and of the drums, section by section, and a last chord."""
    key = Key(int(rng.integers(12)), str(rng.choice(style.modes)))
    family, vocabulary = str(rng.choice(style.families)), str(rng.choice(style.vocabularies))
    form, form_seed = str(rng.choice(_FORMS)), int(rng.integers(1 << 30))
    shortest_seconds = float(rng.uniform(*style.shortest_seconds))
    bar_seconds = metre.quarters * 60 / tempo
    wanted = float(rng.uniform(*DURATION_SECONDS)) / bar_seconds / len(form)
    length = 12 if family == "blues" else max(2, 2 * round(wanted / 2))
    events: list[list[Event]] = [[] for _ in players]
    drums: list[Event] = []
    begin = 0.0
    for place, letter in enumerate(form):
        section_rng = generator(form_seed, letter)  # a section is repeated unchanged, perhaps in another key
        if place == len(form) - 1 and rng.random() < _KEY_CHANGE:
            key = Key((key.tonic + int(rng.choice((1, 2, 5, 7)))) % 12, key.mode)
        bars = _bars(key, family, vocabulary, metre, begin, length, section_rng)
        textures = _textures(style, _Section(key, metre, tempo, shortest_seconds), players, section_rng)
        for played, texture in zip(events, textures, strict=True):
            if texture is not None:
                played += [event for bar in bars for event in texture(bar)]
        drums += _drums(style, metre, bars, section_rng)
        begin += length * metre.quarters
    _end(key, metre, begin, players, events, drums)
    return events, drums


def _playable(
    events: list[list[Event]], drums: list[Event], tempo: float, most_a_second: float, rng: np.random.Generator
) -> float:
    """Silences players while there are too many notes, then slows the tempo down, at most to half."""
    end = max(event[0] for played in events for event in played)

    def a_second() -> float:
        return (len(drums) + sum(map(len, events))) / end * tempo / 60

    while a_second() > 1.3 * most_a_second and sum(map(bool, events)) > 3:
        playing = [place for place, played in enumerate(events) if played]
        events[int(rng.choice(playing[1:]))].clear()
    if drums and a_second() > 2 * most_a_second:
        drums.clear()
    return tempo * max(0.5, min(1.0, most_a_second / a_second()))


def _bars(
    key: Key, family: str, vocabulary: str, metre: Metre, begin: float, count: int,
    rng: np.random.Generator,
) -> list[Bar]:  # fmt: skip
    chords = chord_bars(key, family, vocabulary, count, rng)
    return [Bar(begin + place * metre.quarters, metre, tuple(bar), place) for place, bar in enumerate(chords)]


def _textures(
    style: Style, section: _Section, players: Sequence[_Player], rng: np.random.Generator
) -> list[Texture | None]:
    triplets = rng.random() < style.triplets
    textures: list[Texture | None] = []
    for player in players:
        low, high = player.range
        setting = Setting(rng, low, high, section.key, section.metre, section.tempo, triplets, section.shortest_seconds)
        chosen = str(rng.choice(player.layer.textures))
        textures.append(_TEXTURES[chosen](setting) if rng.random() < player.layer.chance else None)
    return textures


def _drums(style: Style, metre: Metre, bars: Sequence[Bar], rng: np.random.Generator) -> list[Event]:
    fitting = [name for name in style.drums if PATTERNS[name][0] == metre.name]
    if not fitting or rng.random() < 0.08:
        return []
    variants = PATTERNS[str(rng.choice(fitting))][1]
    pattern: Pattern = variants[int(rng.integers(len(variants)))]
    division = 0.5 if metre.compound else float(rng.choice((0.25, 0.25, 1 / 3)))
    events: list[Event] = []
    for bar in bars:
        filled = fill(bar, rng, division) if bar.number == len(bars) - 1 or rng.random() < 0.08 else []
        begins = min((event[0] for event in filled), default=bar.begin + metre.quarters)
        played = drum_bar(pattern, bar, rng, opens=bar.number == 0)
        events += [event for event in played if event[0] < begins - 1e-6] + filled
    return events


def _end(
    key: Key, metre: Metre, begin: float, players: Sequence[_Player], events: list[list[Event]], drums: list[Event]
) -> None:
    """The tonic, held for a bar by everyone who played in the last section."""
    triad = tuple((key.pitch(degree)) % 12 for degree in (0, 2, 4))
    for player, played in zip(players, events, strict=True):
        if played and played[-1][0] >= begin - 2 * metre.quarters:
            low, high = player.range
            last = played[-1][2]
            pitches = (nearest(triad, last, low, high),) if high - low < 30 else _last_chord(key, low, high, last)
            played += [(begin, metre.quarters, pitch, 4.0) for pitch in pitches]
    if drums:
        drums += [(begin, 0.1, 36, 10.0), (begin, 0.1, 49, 10.0)]


def _last_chord(key: Key, low: int, high: int, near: int) -> tuple[int, ...]:
    third = key.pitch(2) - key.pitch(0)
    return voiced(Chord(key.tonic, (0, third, 7)), low, high, 3, near)


def _part(
    program: int, velocity: float, events: Sequence[Event], metre: Metre, tempo: float, swing: float,
    is_drum: bool = False,
) -> Part:  # fmt: skip
    table = np.zeros(len(events), NOTE_DTYPE)
    if len(events):
        begin, length, pitch, strength = (np.array(column, np.float64) for column in zip(*events, strict=True))
        quarter_seconds = 60 / tempo
        table["onset"] = _swung(begin, swing, metre) * quarter_seconds
        table["offset"] = np.maximum(_swung(begin + length, swing, metre) * quarter_seconds, table["onset"] + 0.03)
        table["pitch"] = pitch
        table["velocity"] = np.clip(np.rint(velocity + strength), 10, 127)
        table["program"], table["is_drum"] = program, is_drum
        table = table[(table["pitch"] >= 21) & (table["pitch"] <= 108)]
    return Part("Drums" if is_drum else "", program, is_drum, table, _NO_PEDAL)


def _swung(quarters: np.ndarray, swing: float, metre: Metre) -> np.ndarray:
    """Times with the middle of each beat moved to `swing` of it."""
    if swing == 0.5 or metre.compound:
        return quarters
    beat, within = np.divmod(quarters, 1.0)
    return beat + np.interp(within, [0.0, 0.5, 1.0], [0.0, swing, 1.0])


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Parts of the same program joined: both hands of a piano are one player."""
    by_program: dict[int, list[Part]] = {}
    for part in parts:
        by_program.setdefault(part.program, []).append(part)
    return [
        Part("", program, False, np.concatenate([part.notes for part in same]), _NO_PEDAL)
        for program, same in by_program.items()
    ]
