"""Published sample collections as instruments: which kind a folder or file is, and what is said about it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mt3core.errors import UsageError
from mt3core.rendering.instrument_folders import Take
from mt3core.rendering.instruments import Instrument
from mt3core.rendering.salamander import is_salamander, read_salamander

NUM_PROGRAMS = 128
_NEEDED = ("licence", "attribution")


@dataclass(frozen=True)
class Card:
    """What a person says about an instrument; None leaves what its source says, if it does."""

    name: str | None = None
    licence: str | None = None
    attribution: str | None = None
    source: str | None = None
    programs: tuple[int, ...] | None = None
    rings: bool | None = None


def parse_programs(text: str | None) -> tuple[int, ...] | None:
    """Programs written as `40,41`. Raises `UsageError`."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) < NUM_PROGRAMS for word in words):
        raise UsageError(f"{text!r} are no programs.", "Give numbers from 0 to 127, separated by commas.")
    return tuple(int(word) for word in words)


def read_source(source: Path, card: Card, num_layers: int | None = None) -> tuple[Instrument, list[Take]]:
    """An instrument and its recordings. Raises `UsageError` for what is of no known kind or of no stated licence."""
    if source.is_dir() and is_salamander(source):
        instrument, takes = read_salamander(source, num_layers)
    else:
        raise UsageError(f"{source} holds no samples of a known kind.", "Give the Salamander's folder.")
    said = {name: value for name, value in dataclasses.asdict(card).items() if value is not None}
    instrument = dataclasses.replace(instrument, **said)
    for name in _NEEDED:
        if not getattr(instrument, name):
            raise UsageError(f"Nothing says the {name} of {source}.", f"Give it with --{name}.")
    return instrument, takes
