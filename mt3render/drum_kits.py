"""Drum kits: which General MIDI note a drum's name means, Hydrogen's kits, and drums that a kit lacks.

A part is played by a kit that has nearly all of its notes, so a kit without, say, a third tom would hardly be used:
a missing drum is played by its neighbour, toms and cymbals a little higher or lower.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mt3core.errors import UsageError, reading
from mt3render.instrument_folders import Recording, Take
from mt3render.instruments import Instrument, Sample

KIT_NAME = "drumkit.xml"
HI_HATS = (42, 44, 46)  # closed, pedal, open: one cymbal, so each ends the others
TOMS = (41, 43, 45, 47, 48, 50)  # from low to high
_TOM_STEP_SEMITONES = 2
_CRASH, _RIDE = 49, 51
# Drum that may be missing -> (drum that plays it, semitones higher); the first one present.
_STAND_INS: dict[int, tuple[tuple[int, int], ...]] = {
    35: ((36, 0),),
    36: ((35, 0),),
    38: ((40, 0),),
    40: ((38, 0),),
    42: ((44, 0),),
    44: ((42, 0),),
    57: ((_CRASH, -1),),
    52: ((_CRASH, -3), (57, -3)),
    55: ((_CRASH, 5), (57, 5)),
    59: ((_RIDE, -1),),
    53: ((_RIDE, 4), (59, 4)),
}
# Words of a name -> the keys they may mean; the first one not yet taken. The first matching line counts.
_NAMES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"semi|half|swish|choke|flink|roll|mute|free|noise|zap", ()),
    (r"(hat|hh).*ped|ped.*(hat|hh)", (44,)),
    (r"(hat|hh).*op|op.*(hat|hh)|ohh", (46,)),
    (r"hat|\bhh|chh", (42,)),
    (r"tambourine.*ped", ()),
    (r"tambourine", (54,)),
    (r"cow.?bell", (56,)),
    (r"(ride|paiste).*(bell|cup)|(bell|cup).*ride", (53,)),
    (r"crash.*ride|ride.*crash", (57, 59)),
    (r"ride|\bcymbal", (51, 59)),
    (r"splash", (55,)),
    (r"china|chinese", (52,)),
    (r"crash", (49, 57)),
    (r"rim.?shot|snare.*rim", (40,)),
    (r"side.?stick|rim|\bstick", (37,)),
    (r"clap", (39,)),
    (r"snare", (38, 40)),
    (r"kick|bass.?drum|\bbd", (36, 35)),
    (r"floor", (41, 43)),
    (r"tom.*lo|low tom", (43, 41)),
    (r"tom.*mid|mid\w* tom", (47, 45)),
    (r"tom.*hi|hi\w* tom", (50, 48)),
    (r"tom.*1", (50, 48)),
    (r"tom.*2", (47, 45)),
    (r"tom.*3", (43, 41)),
    (r"\btom", (47, 45, 50)),
    (r"bongo.*lo", (61,)),
    (r"bongo", (60,)),
    (r"conga.*lo", (64,)),
    (r"conga", (63, 62)),
    (r"agogo.*lo", (68,)),
    (r"agogo", (67,)),
    (r"cabasa|shaker", (69,)),
    (r"maraca", (70,)),
    (r"clave", (75,)),
    (r"wood.?block.*lo", (77,)),
    (r"wood.?block", (76,)),
    (r"triangle", (81,)),
)


def is_hydrogen(folder: Path) -> bool:
    return (folder / KIT_NAME).is_file()


def general_midi_key(name: str, taken: set[int]) -> int | None:
    """The drum note that a name means and that is not taken yet; None for a name without meaning."""
    for pattern, keys in _NAMES:
        if re.search(pattern, name.lower()):
            return next((key for key in keys if key not in taken), None)
    return None


def read_hydrogen(folder: Path) -> tuple[Instrument, list[Take]]:
    """A Hydrogen kit by its drums' names, completed. Raises `UsageError` if no name is known."""
    path = folder / KIT_NAME
    with reading(path, UsageError, "Download the kit again.", ElementTree.ParseError):
        root = ElementTree.fromstring(re.sub(r' xmlns="[^"]*"', "", path.read_text(encoding="utf-8", errors="replace")))
    takes: list[Take] = []
    taken: set[int] = set()
    for drum in root.iter("instrument"):
        key = general_midi_key(drum.findtext("name", ""), taken)
        layers = _layers(drum, folder) if key is not None else []
        if key is not None and layers:
            taken.add(key)
            takes += [
                Take((recording,), dataclasses.replace(sample, key=key, keys=(key, key)))
                for recording, sample in layers
            ]
    if not takes:
        raise UsageError(f"{path} has no drums with known names.", "Use another kit.")
    instrument = Instrument(
        name=root.findtext("name", folder.name),
        licence=root.findtext("license", ""),
        attribution=root.findtext("author", ""),
        is_drum_kit=True,
        choke_groups=(HI_HATS,),
    )
    return instrument, completed(takes)


def completed(takes: Sequence[Take]) -> list[Take]:
    """The takes of a kit and those of its stand-ins for drums of General MIDI's core that it lacks."""
    of_key: dict[int, list[Take]] = {}
    for take in takes:
        for key in range(take.sample.keys[0], take.sample.keys[1] + 1):
            of_key.setdefault(key, []).append(take)
    added = []
    toms = [key for key in TOMS if key in of_key]
    wanted = dict(_STAND_INS)
    for place, key in enumerate(TOMS):
        if toms:
            nearest = min(toms, key=lambda tom: (abs(TOMS.index(tom) - place), tom))
            wanted[key] = ((nearest, _TOM_STEP_SEMITONES * (place - TOMS.index(nearest))),)
    for key, choices in wanted.items():
        if key in of_key:
            continue
        for other, semitones in choices:
            if other in of_key:
                added += [_as(take, key, other, semitones) for take in of_key[other]]
                break
    return [*takes, *added]


def _as(take: Take, key: int, other: int, semitones: int) -> Take:
    own = other - take.sample.key  # how much the drum is already shifted
    return Take(take.recordings, dataclasses.replace(take.sample, keys=(key, key), key=key - semitones - own))


def _layers(drum: ElementTree.Element, folder: Path) -> list[tuple[Recording, Sample]]:
    """The files of a drum with their velocities; Hydrogen's velocity is a factor of amplitude."""
    volume = float(drum.findtext("volume", "1")) * float(drum.findtext("gain", "1"))
    found = []
    for layer in drum.iter("layer"):
        name = layer.findtext("filename", "")
        low, high = (float(layer.findtext(bound, default)) for bound, default in (("min", "0"), ("max", "1")))
        velocities = (int(low * 127) + 1 if low > 0 else 1, max(int(high * 127), 1))
        if name and velocities[0] <= velocities[1]:
            amplitude = volume * float(layer.findtext("gain", "1"))
            tune_cents = 100 * float(layer.findtext("pitch", "0"))
            sample = Sample("", 0, (0, 0), velocities, tune_cents=tune_cents)
            found.append((Recording(folder / name, amplitude=amplitude), sample))
    plain = drum.findtext("filename", "")
    if not found and plain:
        found.append((Recording(folder / plain, amplitude=volume), Sample("", 0, (0, 0))))
    return found
