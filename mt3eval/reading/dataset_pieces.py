"""The recordings of raw data sets that an evaluation decodes, each with its true notes.

They are the recordings that a preparation for training would use, with the labels that it would store: MAESTRO's and
a folder's notes last as long as the sustain pedal holds them, SLAKH's stems have the programs of its metadata and
overlapping notes of the same pitch are cut, a mix has the notes of all its stems (`mt3data.readers.labels`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mt3core.config.evaluation import KIND_OF_VARIANT, EvaluationData
from mt3core.errors import DatasetError, UsageError
from mt3core.notes.table import NoteTable
from mt3data.readers.labels import Labels, stem_labels, track_labels
from mt3data.readers.locate import DEFAULT_PLACES, read_dataset
from mt3data.readers.tracks import MIX, Dataset
from mt3data.readers.units import Recording, Settings, plan_units

STEMS_VARIANT = "slakh_stems"


@dataclass(frozen=True)
class EvaluationPiece:
    """A recording to decode: `name` is the track's, followed by the stem's if it is a stem."""

    variant: str
    name: str
    recording: Recording

    @property
    def audio(self) -> Path:
        return self.recording.audio

    def reference(self) -> NoteTable:
        """The true notes of the whole recording. Raises `MidiError` or `DatasetError` if they cannot be read."""
        return self.labels().notes

    def labels(self) -> Labels:
        """The same, with what is odd about the files that they are in."""
        if self.recording.stem is None:
            return track_labels(self.recording.track)
        return stem_labels(self.recording.track, self.recording.stem)


@dataclass(frozen=True)
class EvaluationSet:
    """The pieces of one variant, where they were found, and what was left out of the data set, by name, and why."""

    variant: str
    root: Path
    pieces: tuple[EvaluationPiece, ...]
    left_out: dict[str, str]


def find_sets(data: EvaluationData) -> list[EvaluationSet]:
    """The pieces of every variant, in order of name; opens no audio.

    Raises `DatasetError` if a data set is missing (naming the places that were searched) or nothing in it can be
    used, and `UsageError` for a split that it does not have.
    """
    datasets: dict[str, Dataset] = {}
    for variant in data.variants:
        kind = KIND_OF_VARIANT[variant]
        if kind not in datasets:
            datasets[kind] = _read(kind, getattr(data, kind), data.variants)
            _check_split(datasets[kind], data.split)
    return [_choose(variant, datasets[KIND_OF_VARIANT[variant]], data) for variant in data.variants]


def first_notes(notes: NoteTable, seconds: float) -> NoteTable:
    """The notes that start within the first `seconds`; those that last longer are cut there."""
    chosen = notes[notes["onset"] < seconds]
    chosen["offset"] = np.minimum(chosen["offset"], seconds)
    return chosen


def _read(kind: str, directory: str, variants: Sequence[str]) -> Dataset:
    try:
        return read_dataset(kind, Path(directory) if directory else None)
    except (DatasetError, UsageError) as error:
        if directory:
            raise DatasetError(error.problem, f"Check data.{kind}.") from error
        others = [variant for variant in variants if KIND_OF_VARIANT[variant] != kind]
        without = f", or leave it out: --set data.variants={','.join(others)}" if others else ""
        usual = "" if DEFAULT_PLACES[kind] else " (data.folder)"
        raise DatasetError(error.problem, f"Set its folder: --set data.{kind}=DIR{usual}{without}.") from error


def _check_split(dataset: Dataset, split: str) -> None:
    splits = Counter(track.split for track in dataset.tracks)
    if split not in splits:
        there = ", ".join(f"{name} ({count})" for name, count in sorted(splits.items()))
        raise UsageError(
            f"{dataset.root} has no tracks in the split {split!r}.", f"It has {there or 'none'}: --set data.split=NAME."
        )


def _choose(variant: str, dataset: Dataset, data: EvaluationData) -> EvaluationSet:
    takes_stems = variant == STEMS_VARIANT
    settings = Settings(dataset.kind, dataset.kind, dataset.root.name, sustain=True, flac=False, splits=(data.split,))
    recordings = [
        recording
        for unit in plan_units(dataset, settings)
        for recording in unit.recordings
        if (recording.stem is not None) == takes_stems
    ]
    names = sorted({recording.track.name for recording in recordings})[: data.limit]
    chosen = sorted((one for one in recordings if one.track.name in set(names)), key=_name)
    pieces = tuple(EvaluationPiece(variant, _name(one), one) for one in chosen)
    if not pieces:
        raise DatasetError(
            f"Nothing in the split {data.split!r} of {dataset.root} can be used for {variant}.",
            f"Check it with mt3 data verify {dataset.kind} {dataset.root}",
        )
    last = names[-1] if len(names) == data.limit else None
    return EvaluationSet(variant, dataset.root, pieces, _left_out(dataset, data.split, last, takes_stems))


def _left_out(dataset: Dataset, split: str, last: str | None, takes_stems: bool) -> dict[str, str]:
    """What cannot be used in the split and why, up to the last track that is used."""
    tracks = {track.name for track in dataset.tracks if track.split == split and (last is None or track.name <= last)}
    return {
        one.track if one.stem == MIX else f"{one.track}_{one.stem}": one.message
        for one in dataset.defects
        if one.skips and one.track in tracks and (one.stem != MIX) == takes_stems
    }


def _name(recording: Recording) -> str:
    return recording.track.name if recording.stem is None else f"{recording.track.name}_{recording.stem.name}"
