"""Notes packed for a page: a few bytes per note in base64."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mt3core.notes.table import NoteTable

TICKS_PER_SECOND = 10_000  # finer than any ear or pixel; 32 bits hold 119 hours
DRUM_BIT = 0x80

Columns = Mapping[str, Shaped[np.ndarray, " _notes"]]


def pack_notes(table: NoteTable, words: Columns | None = None, octets: Columns | None = None) -> dict[str, Any]:
    """`{"count", "words", "octets", "data"}` of notes in order of onset.

    `data` is base64 of little-endian arrays one after the other, named by the lists before it. Words have 32 bits:
    onset and length (both in 1/10000 s), then those given. Octets have 8: pitch, velocity, program (bit 7 set for
    drums), then those given.
    """
    onsets = np.round(table["onset"] * TICKS_PER_SECOND)
    lengths = np.round(table["offset"] * TICKS_PER_SECOND) - onsets
    long = {"onset": onsets, "length": lengths, **(words or {})}
    program = table["program"] | np.where(table["is_drum"], DRUM_BIT, 0)
    short = {"pitch": table["pitch"], "velocity": table["velocity"], "program": program, **(octets or {})}
    packed = b"".join([np.asarray(one).astype("<u4").tobytes() for one in long.values()])
    packed += b"".join([np.asarray(one).astype("u1").tobytes() for one in short.values()])
    return {
        "count": len(table),
        "words": list(long),
        "octets": list(short),
        "data": base64.b64encode(packed).decode(),
    }
