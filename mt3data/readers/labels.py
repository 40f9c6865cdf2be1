"""The notes of a track as the network should hear them: read from its MIDI, held by the pedal, without overlaps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt3core.errors import DatasetError
from mt3core.notes.midi_reading import read_content
from mt3core.notes.table import NoteTable, trim_overlapping
from mt3data.readers.defects import defect
from mt3data.readers.tracks import MIX, Defect, Stem, Track

ODD_MIDI = "odd_midi"
# As in the original's training on SLAKH; its other data sets keep overlaps.
_TRIMMED_KINDS = ("slakh",)


@dataclass(frozen=True, eq=False)
class Labels:
    """Notes sorted by onset, drum flag, program and pitch, times in seconds; and what is odd about their MIDI files."""

    notes: NoteTable
    defects: tuple[Defect, ...] = ()


def track_labels(track: Track, apply_sustain: bool = True) -> Labels:
    """The labels of a whole recording.

    With stems its notes are the sum of the stems' notes. Drums have program 0. `apply_sustain` lengthens the notes that
    a pedal holds. Raises `MidiError` for a damaged MIDI file and `DatasetError` for a missing one: a
    recording with the notes of only some of its instruments would teach the network to ignore the others.
    """
    if track.stems:
        parts = [stem_labels(track, stem, apply_sustain) for stem in track.stems]
        notes = np.concatenate([part.notes for part in parts])
        return Labels(_finish(track, notes), tuple(one for part in parts for one in part.defects))
    if track.midi is None:
        raise DatasetError(f"{track.name} has no MIDI.", "Leave it out, or restore the file.")
    labels = _read(track, MIX, track.midi, apply_sustain)
    return Labels(_finish(track, labels.notes), labels.defects)


def stem_labels(track: Track, stem: Stem, apply_sustain: bool = True) -> Labels:
    """The labels of one stem, with the program and drum flag that the data set gives it, whatever its MIDI says.

    Otherwise as `track_labels`.
    """
    if stem.midi is None:
        raise DatasetError(f"{track.name} {stem.name} has no MIDI.", "Leave it out, or restore the file.")
    # A channel other than the drum channel may have a pedal, which drums ignore; so the flag comes last.
    labels = _read(track, stem.name, stem.midi, apply_sustain and not stem.is_drum)
    labels.notes["is_drum"] = stem.is_drum
    labels.notes["program"] = 0 if stem.is_drum else stem.program
    return Labels(_finish(track, labels.notes), labels.defects)


def track_notes(track: Track, apply_sustain: bool = True) -> NoteTable:
    """The notes of `track_labels`."""
    return track_labels(track, apply_sustain).notes


def stem_notes(track: Track, stem: Stem, apply_sustain: bool = True) -> NoteTable:
    """The notes of `stem_labels`."""
    return stem_labels(track, stem, apply_sustain).notes


def odd_midi(track: str, stem: str, path: Path, remarks: Iterable[str]) -> tuple[Defect, ...]:
    """Remarks on a MIDI file (`MidiContent.remarks`) as defects; it is used all the same."""
    return tuple(defect(track, stem, ODD_MIDI, f"{path}: {remark}.", skips=False) for remark in remarks)


def _read(track: Track, stem: str, path: Path, apply_sustain: bool) -> Labels:
    content = read_content(path, drop_empty=True)
    notes = content.held() if apply_sustain else content.notes
    return Labels(notes, odd_midi(track.name, stem, path, content.remarks))


def _finish(track: Track, table: NoteTable) -> NoteTable:
    if track.dataset in _TRIMMED_KINDS:
        table = trim_overlapping(table)
    table = table[_is_possible(table)]
    return table[np.lexsort((table["pitch"], table["program"], table["is_drum"], table["onset"]))]


def _is_possible(table: NoteTable) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.isfinite(table["offset"]) & (table["onset"] >= 0) & (table["onset"] < table["offset"])
