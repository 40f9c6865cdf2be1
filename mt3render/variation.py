"""The sound of each part: program, sound font, preset and level, drawn from a seed; and the tuning of the piece.

A draw depends only on the seed and the piece's path, not on the order of the pieces or on other pieces. A program
changes within its class: instruments that could replace each other in an arrangement. The classes leave out
programs that do not sound at the written pitch (guitar harmonics, fifths, bells, whistle, some effects), so that
they are heard only if a file asks for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt3core.errors import UsageError
from mt3render.score import Part
from mt3render.soundfonts import DRUM_BANK, SoundFont

PROGRAM_CHOICES = ("keep", "class", "any")
CLASSES: tuple[tuple[int, ...], ...] = (
    (0, 1, 2, 3),  # pianos
    (4, 5),  # electric pianos
    (6, 7),  # harpsichord, clavinet
    (8, 10, 11, 12, 13),  # celesta, music box, mallets
    (16, 17, 18, 19, 20),  # organs
    (21, 22, 23),  # accordions, harmonica
    (24, 25),  # acoustic guitars
    (26, 27, 28),  # electric guitars, clean
    (29, 30),  # electric guitars, distorted
    (32, 33, 34, 35, 36, 37),  # basses
    (38, 39),  # synth basses
    (40, 41, 42, 43),  # bowed strings
    (44, 48, 49, 50, 51),  # string sections
    (52, 53, 54),  # choirs
    (56, 57, 58, 59, 60),  # brass
    (61, 62, 63),  # brass sections
    (64, 65, 66, 67),  # saxophones
    (68, 69, 70, 71),  # oboe, English horn, bassoon, clarinet
    (72, 73, 74, 75, 79),  # flutes
    (80, 81, 82, 83, 84, 85, 87),  # synth leads
    (88, 89, 90, 91, 92, 93, 94, 95),  # synth pads
    (104, 105, 106, 107, 108),  # plucked instruments of the world
)
KITS = (0, 8, 16, 24, 25, 32, 40)  # GS drum kits that keep each drum on its key
ACOUSTIC_PIANOS = (0, 1)  # programs acceptable as MAESTRO's grand piano

_BASS_CLASSES = ((32, 33, 34, 35, 36, 37), (38, 39))
_BASS_TOP_PITCH = 52  # with "any", parts whose middle is below this are played by basses, and only those
# Half a semitone away a note would be another key.
WIDEST_TUNING_CENTS = 50.0
_LEVEL_DB = (-7.0, 4.0)
_LEAST_COVERAGE = 0.99  # share of a part's notes that a preset must have samples for


@dataclass(frozen=True)
class Voice:
    """How a part is played: the program in its label, the preset that plays it, its level relative to others."""

    program: int
    bank: int
    preset: int
    font: Path | None
    level_db: float
    tuning_cents: float = 0.0  # of the whole piece, above 440 Hz for a'; drums are not tuned

    @property
    def plugin_name(self) -> str:
        """What SLAKH's metadata calls the plug-in: here the sound font with bank and preset."""
        return f"{self.font.name if self.font else 'sines'}:{self.bank}:{self.preset}"


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers that depend only on a seed and names, the same on every machine."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def choose_voice(
    part: Part, fonts: Sequence[SoundFont], rng: np.random.Generator, programs: str = "class"
) -> Voice | None:
    """A voice that has samples for nearly all notes of a part; None if no sound font has one.

    `programs` is `keep`, `class` or `any` (see `PROGRAM_CHOICES`). Without sound fonts every program plays. Drums
    stay drums, on a kit that varies with `class` and `any`.
    """
    if programs not in PROGRAM_CHOICES:
        raise UsageError(f"Unknown choice of programs {programs!r}.", f"Choose {', '.join(PROGRAM_CHOICES)}.")
    level_db = float(rng.uniform(*_LEVEL_DB))
    bank = DRUM_BANK if part.is_drum else 0
    wanted = _candidates(part, rng, programs)
    if not fonts:
        return Voice(0 if part.is_drum else wanted[0], bank, wanted[0], None, level_db)
    order = [fonts[index] for index in rng.permutation(len(fonts)).tolist()]
    # A program that was not drawn is better than one without samples; after that, the one with most of the notes.
    best: tuple[float, Voice] | None = None
    for preset in wanted:
        for font in order:
            voice = Voice(0 if part.is_drum else preset, bank, preset, font.path, level_db)
            coverage = float(font.sounds(bank, preset)[part.notes["pitch"]].mean())
            if coverage >= _LEAST_COVERAGE:
                return voice
            if coverage > (best[0] if best else 0.0):
                best = coverage, voice
    return best[1] if best else None


def draw_tuning(tuning_cents: tuple[float, float], seed: int, piece: str) -> float:
    """The tuning of a piece within a range, in cents above 440 Hz for a'."""
    low, high = tuning_cents
    return low if low == high else float(generator(seed, piece, "tuning").uniform(low, high))


def has_samples(part: Part, voice: Voice, fonts: Sequence[SoundFont]) -> np.ndarray:
    """Which of a part's notes the voice can play."""
    for font in fonts:
        if font.path == voice.font:
            return font.sounds(voice.bank, voice.preset)[part.notes["pitch"]]
    return np.ones(len(part.notes), bool)


def _candidates(part: Part, rng: np.random.Generator, programs: str) -> list[int]:
    """Presets to try in order: the drawn one, others of the class, and finally the part's own."""
    if part.is_drum:
        return [0] if programs == "keep" else [*rng.permutation(KITS).tolist(), 0]
    own = next((group for group in CLASSES if part.program in group), (part.program,))
    if programs == "keep":
        return [part.program, *own]
    if programs == "any":
        is_bass = float(np.median(part.notes["pitch"])) < _BASS_TOP_PITCH
        groups = [group for group in CLASSES if (group in _BASS_CLASSES) == is_bass]
        own = groups[int(rng.integers(len(groups)))]
    return [*rng.permutation(own).tolist(), part.program]
