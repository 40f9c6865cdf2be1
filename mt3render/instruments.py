"""Sampled instruments: a folder of recorded notes with a description, `instrument.json`.

    {"name": "...", "licence": "...", "attribution": "...", "source": "...",
     "programs": [0, 1],
     "release_seconds": [[21, 0.6], [88, 0.2]], "damped_to": 88, "rings": true, "velocity_exponent": 1.0,
     "samples": [{"file": "A0v1.flac", "key": 21, "keys": [21, 22], "velocities": [1, 8], "reference_velocity": 4,
                  "gain_db": -31.5, "tune_cents": 0}]}

`docs/rendering.md` explains the fields. A file starts with its sound; `mt3 sounds` makes these folders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.errors import AudioError
from mt3core.json_text import read_json
from mt3render.soundfonts import DRUM_BANK, NUM_KEYS, SoundFont, read_sound_font
from mt3render.variation import KITS

DESCRIPTION_NAME = "instrument.json"
_FONT_SUFFIXES = (".sf2", ".sf3")
_VELOCITIES = (1, 127)


@dataclass(frozen=True)
class Sample:
    """One recorded note. Samples with equal keys and velocities are played in turn."""

    file: str
    key: int  # at which it sounds as recorded
    keys: tuple[int, int]  # first and last that it plays
    velocities: tuple[int, int] = _VELOCITIES
    reference_velocity: int = 127  # at which it is as loud as in its file, except for `gain_db`
    gain_db: float = 0.0
    tune_cents: float = 0.0  # how much higher it is played to be in tune


@dataclass(frozen=True)
class Instrument:
    """The contents of `instrument.json`. Times and pitches are those of a piano if omitted."""

    name: str
    licence: str = ""
    attribution: str = ""
    source: str = ""
    samples: tuple[Sample, ...] = ()
    programs: tuple[int, ...] = ()  # General MIDI, from 0, that it can play
    is_drum_kit: bool = False  # then keys are General MIDI's drum notes
    release_seconds: tuple[tuple[int, float], ...] = ((21, 0.5), (108, 0.15))  # key and time to -60 dB; linear between
    damped_to: int = 127  # keys above have no damper
    rings: bool = True  # struck or plucked: a note repeated before it ends keeps ringing
    choke_groups: tuple[tuple[int, ...], ...] = ()  # each of these keys ends the others: a hi-hat
    velocity_exponent: float = 1.0  # of amplitude, within the range of a sample's velocities

    def for_note(self, key: int, velocity: int) -> list[int]:
        """The indices of the samples that play a note: those with the closest velocities; none for other keys."""
        distances = [
            (max(sample.velocities[0] - velocity, velocity - sample.velocities[1], 0), number)
            for number, sample in enumerate(self.samples)
            if sample.keys[0] <= key <= sample.keys[1]
        ]
        nearest = min(distances, default=(0, 0))[0]
        return [number for distance, number in distances if distance == nearest]

    def release_of(self, key: int) -> float:
        """Seconds that a key takes to fall by 60 dB after its release."""
        keys, seconds = zip(*self.release_seconds, strict=True)
        return float(np.interp(key, keys, seconds))


def is_instrument(path: Path | None) -> bool:
    """Whether a path given as a sound font is a sampled instrument."""
    return path is not None and path.is_dir()


def sounds_below(path: Path) -> tuple[Path, ...]:
    """The path itself, or the contents of a folder of sounds: sound fonts and sampled instruments, by name.

    What several links lead to is there once. Raises `AudioError` for a folder with neither.
    """
    if not path.is_dir() or (path / DESCRIPTION_NAME).exists():
        return (path,)
    found = [one for one in path.iterdir() if one.suffix.lower() in _FONT_SUFFIXES or (one / DESCRIPTION_NAME).exists()]
    if not found:
        raise AudioError(
            f"{path} contains neither {DESCRIPTION_NAME} nor sounds.",
            "Make a sampled instrument with mt3 sounds, or use a sound font (.sf2, .sf3).",
        )
    return tuple(sorted({path.resolve(): path for path in sorted(found, key=Path.is_symlink, reverse=True)}.values()))


def read_sounds(path: Path) -> SoundFont:
    """The presets and keys of a sound font or a sampled instrument. Raises `AudioError` if the path is neither."""
    if not is_instrument(path):
        return read_sound_font(path)
    instrument = read_instrument(path)
    keys = np.zeros(NUM_KEYS, bool)
    for sample in instrument.samples:
        keys[sample.keys[0] : sample.keys[1] + 1] = True
    bank, presets = (DRUM_BANK, list(KITS)) if instrument.is_drum_kit else (0, list(instrument.programs))
    return SoundFont(path, {(bank, preset): keys for preset in presets})


@lru_cache(maxsize=64)
def read_instrument(folder: Path) -> Instrument:
    """The description in a folder. Raises `AudioError` if it is missing, not valid, or names a missing file."""
    path = folder / DESCRIPTION_NAME
    try:
        instrument = _instrument(read_json(path))
    except OSError as error:
        raise AudioError(
            f"{folder} is not a sampled instrument: {DESCRIPTION_NAME} cannot be read ({error.strerror or error}).",
            "Make one with mt3 sounds, or use a sound font (.sf2, .sf3).",
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise AudioError(f"{path} is not valid ({error}).", "See docs/rendering.md for its fields.") from error
    missing = [sample.file for sample in instrument.samples if not (folder / sample.file).is_file()]
    if missing:
        raise AudioError(f"{path} names {missing[0]}, which is missing.", "Make the folder again with mt3 sounds.")
    return instrument


def description(instrument: Instrument) -> str:
    """The text of `instrument.json`."""
    fields = {name: value for name, value in vars(instrument).items() if name != "samples"}
    head = ",\n ".join(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    rows = ",\n  ".join(json.dumps(_shown(sample), ensure_ascii=False) for sample in instrument.samples)
    return f'{{{head},\n "samples": [\n  {rows}\n ]}}\n'


def sounds_digest(path: Path) -> str:
    """SHA-256 of a sound font, or of a folder's description and all files that it names."""
    if not is_instrument(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    names = [DESCRIPTION_NAME, *sorted({sample.file for sample in read_instrument(path).samples})]
    digests = [hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _instrument(fields: dict[str, Any]) -> Instrument:
    known = {field.name for field in dataclasses.fields(Instrument)}
    if unknown := set(fields) - known:
        raise ValueError(f"unknown field {min(unknown)!r}")
    texts = {name: str(fields[name]) for name in ("name", "licence", "attribution", "source")}
    samples = tuple(_sample(sample) for sample in fields["samples"])
    instrument = Instrument(**{**fields, **texts, "samples": samples, **_tuples(fields)})
    if not samples:
        raise ValueError("it has no samples")
    if instrument.is_drum_kit == bool(instrument.programs):
        raise ValueError("it needs either programs or is_drum_kit")
    if not all(0 <= program < NUM_KEYS for program in instrument.programs):
        raise ValueError("programs are from 0 to 127")
    if not all(seconds > 0 for _, seconds in instrument.release_seconds) or not instrument.release_seconds:
        raise ValueError("release_seconds are pairs of a key and a time above 0")
    return instrument


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"programs": tuple(int(program) for program in fields.get("programs", ()))}
    if "release_seconds" in fields:
        found["release_seconds"] = tuple((int(key), float(seconds)) for key, seconds in fields["release_seconds"])
    if "choke_groups" in fields:
        found["choke_groups"] = tuple(tuple(int(key) for key in group) for group in fields["choke_groups"])
    return found


def _sample(fields: dict[str, Any]) -> Sample:
    ranges: dict[str, Any] = {
        name: tuple(int(one) for one in fields[name]) for name in ("keys", "velocities") if name in fields
    }
    sample = Sample(**{**fields, **ranges})
    for name, (first, last) in ranges.items():
        if not 0 <= first <= last < NUM_KEYS:
            raise ValueError(f"{sample.file} has {name} {first} to {last}")
    if Path(sample.file).is_absolute() or ".." in Path(sample.file).parts:
        raise ValueError(f"{sample.file} is outside the folder")
    return sample


def _shown(sample: Sample) -> dict[str, Any]:
    """A sample's fields without those that have their default."""
    defaults = {field.name: field.default for field in dataclasses.fields(sample)}
    return {name: value for name, value in vars(sample).items() if value != defaults[name]}
