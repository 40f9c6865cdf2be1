"""Names of files, tracks and splits: what is allowed in a message, in a table and in a file name."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

_MOST_NAME_BYTES = 160


def printable(text: str | os.PathLike[str]) -> str:
    """Text that can be printed and stored as UTF-8: other bytes of a file name show as `\\xNN`."""
    return os.fspath(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def track_name(relative: str) -> str:
    """A valid file name for a track at this path in its data set: folders joined by `__`, at most 160 bytes.

    Characters that are a problem for some file system or shell become `_`. A name changed in this way gets a few
    digits of a hash, to distinguish it from others that would become the same.
    """
    text = unicodedata.normalize("NFC", printable(relative))
    name = "".join(char if _is_harmless(char) else "_" for char in text.replace("/", "__")).strip(". ")
    if name and len(name.encode()) <= _MOST_NAME_BYTES and name == text.replace("/", "__"):
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return name.encode()[: _MOST_NAME_BYTES - 9].decode(errors="ignore") + f"-{digest}"


def split_by_name(name: str) -> str:
    """A split that depends on the name alone, so that new pieces never move the others: 80, 10 and 10 of 100."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 100
    return "train" if number < 80 else "validation" if number < 90 else "test"


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of a folder with one of these suffixes (in any case), by name without it, preferred ones first.

    The names are in Unicode's composed form, so that a copy made on a Mac is also found. A folder that is
    missing or cannot be read has none. Hidden files are ignored.
    """
    found: dict[str, list[Path]] = {}
    for path in _files(folder):
        if path.suffix.lower() in suffixes:
            found.setdefault(unicodedata.normalize("NFC", path.stem), []).append(path)
    for paths in found.values():
        paths.sort(key=lambda path: (suffixes.index(path.suffix.lower()), path.name))
    return found


def _files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return
    yield from (folder / name for name in names if not os.path.isdir(folder / name))


def _is_harmless(char: str) -> bool:
    return char.isprintable() and char not in '\\:*?"<>|'
