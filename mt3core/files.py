"""Outputs, written completely or not at all: under a temporary name, then renamed. Folders, and sizes in words."""

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
_KILO = 1000


def cache_folder() -> Path:
    """The folder of everything that can be made or downloaded again: `MT3_CACHE`, or the user's cache."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("mt3kit"))


def folders_below(root: Path) -> Iterator[Path]:
    """`root` and the folders below it, each once, wherever links lead; those whose name starts with a dot are left out.

    Links come last, so that a folder that is there itself has its own name; a link to a folder around it is not
    followed.
    """
    seen: set[str] = set()
    waiting = [os.fspath(root)]
    while waiting:
        for folder, names, _ in os.walk(waiting.pop(0)):
            real = os.path.realpath(folder)
            if real in seen:
                names.clear()
                continue
            seen.add(real)
            yield Path(folder)
            shown = sorted(name for name in names if not name.startswith("."))
            linked = {name for name in shown if os.path.islink(os.path.join(folder, name))}
            names[:] = [name for name in shown if name not in linked]
            for path in (os.path.join(folder, name) for name in shown if name in linked):
                target = os.path.realpath(path)
                if real != target and not real.startswith(target.rstrip(os.sep) + os.sep):
                    waiting.append(path)


def files_below(root: Path) -> Iterator[Path]:
    """The files in `folders_below`, by name in each; those whose name starts with a dot are left out."""
    for folder in folders_below(root):
        with contextlib.suppress(OSError):
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
            yield from (folder / name for name in names if os.path.isfile(folder / name))


def size_in_words(num_bytes: float) -> str:
    """A number of bytes in three digits: `512 bytes`, `1.23 MB`, `45.6 GB`."""
    units = iter(("kB", "MB", "GB", "TB"))
    size, unit = float(round(num_bytes)), "byte" if num_bytes == 1 else "bytes"
    while size >= _KILO and (larger := next(units, "")):
        size, unit = float(f"{size / _KILO:.3g}"), larger
    return f"{size:g} {unit}"


def folder_bytes(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; a link counts as itself, and what vanishes meanwhile as 0."""
    paths = [path]
    if path.is_dir() and not path.is_symlink():
        paths = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = 0
    for one in paths:
        with contextlib.suppress(OSError):
            total += one.lstat().st_size
    return total


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
