"""What every reader of a data set returns: tracks, each a recording with its notes, perhaps in stems."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The name of a track's whole recording, used instead of a stem's name.
MIX = "mix"


@dataclass(frozen=True)
class Defect:
    """Something wrong with a track, or with one stem of it.

    `kind` is a word such as `missing_audio`, `message` one clear sentence with the file's name. With `skips` the
    material is left out by the preparation; otherwise it is used, corrected if the message says so.
    """

    track: str
    stem: str  # MIX if it concerns the whole track
    kind: str
    message: str
    skips: bool = True


@dataclass(frozen=True)
class Stem:
    """One instrument of a track. A missing file is None."""

    name: str
    audio: Path | None
    midi: Path | None
    program: int  # General MIDI, 0 to 127; drums have DRUM_PROGRAM
    is_drum: bool = False
    instrument_class: str = ""


@dataclass(frozen=True)
class Track:
    """A recording and its notes.

    Without stems the notes are those of `midi`; with stems they are the sum of the notes of all rendered stems
    (those in `stems`).
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
    """All tracks of a data set in order of name, and the defects its reader found."""

    kind: str
    root: Path
    tracks: tuple[Track, ...]
    defects: tuple[Defect, ...] = ()

    def split(self, name: str) -> tuple[Track, ...]:
        """The tracks of one split."""
        return tuple(track for track in self.tracks if track.split == name)


def in_order(tracks: Iterable[Track]) -> tuple[Track, ...]:
    """Tracks in an order that does not depend on the file system."""
    return tuple(sorted(tracks, key=lambda track: (track.split, track.name)))
