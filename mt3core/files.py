"""Outputs, written completely or not at all: under a temporary name, then renamed. Folders, and sizes in words.

A `~` at the start of a path is the home folder, in case no shell has replaced it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from mt3core.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CACHE_VARIABLE = "MT3_CACHE"
_KILO = 1000
OTHER_PATH = "Choose another path with -o."
# With less than this a file cannot be promised: a block for it, and one for the folder with its temporary name.
LEAST_FREE_BYTES = 8192
_SAYS_FULL = os.strerror(errno.ENOSPC)
_PARTS = ("new", "old")  # what `atomic_directory` has in its temporary folder
_SECONDS_UNTIL_ABANDONED = 60.0
_RANDOM = re.compile("[a-z0-9_]{8}")  # as `tempfile` makes it
_MANY_NAMES = 1000
_next_looks: dict[Path, float] = {}  # for abandoned folders in those with many names, by `time.monotonic`
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
# What else a disk may answer to a write: read-only, failing, a name or path that is too long.
_UNWRITABLE = (*_FULL, errno.EROFS, errno.EIO, errno.ENAMETOOLONG)


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


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with a `~` or `~name` at its start replaced by that home folder unless there is a file of this name."""
    given = Path(path)
    if not given.parts or not given.parts[0].startswith("~") or os.path.lexists(given.parts[0]):
        return given
    return Path(os.path.expanduser(given))


def check_output(path: str | os.PathLike[str], next_step: str = OTHER_PATH) -> None:
    """Raises `OutputError` if it is clear without writing that a file cannot be written.

    That is: a name or path that is too long, a folder or a device of this name, a file where a folder is needed,
    missing permission, or a full disk.
    """
    target = expanded(path).absolute()
    existing = next(folder for folder in target.parents if os.path.lexists(folder))
    with writing(path, next_step):
        # One by one: below a folder that is missing, nobody objects to a name.
        for name in target.relative_to(existing).parts:
            _look_up(existing / name)
        _look_up(target.parent / (_temporary_prefix(target) + "x" * 8) / target.name)
    _refuse_occupied(expanded(path))
    if not existing.is_dir():
        raise OutputError(f"Cannot write {path}: {existing} is a file.", next_step)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write {path}: permission denied.", next_step)
    if shutil.disk_usage(existing).free < LEAST_FREE_BYTES:
        raise _unwritable(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), next_step)


@contextlib.contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `path` to write to; renames it to `path` when the block succeeds.

    Missing parent folders are made. If the block fails, nothing is left behind and an existing `path`
    stays unchanged. Raises `OutputError` if the path cannot be written, also if the disk is full within the block.
    """
    target = expanded(path)
    _refuse_occupied(target)
    with _folder_beside(target) as folder:
        temporary = folder / target.name
        with _writing_within(folder, target):
            yield temporary
        _place(temporary, target)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """The same for a directory: yields an empty one next to `path`, which replaces `path` at the end.

    Raises `OutputError` if `path` exists and `overwrite` is false, or if it cannot be written.
    """
    target = expanded(path)
    with writing(target):
        is_taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if is_taken and not overwrite:
        raise OutputError(f"{target} already exists.", "Choose another path, or use --overwrite.")
    with _folder_beside(target) as folder:
        temporary = folder / _PARTS[0]
        with _writing_within(folder, target):
            temporary.mkdir()
            yield temporary
        old = folder / _PARTS[1]
        if target.exists():
            _place(target, old)
        try:
            _place(temporary, target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise


def remove_at_once(path: Path) -> None:
    """Removes a file or folder if it is there; a folder under another name, so that a killed process leaves no part
    of it under its own."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    aside = Path(tempfile.mkdtemp(prefix=_temporary_prefix(path), dir=path.parent))
    path.rename(aside / _PARTS[1])
    shutil.rmtree(aside)


def _refuse_occupied(target: Path) -> None:
    """A folder cannot be replaced by a file; renaming to a device would replace the device itself."""
    with writing(target):  # a name may be too long to be looked up
        is_folder, is_free = target.is_dir(), not target.exists()
    if is_folder:
        raise OutputError(f"Cannot write {target}: it is a folder.", OTHER_PATH)
    if not is_free and not target.is_file():
        raise OutputError(f"{target} is a device or pipe, not a file.", "Use -o - for standard output.")


@contextlib.contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A fresh hidden folder in the target's folder, so that the rename stays on one file system; removed at the end.

    If all goes well, those that killed processes left for the same target are removed, too.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(target), dir=target.parent))
    lock = _lock(folder)
    try:
        yield folder
        _remove_abandoned(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_abandoned(target: Path) -> None:
    """Removes temporary folders of the target that are older than a minute and that no process has locked.

    A folder of thousands of files, to which more are being added, is looked through only once a minute.
    """
    if time.monotonic() < _next_looks.get(target.parent, 0.0):
        return
    prefix = _temporary_prefix(target)
    with contextlib.suppress(OSError):
        names = os.listdir(target.parent)
        if len(names) > _MANY_NAMES:
            _next_looks[target.parent] = time.monotonic() + _SECONDS_UNTIL_ABANDONED
        found = [name for name in names if name.startswith(prefix) and _RANDOM.fullmatch(name[len(prefix) :])]
        for folder in [target.parent / name for name in found]:
            is_ours = set(os.listdir(folder)) <= {target.name, *_PARTS}
            if not is_ours or time.time() - folder.stat().st_mtime < _SECONDS_UNTIL_ABANDONED:
                continue
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """The open folder, locked until it is closed; None if another process has it, or where folders cannot be locked
    (Windows, NFS)."""
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _temporary_prefix(target: Path) -> str:
    """Cut, because a name may already use all 255 bytes that a file system allows."""
    return f".{target.name[:40]}."


def _place(temporary: Path, target: Path) -> None:
    with writing(target):
        temporary.rename(target)


def _look_up(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], next_step: str = OTHER_PATH) -> Iterator[None]:
    """Around writing to a path: what the system says is raised as `OutputError`."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error, next_step) from error


@contextlib.contextmanager
def _writing_within(folder: Path, target: Path) -> Iterator[None]:
    """The same around someone else's block, which may also fail for reasons of its own, such as a missing input."""
    try:
        yield
    except OSError as error:
        is_below = isinstance(error.filename, str) and folder in Path(error.filename).parents
        if error.errno in _UNWRITABLE or is_below:
            raise _unwritable(target, error, OTHER_PATH) from error
        raise
    except (RuntimeError, ValueError) as error:
        # What native code says of a full disk: TensorStore and Orbax in words, PyTorch not at all.
        if _SAYS_FULL in str(error) or shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            raise _unwritable(target, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OTHER_PATH) from error
        raise


def _unwritable(path: str | os.PathLike[str], error: OSError, next_step: str) -> OutputError:
    if error.errno in _FULL:
        next_step = f"Free some space, or {next_step[:1].lower()}{next_step[1:]}"
    if error.errno == errno.ENAMETOOLONG:
        next_step = "Choose a shorter name."
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "a folder of its path is a file"
    return OutputError(f"Cannot write {os.fspath(path)}: {reason}.", next_step)
