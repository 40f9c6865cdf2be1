"""SLAKH2100: mixes of rendered stems, each stem with its MIDI.

Three editions have the same layout in a track's folder: the redux release (`train`, `validation`, `test`, `omitted`),
the original release (the same without `omitted`) and BabySlakh (16 kHz WAV, no split folders: all of it is `train`).
The files show what was rendered, since the flags in BabySlakh's metadata are wrong. `all_src.mid` is not
read: it also has the notes of stems that were never rendered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import DatasetError, MidiError, reading
from mt3core.extras import needed
from mt3core.notes import MIDI_SUFFIXES
from mt3core.notes.table import DRUM_PROGRAM
from mt3data.readers.across_splits import across_splits
from mt3data.readers.defects import defect
from mt3data.readers.file_names import files_by_stem, track_name
from mt3data.readers.slakh_problems import is_known, known_problem, mix_defect
from mt3data.readers.tracks import MIX, Dataset, Defect, Stem, Track, in_order

KIND = "slakh"
LICENCE = "CC BY 4.0"
# A track found in two of them belongs to the first.
SPLIT_FOLDERS = ("test", "validation", "train", "omitted")
_TRACK_FOLDER = re.compile(r"Track\d+")
_STEM_NAME = re.compile(r"S\d+")


def track_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """(split, folder) of each track; those outside the split folders are `train`."""
    for split in SPLIT_FOLDERS:
        yield from ((split, folder) for folder in _tracks_in(root / split))
    yield from (("train", folder) for folder in _tracks_in(root))


def read(root: Path) -> Dataset:
    """All tracks of one edition; opens the YAML files, and MIDI only if they do not name the program.

    A track that cannot be read becomes a `Defect` and does not affect the others. Raises `DatasetError` if there
    are no tracks, `MissingExtraError` without PyYAML.
    """
    tracks: dict[str, Track] = {}
    defects: list[Defect] = []
    identities = []
    entered: set[Path] = set()
    for split, folder in track_folders(root):
        if folder.resolve() in entered:  # by another link
            continue
        entered.add(folder.resolve())
        if folder.name in tracks:
            other = tracks[folder.name].split
            problem = f"{folder.name} is in {other} and in {split}; the one in {other} is used."
            defects.append(defect(folder.name, MIX, "listed_twice", problem, skips=False))
            continue
        metadata, found = _read_metadata(folder)
        track, more = _read_track(folder, split, metadata)
        tracks[folder.name] = track
        defects += found + more
        if metadata.get("UUID"):
            identities.append((folder.name, split, str(metadata["UUID"])))
    if not tracks:
        raise DatasetError(
            f"{root} has no SLAKH tracks (TrackNNNNN, perhaps in train, validation, test).",
            "Use the folder that the archive was unpacked to.",
        )
    defects += across_splits(identities, "same_source", "the same source (UUID {key})")
    return Dataset(KIND, root, in_order(tracks.values()), tuple(defects))


def _tracks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with reading(folder, DatasetError, "Check its permissions."):
        return sorted(path for path in folder.iterdir() if _TRACK_FOLDER.fullmatch(path.name) and path.is_dir())


def _read_track(folder: Path, split: str, metadata: dict[str, Any]) -> tuple[Track, list[Defect]]:
    name = track_name(folder.name)
    defects: list[Defect] = []
    mix = files_by_stem(folder, AUDIO_SUFFIXES).get("mix", [None])[0]
    if mix is None:
        defects.append(defect(name, MIX, "missing_audio", f"There is no mix in {folder}."))
    audio, midi = _stem_files(folder / "stems", AUDIO_SUFFIXES), _stem_files(folder / "MIDI", MIDI_SUFFIXES)
    described = metadata["stems"]
    if not audio and midi:
        problem = f"{folder} has no stems; the mix is used with the MIDI of the stems marked as rendered."
        defects.append(defect(name, MIX, "no_stems", problem, skips=False))
    stems = []
    for stem_name in sorted(described.keys() | audio.keys() | midi.keys()):
        fields = described.get(stem_name, {})
        rendered = stem_name in audio or (not audio and fields.get("audio_rendered", True))
        stem = Stem(stem_name, audio.get(stem_name), midi.get(stem_name), 0)
        if not rendered or (stem.audio is None and stem.midi is None):
            defects += _not_rendered(name, split, stem, fields, bool(audio))
            continue
        if stem.midi is None:
            problem = f"{stem.audio} has no MIDI file of the same name"
            defects += [defect(name, stem_name, "missing_midi", f"{problem}."), mix_defect(name, problem)]
        stem, more = _describe(name, stem, fields)
        stems.append(stem)
        defects += more
        # A data set rendered in SLAKH's layout has the same names but other pieces.
        is_original = "lmd_matched" in str(metadata.get("lmd_midi_dir"))
        if is_original and is_known(name, stem_name) != "missing_audio":
            defects += known_problem(name, stem_name, split)
    if not stems:
        defects.append(defect(name, MIX, "missing_midi", f"{folder} has no MIDI of a rendered stem."))
    return Track(KIND, split, name, mix, None, tuple(stems), LICENCE), defects


def _stem_files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    found = files_by_stem(folder, suffixes)
    return {name: paths[0] for name, paths in found.items() if _STEM_NAME.fullmatch(name)}


def _not_rendered(track: str, split: str, stem: Stem, fields: dict[str, Any], has_stems: bool) -> list[Defect]:
    """A stem without audio is not in the mix, unless its metadata says that it was rendered."""
    if not has_stems or fields.get("audio_rendered") is not True:
        return []
    if is_known(track, stem.name) == "missing_audio":
        return list(known_problem(track, stem.name, split))
    problem = f"{track} {stem.name} is marked as rendered, but its audio is missing"
    return [defect(track, stem.name, "missing_audio", f"{problem}."), mix_defect(track, problem)]


def _describe(track: str, stem: Stem, fields: dict[str, Any]) -> tuple[Stem, list[Defect]]:
    """Program, drum flag and class from the metadata; from the stem's MIDI if the metadata does not say."""
    program, is_drum = fields.get("program_num"), fields.get("is_drum")
    instrument_class = fields.get("inst_class")
    if not isinstance(instrument_class, str):
        instrument_class = "Drums" if is_drum is True or program == DRUM_PROGRAM else ""
    if type(program) is int and 0 <= program <= DRUM_PROGRAM and is_drum in (True, False, None):
        is_drum = bool(is_drum) or program == DRUM_PROGRAM
        program = DRUM_PROGRAM if is_drum else program
        return replace(stem, program=program, is_drum=is_drum, instrument_class=instrument_class), []
    if is_drum is True:
        return replace(stem, program=DRUM_PROGRAM, is_drum=True, instrument_class=instrument_class), []
    if stem.midi is None:  # already reported, and not usable
        return replace(stem, instrument_class=instrument_class), []
    from mt3core.notes.midi_reading import read_content

    try:
        instruments = read_content(stem.midi, drop_empty=True).instruments
    except MidiError as error:
        return stem, [defect(track, stem.name, "unreadable_midi", error)]
    is_drum = any(one.is_drum for one in instruments)
    program = DRUM_PROGRAM if is_drum else instruments[0].program if instruments else 0
    problem = f"The metadata does not give the program of {track} {stem.name}; its MIDI says {program}."
    described = replace(stem, program=program, is_drum=is_drum, instrument_class=instrument_class)
    return described, [defect(track, stem.name, "bad_metadata", problem, skips=False)]


def _read_metadata(folder: Path) -> tuple[dict[str, Any], list[Defect]]:
    """`metadata.yaml` with `stems` as a mapping of mappings, whatever the file contains."""
    path = folder / "metadata.yaml"
    yaml, loader = _yaml()
    try:
        content = yaml.load(path.read_bytes(), Loader=loader)
    except OSError as error:
        reason = error.strerror or str(error)
        return {"stems": {}}, [_bad_metadata(folder, f"{path} cannot be read ({reason})")]
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2018-99-99, an invalid encoding
        return {"stems": {}}, [_bad_metadata(folder, f"{path} is not YAML ({' '.join(str(error).split())[:120]})")]
    if not isinstance(content, dict) or not isinstance(content.get("stems"), dict):
        known = content if isinstance(content, dict) else {}
        return {**known, "stems": {}}, [_bad_metadata(folder, f"{path} has no list of stems")]
    stems = {str(name): fields if isinstance(fields, dict) else {} for name, fields in content["stems"].items()}
    return {**content, "stems": stems}, []


def _bad_metadata(folder: Path, problem: str) -> Defect:
    return defect(folder.name, MIX, "bad_metadata", f"{problem}; the programs are those in its MIDI.", skips=False)


def _yaml() -> tuple[Any, Any]:
    with needed("datasets", "Reading SLAKH's metadata"):
        import yaml
    # libyaml is ten times faster; the safe loaders build plain values only.
    return yaml, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
