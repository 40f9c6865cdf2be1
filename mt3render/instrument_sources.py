"""Published sample collections as instruments: the kind of a folder or file, and what is known about it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from mt3core.errors import UsageError
from mt3render.drum_kits import HI_HATS, completed, is_hydrogen, read_hydrogen
from mt3render.instrument_folders import Take
from mt3render.instruments import Instrument
from mt3render.salamander import DAMPER_SECONDS, GRAND_DAMPED_TO, is_salamander, read_salamander
from mt3render.sfz import read_sfz
from mt3render.soundfonts import NUM_KEYS
from mt3render.spectmorph import is_spectmorph, read_spectmorph

PIANOS = frozenset(range(4))  # those with hammers, strings and dampers
_SHORTEST_RELEASE_SECONDS = 0.02
_SAID = ("name", "licence", "attribution", "source", "programs", "rings", "velocity_exponent")
_NEEDED = ("licence", "attribution")


@dataclass(frozen=True)
class Card:
    """What the user says about an instrument; None keeps what its source says, if anything."""

    name: str | None = None
    licence: str | None = None
    attribution: str | None = None
    source: str | None = None
    programs: tuple[int, ...] | None = None
    rings: bool | None = None
    drums: bool = False  # an .sfz file's keys are General MIDI's drum notes
    keys: tuple[int, ...] | None = None  # only these are used from an .sfz file or a SpectMorph instrument
    velocity_exponent: float | None = None


def parse_numbers(text: str | None) -> tuple[int, ...] | None:
    """Programs or keys written as `40,42-45`. Raises `UsageError`."""
    if text is None:
        return None
    numbers: list[int] = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < NUM_KEYS:
            raise UsageError(
                f"{text!r} is not a list of programs or keys.", "Use numbers from 0 to 127, as in 40,42-45."
            )
        numbers += range(first, last + 1)
    return tuple(numbers)


def read_source(source: Path, card: Card, num_layers: int | None = None) -> tuple[Instrument, list[Take]]:
    """An instrument and its recordings. Raises `UsageError` if its kind or licence is unknown."""
    if source.is_dir() and is_salamander(source):
        instrument, takes = read_salamander(source, num_layers)
    elif source.is_dir() and is_hydrogen(source):
        instrument, takes = read_hydrogen(source)
    elif source.is_dir() and is_spectmorph(source):
        instrument, takes = read_spectmorph(source)
        takes = _chosen(takes, source, card)
    elif source.suffix.lower() == ".sfz":
        instrument, takes = _sfz_instrument(source, card)
    else:
        raise UsageError(
            f"{source} contains no samples of a known kind.",
            "Use an .sfz file, or the folder of the Salamander, a Hydrogen kit or a SpectMorph instrument.",
        )
    said = {name: getattr(card, name) for name in _SAID if getattr(card, name) is not None}
    instrument = dataclasses.replace(instrument, **said)
    if instrument.is_drum_kit == bool(instrument.programs):
        raise UsageError(f"It is unknown what {source.name} plays.", "Use --programs, or --drums for an .sfz drum kit.")
    for name in _NEEDED:
        if not getattr(instrument, name):
            raise UsageError(f"The {name} of {source} is unknown.", f"Use --{name}.")
    return instrument, takes


def _sfz_instrument(path: Path, card: Card) -> tuple[Instrument, list[Take]]:
    read = read_sfz(path)
    instrument = Instrument(
        name=path.stem,
        programs=() if card.drums else card.programs or (),
        is_drum_kit=card.drums,
        release_seconds=((0, max(read.release_seconds, _SHORTEST_RELEASE_SECONDS)),),
        choke_groups=(HI_HATS,) if card.drums else (),
        velocity_exponent=read.velocity_exponent,
    )
    if set(instrument.programs) & PIANOS:  # their files leave the dampers to the player
        instrument = dataclasses.replace(instrument, release_seconds=DAMPER_SECONDS, damped_to=GRAND_DAMPED_TO)
    takes = _chosen(read.takes, path, card)
    return instrument, completed(takes) if card.drums else takes


def _chosen(takes: list[Take], source: Path, card: Card) -> list[Take]:
    chosen = [take for whole in takes for take in _within(whole, card.keys)]
    if not chosen:
        raise UsageError(f"{source.name} has none of these keys.", "Choose others with --keys.")
    return chosen


def _within(take: Take, keys: tuple[int, ...] | None) -> list[Take]:
    """The take on the requested ones of its keys, once for each run of consecutive keys."""
    if keys is None:
        return [take]
    wanted = [key for key in range(take.sample.keys[0], take.sample.keys[1] + 1) if key in keys]
    begins = [key for key in wanted if key - 1 not in wanted]
    ends = [key for key in wanted if key + 1 not in wanted]
    return [
        Take(take.recordings, dataclasses.replace(take.sample, keys=stretch))
        for stretch in zip(begins, ends, strict=True)
    ]
