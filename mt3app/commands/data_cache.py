"""`mt3 data cache`: what lies in the cache and how large it is; with `--clear` it is removed.

composed     pieces that were composed for a training run (`mt3data/prepare/composed.py`)
models       weights that were downloaded from an address (`mt3convert/remote.py`)
programs     compiled programs of JAX (`mt3jax/compilation.py`)
other        anything else in the folder, which is never removed: `MT3_CACHE` may name a folder with other files
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3core.errors import OutputError, UsageError
from mt3core.files import cache_folder, folder_bytes, size_in_words

if TYPE_CHECKING:
    from mt3app.cli_data import CacheOptions

COMPOSED, MODELS, PROGRAMS, OTHER, ALL = "composed", "models", "programs", "other", "all"
KINDS = (COMPOSED, MODELS, PROGRAMS)
_COMPOSED_PREFIX, _MADE = "composed-", "made.json"
_MODELS_FOLDER, _PROGRAMS_FOLDER, _MANIFEST = "checkpoints", "jax", "manifest.json"
_STILL_WRITTEN_SECONDS = 3600  # an unfinished folder that is younger may be in use


@dataclass(frozen=True)
class Entry:
    """One thing in the cache. `about` says more than its path."""

    kind: str
    path: Path
    num_bytes: int
    about: str
    is_in_use: bool = False


def show_cache(options: CacheOptions, reporter: Reporter) -> None:
    """Lists the cache, or removes what is named. Raises `UsageError` for an unknown name."""
    folder = cache_folder()
    entries = list(cache_entries(folder))
    wanted = options.what or (COMPOSED if options.clear else ALL)
    chosen = [one for one in entries if wanted in (ALL, one.kind, one.path.name)]
    if not chosen and wanted not in (*KINDS, OTHER, ALL):
        raise UsageError(
            f"{wanted!r} is not in the cache {folder}.",
            f"Choose {', '.join(KINDS)}, {ALL}, or a name that mt3 data cache lists.",
        )
    if options.clear:
        _clear(chosen, wanted, reporter)
        return
    total = sum(one.num_bytes for one in chosen)
    print(f"{folder}: {size_in_words(total)}")
    for one in chosen:
        print(f"  {one.kind:9} {size_in_words(one.num_bytes):>9}  {_place(one, folder)}  {one.about}".rstrip())
    if any(one.kind in KINDS for one in chosen):
        reporter.line("Remove what is not needed: mt3 data cache composed --clear (or models, programs, all, a name).")


def cache_entries(folder: Path) -> Iterator[Entry]:
    """Everything in the cache, composed pieces first, the largest of each kind first."""
    found = [entry for path in (folder.iterdir() if folder.is_dir() else ()) for entry in _entries_of(path)]
    order = {kind: place for place, kind in enumerate((*KINDS, OTHER))}
    yield from sorted(found, key=lambda one: (order[one.kind], -one.num_bytes, str(one.path)))


def _entries_of(path: Path) -> Iterator[Entry]:
    size = folder_bytes(path)
    name = path.name
    if path.is_symlink() or not path.is_dir():
        yield Entry(OTHER, path, size, "")
    elif name.startswith(_COMPOSED_PREFIX):
        yield Entry(COMPOSED, path, size, _about_pieces(path))
    elif name.startswith(f".{_COMPOSED_PREFIX}"):
        is_young = time.time() - max(one.stat().st_mtime for one in (path, *path.glob("*"))) < _STILL_WRITTEN_SECONDS
        yield Entry(COMPOSED, path, size, "unfinished, perhaps being made now" if is_young else "unfinished", is_young)
    elif name == _MODELS_FOLDER:
        yield from _models(path)
    elif name == _PROGRAMS_FOLDER:
        yield Entry(PROGRAMS, path, size, "compiled programs")
    else:
        yield Entry(OTHER, path, size, "")


def _about_pieces(path: Path) -> str:
    number = path.name.removeprefix(_COMPOSED_PREFIX).partition("-")[0]
    about = f"{number} pieces for training"
    try:
        return f"{about}, played by {json.loads((path / _MADE).read_text(encoding='utf-8'))['engine']}"
    except (OSError, ValueError, KeyError, TypeError):
        return about


def _models(folder: Path) -> Iterator[Entry]:
    """Each downloaded address; folders without a manifest are interrupted downloads of its first file."""
    manifests = sorted(folder.rglob(_MANIFEST))
    for manifest in manifests:
        try:
            values = json.loads(manifest.read_text(encoding="utf-8"))
            url, state = str(values["url"]), "" if values["complete"] else ", incomplete"
        except (OSError, ValueError, KeyError, TypeError):
            url, state = "unknown address", ", incomplete"
        yield Entry(MODELS, manifest.parent, folder_bytes(manifest.parent), f"{url}{state}")
    rest = folder_bytes(folder) - sum(folder_bytes(manifest.parent) for manifest in manifests)
    if rest > 0 or not manifests:
        yield Entry(MODELS, folder, rest, "interrupted downloads")


def _clear(chosen: list[Entry], wanted: str, reporter: Reporter) -> None:
    removable = [one for one in chosen if one.kind in KINDS and not one.is_in_use]
    for one in chosen:
        if one.is_in_use:
            reporter.line(f"Kept: {one.path} ({one.about}).")
        elif one.kind not in KINDS:
            reporter.line(f"Kept: {one.path}, which was not made by mt3.")
    freed = 0
    for one in removable:
        try:
            shutil.rmtree(one.path)
        except FileNotFoundError:  # inside another entry, or removed by another process
            pass
        except OSError as error:
            raise OutputError(
                f"{one.path} cannot be removed: {error.strerror or error}.", "Check who owns it, and remove it by hand."
            ) from error
        freed += one.num_bytes
        print(f"Removed: {one.path} ({size_in_words(one.num_bytes)})")
    if not removable:
        print(f"Nothing to remove{'' if wanted == ALL else f': there are no {wanted} entries'}.")
    elif len(removable) > 1:
        print(f"Freed:   {size_in_words(freed)}")


def _place(one: Entry, folder: Path) -> str:
    return str(one.path.relative_to(folder))
