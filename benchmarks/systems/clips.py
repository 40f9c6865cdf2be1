"""The recordings of a folder and their notes: a list in `index.json`, or a data set that `mt3 prepare` can read."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt3core.audio.load import probe_audio
from mt3core.errors import DatasetError
from mt3core.notes.table import Note, NoteTable, note_table
from mt3data.readers.defects import skipped
from mt3data.readers.labels import track_notes
from mt3data.readers.locate import read_dataset, recognise
from mt3data.readers.tracks import MIX
from mt3eval.reading.performance import Performance

PIANO, OTHER, DRUMS = "piano", "other", "drums"
_PIANOS = range(8)  # General MIDI


@dataclass(frozen=True)
class Clip:
    """A recording and its reference notes, whose offsets include the sustain pedal."""

    name: str  # a valid file name
    audio: Path
    seconds: float
    reference: Performance
    only_drums_labelled: bool = False

    @property
    def kind(self) -> str:
        """PIANO, DRUMS (no pitched notes, or none labelled) or OTHER."""
        pitched = self.reference.pitched().notes
        if self.only_drums_labelled or not len(pitched):
            return DRUMS
        only_pianos = len(pitched) == len(self.reference.notes) and all(p in _PIANOS for p in pitched["program"])
        return PIANO if only_pianos else OTHER


def read_clips(folder: Path, split: str = "test", only: tuple[str, ...] = (), limit: int | None = None) -> list[Clip]:
    """The clips of a folder in its order: those whose names contain one of `only`, and no more than `limit`.

    A folder with `index.json` lists its clips there (`id`, `audio`, `notes`: a TSV, `truth_covers`). MAESTRO, SLAKH
    (its mixes) and folders of audio and MIDI files of the same names are read as for training: the
    tracks of one split, without those that training leaves out. Raises `DatasetError` if no clip is left, or if the
    list or a file of notes in it cannot be read.
    """
    clips = _listed(folder, only) if (folder / "index.json").exists() else _of_data_set(folder, split, only)
    chosen = list(itertools.islice(clips, limit))
    if not chosen:
        raise DatasetError(f"No clip of {folder} was chosen.", "Check the folder, --split and --only.")
    return chosen


def _listed(folder: Path, only: tuple[str, ...]) -> Iterator[Clip]:
    for row in _read_index(folder / "index.json"):
        if _is_wanted(row["id"], only):
            audio, notes = folder / row["audio"], _read_notes(folder / row["notes"])
            only_drums = row.get("truth_covers") == "drum onsets only"
            yield Clip(row["id"], audio, _seconds(audio), Performance(notes), only_drums)


def _read_index(path: Path) -> list[dict[str, Any]]:
    """The list of clips; each has at least its name and its two files."""
    next_step = "It must be a list of objects with id, audio and notes; without it the folder is read as a data set."
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a list of clips: {error}.", next_step) from error
    if not isinstance(rows, list):
        raise DatasetError(f"{path} is not a list of clips.", next_step)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "audio", "notes")):
            raise DatasetError(f"Clip {number} of {path} has no id, audio or notes.", next_step)
    return rows


def _of_data_set(folder: Path, split: str, only: tuple[str, ...]) -> Iterator[Clip]:
    dataset = read_dataset(recognise(folder), folder)
    left_out = skipped(dataset.defects)
    for track in dataset.split(split):
        if track.audio and (track.name, MIX) not in left_out and _is_wanted(track.name, only):
            yield Clip(track.name, track.audio, _seconds(track.audio), Performance(track_notes(track)))


def _is_wanted(name: str, only: tuple[str, ...]) -> bool:
    return not only or any(part in name for part in only)


def _read_notes(path: Path) -> NoteTable:
    try:
        with path.open(encoding="utf-8") as file:
            return note_table(_note(row) for row in csv.DictReader(file, delimiter="\t"))
    except KeyError as error:
        raise DatasetError(
            f"{path} has no column {error}.", "It needs onset, offset, pitch, velocity, program, is_drum."
        ) from error
    except (OSError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a table of notes: {error}.", "Correct the file.") from error


def _note(row: dict[str, str]) -> Note:
    times, numbers = [row["onset"], row["offset"]], [row["pitch"], row["velocity"], row["program"]]
    return Note(*map(float, times), *map(int, numbers), row["is_drum"] == "1")


def _seconds(audio: Path) -> float:
    return probe_audio(audio).duration_seconds or 0.0
