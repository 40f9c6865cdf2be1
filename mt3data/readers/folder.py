"""A user's own recordings: audio and MIDI files of the same name, anywhere below one folder.

A folder called train, validation or test (also valid, val, dev) on the way to a file puts it in that split. All
other pieces are divided by a hash of their path and name: about 80 % train, 10 % validation, 10 % test. In a set so
small that none of them would be in train, all of them are.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import DatasetError
from mt3core.files import folders_below
from mt3core.notes import MIDI_SUFFIXES
from mt3core.splits import split_of_folders
from mt3data.readers.defects import defect
from mt3data.readers.file_names import files_by_stem, printable, split_by_name, track_name
from mt3data.readers.tracks import MIX, Dataset, Defect, Track, in_order

KIND = "folder"


@dataclass(frozen=True)
class _File:
    """A file under its name without suffix; `place` is its folder in the data set, "" for the folder itself."""

    path: Path
    place: str
    stem: str

    @property
    def key(self) -> str:
        return f"{self.place}/{self.stem}" if self.place else self.stem

    @property
    def split(self) -> str | None:
        return split_of_folders(self.place.split("/"))


def read(root: Path) -> Dataset:
    """All pairs below a folder; a file without its counterpart is a `Defect`.

    Files of one folder are paired first. The rest are paired across folders (`audio/a.wav` with `midi/a.mid`)
    if only one audio and one MIDI file of a split have that name. Raises `DatasetError` if there are no pairs.
    """
    audio, midi, defects = _find_files(root)
    pairs = [(audio.pop(key), midi.pop(key)) for key in sorted(audio.keys() & midi.keys())]
    pairs += _pair_across_folders(audio, midi)
    for file in audio.values():
        problem = f"{file.path} has no MIDI file of the same name."
        defects.append(defect(track_name(file.key), MIX, "missing_midi", problem))
    for file in midi.values():
        problem = f"{file.path} has no audio file of the same name."
        defects.append(defect(track_name(file.key), MIX, "missing_audio", problem))
    if not pairs:
        raise DatasetError(
            f"{root} has no audio file with a MIDI file of the same name.",
            "Put piece.wav and piece.mid next to each other, in any folder below it.",
        )
    has_training = any((file.split or split_by_name(printable(file.key))) == "train" for file, _ in pairs)
    tracks: dict[str, Track] = {}
    for recording, notes in pairs:
        name = track_name(recording.key)
        if name in tracks:  # a/b.wav and a__b.wav; the control character makes track_name add its hash
            name = track_name(f"{recording.key}\0")
        split = recording.split or (split_by_name(printable(recording.key)) if has_training else "train")
        tracks[name] = Track(KIND, split, name, recording.path, notes.path)
    return Dataset(KIND, root, in_order(tracks.values()), tuple(defects))


def _find_files(root: Path) -> tuple[dict[str, _File], dict[str, _File], list[Defect]]:
    """Audio and MIDI files by folder and name, the first choice if there are several, and the others' defects."""
    defects: list[Defect] = []
    found: tuple[dict[str, _File], dict[str, _File]] = ({}, {})
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.", "Check the name and the folder.")
    for folder in folders_below(root):
        place = unicodedata.normalize("NFC", folder.relative_to(root).as_posix())
        for files, suffixes in zip(found, (AUDIO_SUFFIXES, MIDI_SUFFIXES), strict=True):
            for stem, paths in files_by_stem(folder, suffixes).items():
                file = _File(paths[0], "" if place == "." else place, stem)
                files[file.key] = file
                for other in paths[1:]:
                    problem = f"{other} is ignored: {paths[0].name} has the same name."
                    defects.append(defect(track_name(file.key), MIX, "left_aside", problem, skips=False))
    return *found, defects


def _pair_across_folders(audio: dict[str, _File], midi: dict[str, _File]) -> list[tuple[_File, _File]]:
    """Removes the pairs from both; by split and name."""
    by_name: tuple[dict[tuple[str | None, str], list[_File]], ...] = (defaultdict(list), defaultdict(list))
    for groups, files in zip(by_name, (audio, midi), strict=True):
        for file in files.values():
            groups[file.split, file.stem].append(file)
    pairs = []
    for name in by_name[0].keys() & by_name[1].keys():
        recordings, notes = by_name[0][name], by_name[1][name]
        if len(recordings) == len(notes) == 1:
            pairs.append((audio.pop(recordings[0].key), midi.pop(notes[0].key)))
    return pairs
