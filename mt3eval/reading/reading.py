"""Files of notes as performances: MIDI, our JSON, and tables of any system.

Read as they are. Impossible notes (a time that is not a number or negative, an end before its start, a pitch or
velocity outside MIDI) are refused, naming the first of them; notes without length stay, because each protocol
has its own rule for them. Remarks report what is ignored in a file and what it lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt3core.errors import MidiError, MT3Error
from mt3core.notes import MIDI_SUFFIXES
from mt3core.notes.midi_reading import read_content
from mt3core.notes.table import MOST_SECONDS, SUSTAIN_PEDAL, NoteTable, apply_sustain
from mt3eval.reading.note_rows import NoteRows, parse_json, parse_json_lines, parse_table
from mt3eval.reading.performance import Performance, no_controls

_TEXT_FORMS: dict[str, Callable[[str], NoteRows]] = {
    ".json": parse_json,
    ".jsonl": parse_json_lines,
    ".csv": parse_table,
    ".tsv": parse_table,
    ".txt": parse_table,
}
_TEXT_NEXT_STEP = "Each note needs onset, offset (or duration) and pitch: times in seconds, pitches as MIDI numbers."
SUFFIXES = (*MIDI_SUFFIXES, *_TEXT_FORMS)


class NotesFileError(MT3Error):
    """A file of notes that cannot be read, or that contains an impossible note."""


@dataclass(frozen=True)
class Reading:
    """How files are read. `sustain`: notes last as long as the sustain pedal is down, as in MT3's data.

    `drop_empty`: notes without length are left out, as in programs that read MIDI through pretty_midi.
    """

    sustain: bool = False
    drop_empty: bool = False


def read_performance(path: Path | str, reading: Reading | None = None) -> Performance:
    """The notes and control changes of a file, by its suffix (see `SUFFIXES`).

    MIDI comes in order of onset, drum flag, program and pitch; everything else in file order. Raises
    `NotesFileError`.
    """
    return read_with_remarks(path, reading)[0]


def read_with_remarks(path: Path | str, reading: Reading | None = None) -> tuple[Performance, tuple[str, ...]]:
    """The same, with remarks on what a reader of the scores should know about the file."""
    path, reading = Path(path), reading or Reading()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise NotesFileError(
            f"{path} cannot be read as a file of notes.", f"Use a file that ends in {', '.join(SUFFIXES)}."
        )
    return _from_midi(path, reading) if suffix in MIDI_SUFFIXES else _from_text(path, reading)


def _from_midi(path: Path, reading: Reading) -> tuple[Performance, tuple[str, ...]]:
    try:
        content = read_content(path, drop_empty=False)  # they are reported, and dropped after the pedal
    except MidiError as error:
        raise NotesFileError(error.problem, error.next_step) from error
    notes = content.held() if reading.sustain else content.notes
    return _performance(path, notes, content.controls, None, list(content.remarks), reading)


def _from_text(path: Path, reading: Reading) -> tuple[Performance, tuple[str, ...]]:
    try:
        rows = _TEXT_FORMS[path.suffix.lower()](path.read_bytes().decode("utf-8-sig"))
        notes = rows.notes
        if reading.sustain and len(rows.controls):
            pedal = rows.controls[rows.controls[:, 1] == SUSTAIN_PEDAL]
            notes = apply_sustain(notes, pedal[:, [0, 2]].tolist())
        # Notes replaced by a held note of their pitch are gone, and it is unknown which they were.
        confidences = rows.confidences if len(notes) == len(rows.notes) else None
        return _performance(path, notes, rows.controls, confidences, list(rows.remarks), reading)
    except OSError as error:
        raise NotesFileError(f"{path} cannot be read: {error.strerror or error}.", "Check the name.") from error
    except MidiError as error:  # an impossible note
        raise NotesFileError(f"{path}: {error.problem}", error.next_step) from error
    except ValueError as error:
        kind = f"a {path.suffix[1:].upper()} file of notes"
        reason = str(error).rstrip(".")
        raise NotesFileError(f"{path} cannot be read as {kind}: {reason}.", _TEXT_NEXT_STEP) from error


def _performance(
    path: Path,
    notes: NoteTable,
    controls: np.ndarray,
    confidences: np.ndarray | None,
    remarks: list[str],
    reading: Reading,
) -> tuple[Performance, tuple[str, ...]]:
    if len(notes) and notes["offset"].max() > MOST_SECONDS:  # NaN is refused below
        raise NotesFileError(
            f"{path}: a note ends after {notes['offset'].max():.0f} s, which is more than a day.",
            "Use times in seconds.",
        )
    performance = Performance(notes, controls if len(controls) else no_controls(), path.name, confidences)
    empty = notes["offset"] == notes["onset"]
    if reading.drop_empty and empty.any():
        performance = performance.part(~empty)
        remarks.append(f"{empty.sum()} notes without length are left out, as requested")
    elif empty.any():
        remarks.append(f"{empty.sum()} notes have no length; each protocol has its own rule for them")
    if len(performance.notes) == 0:
        remarks.append("it contains no notes")
    return performance, tuple(f"{path}: {remark}" for remark in remarks)
