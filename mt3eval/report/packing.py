"""Both sides of a piece packed for the page: 16 bytes per note in base64, about 22 characters."""

from __future__ import annotations

from typing import Any

import numpy as np

from mt3eval.note_errors import Analysis
from mt3page.packing import pack_notes

NO_PARTNER = 0xFFFFFFFF


def pack_sides(analysis: Analysis) -> dict[str, Any]:
    """`{"reference": notes, "estimate": notes}` as of `pack_notes`, in order of onset.

    With the word partner (the index of the note's counterpart in the other side's packed notes, or 0xFFFFFFFF) and the
    octet category (index in `CATEGORIES`).
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
    return {
        name: pack_notes(table, {"partner": partner}, {"category": categories})
        for name, (table, categories, partner) in zip(("reference", "estimate"), sides, strict=True)
    }
