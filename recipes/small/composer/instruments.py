"""General MIDI programs by their role in a piece, with the range in which they play."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Instrument:
    """Programs (from 0) that can replace each other, with their lowest and highest pitch (MIDI numbers)."""

    programs: tuple[int, ...]
    low: int
    high: int


PIANO = Instrument((0, 1, 2, 3), 28, 103)
ELECTRIC_PIANO = Instrument((4, 5), 36, 96)
CLAVIER = Instrument((6, 7), 36, 89)
MALLETS = Instrument((11, 12), 53, 96)
BELLS = Instrument((8, 9, 10, 13, 14, 15), 60, 103)
ORGAN = Instrument((16, 17, 18, 19, 20), 36, 91)
REEDS = Instrument((21, 22, 23), 48, 88)
ACOUSTIC_GUITAR = Instrument((24, 25), 40, 84)
ELECTRIC_GUITAR = Instrument((26, 27, 28), 40, 86)
ROCK_GUITAR = Instrument((29, 30), 40, 86)
BASS = Instrument((32, 33, 34, 35, 36, 37), 28, 55)
SYNTH_BASS = Instrument((38, 39), 28, 55)
VIOLIN, VIOLA = Instrument((40,), 55, 98), Instrument((41,), 48, 84)
CELLO, CONTRABASS = Instrument((42,), 36, 76), Instrument((43,), 28, 60)
PLUCKED_STRINGS = Instrument((45,), 40, 88)
TREMOLO_STRINGS = Instrument((44,), 43, 88)
HARP = Instrument((46,), 31, 98)
TIMPANI = Instrument((47,), 40, 57)
STRINGS = Instrument((48, 49, 50, 51), 36, 93)
CHOIR = Instrument((52, 53, 54), 43, 81)
TRUMPET, TROMBONE = Instrument((56, 59), 54, 84), Instrument((57,), 40, 72)
TUBA, HORN = Instrument((58,), 28, 58), Instrument((60,), 40, 77)
BRASS = Instrument((61, 62, 63), 43, 84)
SAX, LOW_SAX = Instrument((64, 65), 50, 87), Instrument((66, 67), 38, 76)
OBOE, BASSOON, CLARINET = Instrument((68, 69), 56, 89), Instrument((70,), 34, 72), Instrument((71,), 50, 91)
FLUTE, PIPES = Instrument((72, 73, 74), 60, 98), Instrument((75, 76, 77, 78, 79), 60, 96)
SYNTH_LEAD = Instrument((80, 81, 82, 83, 84, 85, 87), 43, 96)
SYNTH_PAD = Instrument((88, 89, 90, 91, 92, 93, 94, 95), 40, 88)
SYNTH_EFFECT = Instrument((96, 98, 99, 100, 101, 102, 103), 48, 91)
WORLD_PLUCKED = Instrument((104, 105, 106, 107), 45, 88)
KALIMBA, WORLD_LEAD = Instrument((108,), 60, 91), Instrument((109, 110, 111), 55, 86)
STEEL_DRUMS = Instrument((114,), 53, 89)
TUNED_PERCUSSION = Instrument((112, 113, 115, 116, 117, 118), 48, 79)

ROLES: dict[str, tuple[Instrument, ...]] = {
    "lead": (
        PIANO, ELECTRIC_PIANO, CLAVIER, MALLETS, BELLS, ORGAN, REEDS, ACOUSTIC_GUITAR, ELECTRIC_GUITAR, ROCK_GUITAR,
        VIOLIN, VIOLA, CELLO, STRINGS, CHOIR, TRUMPET, TROMBONE, HORN, BRASS, SAX, LOW_SAX, OBOE, BASSOON, CLARINET,
        FLUTE, PIPES, SYNTH_LEAD, WORLD_PLUCKED, KALIMBA, WORLD_LEAD, STEEL_DRUMS,
    ),
    "chords": (
        PIANO, PIANO, ELECTRIC_PIANO, CLAVIER, MALLETS, ORGAN, REEDS, ACOUSTIC_GUITAR, ELECTRIC_GUITAR, ROCK_GUITAR,
        TREMOLO_STRINGS, PLUCKED_STRINGS, HARP, STRINGS, CHOIR, BRASS, SYNTH_PAD, SYNTH_EFFECT, WORLD_PLUCKED,
    ),
    "bass": (BASS, BASS, BASS, SYNTH_BASS, SYNTH_BASS, CONTRABASS, CELLO, TUBA, BASSOON, LOW_SAX),
}  # fmt: skip


def drawn_program(instrument: Instrument, rng: np.random.Generator) -> int:
    """One of an instrument's programs."""
    return int(rng.choice(instrument.programs))
