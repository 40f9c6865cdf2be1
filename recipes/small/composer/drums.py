"""Drum patterns and fills. A pattern is a string for each drum, with one character per step of the bar.

`x` is a stroke, `X` an accent, `o` a soft or ghost stroke, `.` a rest; a string is repeated to the end of the bar.
Sixteen steps are a bar of four quarters in sixteenths, twelve one in triplets, or three quarters in sixteenths.
"""

from __future__ import annotations

import numpy as np

from composer.setting import Bar, Event, Metre

KICK, KICK_2, STICK, SNARE, CLAP, SNARE_2 = 36, 35, 37, 38, 39, 40
CLOSED, PEDAL, OPEN, CRASH, RIDE, BELL, SPLASH, CRASH_2, CHINA, RIDE_2 = 42, 44, 46, 49, 51, 53, 55, 57, 52, 59
TOMS = (41, 43, 45, 47, 48, 50)  # low to high
TAMBOURINE, COWBELL, BONGO_HIGH, BONGO_LOW, CONGA_MUTE, CONGA_OPEN, CONGA_LOW = 54, 56, 60, 61, 62, 63, 64
TIMBALE_HIGH, TIMBALE_LOW, AGOGO_HIGH, AGOGO_LOW, CABASA, MARACAS = 65, 66, 67, 68, 69, 70
GUIRO_SHORT, GUIRO_LONG, CLAVES, BLOCK_HIGH, BLOCK_LOW, CUICA, TRIANGLE_MUTE, TRIANGLE = 73, 74, 75, 76, 77, 79, 80, 81
_STRENGTH = {"o": -35.0, "x": 0.0, "X": 14.0}
_FILL_CHANCE = 0.7  # before a new section
_HIT_QUARTERS = 0.1

Pattern = dict[int, str]

PATTERNS: dict[str, tuple[str, tuple[Pattern, ...]]] = {  # metre, variants
    "rock": ("4/4", (
        {KICK: "x.......x.......", SNARE: "....X.......X...", CLOSED: "x.x.x.x."},
        {KICK: "x.....x.x.x.....", SNARE: "....X.......X..o", CLOSED: "x.o.x.o."},
        {KICK: "x..x..x.x.......", SNARE: "....X..o.o..X...", OPEN: "x.x.x.x."},
    )),
    "pop": ("4/4", (
        {KICK: "x.......x.x.....", SNARE: "....x.......x...", CLOSED: "x.o.x.o.x.o.x.o."},
        {KICK: "x..x....x..x....", CLAP: "....x.......x...", CLOSED: "xoxoxoxo", TAMBOURINE: "....x.......x..."},
    )),
    "ballad": ("4/4", (
        {KICK: "x.........x.....", STICK: "....x.......x...", CLOSED: "x.o.x.o."},
        {KICK: "x.......x.......", SNARE: "........x.......", RIDE: "x.x.x.x."},
    )),
    "funk": ("4/4", (
        {KICK: "x..x..x...x..x..", SNARE: "....X..o.o..X..o", CLOSED: "xoxoxoxoxoxoxo..", OPEN: "..............x."},
        {KICK: "x.x.......xx....", SNARE: "...oX..o.o.oX.o.", CLOSED: "x.xxx.xx"},
    )),
    "disco": ("4/4", (
        {KICK: "x...", SNARE: "....x...", CLOSED: "xo.o", OPEN: "..x."},
        {KICK: "x...", CLAP: "....x...", OPEN: "..x.", TAMBOURINE: "x.xx"},
    )),
    "house": ("4/4", (
        {KICK: "X...", CLAP: "....x...", OPEN: "..x.", MARACAS: "xoxo", COWBELL: "...x..x....x...."},
        {KICK: "X...", CLAP: "....x...", CLOSED: "..x.", RIDE_2: "x...x..."},
    )),
    "electro": ("4/4", (
        {KICK: "x.....x...x.....", SNARE_2: "....X.......X...", CLOSED: "xxxx", COWBELL: "..x..x..x..x...."},
        {KICK_2: "x..x..x.....x...", CLAP: "....X.......X...", CLOSED: "x.xxx.x."},
    )),
    "hip_hop": ("4/4", (
        {KICK: "x......x..x.....", SNARE: "....X.......X...", CLOSED: "x.x.x.x."},
        {KICK_2: "x.x.......x..x..", CLAP: "....X.......X...", CLOSED: "x.xxx.x.x.x.xxx."},
    )),
    "trap": ("4/4", (
        {KICK_2: "x.....x....x....", CLAP: "........X.......", CLOSED: "xxxxx.x.xxxxxxxx", OPEN: "..............x."},
    )),
    "break": ("4/4", (
        {KICK: "x.x.......xx....", SNARE: "....X..o.o..X..o", RIDE: "x.x."},
        {KICK: "x.x.......x.....", SNARE: "....X..o.o....X.", CLOSED: "x.x."},
    )),
    "metal": ("4/4", (
        {KICK: "xxxx", SNARE: "....X...", CHINA: "x...x..."},
        {KICK: "x.xxx.xx", SNARE: "..X.", CRASH_2: "x...", RIDE: "x.x."},
    )),
    "punk": ("4/4", (
        {KICK: "x..x..x.", SNARE: "..X...X.", OPEN: "x.x.x.x."},
        {KICK: "x.x.", SNARE: ".X.X", CRASH: "x..."},
    )),
    "train": ("4/4", (
        {KICK: "x...x...", SNARE: "ooXooooX", PEDAL: "..x."},
        {KICK: "x...", SNARE: "oXoX", CLOSED: "x.x."},
    )),
    "shuffle": ("4/4", (
        {KICK: "x.....x..x..", SNARE: "...X.....X..", CLOSED: "x.xx.x"},
        {KICK: "x..x..", SNARE: "..oX.o..oX.o", RIDE: "x.xx.x"},
    )),
    "swing": ("4/4", (
        {RIDE: "x..x.xx..x.x", PEDAL: "...x..", KICK: "o..o..", SNARE: ".....o....o."},
        {BELL: "x..x.x", PEDAL: "...x..", SNARE: "..o........x", KICK: "x.........o."},
    )),
    "bossa": ("4/4", (
        {KICK: "x..xx..x", STICK: "x..x..x...x..x..", CLOSED: "xoxo"},
        {KICK: "x..xx..x", CLAVES: "x..x..x...x..x..", CABASA: "xoxo"},
    )),
    "samba": ("4/4", (
        {KICK: "x..xx..x", SNARE: "x.oxo.xox.oxo.xo", AGOGO_HIGH: "x.x....x..x.....", AGOGO_LOW: "....x.x.....x.x.",
         CUICA: "..x..x.."},
        {KICK: "x..X", MARACAS: "xoxo", TAMBOURINE: "xo.x"},
    )),
    "salsa": ("4/4", (
        {CLAVES: "x..x..x...x.x...", COWBELL: "x...x.x.x...x.x.", CONGA_MUTE: "x.o.x.o.", CONGA_OPEN: "......xx",
         GUIRO_SHORT: "..xx", GUIRO_LONG: "x..."},
        {TIMBALE_HIGH: "x.xx.x.x", TIMBALE_LOW: "......x.", BONGO_HIGH: "x.oox.oo", BONGO_LOW: "......x.",
         KICK: "...x..x."},
    )),
    "calypso": ("4/4", (
        {KICK: "x...x..x", BLOCK_HIGH: "x..x..x.", BLOCK_LOW: "....x...", CONGA_LOW: "......x.",
         TRIANGLE_MUTE: "x.x.", TRIANGLE: "..x."},
    )),
    "reggae": ("4/4", (
        {KICK: "........x.......", STICK: "........x.......", CLOSED: "x.x.x.xo"},
        {KICK: "x...", SNARE: "........X.......", CLOSED: "..x."},
    )),
    "march": ("4/4", ({KICK: "x...x...", SNARE: "x.xxx.x.x.xxxxxx", CRASH: "x..............."},)),
    "latin_rock": ("4/4", (
        {KICK: "x..x..x.x..x..x.", SNARE: "....x..o....x...", COWBELL: "x...", CONGA_OPEN: "......xx",
         CONGA_LOW: "...x...."},
    )),
    "waltz": ("3/4", (
        {KICK: "x...........", CLOSED: "....x...x...", STICK: "........x..."},
        {KICK: "x...........", RIDE: "x...x.x.x...", PEDAL: "....x...x..."},
    )),
    "waltz_rock": ("3/4", ({KICK: "x.....x.....", SNARE: "....X...x...", CLOSED: "x.x."},)),
    "six_eight": ("6/8", (
        {KICK: "x.........o.", SNARE: "......X.....", CLOSED: "x.o.o.x.o.o."},
        {KICK: "x...x.......", SNARE: "......X....o", RIDE: "x.x.x."},
    )),
    "afro": ("6/8", (
        {BELL: "x.x.xx.x.x.x", KICK: "x.....x.....", CONGA_OPEN: "..xx..", CONGA_LOW: "....x.", MARACAS: "x.x.x."},
    )),
    "orchestral": ("4/4", (
        {KICK: "x...............", SNARE: "............xoxo", CRASH: "X...............", TRIANGLE: "....x..."},
        {KICK: "x.......x.......", TAMBOURINE: "x.x.xxx."},
    )),
}  # fmt: skip


def drum_bar(pattern: Pattern, bar: Bar, rng: np.random.Generator, opens: bool) -> list[Event]:
    """A bar of a pattern; with a crash at its start if a section `opens`. Some soft strokes are left out."""
    events: list[Event] = []
    for drum, signs in pattern.items():
        steps = _steps(pattern, bar.metre)
        for place in range(steps):
            sign = signs[place % len(signs)]
            if sign != "." and not (sign == "o" and rng.random() < 0.25):
                at = bar.begin + place * bar.metre.quarters / steps
                events.append((at, _HIT_QUARTERS, drum, _STRENGTH[sign]))
    if opens and rng.random() < 0.8:
        events.append((bar.begin, _HIT_QUARTERS, int(rng.choice((CRASH, CRASH, CRASH_2, SPLASH))), 10.0))
    return events


def fill(bar: Bar, rng: np.random.Generator, division: float) -> list[Event]:
    """Strokes down the toms, or on the snare, over the last one to four beats; empty if none is drawn."""
    if rng.random() > _FILL_CHANCE:
        return []
    beats = int(rng.integers(1, 3 if bar.metre.quarters == 3.0 else 5))
    begin = max(bar.begin, bar.begin + bar.metre.quarters - beats * bar.metre.beat_quarters)
    times = np.arange(begin, bar.begin + bar.metre.quarters - 1e-6, division)
    descends = rng.random() < 0.6
    events: list[Event] = []
    for place, at in enumerate(times.tolist()):
        if rng.random() < 0.12:
            continue
        tom = TOMS[::-1][min(int(place / max(len(times), 1) * len(TOMS)), len(TOMS) - 1)]
        drum = tom if descends else int(rng.choice((SNARE, SNARE, *TOMS)))
        events.append((at, _HIT_QUARTERS, drum, -12.0 + 20.0 * place / max(len(times), 1)))
        if rng.random() < 0.15:
            events.append((at, _HIT_QUARTERS, KICK, 0.0))
    return events


def _steps(pattern: Pattern, metre: Metre) -> int:
    """Steps of a bar: sixteen or twelve, as most of its strings divide."""
    longest = max(len(signs) for signs in pattern.values())
    if metre.quarters == 3.0:
        return 12
    return 12 if longest % 3 == 0 else 16
