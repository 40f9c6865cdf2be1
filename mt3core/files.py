"""Outputs, written completely or not at all: under a temporary name, then renamed. And the folder of the cache."""

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
    """The folder of everything that can be made or downloaded again: `MT3_CACHE`, or the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("mt3kit"))


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `path` to write to; renames it to `path` when the block succeeds.

    Missing parent folders are made. If the block fails, nothing is left behind and an existing `path`
    stays unchanged. Raises `OutputError` if the path cannot be written.
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
    """The same for a directory: yields an empty one next to `path`, which replaces `path` at the end.

    Raises `OutputError` if `path` exists and `overwrite` is false, or if it cannot be written.
    """
    target = Path(path)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} already exists.", "Choose another path, or use --overwrite.")
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
    with _writing(f"to {target.parent}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Cut, because a name may already use all 255 bytes that a file system allows.
        return Path(tempfile.mkdtemp(prefix=f".{target.name[:40]}.", dir=target.parent))


def _place(temporary: Path, target: Path) -> None:
    with _writing(str(target)):
        temporary.rename(target)


@contextlib.contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"Cannot write {what}: {error.strerror or error}.", "Choose another path with -o.") from error
