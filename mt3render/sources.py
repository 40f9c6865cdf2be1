"""The MIDI files to render: their names in the data set, and the split of each."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from mt3core.errors import UsageError
from mt3core.files import files_below
from mt3core.notes import MIDI_SUFFIXES
from mt3core.splits import split_of_folders

SPLIT_SHARES = (("train", 0.8), ("validation", 0.1), ("test", 0.1))
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Source:
    """A MIDI file. `relative` is its path below the folder it was found in, with `/` and in Unicode."""

    path: Path
    relative: str
    number: int  # from 1, its position among all files of the folder
    name: str  # plain ASCII, unique
    split: str

    @property
    def composer(self) -> str:
        """The outermost folder, which in collections of piano music is named after the composer."""
        return self.relative.split("/")[0] if "/" in self.relative else "Unknown"

    @property
    def title(self) -> str:
        """The inner folders, or the file's name if there are none."""
        folders = self.relative.split("/")[1:-1]
        return " ".join(folders) if folders else Path(self.relative).stem


def find_sources(midi_dir: Path, limit: int | None = None) -> list[Source]:
    """All MIDI files below a folder, or `limit` of them spread over it, in order of path.

    The limited choice depends on a hash of the paths, so a larger limit adds to a smaller one. Names and splits depend
    only on the folder's files. Raises `UsageError` if there are none.
    """
    if not midi_dir.is_dir():
        raise UsageError(f"{midi_dir} is not a folder.", "Use the folder that contains the MIDI files.")
    paths = [path for path in files_below(midi_dir) if path.suffix.lower() in MIDI_SUFFIXES]
    found = sorted((_relative(path, midi_dir), path) for path in paths)
    if not found:
        raise UsageError(
            f"There are no MIDI files in {midi_dir}.", f"Looked for {' '.join(MIDI_SUFFIXES)} in all folders below it."
        )
    names = _names([relative for relative, _ in found])
    sources = [
        Source(path, relative, number, names[number - 1], split_of(path, relative))
        for number, (relative, path) in enumerate(found, 1)
    ]
    if limit is not None:
        sources = sorted(sources, key=lambda source: _digest(source.relative.encode()))[:limit]
    return sorted(sources, key=lambda source: source.number)


def split_of(path: Path, relative: str) -> str:
    """The split of a file: that of a folder called train, validation or test (also valid, val, dev) on the way to it.

    Others are divided 80, 10 and 10 of 100 by a hash, so that a split stays when files are added. Files two or more
    folders deep (composer/piece/performance) follow their folder, so that no piece is in two splits; others follow
    their content, so that no copy is.
    """
    named = split_of_folders(relative.split("/")[:-1])
    if named is not None:
        return named
    folder = relative.rsplit("/", 1)[0] if relative.count("/") >= 2 else None
    try:
        key = folder.encode() if folder is not None else path.read_bytes()
    except OSError:
        key = relative.encode()  # that it cannot be read is reported when its turn comes
    place = int(_digest(key)[:8], 16) / 16**8
    for name, share in SPLIT_SHARES:
        if place < share:
            return name
        place -= share
    return SPLIT_SHARES[-1][0]


def _relative(path: Path, folder: Path) -> str:
    return os.fsencode(path.relative_to(folder)).decode("utf-8", "replace").replace(os.sep, "/")


def _names(relatives: list[str]) -> list[str]:
    """File names of letters, digits, `_`, `-` and `.`; those that would be equal get a number."""
    taken: set[str] = set()
    names = []
    for relative in relatives:
        ascii_text = unicodedata.normalize("NFKD", relative.rsplit(".", 1)[0]).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9.\-]+", "_", ascii_text).strip("_.") or "piece"
        plain, name, count = plain[-_LONGEST_NAME:], plain[-_LONGEST_NAME:], 1
        while name.lower() in taken:
            count += 1
            name = f"{plain}_{count}"
        taken.add(name.lower())
        names.append(name)
    return names


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
