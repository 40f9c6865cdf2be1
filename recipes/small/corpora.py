"""The collections of music, published and composed, as compositions: a name for each, and their parts.

Everything that belongs to one composition (its movements and takes, several transcriptions of one recording) has one
name, because the split into training, validation and test is made by this name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from composer.pieces import compose_piece
from held_out import held_out
from musicxml import read_musicxml

from mt3core.notes.table import note_table
from mt3render.score import Part, read_score
from mt3render.sources import split_of

LONGEST_SECONDS = 3600.0
_NO_PEDAL = np.empty((0, 2))


@dataclass(frozen=True)
class Piece:
    """A file of music. `composition` is shared by all files of one work; `tempo` if the file gives it (Groove)."""

    corpus: str
    composition: str  # of letters, digits, `_`, `-`
    path: Path
    is_score: bool  # exact times, still to be humanised
    tempo: float | None = None  # quarters per minute
    composed: tuple[str, int, int] | None = None  # style, number and seed of a piece that has no file

    @property
    def folder(self) -> str:
        return f"{self.corpus}/{self.composition}"

    @property
    def split(self) -> str:
        """The split that `mt3 render` gives to files in this piece's folder."""
        return split_of(self.path, f"{self.folder}/any.mid")

    def parts(self) -> tuple[Part, ...]:
        if self.composed is not None:
            return _composed_parts(*self.composed)
        if self.path.suffix == ".mxl":
            return read_musicxml(self.path, self.path.name)
        return read_score(self.path, LONGEST_SECONDS).parts


def find_pieces(corpus: str, folder: Path) -> list[Piece]:
    """The pieces of a corpus below the folder it was unpacked into, in a fixed order, without those held out."""
    return sorted(_READERS[corpus](folder), key=lambda piece: str(piece.path.relative_to(folder)))


def composed_pieces(styles: Sequence[str], count: int, seed: int) -> list[Piece]:
    """This number of composed pieces, the styles in turn. Each is its own composition."""
    return [
        Piece("composed", f"{style}-{number:05d}", Path(f"{style}-{number:05d}"), False, None, (style, number, seed))
        for number, style in ((number, styles[number % len(styles)]) for number in range(count))
    ]


def _composed_parts(style: str, number: int, seed: int) -> tuple[Part, ...]:
    table = note_table(compose_piece(number, seed, style))
    keys = list(dict.fromkeys(zip(table["is_drum"].tolist(), table["program"].tolist(), strict=True)))
    return tuple(
        Part("", program, is_drum, table[(table["is_drum"] == is_drum) & (table["program"] == program)], _NO_PEDAL)
        for is_drum, program in keys
    )


def _giantmidi(folder: Path) -> Iterator[Piece]:
    # The recording's address (eleven characters) is in the name of every transcription of it.
    for path in _allowed(folder, "*.mid"):
        found = re.search(r"[ _]([A-Za-z0-9_-]{11})(_cut.*|_a|_mov.*|_part.*|_no_.*)?$", path.stem)
        yield Piece("giantmidi", _plain(found.group(1) if found else path.stem), path, False)


def _pop909(folder: Path) -> Iterator[Piece]:
    for path in _allowed(folder, "*.mid"):
        if re.fullmatch(r"\d{3}", path.stem):
            yield Piece("pop909", path.stem, path, True)


def _freedoom(folder: Path) -> Iterator[Piece]:
    for path in _allowed(folder, "*.mid"):
        if path.stem != "dummy":
            yield Piece("freedoom", _plain(path.stem), path, False)


def _lieder(folder: Path) -> Iterator[Piece]:
    for path in _allowed(folder, "*.mxl"):
        yield Piece("lieder", path.stem, path, True)


def _quartets(folder: Path) -> Iterator[Piece]:
    for path in _allowed(folder, "*.mxl"):
        yield Piece("quartets", path.stem, path, True)


def _groove(folder: Path) -> Iterator[Piece]:
    # In the evaluation sessions every drummer plays the same ten grooves; other sessions are individual.
    for table in folder.rglob("info.csv"):
        with table.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                path = table.parent / row["midi_filename"]
                name = row["style"].split("/")[-1] if "eval_session" in row["session"] else row["session"]
                if row["time_signature"] == "4-4" and path.is_file():
                    yield Piece("groove", _plain(name), path, False, float(row["bpm"]))


_READERS: dict[str, Callable[[Path], Iterator[Piece]]] = {
    "giantmidi": _giantmidi,
    "pop909": _pop909,
    "freedoom": _freedoom,
    "lieder": _lieder,
    "quartets": _quartets,
    "groove": _groove,
}
CORPORA = tuple(_READERS)


def _allowed(folder: Path, pattern: str) -> Iterator[Path]:
    for path in folder.rglob(pattern):
        if held_out(str(path.relative_to(folder))) is None:
            yield path


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")
