"""Scores as they might be played: tempo drift, inexact onsets, spread chords, lengths and strengths of notes.

Times are in seconds; everything is drawn from the given generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mt3core.notes.table import NoteTable, trim_overlapping
from mt3render.score import Part

ONSET_SPREAD_SECONDS = 0.020  # a player's onset is at most this far from the score's
CHORD_SPREAD_SECONDS = 0.040  # between the first and the last note of a chord, at most
_CHORD_SECONDS = 0.004  # notes that start within this time belong to one chord
_LEAST_SECONDS = 0.03


def humanised(parts: Sequence[Part], rng: np.random.Generator) -> tuple[Part, ...]:
    """A score as it might be played: tempo drift, onsets, spread chords, note lengths and strengths."""
    looseness = float(rng.uniform(0.3, 1.0))
    warp = _tempo_drift(parts, float(rng.uniform(0.0, 0.06)), rng)
    return tuple(_played(part, warp, looseness, rng) for part in parts)


def tidy(notes: NoteTable) -> NoteTable:
    """Sorted by onset, none overlapping another of its pitch, none negative or without length."""
    notes = notes[notes["offset"] > notes["onset"]]
    notes["onset"] = np.maximum(notes["onset"], 0.0)
    notes = notes[np.lexsort((notes["pitch"], notes["onset"]))]
    if len(notes) > 1:  # of two that start together on one key, one is enough
        order = np.lexsort((notes["onset"], notes["pitch"]))
        again = np.zeros(len(notes), bool)
        ordered = notes[order]
        again[order[1:]] = (np.diff(ordered["pitch"]) == 0) & (np.diff(ordered["onset"]) < _LEAST_SECONDS)
        notes = notes[~again]
    return trim_overlapping(notes)


def _tempo_drift(parts: Sequence[Part], depth: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Score time and played time at knots two seconds apart: a slow wander, and rubato over phrases."""
    end = max(float(part.notes["offset"].max()) for part in parts) + 4.0
    knots = np.arange(0.0, end + 2.0, 2.0)
    wander = np.cumsum(rng.normal(0, 0.3, len(knots)))
    wander -= np.linspace(0, wander[-1], len(knots))
    wander = np.clip(wander, -1.5, 1.5) + np.sin(2 * np.pi * knots / rng.uniform(9, 25) + rng.uniform(0, 6))
    pace = np.exp(depth * wander / 2)
    return knots, np.concatenate([[0.0], np.cumsum(np.diff(knots) * pace[:-1])])


def _played(part: Part, warp: tuple[np.ndarray, np.ndarray], looseness: float, rng: np.random.Generator) -> Part:
    notes = part.notes.copy()
    count = len(notes)
    length = notes["offset"] - notes["onset"]
    onset = np.interp(notes["onset"], *warp) + 0.01
    offset = np.interp(notes["offset"], *warp) + 0.01
    order = np.lexsort((notes["pitch"], notes["onset"]))
    begins = np.concatenate([[True], np.diff(notes["onset"][order]) > _CHORD_SECONDS])
    chord = np.empty(count, int)
    chord[order] = np.cumsum(begins) - 1
    sizes = np.bincount(chord)
    rank = np.empty(count)
    rank[order] = np.arange(count) - np.flatnonzero(begins)[chord[order]]
    spread = np.minimum(rng.gamma(1.5, 0.007, len(sizes)) * looseness, CHORD_SPREAD_SECONDS)
    upward = np.where(rng.random(len(sizes)) < 0.8, 1.0, -1.0)
    place = np.where(sizes[chord] > 1, rank / np.maximum(sizes[chord] - 1, 1) - 0.5, 0.0)
    shift = np.clip(rng.normal(0, 0.007, len(sizes)) * looseness, -ONSET_SPREAD_SECONDS, ONSET_SPREAD_SECONDS)[chord]
    onset = np.maximum(onset + shift + (place * upward[chord] * spread[chord] if not part.is_drum else 0.0), 0.0)
    articulation = float(rng.uniform(0.75, 1.0))
    played = (offset - np.interp(notes["onset"], *warp) - 0.01) * np.where(
        length > 1.5, 0.97, articulation * rng.uniform(0.85, 1.06, count)
    )
    notes["onset"], notes["offset"] = onset, onset + np.maximum(played, _LEAST_SECONDS)
    swell = 6 * np.sin(2 * np.pi * onset / rng.uniform(4, 14) + rng.uniform(0, 6))
    top = np.where(rank == sizes[chord] - 1, 5.0, 0.0)
    notes["velocity"] = np.clip(np.rint(notes["velocity"] + swell + top + rng.normal(0, 5, count)), 10, 127)
    return replace(part, notes=tidy(notes))
