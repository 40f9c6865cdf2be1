"""MAESTRO: piano recordings with the MIDI of the same performance.

Version 3 describes its pieces in a CSV file and in a JSON file with one object per column; in version 2 the JSON
file is a list with one object per piece. File names are relative to the data set's folder.
"""

from __future__ import annotations

import csv
import functools
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import DatasetError
from mt3core.json_text import json_value
from mt3core.notes import MIDI_SUFFIXES
from mt3core.splits import SPLITS
from mt3data.readers.across_splits import across_splits
from mt3data.readers.defects import defect
from mt3data.readers.file_names import files_by_stem, printable, track_name
from mt3data.readers.tracks import MIX, Dataset, Defect, Track, in_order

KIND = "maestro"
LICENCE = "CC BY-NC-SA 4.0"
_NEEDED = ("split", "midi_filename", "audio_filename")


def metadata_files(root: Path) -> list[Path]:
    """`maestro-v3.0.0.csv` and the like in a folder: the newest version first, CSV before JSON."""
    found = [path for pattern in ("maestro*.csv", "maestro*.json") for path in root.glob(pattern)]
    return sorted(found, key=lambda path: (path.stem, path.suffix == ".csv"), reverse=True)


def read(root: Path) -> Dataset:
    """The pieces named in MAESTRO's metadata, whether or not their files exist; no audio is opened.

    A file may have another suffix (`.mid`, `.flac`, ...). A missing file is a `Defect`. Raises
    `DatasetError` if no metadata can be read.
    """
    rows, defects = _read_metadata(root)
    listed = functools.cache(files_by_stem)
    tracks: dict[str, Track] = {}
    seen: set[str] = set()
    compositions = []
    for number, row in enumerate(rows, 1):
        complaint = _complaint(row)
        if complaint:
            defects.append(defect(f"row {number}", MIX, "bad_metadata", f"Row {number} of the metadata {complaint}."))
            continue
        midi_name = PurePosixPath(row["midi_filename"])
        if str(midi_name) in seen:
            problem = f"{midi_name} is listed again in row {number}; the first row is used."
            defects.append(defect(f"row {number}", MIX, "listed_twice", problem, skips=False))
            continue
        seen.add(str(midi_name))
        name = track_name(midi_name.stem)
        if name in tracks:
            name = track_name(str(midi_name.with_suffix("")))
        audio = _find(listed, root / row["audio_filename"], AUDIO_SUFFIXES)
        midi = _find(listed, root / row["midi_filename"], MIDI_SUFFIXES)
        for kind, path, column in (("missing_audio", audio, "audio_filename"), ("missing_midi", midi, "midi_filename")):
            if path is None:
                defects.append(defect(name, MIX, kind, f"There is no file {root / row[column]}."))
        tracks[name] = Track(KIND, row["split"], name, audio, midi, (), LICENCE)
        compositions += [(name, row["split"], title) for title in _composition(row)]
    defects += across_splits(compositions, "same_composition", "the composition {key}", skips=False)
    return Dataset(KIND, root, in_order(tracks.values()), tuple(defects))


def _find(listed: Callable[..., dict[str, list[Path]]], path: Path, suffixes: tuple[str, ...]) -> Path | None:
    """A file by its name in the metadata, or under another suffix, where its folder (see `files_by_stem`) has it."""
    candidates = listed(path.parent, suffixes).get(unicodedata.normalize("NFC", path.stem), [])
    return path if path in candidates else candidates[0] if candidates else None


def _composition(row: dict[str, Any]) -> list[str]:
    """Composer and title as one text, if both are given."""
    parts = [str(row.get(column) or "").strip() for column in ("canonical_composer", "canonical_title")]
    return [", ".join(parts)] if all(parts) else []


def _complaint(row: dict[str, Any]) -> str:
    """What is wrong with a piece's metadata, as the end of a sentence; empty if nothing."""
    for column in _NEEDED:
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            return f"has no {column}"
    if row["split"] not in SPLITS:
        return f"has the split {row['split']!r}, which is not one of {', '.join(SPLITS)}"
    for column in _NEEDED[1:]:
        parts = PurePosixPath(row[column]).parts
        if ".." in parts or parts[0] == "/" or "\0" in row[column]:
            return f"has the {column} {row[column]!r}, which is outside the data set"
    return ""


def _read_metadata(root: Path) -> tuple[list[dict[str, Any]], list[Defect]]:
    """The rows of the first readable metadata file, and what is wrong with those before it."""
    files = metadata_files(root)
    if not files:
        raise DatasetError(
            f"{root} has no MAESTRO metadata (maestro-v3.0.0.csv or .json).",
            "Use the folder that the archive was unpacked to.",
        )
    problems = []
    for path in files:
        try:
            rows = _read_csv(path) if path.suffix == ".csv" else _read_json(path)
        except (OSError, ValueError, csv.Error) as error:  # ValueError: not JSON or not UTF-8
            problems.append(f"{path} cannot be read ({error}).")
            continue
        return rows, [defect(path.name, MIX, "bad_metadata", problem, skips=False) for problem in problems]
    raise DatasetError(printable(problems[0]), "Download the MAESTRO metadata again.")


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows = list(reader)
    _check_columns(reader.fieldnames or ())
    return rows


def _read_json(path: Path) -> list[dict[str, Any]]:
    content = json_value(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, list):
        return [row if isinstance(row, dict) else {} for row in content]
    if not isinstance(content, dict) or not all(isinstance(column, dict) for column in content.values()):
        raise ValueError("it is neither a list of pieces nor an object of columns")
    _check_columns(content)
    keys = dict.fromkeys(key for column in content.values() for key in column)
    ordered = sorted(keys, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
    return [{name: column.get(key) for name, column in content.items()} for key in ordered]


def _check_columns(columns: Iterable[str]) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
