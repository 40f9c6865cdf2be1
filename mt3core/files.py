"""Outputs that are whole or absent, written beside their place and then renamed; and where the cache is."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from mt3core.errors import OutputError

CACHE_VARIABLE = "MT3_CACHE"


def cache_folder() -> Path:
    """Where everything that can be made or fetched again is kept: the folder `MT3_CACHE`, or the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("mt3kit"))


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; renames it to `path` when the block ends well.

    Missing parent folders are made. When the block fails nothing is left behind and an existing `path`
    stays as it was. Raises `OutputError` where the place cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file() and not target.is_dir():  # renaming would replace the device itself
        raise OutputError(f"{target} is a device or pipe, not a file.", "Use -o - for standard output.")
    folder = _beside(target)
    try:
        temporary = folder / target.name
        yield temporary
        _place(temporary, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """The same for a directory: yields an empty one beside `path`, which takes its place at the end.

    Raises `OutputError` where `path` exists and `overwrite` is false, or cannot be written.
    """
    target = Path(path)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists already.", "Choose another place, or say --overwrite.")
    folder = _beside(target)
    try:
        temporary = folder / "new"
        temporary.mkdir()
        yield temporary
        old = folder / "old"
        if target.exists():
            _place(target, old)
        try:
            _place(temporary, target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A fresh hidden folder in the target's folder, so that the rename stays on one file system."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Cut, because a name may fill the 255 bytes that a file system gives it.
        return Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"Cannot write to {target.parent}: {error.strerror or error}.", "Choose another place with -o."
        ) from error


def _place(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError as error:
        raise OutputError(
            f"Cannot write {target}: {error.strerror or error}.", "Choose another place with -o."
        ) from error
