"""Varies performances: tempo, key, strength, passages, and a pedal if there is none.

Every function takes and returns parts or note tables with times in seconds, and draws from the given generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mt3render.score import Part

LOWEST, HIGHEST = 21, 108  # the piano's keys


def transposed(part: Part, semitones: int) -> Part:
    """The part in another key; notes that leave the range of the piano are left out. Drums stay."""
    if part.is_drum:
        return part
    notes = part.notes.copy()
    notes["pitch"] += semitones
    return replace(part, notes=notes[(notes["pitch"] >= LOWEST) & (notes["pitch"] <= HIGHEST)])


def faster(part: Part, factor: float) -> Part:
    """The part at `factor` times its tempo."""
    notes, pedal = part.notes.copy(), part.pedal.copy()
    notes["onset"] /= factor
    notes["offset"] /= factor
    pedal[:, 0] /= factor
    return replace(part, notes=notes, pedal=pedal)


def rescaled_velocities(part: Part, mean: float, spread: float) -> Part:
    """The part with another mean strength and other contrasts (1: unchanged)."""
    notes = part.notes.copy()
    velocity = notes["velocity"].astype(np.float64)
    notes["velocity"] = np.clip(np.rint(mean + (velocity - velocity.mean()) * spread), 8, 127)
    return replace(part, notes=notes)


def passage(parts: Sequence[Part], begin: float, seconds: float) -> tuple[Part, ...]:
    """The notes that start within an interval, moved to the start, with the state of the pedal at that time."""
    return tuple(cut for cut in (_passage(part, begin, begin + seconds) for part in parts) if len(cut.notes))


def with_pedal(part: Part, rng: np.random.Generator) -> Part:
    """The part with a pedal that changes with the bass, as pianists do. A part with a pedal keeps its own."""
    if len(part.pedal) or len(part.notes) < 8:
        return part
    onsets, pitches = part.notes["onset"], part.notes["pitch"]
    low = pitches <= np.percentile(pitches, 30)
    changes = np.unique(np.round(onsets[low], 2))
    least = float(rng.uniform(0.25, 1.2))
    kept = [changes[0]]
    for change in changes[1:]:
        if change - kept[-1] >= least:
            kept.append(change)
    rows = []
    for change, following in zip(kept, [*kept[1:], float(part.notes["offset"].max())], strict=True):
        if rng.random() < 0.85:
            rows += [(change + rng.uniform(0.02, 0.09), 127), (following + rng.uniform(0.0, 0.02), 0)]
    rows = [row for row in rows if row[0] > 0]
    return replace(part, pedal=np.array(sorted(rows), np.float64).reshape(-1, 2))


def density(parts: Sequence[Part]) -> float:
    """Notes per second between the first onset and the last."""
    onsets = np.concatenate([part.notes["onset"] for part in parts])
    return len(onsets) / max(float(np.ptp(onsets)), 1.0)


def _passage(part: Part, begin: float, end: float) -> Part:
    notes = part.notes[(part.notes["onset"] >= begin) & (part.notes["onset"] < end)].copy()
    notes["offset"] = np.minimum(notes["offset"], end + 1.0)
    notes["onset"] -= begin
    notes["offset"] -= begin
    before = part.pedal[part.pedal[:, 0] < begin]
    within = part.pedal[(part.pedal[:, 0] >= begin) & (part.pedal[:, 0] < end)] - [[begin, 0]]
    if len(before) and before[-1, 1] >= 64:
        within = np.concatenate([[[0.0, before[-1, 1]]], within])
    if len(within):
        within = np.concatenate([within, [[end - begin + 0.5, 0]]])
    return replace(part, notes=notes, pedal=within)
