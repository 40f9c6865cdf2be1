"""Drum parts whose kick, snare, hi-hat, toms and cymbals come from kits of their own, each tuned.

There are few kits with a free licence, and a network that hears only those learns their sound. Groups of drums that are
combined anew for each part, and tuned higher or lower, sound like as many kits as there are parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mt3core.notes.table import NoteTable
from mt3render.drum_kits import HI_HATS, TOMS
from mt3render.engines import Engine
from mt3render.score import Part
from mt3render.variation import Voice

CYMBALS = (49, 51, 52, 53, 55, 57, 59)
_GROUPS = ((35, 36), (37, 38, 39, 40), HI_HATS, TOMS, CYMBALS)
# Level of the loudest stroke of each group, before the drawn difference; the last one is for all other drums.
_LEVELS_DB = (0.0, -1.0, -9.0, -3.0, -7.0, -8.0)
_LEVEL_RANGE_DB = 5.0
_TUNING_CENTS = (300.0, 400.0, 200.0, 400.0, 300.0, 300.0)  # at most, up or down, of each group


@dataclass(frozen=True)
class MixedKit:
    """An engine that plays each group of a part's drums by a voice of its own.

    Attributes:
        voices: for each group of `drum_groups`, in their order: its voice and engine, None for a group that no kit has.
    """

    voices: tuple[tuple[Voice, Engine] | None, ...]
    name = "mixed kits"
    uses_sound_fonts = True

    def play(self, notes: NoteTable, voice: Voice, num_samples: int, sample_rate_hz: int) -> np.ndarray:
        """The groups' sum; `voice` is that of the whole part and is not used."""
        total = np.zeros((num_samples, 2), np.float32)
        for group, chosen in zip(drum_groups(notes["pitch"]), self.voices, strict=True):
            if chosen is None or not group.any():
                continue
            its_voice, engine = chosen
            samples = engine.play(notes[group], its_voice, num_samples, sample_rate_hz)
            highest = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
            if highest > 0:
                total += samples * np.float32(10 ** (its_voice.level_db / 20) / highest)
        return total


def drum_groups(pitches: np.ndarray) -> list[np.ndarray]:
    """Which notes are in each group: kicks, snares, hi-hats, toms, cymbals, all others."""
    groups = [np.isin(pitches, group) for group in _GROUPS]
    return [*groups, ~np.logical_or.reduce(groups)]


def draw_mixed_kit(
    part: Part,
    rng: np.random.Generator,
    choose: Callable[[Part], Voice | None],
    engine_of: Callable[[Voice], Engine],
) -> MixedKit:
    """A kit for each group of the part's drums, by `choose`, with a tuning and a level of its own."""
    voices: list[tuple[Voice, Engine] | None] = []
    for group, level_db, cents in zip(drum_groups(part.notes["pitch"]), _LEVELS_DB, _TUNING_CENTS, strict=True):
        voice = choose(replace(part, notes=part.notes[group])) if group.any() else None
        if voice is None:
            voices.append(None)
            continue
        level_db += float(rng.uniform(-_LEVEL_RANGE_DB, _LEVEL_RANGE_DB))
        voice = replace(voice, level_db=level_db, tuning_cents=float(rng.uniform(-cents, cents)))
        voices.append((voice, engine_of(voice)))
    return MixedKit(tuple(voices))
