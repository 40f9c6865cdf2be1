"""The notes of a track as the network should hear them: read from its MIDI, held by the pedal, without overlaps."""

from __future__ import annotations

import numpy as np

from mt3core.errors import DatasetError
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import NoteTable, trim_overlapping
from mt3data.readers.tracks import Stem, Track

# As in the original's training on SLAKH; its other data sets keep overlaps.
_TRIMMED_KINDS = ("slakh",)


def track_notes(track: Track, apply_sustain: bool = True) -> NoteTable:
    """The notes of a whole recording, sorted by onset, drum flag, program and pitch; times in seconds.

    With stems they are the sum of the stems' notes. Drums have program 0. `apply_sustain` lengthens the notes that
    a pedal holds. Raises `MidiError` for a damaged MIDI file and `DatasetError` for a missing one: a
    recording with the notes of only some of its instruments would teach the network to ignore the others.
    """
    if track.stems:
        table = np.concatenate([stem_notes(track, stem, apply_sustain) for stem in track.stems])
    elif track.midi is None:
        raise DatasetError(f"{track.name} has no MIDI.", "Leave it out, or restore the file.")
    else:
        table = read_midi(track.midi, apply_sustain)
    return _finish(track, table)


def stem_notes(track: Track, stem: Stem, apply_sustain: bool = True) -> NoteTable:
    """The notes of one stem, with the program and drum flag that the data set gives it, whatever its MIDI says.

    Otherwise as `track_notes`.
    """
    if stem.midi is None:
        raise DatasetError(f"{track.name} {stem.name} has no MIDI.", "Leave it out, or restore the file.")
    # A channel other than the drum channel may have a pedal, which drums ignore; so the flag comes last.
    table = read_midi(stem.midi, apply_sustain and not stem.is_drum)
    table["is_drum"] = stem.is_drum
    table["program"] = 0 if stem.is_drum else stem.program
    return _finish(track, table)


def _finish(track: Track, table: NoteTable) -> NoteTable:
    if track.dataset in _TRIMMED_KINDS:
        table = trim_overlapping(table)
    table = table[_is_possible(table)]
    return table[np.lexsort((table["pitch"], table["program"], table["is_drum"], table["onset"]))]


def _is_possible(table: NoteTable) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.isfinite(table["offset"]) & (table["onset"] >= 0) & (table["onset"] < table["offset"])
