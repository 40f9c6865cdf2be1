"""Sizes of files and folders, counted and written for people."""

from __future__ import annotations

import os
from pathlib import Path


def shown_bytes(num_bytes: float) -> str:
    """`0 bytes`, `812 bytes`, `45 kB`, `282 MB` or `1.3 GB`: two or three digits that mean something."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= 0.9995 * size:
            value = num_bytes / size
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
    return f"{num_bytes:.0f} bytes"


def folder_bytes(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; links count as themselves. What vanishes meanwhile is 0."""
    if path.is_dir() and not path.is_symlink():
        files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        return sum(map(_file_bytes, files))
    return _file_bytes(path)


def _file_bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
