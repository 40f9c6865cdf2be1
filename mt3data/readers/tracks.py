"""What every reader of a data set gives: tracks, each a recording with its notes, perhaps in stems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The name under which a track's whole recording stands where stems have names of their own.
MIX = "mix"


@dataclass(frozen=True)
class Defect:
    """Something wrong with a track, or with one stem of it.

    `kind` is a word such as `missing_audio`, `message` one clear sentence with the file's name. With `skips` the
    material is left out by the preparation; otherwise it is used, mended where the message says so.
    """

    track: str
    stem: str  # MIX where it concerns the whole track
    kind: str
    message: str
    skips: bool = True


@dataclass(frozen=True)
class Stem:
    """One instrument of a track. A file that is not there is None."""

    name: str
    audio: Path | None
    midi: Path | None
    program: int  # General MIDI, 0 to 127; drums have DRUM_PROGRAM
    is_drum: bool = False
    instrument_class: str = ""


@dataclass(frozen=True)
class Track:
    """A recording and its notes.

    Without stems the notes are those of `midi`; with stems they are the sum of the notes of all stems that were
    rendered, which are those in `stems`.
    """

    dataset: str  # maestro, slakh, folder
    split: str  # train, validation, test; SLAKH also omitted
    name: str  # unique within the data set, and a valid file name
    audio: Path | None
    midi: Path | None
    stems: tuple[Stem, ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class Dataset:
    """All tracks of a data set in the order of their names, and what its reader found wrong on the way."""

    kind: str
    root: Path
    tracks: tuple[Track, ...]
    defects: tuple[Defect, ...] = ()

    def split(self, name: str) -> tuple[Track, ...]:
        """The tracks of one split."""
        return tuple(track for track in self.tracks if track.split == name)


def in_order(tracks: Iterable[Track]) -> tuple[Track, ...]:
    """Tracks in the one order that does not depend on the file system."""
    return tuple(sorted(tracks, key=lambda track: (track.split, track.name)))
