"""The unit of work of a preparation: a few tracks of one split, which become one shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mt3data.readers.defects import skipped
from mt3data.readers.tracks import MIX, Dataset, Defect, Stem, Track, in_order

# Changes whenever the same input would give different shards.
PREPARATION_VERSION = 1
# Large data sets get shards of about 50 to 350 MB: few enough files to keep open at the same time, and little work
# lost to an interruption. Small ones get up to 64 shards, so that many processors have work.
_MOST_TRACKS = {"maestro": 4, "slakh": 4}
_MOST_TRACKS_OTHERWISE = 16
_SHARDS_AIMED_AT = 64
# Defects of the data set as it was published or assembled, not of this copy of it; the second, if caused by the first.
_KNOWN_KINDS, _MIX_KIND = ("known_", "same_"), "mix_with_wrong_stem"
# The stems of a piece that is in two splits must not be trained on either.
_WHOLE_TRACK_KINDS = ("same_",)


@dataclass(frozen=True)
class Settings:
    """What determines, besides the input, which bytes a preparation writes."""

    name: str  # the data set's name in the manifest, and the folder of its shards
    kind: str
    source: str  # name of the folder that was read
    sustain: bool
    flac: bool
    splits: tuple[str, ...]
    version: int = PREPARATION_VERSION
    pitch_semitones: int = 0  # see prepare/effects.py
    stretch: float = 1.0

    @property
    def changes_sound(self) -> bool:
        return bool(self.pitch_semitones) or self.stretch != 1.0

    def as_json(self) -> str:
        values = asdict(self)
        if not self.changes_sound:  # so that data prepared before there were effects is still recognised
            del values["pitch_semitones"], values["stretch"]
        return json.dumps(values, indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Recording:
    """One audio file to prepare: a stem, or a whole track if `stem` is None. `defects` are words to store."""

    track: Track
    stem: Stem | None
    audio: Path
    defects: tuple[str, ...] = ()

    @property
    def stem_name(self) -> str:
        return MIX if self.stem is None else self.stem.name


@dataclass(frozen=True)
class Unit:
    """The recordings of one shard in order, and a digest of everything its contents depend on."""

    name: str
    recordings: tuple[Recording, ...]
    digest: str


def plan_units(dataset: Dataset, settings: Settings) -> list[Unit]:
    """The units of a data set in a fixed order, without the recordings named by a skipping defect.

    The digest covers names, sizes and descriptions of the files, so a repaired file changes its unit.
    """
    chosen = [track for track in in_order(dataset.tracks) if track.split in settings.splits]
    size = max(1, min(_MOST_TRACKS.get(dataset.kind, _MOST_TRACKS_OTHERWISE), len(chosen) // _SHARDS_AIMED_AT))
    recordings_of = _recordings_of(dataset)
    units = []
    for split in settings.splits:
        tracks = [track for track in chosen if track.split == split]
        for number, start in enumerate(range(0, len(tracks), size)):
            group = tracks[start : start + size]
            found = tuple(recording for track in group for recording in recordings_of(track))
            digest = _digest(dataset.root, group, found, settings)
            units.append(Unit(f"{split}-{number:05d}", found, digest))
    return units


def faults(dataset: Dataset, settings: Settings) -> list[Defect]:
    """The reader's defects because of which this copy of the data set loses material of the chosen splits."""
    others = {track.name for track in dataset.tracks if track.split not in settings.splits}
    known = {one for one in dataset.defects if one.skips and one.kind.startswith(_KNOWN_KINDS)}
    their_mixes = {(one.track, _MIX_KIND) for one in known}
    return [
        one
        for one in dataset.defects
        if one.skips and one not in known and (one.track, one.kind) not in their_mixes and one.track not in others
    ]


def _recordings_of(dataset: Dataset) -> Callable[[Track], Iterator[Recording]]:
    """Which files of a track are prepared, given the defects its reader found."""
    left_out = skipped(dataset.defects)
    whole = {one.track for one in dataset.defects if one.skips and one.kind.startswith(_WHOLE_TRACK_KINDS)}
    words: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in dataset.defects:
        if not one.skips:
            words[one.track, one.stem].add(one.kind)

    def of(track: Track) -> Iterator[Recording]:
        if track.name in whole:
            return
        places: list[tuple[Stem | None, Path | None]] = [(None, track.audio)]
        places += [(stem, stem.audio) for stem in track.stems if stem.midi is not None]
        for stem, audio in places:
            name = MIX if stem is None else stem.name
            if audio is not None and (track.name, name) not in left_out:
                yield Recording(track, stem, audio, tuple(sorted(words[track.name, MIX] | words[track.name, name])))

    return of


def _digest(root: Path, tracks: list[Track], recordings: tuple[Recording, ...], settings: Settings) -> str:
    content = {
        "settings": settings.as_json(),
        "tracks": [_described(root, track) for track in tracks],
        "recordings": [(recording.track.name, recording.stem_name, recording.defects) for recording in recordings],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _described(root: Path, track: Track) -> dict:
    stems = [
        (stem.name, stem.program, stem.is_drum, stem.instrument_class, _file(root, stem.audio), _file(root, stem.midi))
        for stem in track.stems
    ]
    files = (_file(root, track.audio), _file(root, track.midi))
    return {"name": track.name, "split": track.split, "licence": track.licence, "files": files, "stems": stems}


def _file(root: Path, path: Path | None) -> tuple[str, int] | None:
    """Name within the data set and size. Not the modification time: a copy of the same files is the same input."""
    if path is None:
        return None
    try:
        size = path.stat().st_size
    except OSError:
        size = -1
    return os.path.relpath(path, root), size
