"""Which presets a SoundFont 2 file has and which keys sound in them, read from its `pdta` chunk.

A rendered note that the font has no sample for would be a label without sound, so labels are checked against this.
The layout is that of the SoundFont 2.04 specification, section 7. SoundFont 3 differs only in how samples are packed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool

from mt3core.errors import AudioError, UsageError, reading

DRUM_BANK = 128  # where sound fonts keep General MIDI's drum kits
_UNREACHABLE_BANK = 16_383  # MIDI's last, which nothing requests
NUM_KEYS = 128

_PRESET = np.dtype([("name", "S20"), ("preset", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("unused", "V12")])
_INSTRUMENT = np.dtype([("name", "S20"), ("bag", "<u2")])
_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("operator", "<u2"), ("amount", "<u2")])
_RECORDS = {
    b"phdr": _PRESET,
    b"pbag": _BAG,
    b"pgen": _GENERATOR,
    b"inst": _INSTRUMENT,
    b"ibag": _BAG,
    b"igen": _GENERATOR,
}
# Names that may follow a chunk: lists on the outside, the tables of section 7 inside `pdta`.
_CHUNK_NAMES = frozenset({b"LIST", b"pmod", b"imod", b"shdr", *_RECORDS})
# Generators: the target of a zone ends its list; the key range, if there is one, starts it.
_LEADS_TO_INSTRUMENT, _KEY_RANGE, _LEADS_TO_SAMPLE = 41, 43, 53


@dataclass(frozen=True)
class SoundFont:
    """A sound font's file and its presets: (bank, preset number) -> which of the 128 keys sound."""

    path: Path
    presets: dict[tuple[int, int], Bool[np.ndarray, " 128"]]

    def sounds(self, bank: int, preset: int) -> Bool[np.ndarray, " 128"]:
        """Which keys of a preset sound; none for a missing preset."""
        return self.presets.get((bank, preset), np.zeros(NUM_KEYS, bool))


@lru_cache(maxsize=32)
def read_sound_font(path: Path) -> SoundFont:
    """The presets of a sound font. Raises `AudioError` for a file that is missing or is not a sound font."""
    with reading(f"The sound font {path}", AudioError, "Check --sound-font."), path.open("rb") as file:
        records = {name: _array(file.read(size), _RECORDS[name]) for name, size in _tables(file) if name in _RECORDS}
        is_whole = _has_its_size(file)
    if records.keys() != _RECORDS.keys():
        raise AudioError(f"{path} is not a sound font.", "Use a SoundFont 2 file (.sf2) with --sound-font.")
    try:
        if not is_whole:
            raise ValueError("it ends too early")
        presets = _presets(records)
    except (IndexError, ValueError) as error:
        raise AudioError(
            f"The sound font {path} is damaged ({error}).", "Download it again, or use another."
        ) from error
    return SoundFont(path, presets)


def without_programs(path: Path, programs: Collection[int]) -> bytes:
    """The sound font with programs of its first bank made unreachable, because a synthesizer plays them wrongly.

    TinySoundFont ignores modulators, with which the pianos of MuseScore General set their level: a hard note becomes
    30 dB softer than a soft one. Raises `AudioError` as `read_sound_font` does, and `UsageError` for missing programs.
    """
    if missing := sorted(set(programs) - {preset for bank, preset in read_sound_font(path).presets if bank == 0}):
        raise UsageError(f"{path.name} has no program {missing[0]}.", "Choose programs that it has.")
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        begin, size = next((file.tell(), size) for name, size in _tables(file) if name == b"phdr")
    headers = np.frombuffer(data, _PRESET, size // _PRESET.itemsize, begin)
    headers["bank"][np.isin(headers["preset"], list(programs)) & (headers["bank"] == 0)] = _UNREACHABLE_BANK
    return bytes(data)


def default_sound_font() -> Path:
    """TimGM6mb, a General MIDI sound font of 6 MB that comes with pretty_midi."""
    import pretty_midi

    return Path(str(pretty_midi.__file__)).with_name("TimGM6mb.sf2")


def _tables(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each chunk of the `pdta` list, with the file at its content; none if it is not a sound font."""
    head = file.read(12)
    if head[:4] + head[8:] != b"RIFFsfbk":
        return
    for name, size in _chunks(file):
        if name == b"LIST" and file.read(4) == b"pdta":
            end = file.tell() + size - 4
            for table, table_size in _chunks(file):
                yield table, table_size
                if file.tell() >= end:
                    break
            return


def _array(data: bytes, kind: np.dtype) -> np.ndarray:
    return np.frombuffer(data, kind, len(data) // kind.itemsize)


def _has_its_size(file: BinaryIO) -> bool:
    file.seek(4)
    size = int.from_bytes(file.read(4), "little")  # of a file that ends before, 0
    return file.seek(0, os.SEEK_END) >= size + 8


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Name and size of each RIFF chunk from here on.

    A chunk of odd size is followed by a padding byte, but some writers of compressed sound fonts omit
    it: MuseScore_General_Lite.sf3 has samples of 39,794,625 bytes and the next name immediately after.
    """
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        end = file.tell() + size
        yield name, size
        file.seek(end)
        is_padded = size % 2 == 1 and file.read(4) not in _CHUNK_NAMES
        file.seek(end + is_padded)


def _presets(records: dict[bytes, np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
    # The last record of each header table only says where the one before it ends.
    instruments = records[b"inst"]["bag"]
    instrument_keys = []
    for first, last in pairwise(instruments):
        zones = _zones(records[b"ibag"], records[b"igen"], int(first), int(last), _LEADS_TO_SAMPLE)
        instrument_keys.append(_union(keys for keys, _ in zones))
    presets = {}
    headers = records[b"phdr"]
    for header, following in pairwise(headers):
        zones = _zones(
            records[b"pbag"], records[b"pgen"], int(header["bag"]), int(following["bag"]), _LEADS_TO_INSTRUMENT
        )
        presets[int(header["bank"]), int(header["preset"])] = _union(
            keys & instrument_keys[target] for keys, target in zones
        )
    return presets


def _zones(
    bags: np.ndarray, generators: np.ndarray, first: int, last: int, leads_to: int
) -> Iterator[tuple[np.ndarray, int]]:
    """(keys, target) of each zone. A first zone without a target has the defaults of the others."""
    default = np.ones(NUM_KEYS, bool)
    for bag in range(first, last):
        rows = generators[int(bags["generator"][bag]) : int(bags["generator"][bag + 1])]
        keys, target = default, None
        for operator, amount in rows.tolist():
            if operator == _KEY_RANGE:
                keys = np.zeros(NUM_KEYS, bool)
                keys[amount & 0xFF : (amount >> 8) + 1] = True
            elif operator == leads_to:
                target = amount
        if target is not None:
            yield keys, target
        elif bag == first:
            default = keys


def _union(masks: Iterator[np.ndarray]) -> np.ndarray:
    result = np.zeros(NUM_KEYS, bool)
    for mask in masks:
        result |= mask
    return result
