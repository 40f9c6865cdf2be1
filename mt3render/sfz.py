"""SFZ instruments: the regions that sound on plain key presses, as recordings of a sampled instrument.

Only the opcodes are read that say which file plays which keys and velocities, and how loud; filters, envelopes,
modulation, panning and release noises are ignored. Controllers stay where the file sets them. Regions that sound
together, such as those of several microphones, become one recording; alternating ones stay separate.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from mt3core.errors import UsageError, reading
from mt3render.instrument_folders import Recording, Take
from mt3render.instruments import Sample
from mt3render.soundfonts import NUM_KEYS

_LEVELS = ("global", "master", "group", "region")  # each inherits from those before
_OPCODE = re.compile(r"(?<!\S)([A-Za-z_]\w*)=")
_HEADER = re.compile(r"<(\w+)>")
_NOTE = re.compile(r"([a-gA-G])([#b]?)(-?\d+)")
_STEPS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_DEEPEST_INCLUDE = 16
_DEFAULT_RELEASE_SECONDS = 0.3

_Opcodes = dict[str, str]


@dataclass(frozen=True)
class SfzInstrument:
    """The contents of a file: its recordings, the release time of a note, and how velocity determines level."""

    takes: list[Take]
    release_seconds: float
    velocity_exponent: float


def read_sfz(path: Path) -> SfzInstrument:
    """The instrument of an .sfz file. Raises `UsageError` if it cannot be read or plays nothing."""
    controls: dict[int, float] = {}
    default_path, higher, takes = "", 0, defaultdict(list)
    inherited: dict[str, _Opcodes] = {level: {} for level in _LEVELS}
    regions: list[_Opcodes] = []
    for header, opcodes in _headers(_text(path)):
        if header == "control":
            default_path = opcodes.get("default_path", default_path)
            controls |= _settings(opcodes)
            if {"note_offset", "octave_offset"} & set(opcodes):
                higher = int(opcodes.get("note_offset", 0)) + 12 * int(opcodes.get("octave_offset", 0))
        elif header in _LEVELS:
            inherited[header] = opcodes
            for lower in _LEVELS[_LEVELS.index(header) + 1 :]:
                inherited[lower] = {}
            if header == "region":
                merged = {key: value for level in _LEVELS for key, value in inherited[level].items()}
                regions.append(merged | {"default_path": default_path, "note_offset": str(higher)})
    switch = next((region["sw_default"] for region in regions if "sw_default" in region), None)
    heard = [region for region in regions if _sounds(region, controls, switch)]
    try:
        for region in heard:
            takes[_place(region)].append(_recording(region, path.parent, controls))
        found = [Take(tuple(recordings), sample) for (sample, *_), recordings in takes.items()]
    except ValueError as error:
        raise UsageError(f"{path} has a value that cannot be read ({error}).", "Correct the file.") from error
    if not found:
        raise UsageError(f"{path} plays nothing on plain key presses.", "Use another .sfz file of the instrument.")
    releases = sorted(float(region.get("ampeg_release", _DEFAULT_RELEASE_SECONDS)) for region in heard)
    release_seconds = releases[len(releases) // 2]
    tracked = _tracked(heard[0], controls)
    if tracked > 0 or any(_curve_top(region) for region in heard):
        return SfzInstrument(found, release_seconds, 1.0 if any(_curve_top(region) for region in heard) else tracked)
    # Velocity only selects the recording; within a layer it still determines the level.
    return SfzInstrument([_about_middle(take) for take in found], release_seconds, 1.0)


def _text(path: Path) -> str:
    """The file with its includes, without comments, and with its macros replaced."""
    macros: dict[str, str] = {}

    def expanded(file: Path, depth: int) -> str:
        with reading(file, UsageError, "Check the path."):
            text = file.read_text(encoding="utf-8", errors="replace")
        if depth > _DEEPEST_INCLUDE:
            raise UsageError(f"{file} includes itself.", "Correct the file.")
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        parts = re.split(r'#include\s+"([^"]*)"', text)
        result = []
        for number, part in enumerate(parts):
            if number % 2:  # a path, from the folder of the first file
                result.append(expanded(path.parent / _replaced(part, macros).replace("\\", "/"), depth + 1))
            else:
                result.append("\n".join(_defined(line, macros) for line in part.splitlines()))
        return "\n".join(result)

    return expanded(path, 0)


def _defined(line: str, macros: dict[str, str]) -> str:
    """A line with macros replaced; its own definitions apply from there on."""
    while match := re.search(r"#define\s+\$(\w+)\s+(\S+)", line):
        macros[match[1]] = _replaced(match[2], macros)
        line = line[: match.start()] + line[match.end() :]
    return _replaced(line, macros)


def _replaced(text: str, macros: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        word = match[1]
        for length in range(len(word), 0, -1):  # the longest name that the word starts with
            if word[:length] in macros:
                return macros[word[:length]] + word[length:]
        return match[0]

    return re.sub(r"\$(\w+)", value, text)


def _headers(text: str) -> list[tuple[str, _Opcodes]]:
    parts = _HEADER.split(text)
    return [(name.lower(), _opcodes(body)) for name, body in zip(parts[1::2], parts[2::2], strict=True)]


def _opcodes(body: str) -> _Opcodes:
    """Opcodes of a header; a value reaches to the next opcode or the end of its line, since names have spaces."""
    found = {}
    for line in body.splitlines():
        marks = list(_OPCODE.finditer(line))
        for mark, following in zip(marks, [*marks[1:], None], strict=False):
            found[mark[1]] = line[mark.end() : following.start() if following else None].strip()
    return found


def _settings(opcodes: _Opcodes) -> dict[int, float]:
    """The positions of the controllers, from 0 to 127."""
    found = {}
    for name, value in opcodes.items():
        if match := re.fullmatch(r"set_(hd)?cc(\d+)", name):
            found[int(match[2])] = float(value) * (127 if match[1] else 1)
    return found


def _sounds(region: _Opcodes, controls: dict[int, float], switch: str | None) -> bool:
    if region.get("trigger", "attack") not in ("attack", "first") or region.get("sample", "*").startswith("*"):
        return False
    if "sw_last" in region and switch is not None and _key(region["sw_last"]) != _key(switch):
        return False
    if any(re.match(r"(on|start)_(lo|hi)cc\d", name) for name in region):
        return False  # starts by a controller, not by a key
    for name, value in region.items():
        if match := re.fullmatch(r"(lo|hi|xfin_lo|xfout_hi)cc(\d+)", name):
            control = controls.get(int(match[2]), 0.0)
            kind, bound = match[1], float(value)
            if (kind == "lo" and control < bound) or (kind == "hi" and control > bound):
                return False
            if (kind == "xfin_lo" and control <= bound > 0) or (kind == "xfout_hi" and control >= bound):
                return False
    return True


def _place(region: _Opcodes) -> tuple[Sample, float, float]:
    """What regions that sound together have in common: their sample, and their turn or chance."""
    only = region.get("key")
    low, high = (_key(region.get(name, only or default)) for name, default in (("lokey", "0"), ("hikey", "127")))
    centre = _key(region.get("pitch_keycenter", only or "60"))
    higher = int(region["note_offset"])
    key, keys = (
        centre + higher - int(region.get("transpose", 0)),
        (max(low + higher, 0), min(high + higher, NUM_KEYS - 1)),
    )
    tune_cents = float(region.get("tune", region.get("pitch", 0)))
    sample = Sample("", key, keys, _velocities(region), _curve_top(region) or 127, tune_cents=tune_cents)
    return sample, float(region.get("seq_position", 0)), float(region.get("lorand", 0))


def _velocities(region: _Opcodes) -> tuple[int, int]:
    """The range of a layer; layers that crossfade meet in the middle."""
    low, high = int(region.get("lovel", 1)), int(region.get("hivel", 127))
    if "xfin_lovel" in region:
        low = max(low, (int(region["xfin_lovel"]) + int(region.get("xfin_hivel", 127))) // 2 + 1)
    if "xfout_hivel" in region:
        high = min(high, (int(region.get("xfout_lovel", 1)) + int(region["xfout_hivel"])) // 2)
    return max(low, 1), max(high, low, 1)


def _tracked(region: _Opcodes, controls: dict[int, float]) -> float:
    """The exponent of velocity in amplitude: 2 if the file says 100 %."""
    percent = float(region.get("amp_veltrack", 100))
    for name, value in region.items():
        if match := re.fullmatch(r"amp_veltrack_(?:on)?cc(\d+)", name):
            percent += float(value) * controls.get(int(match[1]), 0.0) / 127
    return percent / 50


def _about_middle(take: Take) -> Take:
    middle = sum(take.sample.velocities) // 2
    return Take(take.recordings, replace(take.sample, reference_velocity=middle))


def _curve_top(region: _Opcodes) -> int | None:
    """The velocity that a layer with a curve of its own is loudest at: `amp_velcurve_N=1`."""
    tops = [int(name[13:]) for name, value in region.items() if re.match(r"amp_velcurve_\d", name) and value == "1"]
    return min(tops, default=None)


def _recording(region: _Opcodes, folder: Path, controls: dict[int, float]) -> Recording:
    gain_db = float(region.get("volume", 0)) + float(region.get("gain", 0))
    amplitude = float(region.get("amplitude", 100)) / 100
    for name, value in region.items():
        if match := re.fullmatch(r"amplitude_(?:on)?cc(\d+)", name):
            amplitude *= float(value) / 100 * controls.get(int(match[1]), 0.0) / 127
    path = folder / (region["default_path"] + region["sample"]).replace("\\", "/")
    return Recording(path, gain_db, int(region.get("offset", 0)), amplitude)


def _key(text: str) -> int:
    """A key's number, or its name with c4 for 60; -1 is none."""
    if match := _NOTE.fullmatch(text):
        accidental = {"#": 1, "b": -1, "": 0}[match[2]]
        return 12 * (int(match[3]) + 1) + _STEPS[match[1].lower()] + accidental
    return int(text)
