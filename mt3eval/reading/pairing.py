"""Which estimate belongs to which reference: two files, or two folders matched by the names of their files.

A name is the path below the folder without the suffixes of files of notes, so `a/x.notes.tsv`, `a/x.mid` and
`a/x.json` are one piece, `a/x`. A file without a partner is then matched by its last part alone (`x`), if that
occurs once on either side. Of a JSON file and others with the same name in the forms that `mt3 transcribe` writes, the
JSON is read: its times are exact. Other files of the same name on a side are an error: a suffix has to be given.

Data sets come with lists of their recordings, and transcriptions with records of how they were made. A file that
clearly contains no notes is ignored if there is another of its name, or if it has no partner and a suffix that none
of the paired files on its side has.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mt3core.errors import UsageError
from mt3core.files import files_below
from mt3core.notes import MIDI_SUFFIXES
from mt3eval.reading.note_rows import is_of_something_else
from mt3eval.reading.reading import SUFFIXES

_SHOWN = 20
# `x.notes.tsv` is a common name for a table of notes.
_NAME_ENDINGS = frozenset((*SUFFIXES, ".notes"))
_LESS_EXACT = frozenset((*MIDI_SUFFIXES, ".jsonl", ".csv"))


@dataclass(frozen=True)
class Pair:
    """One piece: its name and the two files."""

    name: str
    reference: Path
    estimate: Path


@dataclass(frozen=True)
class Pairing:
    """All pieces of two folders by name, and the files without a partner, relative to their folder.

    Files put aside are not files of notes: nothing was missed or invented there. Those passed over, with their folder,
    lie next to a JSON file of the same name, which is read instead.
    """

    pairs: tuple[Pair, ...] = ()
    references_alone: tuple[str, ...] = ()
    estimates_alone: tuple[str, ...] = ()
    references_aside: tuple[str, ...] = ()
    estimates_aside: tuple[str, ...] = ()
    passed_over: tuple[Path, ...] = ()


def pair_files(
    reference: Path, estimate: Path, reference_suffix: str | None = None, estimate_suffix: str | None = None
) -> Pairing:
    """The pair of two files, whatever their names, or the pairs of two folders.

    A suffix (such as `.notes.tsv`) says which files of a folder are meant. Raises `UsageError` if something does
    not exist, a file is given with a folder, two files of a folder have the same name, or no names match.
    """
    for side in (reference, estimate):
        if not side.exists():
            raise UsageError(f"{side} does not exist.", "Check the name.")
    if reference.is_dir() != estimate.is_dir():
        raise UsageError(
            f"One of {reference} and {estimate} is a file, the other a folder.", "Give two files or two folders."
        )
    if not reference.is_dir():
        return Pairing((Pair(_name(Path(reference.name), None), reference, estimate),))
    references, estimates = _named(reference, reference_suffix), _named(estimate, estimate_suffix)
    passed_over = (*_prefer_json(references), *_prefer_json(estimates))
    partners = _partners(references, estimates)
    beside = _set_aside(reference, references, partners.keys()), _set_aside(estimate, estimates, partners.values())
    _refuse_doubles("reference", reference, {name: references[name] for name in partners})
    _refuse_doubles("estimate", estimate, {name: estimates[name] for name in partners.values()})
    pairs = tuple(Pair(name, references[name][0], estimates[other][0]) for name, other in partners.items())
    alone = (
        _without(reference, references, partners.keys()),
        _without(estimate, estimates, partners.values()),
    )
    if not pairs:
        raise UsageError(
            f"No names in {reference} and {estimate} match. Only in the first: {shorten(alone[0])}. "
            f"Only in the second: {shorten(alone[1])}.",
            "Names must match except for their suffixes.",
        )
    references_aside = _of_something_else(reference, alone[0], {pair.reference for pair in pairs})
    estimates_aside = _of_something_else(estimate, alone[1], {pair.estimate for pair in pairs})
    return Pairing(
        pairs,
        tuple(name for name in alone[0] if name not in references_aside),
        tuple(name for name in alone[1] if name not in estimates_aside),
        (*beside[0], *references_aside),
        (*beside[1], *estimates_aside),
        passed_over,
    )


def shorten(names: Iterable[str]) -> str:
    """The names separated by commas; the first few if there are many."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"


def counted(number: int, noun: str) -> str:
    """The number with the noun, in the plural unless it is one."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _named(folder: Path, suffix: str | None) -> dict[str, list[Path]]:
    """The files of notes below a folder by name, in order."""
    endings = (suffix.lower(),) if suffix else SUFFIXES
    found: dict[str, list[Path]] = {}
    for path in sorted(files_below(folder)):
        inside = path.relative_to(folder)
        if path.name.lower().endswith(endings):
            found.setdefault(_name(inside, suffix), []).append(path)
    return found


def _name(inside: Path, suffix: str | None) -> str:
    # Some file systems store accents separately.
    name = unicodedata.normalize("NFC", inside.as_posix())
    if suffix:
        name = name[: -len(suffix)].rstrip(".")
    while Path(name).suffix.lower() in _NAME_ENDINGS and Path(name).stem:
        name = name[: -len(Path(name).suffix)]
    return name


def _partners(references: dict[str, list[Path]], estimates: dict[str, list[Path]]) -> dict[str, str]:
    """Name of the reference -> name of its estimate, in the order of the references."""
    partners = {name: name for name in references if name in estimates}
    left = [[name for name in side if name not in partners] for side in (references, estimates)]
    by_last_part = [_once([(name.rsplit("/", 1)[-1], name) for name in names]) for names in left]
    partners |= {name: by_last_part[1][last] for last, name in by_last_part[0].items() if last in by_last_part[1]}
    return {name: partners[name] for name in references if name in partners}


def _once(items: list[tuple[str, str]]) -> dict[str, str]:
    keys = [key for key, _ in items]
    return {key: value for key, value in items if keys.count(key) == 1}


def _prefer_json(named: dict[str, list[Path]]) -> tuple[Path, ...]:
    """Removes what is less exact than a JSON file of notes with the same name; returns what was removed."""
    passed_over: list[Path] = []
    for name, paths in named.items():
        exact = [path for path in paths if path.suffix.lower() == ".json"]
        others = [path for path in paths if path.suffix.lower() in _LESS_EXACT]
        if len(exact) == 1 and len(others) == len(paths) - 1 and others and not _is_else(exact[0]):
            passed_over += others
            named[name] = exact
    return tuple(passed_over)


def _set_aside(folder: Path, named: dict[str, list[Path]], names: Iterable[str]) -> tuple[str, ...]:
    """Removes those that clearly contain no notes from files of one name, unless all do; returns those removed."""
    aside: list[Path] = []
    for name in [name for name in names if len(named[name]) > 1]:
        others = [path for path in named[name] if _is_else(path)]
        if len(others) < len(named[name]):
            aside += others
            named[name] = [path for path in named[name] if path not in others]
    return tuple(str(path.relative_to(folder)) for path in aside)


def _refuse_doubles(side: str, folder: Path, named: dict[str, list[Path]]) -> None:
    doubles = {name: paths for name, paths in named.items() if len(paths) > 1}
    if doubles:
        name, paths = next(iter(doubles.items()))
        files = " and ".join(str(path.relative_to(folder)) for path in paths)
        others = f" (and {len(doubles) - 1} more names)" if len(doubles) > 1 else ""
        ending = paths[0].name[len(Path(name).name) :] or paths[0].suffix
        raise UsageError(
            f"In {folder}, {files} have the same name{others}.",
            f"Choose by suffix: --{side}-suffix {ending}",
        )


def _without(folder: Path, named: dict[str, list[Path]], paired: Iterable[str]) -> tuple[str, ...]:
    known = set(paired)
    return tuple(str(path.relative_to(folder)) for name, paths in named.items() if name not in known for path in paths)


def _of_something_else(folder: Path, alone: Iterable[str], paired: set[Path]) -> tuple[str, ...]:
    endings = {path.suffix.lower() for path in paired}
    return tuple(name for name in alone if (folder / name).suffix.lower() not in endings and _is_else(folder / name))


def _is_else(path: Path) -> bool:
    try:
        return is_of_something_else(path.read_text(encoding="utf-8-sig"), path.suffix.lower())
    except (OSError, ValueError):  # it stays listed, like any file that cannot be read
        return False
