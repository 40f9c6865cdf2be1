"""Notes packed for the page: 16 bytes per note in base64, about 22 characters."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from jaxtyping import Int

from mt3core.notes.table import NoteTable
from mt3eval.note_errors import Analysis

TICKS_PER_SECOND = 10_000  # finer than any ear or pixel; 32 bits hold 119 hours
NO_PARTNER = 0xFFFFFFFF
DRUM_BIT = 0x80


def pack_sides(analysis: Analysis) -> dict[str, Any]:
    """`{"reference": {"count", "data"}, "estimate": ...}`, notes in order of onset.

    `data` is base64 of little-endian arrays one after the other: onset, length (both in 1/10000 s) and partner (the
    index of the note's counterpart in the other side's packed notes, or 0xFFFFFFFF) in 32 bits; pitch, velocity,
    program (bit 7 set for drums) and category (index in `CATEGORIES`) in 8.
    """
    orders = [np.argsort(table["onset"], kind="stable") for table in (analysis.reference, analysis.estimate)]
    places = [np.argsort(order) for order in orders]
    partners = [np.full(len(order), NO_PARTNER) for order in orders]
    for side in (0, 1):
        partners[side][places[side][analysis.pairs[:, side]]] = places[1 - side][analysis.pairs[:, 1 - side]]
    sides = (
        (analysis.reference[orders[0]], analysis.reference_categories[orders[0]], partners[0]),
        (analysis.estimate[orders[1]], analysis.estimate_categories[orders[1]], partners[1]),
    )
    return {name: _pack(*side) for name, side in zip(("reference", "estimate"), sides, strict=True)}


def _pack(
    table: NoteTable, categories: Int[np.ndarray, " _notes"], partners: Int[np.ndarray, " _notes"]
) -> dict[str, Any]:
    onsets = np.round(table["onset"] * TICKS_PER_SECOND)
    lengths = np.round(table["offset"] * TICKS_PER_SECOND) - onsets
    long = [onsets, lengths, partners]
    short = [table["pitch"], table["velocity"], table["program"] | np.where(table["is_drum"], DRUM_BIT, 0), categories]
    packed = b"".join([np.asarray(one).astype("<u4").tobytes() for one in long])
    packed += b"".join([np.asarray(one).astype("u1").tobytes() for one in short])
    return {"count": len(table), "data": base64.b64encode(packed).decode()}
