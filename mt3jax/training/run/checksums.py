"""Checksums of a checkpoint's files: recorded when it is written, checked before it is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mt3core.json_text import read_json

RECORD_FILE = "checksums.json"


def record_checksums(directory: Path) -> None:
    """Writes size and SHA-256 of every file of a checkpoint's items to `checksums.json`, and flushes all to disk.

    Call it while the checkpoint still has its temporary name, so that it has a record as soon as it exists.
    Files next to the items are Orbax's own, which it continues to write to; they are left out.
    """
    files = {}
    for path in _files(directory):
        with path.open("rb") as file:
            # Otherwise a power failure could lose data that is still in memory, under the final name.
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(directory).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    temporary = directory / f".{RECORD_FILE}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / RECORD_FILE)


def find_damage(directory: Path, items: tuple[str, ...] = ()) -> str:
    """What is wrong with a checkpoint, in a few words without a full stop; empty if nothing is, or without a record.

    Args:
        directory: the checkpoint.
        items: only these of its folders; empty for all of them.
    """
    try:
        files = read_json(directory / RECORD_FILE)["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD_FILE} cannot be read"
    wanted = {name: entry for name, entry in expected.items() if not items or name.split("/")[0] in items}
    for name, (num_bytes, _) in wanted.items():  # sizes first: quick, and changed by a full disk or an incomplete copy
        try:
            found = (directory / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != num_bytes:
            return f"{name} has {found:,} bytes instead of {num_bytes:,}"
    for name, (_, digest) in wanted.items():
        try:
            with (directory / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} has different contents than were written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"
    return ""


def _files(directory: Path) -> Iterator[Path]:
    for item in sorted(directory.iterdir()):
        if item.is_dir():
            yield from sorted(path for path in item.rglob("*") if path.is_file())
