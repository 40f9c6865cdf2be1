"""Instruments by name: what people write for General MIDI's programs, and which of them a model can tell apart.

A name is a class ("strings"), an instrument ("violin"), or words of names that all belong to one class ("electric
guitar", "sax"); words may be cut short as long as only one instrument is meant ("acoustic gr"). Programs are numbered
from 0 to 127, as in JSON; `drums` are an instrument of their own.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mt3core.config.model import VocabularyConfig
from mt3core.decoding import Decoding
from mt3core.errors import UsageError
from mt3core.notes.instruments import CLASS_NAMES, PROGRAMS_PER_CLASS, class_name, instrument_name

DRUMS = "drums"
_NUM_PROGRAMS = 128
# How people call them, beside General MIDI's names.
_OTHER_NAMES = {
    **dict.fromkeys(("drum", "drum kit", "drumkit", "percussion"), DRUMS),
    "keys": "piano",
    "double bass": "contrabass",
    "saxophone": "sax",
    "horn": "french horn",
    "vibes": "vibraphone",
}
LIST_COMMAND = "mt3 instruments"


@dataclass(frozen=True)
class Instruments:
    """A choice of instruments: `programs` in rising order, None for all of them, and whether drums are among them."""

    programs: tuple[int, ...] | None = None
    drums: bool = True

    @property
    def is_everything(self) -> bool:
        return self.programs is None and self.drums


def choose_instruments(
    names: str | Iterable[str | int] | None, excluded: str | Iterable[str | int] | None = None
) -> Instruments:
    """The instruments that are named, or all if `names` is None, without those that are `excluded`.

    Names are separated by commas, or items of a list; numbers are programs. Raises `UsageError` for a name that is
    unknown or means several instruments, and if none is left.
    """
    chosen = set(range(_NUM_PROGRAMS)) | {DRUMS} if names is None else _members(names)
    left = chosen - _members(excluded or ())
    if not left:
        raise UsageError("No instrument is left.", f"Name one that is not excluded; {LIST_COMMAND} lists them all.")
    programs = tuple(sorted(member for member in left if isinstance(member, int)))
    return Instruments(None if len(programs) == _NUM_PROGRAMS else programs, DRUMS in left)


def with_instruments(
    decoding: Decoding, names: str | Iterable[str | int] | None, excluded: str | Iterable[str | int] | None = None
) -> Decoding:
    """A decoding that writes only these (see `choose_instruments`), under the grammar if any instrument is left out."""
    chosen = choose_instruments(names, excluded)
    grammar = decoding.grammar or not chosen.is_everything
    return replace(decoding, grammar=grammar, programs=chosen.programs, drums=chosen.drums)


def for_model(instruments: Instruments, vocabulary: VocabularyConfig) -> tuple[Instruments, str]:
    """The choice in the programs that a model writes, and a remark for the user if that is more than was chosen.

    A model may know classes only; it writes the first program of each. Raises `UsageError` for a model without
    instruments, unless everything was chosen.
    """
    if instruments.is_everything:
        return instruments, ""
    if vocabulary.program_granularity == "flat" or vocabulary.onsets_only:
        raise UsageError("This model does not tell instruments apart.", "Leave out the choice, or use another model.")
    if vocabulary.program_granularity == "full" or instruments.programs is None:
        return instruments, ""
    classes = sorted({program - program % PROGRAMS_PER_CLASS for program in instruments.programs})
    widened = [
        first for first in classes if not set(range(first, first + PROGRAMS_PER_CLASS)) <= set(instruments.programs)
    ]
    names = ", ".join(class_name(first) for first in widened)
    remark = f"This model knows classes of instruments only; the whole class is meant: {names}." if widened else ""
    return Instruments(tuple(classes), instruments.drums), remark


def _members(names: str | Iterable[str | int]) -> set[int | str]:
    """Programs, and `DRUMS`, of all that is named."""
    given = names.split(",") if isinstance(names, str) else names
    members: set[int | str] = set()
    for name in given:
        text = " ".join(str(name).split())
        if text:
            members |= _meant(text)
        elif isinstance(names, str) and names.strip():
            raise UsageError(f"There is nothing between two commas in {names!r}.", "Separate names by single commas.")
    return members


def _meant(text: str) -> set[int | str]:
    """What one name means. Raises `UsageError`."""
    if re.fullmatch(r"[-+]?\d+", text):
        if not 0 <= int(text) < _NUM_PROGRAMS:
            raise UsageError(f"There is no program {text}.", "Programs are numbered from 0 to 127.")
        return {int(text)}
    wanted = _words(_OTHER_NAMES.get(text.lower(), text))
    if wanted == [DRUMS]:
        return {DRUMS}
    programs = range(_NUM_PROGRAMS)
    if found := [program for program in programs if _words(class_name(program)) == wanted]:
        return set(found)
    if found := [program for program in programs if _words(instrument_name(program)) == wanted]:
        return set(found)
    found = [program for program in programs if set(wanted) <= set(_words(instrument_name(program)))]
    if found and len({class_name(program) for program in found}) == 1:
        return set(found)
    found = found or [program for program in programs if _abbreviates(wanted, _words(instrument_name(program)))]
    classes = {class_name(one): one for one in programs if _abbreviates(wanted, _words(class_name(one)))}
    if len(found) == 1:
        return set(found)
    if not found and len(classes) == 1:
        first = next(iter(classes.values())) // PROGRAMS_PER_CLASS * PROGRAMS_PER_CLASS
        return set(range(first, first + PROGRAMS_PER_CLASS))
    if not found:
        similar = difflib.get_close_matches(text.lower(), _all_names(), n=1)
        hint = f"Did you mean {similar[0]}? " if similar else ""
        raise UsageError(f"There is no instrument {text!r}.", f"{hint}{LIST_COMMAND} lists them all.")
    listed = ", ".join(instrument_name(program) for program in found[:6]) + (", ..." if len(found) > 6 else "")
    raise UsageError(
        f"{text!r} means {len(found)} instruments: {listed}.", f"Write more of the name. {LIST_COMMAND} lists them all."
    )


def _abbreviates(wanted: list[str], words: list[str]) -> bool:
    """Whether the wanted words begin words of a name, in its order."""
    rest = iter(words)
    return bool(wanted) and all(any(word.startswith(start) for word in rest) for start in wanted)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


@functools.cache
def _all_names() -> list[str]:
    programs = range(_NUM_PROGRAMS)
    names = {*map(instrument_name, programs), *CLASS_NAMES, *_OTHER_NAMES, DRUMS}
    return sorted(name.lower() for name in names)
