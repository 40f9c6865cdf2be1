"""Notes from tables and JSON of any system: which columns they have and what the values mean.

Columns are found by name, in any order; the names used by several programs are known. Without a header the columns are
onset, offset, pitch, velocity, program, is_drum; the first three are required. Times are seconds, pitches MIDI numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3core.errors import quoted
from mt3core.json_text import json_value
from mt3core.notes.table import NOTE_DTYPE, NoteTable
from mt3core.transcription import READ_VERSIONS

COLUMNS = ("onset", "offset", "pitch", "velocity", "program", "is_drum")
DEFAULT_VELOCITY = 100
# In lower case without spaces, underscores and brackets; names of times may also end in a unit.
_COLUMN_NAMES = {
    "onset": ("onset", "onsettime", "start", "starttime"),
    "offset": ("offset", "offsettime", "end", "endtime"),
    "duration": ("duration", "length"),
    "pitch": ("pitch", "midipitch", "pitchmidi", "midinote", "notenumber", "note", "midi"),
    "velocity": ("velocity", "vel"),
    "program": ("program", "midiprogram"),
    "is_drum": ("isdrum", "drum"),
    "confidence": ("confidence", "probability"),
}
_TIMES = ("onset", "offset", "duration")
_COLUMN_OF = {name: column for column, names in _COLUMN_NAMES.items() for name in names}
_COLUMN_OF |= {
    name + unit: column for column in _TIMES for name in _COLUMN_NAMES[column] for unit in ("s", "sec", "seconds")
}
_MOST_UNUSED = 8  # named in the remark
_INSTRUMENT = "instrument"
_OF_A_NOTE = {"onset", "offset", "pitch"}
_TRUTH = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True}


@dataclass(frozen=True, eq=False)
class NoteRows:
    """Notes in file order, what came with them, and remarks on what the file does not say."""

    notes: NoteTable
    controls: Float[np.ndarray, "controls 3"]
    confidences: Float[np.ndarray, " _notes"] | None
    remarks: tuple[str, ...] = ()


def parse_table(text: str) -> NoteRows:
    """A table with tabs, semicolons, commas or spaces between its columns. Raises `ValueError`."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        return _rows([])
    delimiter = _delimiter(lines[0][1])
    cells = [(number, _cells(line, delimiter)) for number, line in lines]
    first = [cell.strip() for cell in cells[0][1]]
    names: Sequence[str] = COLUMNS
    if not _is_number(first[0]):
        names, cells = first, cells[1:]
        found = {_column(name) for name in names}
        missing = [column for column in ("onset", "pitch") if column not in found]
        missing += ["offset"] if not found & {"offset", "duration"} else []
        if missing:
            raise ValueError(f"its header names no column for {' and '.join(missing)}")
    return _rows((f"line {number}", dict(zip(names, values, strict=False))) for number, values in cells)


def parse_json_lines(text: str) -> NoteRows:
    """One note per line, as an object or a list. Raises `ValueError`."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json_value(line)))
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
    return _rows(rows)


def parse_json(text: str) -> NoteRows:
    """A transcription by mt3, or any object with `notes` (and `controls`), or a list of notes. Raises `ValueError`."""
    values = json_value(text)
    controls: Any = []
    remarks: tuple[str, ...] = ()
    if isinstance(values, dict):
        if "notes" not in values:
            raise ValueError("it has no entry 'notes'")
        if "segments" in values and values.get("version") not in READ_VERSIONS:
            readable = " or ".join(map(str, READ_VERSIONS))
            raise ValueError(f"it is a transcription of version {quoted(values.get('version'))}, not {readable}")
        remarks = _remarks_on_choice(values) if "segments" in values else ()
        values, controls = values["notes"], values.get("controls", [])
    if not isinstance(values, list):
        raise ValueError("its notes are not a list")
    try:
        table = np.array(controls, dtype=float).reshape(-1, 3)
    except (TypeError, ValueError):
        raise ValueError("its controls are not rows of time, controller and value") from None
    rows = _rows(((f"note {number}", row) for number, row in enumerate(values, 1)), table)
    return replace(rows, remarks=(*remarks, *rows.remarks))


def _remarks_on_choice(values: dict[str, Any]) -> tuple[str, ...]:
    """Whether a transcription is one of a part of the recording, or of some of its notes."""
    told = {"excerpt": "only part of its recording was transcribed", "choice": "its notes are a choice of those found"}
    return tuple(remark for name, remark in told.items() if values.get(name))


def is_of_something_else(text: str, suffix: str) -> bool:
    """Whether a table or JSON clearly contains no notes: it names its contents, and neither times nor pitches.

    The lists of recordings in data sets are like this. A file that cannot be parsed is not clear.
    """
    if suffix == ".json":
        try:
            values = json_value(text)
        except ValueError:
            return False
        if isinstance(values, list) and values and isinstance(values[0], dict):
            return not _OF_A_NOTE & {_column(name) for name in values[0]}
        return isinstance(values, dict) and "notes" not in values
    if suffix not in (".csv", ".tsv"):
        return False
    header = next((line for line in text.splitlines() if line.strip() and line[0] != "#"), "0")
    names = [name.strip() for name in _cells(header, _delimiter(header))]
    return not _is_number(names[0]) and not _OF_A_NOTE & {_column(name) for name in names}


def _delimiter(line: str) -> str | None:
    """The separator of the columns of a table that starts with this line; None for spaces."""
    return next((mark for mark in "\t;," if mark in line), None)


def _cells(line: str, delimiter: str | None) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _rows(rows: Iterable[tuple[str, Any]], controls: Float[np.ndarray, "controls 3"] | None = None) -> NoteRows:
    notes, confidences, without_velocity = [], [], 0
    unused: dict[str, None] = {}
    for place, row in rows:
        values = dict(_named(row, place, unused))
        without_velocity += "velocity" not in values
        notes.append(_note(values, place))
        confidences.append(values.get("confidence"))
    table = np.array(notes, dtype=NOTE_DTYPE)
    sure = None
    if confidences and None not in confidences:
        sure = np.array([_number(value, "confidence", "a note") for value in confidences])
    remarks = []
    if without_velocity:
        whom = f"{without_velocity} notes" if without_velocity < len(notes) else "all"
        remarks.append(f"has no velocities; {DEFAULT_VELOCITY} is assumed for {whom}")
    if unused:
        first = ", ".join(map(str, list(unused)[:_MOST_UNUSED]))
        remarks.append(f"has unused columns: {first}{', ...' if len(unused) > _MOST_UNUSED else ''}")
    if sure is not None and not ((sure >= 0) & (sure <= 1)).all():
        remarks.append("has confidences that are not between 0 and 1; they are left out")
        sure = None
    return NoteRows(table, np.zeros((0, 3)) if controls is None else controls, sure, tuple(remarks))


def _named(row: Any, place: str, unused: dict[str, None]) -> Iterator[tuple[str, Any]]:
    """The columns that are known and not empty; names of others are added to `unused`."""
    if isinstance(row, list | tuple):
        row = dict(zip(COLUMNS, row, strict=False))
    if not isinstance(row, Mapping):
        raise ValueError(f"{place} is not a note")
    for name, value in row.items():
        column = _column(name)
        if name == _INSTRUMENT and "program" in row:
            continue  # the same once more, in words, as mt3 writes it
        if column is None and name not in unused and str(name).strip():
            unused[name] = None
        if column == "confidence" and isinstance(value, Mapping):
            value = value.get("note")  # mt3's own JSON says it of the parts of a note too
        if column is not None and value is not None and value != "":
            yield column, value


def _note(values: Mapping[str, Any], place: str) -> tuple[float, float, int, int, int, bool]:
    onset = _number(values.get("onset"), "onset", place)
    if "offset" in values or "duration" not in values:
        offset = _number(values.get("offset"), "offset", place)
    else:
        offset = onset + _number(values["duration"], "duration", place)
    pitch = _whole(values.get("pitch"), "pitch", place)
    velocity = _whole(values.get("velocity", DEFAULT_VELOCITY), "velocity", place)
    program = _whole(values.get("program", 0), "program", place)
    return onset, offset, pitch, velocity, program, _truth(values.get("is_drum", False), place)


@lru_cache(maxsize=1024)  # called for every cell
def _column(name: Any) -> str | None:
    return _COLUMN_OF.get(re.sub(r"[ _()\[\]]", "", str(name).lower()))


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _number(value: Any, column: str, place: str) -> float:
    if value is None:
        raise ValueError(f"{place} has no {column}")
    if not _is_number(value):
        raise ValueError(f"{place} has the {column} {quoted(value)}, which is not a number")
    return float(value)


def _whole(value: Any, column: str, place: str) -> int:
    number = _number(value, column, place)
    if not np.isfinite(number) or number != int(number):
        raise ValueError(f"{place} has the {column} {quoted(value)}; it must be a whole number from 0 to 127")
    return int(np.clip(number, -1, 1000))  # values outside MIDI are refused with all other impossible notes


def _truth(value: Any, place: str) -> bool:
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    name = str(value).strip().lower()
    if name not in _TRUTH:
        raise ValueError(f"{place} has is_drum {quoted(value)}; it must be 0 or 1")
    return _TRUTH[name]
