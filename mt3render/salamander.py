"""Salamander Grand V3: a Yamaha C5 with 16 layers, a recording every minor third, in the names of its Ogg release."""

from __future__ import annotations

import re
from pathlib import Path

from mt3core.errors import UsageError
from mt3core.files import files_below
from mt3render.instrument_folders import Recording, Take
from mt3render.instruments import Instrument, Sample

_NAME = re.compile(r"([A-G]#?)([0-8])v(\d+)\.(ogg|flac|wav)", re.IGNORECASE)
_PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
PIANO_KEYS = (21, 108)
# The dampers of a grand end about F6; a bass string takes longer to stop than a treble string.
GRAND_DAMPED_TO = 88
DAMPER_SECONDS = ((21, 0.8), (60, 0.35), (88, 0.15))


def is_salamander(folder: Path) -> bool:
    return any(path.name.startswith("A4v") and _NAME.fullmatch(path.name) for path in files_below(folder))


def read_salamander(folder: Path, num_layers: int | None = None) -> tuple[Instrument, list[Take]]:
    """The piano and its recordings, from a folder with files such as `D#4v12.ogg`.

    `num_layers`: how many velocity layers to use, evenly spread. Raises `UsageError` if some are missing.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in sorted(files_below(folder)):
        if match := _NAME.fullmatch(path.name):
            key = 12 * (int(match[2]) + 1) + _PITCH_CLASSES.index(match[1].upper())
            found.setdefault(int(match[3]), {})[key] = path
    layers = sorted(found)
    if not layers or any(found[layer].keys() != found[layers[0]].keys() for layer in layers):
        raise UsageError(f"{folder} has only some of the piano's recordings.", "Unpack all 16 archives into it.")
    count = len(layers) if num_layers is None else min(num_layers, len(layers))
    chosen = [layers[(2 * place + 1) * len(layers) // (2 * count)] for place in range(count)]
    takes = [
        Take((Recording(path),), _sample(key, sorted(found[layer]), place, count))
        for place, layer in enumerate(chosen)
        for key, path in sorted(found[layer].items())
    ]
    instrument = Instrument(
        name="Salamander Grand V3",
        licence="CC BY 3.0",
        attribution="Alexander Holm",
        source="https://archive.org/details/SalamanderGrandPianoV3",
        programs=(0, 1),
        release_seconds=DAMPER_SECONDS,
        damped_to=GRAND_DAMPED_TO,
    )
    return instrument, takes


def nearest_keys(key: int, roots: list[int], beyond: int = 127) -> tuple[int, int]:
    """The keys of a piano that are closer to a root than to its neighbours; ties go to the lower.

    The lowest and the highest root reach `beyond` semitones further.
    """
    place = roots.index(key)
    low = max(PIANO_KEYS[0], key - beyond) if place == 0 else (roots[place - 1] + key) // 2 + 1
    high = min(PIANO_KEYS[1], key + beyond) if place == len(roots) - 1 else (key + roots[place + 1]) // 2
    return low, high


def _sample(key: int, roots: list[int], place: int, num_layers: int) -> Sample:
    low, high = 127 * place // num_layers + 1, 127 * (place + 1) // num_layers
    return Sample("", key, nearest_keys(key, roots), (low, high), (low + high) // 2)
