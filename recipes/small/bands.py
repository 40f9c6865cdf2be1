"""Music for several instruments: rearranged songs, chamber music on other instruments, with drums added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from composer.instruments import ROLES, drawn_program
from humanising import tidy
from playing import density, faster, passage, rescaled_velocities, transposed

from mt3core.notes.table import NoteTable
from mt3render.score import Part, with_program

_QUARTETS = (
    (40, 40, 41, 42),
    (40, 40, 41, 42),
    (48, 48, 48, 48),
    (45, 45, 45, 45),
    (56, 56, 60, 57),
    (73, 68, 71, 70),
    (65, 65, 66, 67),
    (24, 24, 25, 32),
    (52, 52, 53, 53),
    (19, 19, 19, 19),
    (80, 81, 82, 38),
    (11, 12, 12, 13),
    (73, 40, 41, 42),
    (68, 40, 41, 42),
    (71, 60, 70, 70),
    (59, 61, 60, 58),
    (74, 74, 74, 74),
    (0, 0, 4, 33),
)
_VOICES = (40, 52, 53, 54, 56, 60, 64, 65, 66, 68, 71, 72, 73, 75, 42, 41, 22, 80, 81, 85)
_ACCOMPANIMENTS = (0, 0, 0, 1, 4, 5, 6, 24, 25, 46, 19, 48, 21, 11, 88, 89)
MOST_DENSE = 40.0
_ORCHESTRATED = 0.4  # of the quartets


def song_arrangement(parts: Sequence[Part], rng: np.random.Generator) -> list[Part]:
    """The melody, second voice and piano of a song on drawn instruments, with a bass taken from the left hand."""
    melody, bridge, piano = (
        next((p for p in parts if p.name.upper().startswith(name)), None) for name in ("MELODY", "BRIDGE", "PIANO")
    )
    arranged = []
    if melody is not None:
        arranged.append(_given(melody, "lead", rng))
        if rng.random() < 0.2:  # doubled by another instrument
            arranged.append(_given(melody, "lead", rng))
    if bridge is not None and len(bridge.notes) and rng.random() < 0.85:
        arranged.append(_given(bridge, "lead" if rng.random() < 0.6 else "chords", rng))
    if piano is not None:
        bass, rest = _left_hand(piano)
        if len(bass.notes) and rng.random() < 0.9:
            arranged.append(_given(bass, "bass", rng))
        if len(rest.notes):
            arranged.append(_given(rest, "chords", rng))
            if rng.random() < 0.35:
                arranged.append(_given(_sustained(rest), "chords", rng))
    kept = [part for part in arranged if len(part.notes)]
    return kept if len(kept) <= 1 or rng.random() < 0.8 else kept[: max(1, len(kept) - 2)]


def chamber_arrangement(parts: Sequence[Part], rng: np.random.Generator) -> list[Part]:
    """A score on its own or on drawn instruments: a voice with piano, a quartet, or its parts as an orchestra."""
    keeps = rng.random() < 0.35
    if len(parts) == 4 and rng.random() < _ORCHESTRATED:
        return orchestrated(parts, rng)
    if len(parts) == 4:
        programs = _QUARTETS[0 if keeps else int(rng.integers(len(_QUARTETS)))]
        return [with_program(part, program) for part, program in zip(parts, programs, strict=True)]
    arranged = []
    for part in parts:
        is_piano = part.program < 8 or len(part.notes) > 2 * np.median([len(one.notes) for one in parts])
        own = part.program if is_piano else (52 if part.program == 68 else part.program)
        drawn = int(rng.choice(_ACCOMPANIMENTS if is_piano else _VOICES))
        arranged.append(with_program(part, own if keeps else drawn))
    return arranged


def orchestrated(parts: Sequence[Part], rng: np.random.Generator) -> list[Part]:
    """Each part of a quartet played by one to three instruments, some of them octaves apart."""
    arranged = []
    for place, part in enumerate(parts):
        role = "bass" if place == 3 else ("chords" if place == 2 and rng.random() < 0.4 else "lead")
        for _ in range(int(rng.integers(1, 4))):
            arranged.append(_given(part, role, rng))
    return arranged


def with_drums(parts: Sequence[Part], drums: Part, bar_seconds: float, first_bar: float) -> list[Part]:
    """The parts with drums added, which start on a bar and are repeated by whole bars to the end."""
    end = max(float(part.notes["onset"].max()) for part in parts)
    last = float(drums.notes["onset"].max())
    bars = max(1, int(np.ceil((last - 0.1) / bar_seconds)))
    loop, copies = bars * bar_seconds, []
    for number in range(int(np.ceil(max(end - first_bar, 0.1) / loop))):
        copy = drums.notes.copy()
        copy["onset"] += first_bar + number * loop
        copy["offset"] += first_bar + number * loop
        copies.append(copy[(copy["onset"] < end) & (copy["onset"] >= 0)])
    notes = np.concatenate(copies)
    return [*parts, replace(drums, notes=tidy(notes))] if len(notes) else list(parts)


def band_piece(parts: Sequence[Part], seconds: float, rng: np.random.Generator, fastest: float = 1.5) -> list[Part]:
    """A passage of about `seconds` with a drawn key, tempo and balance."""
    factor = float(np.clip(np.exp(rng.normal(0.1, 0.2)), 0.8, fastest))
    factor = min(factor, MOST_DENSE / density(parts))
    last = max(float(part.notes["onset"].max()) for part in parts)
    begin = float(rng.uniform(0.0, last - seconds * factor)) if last > seconds * factor else 0.0
    shift = int(rng.integers(-5, 7))
    played = []
    for part in passage(parts, begin, seconds * factor):
        part = transposed(faster(part, factor), shift)
        if len(part.notes):
            mean = float(rng.uniform(60, 105))
            played.append(rescaled_velocities(part, mean, float(rng.uniform(0.6, 1.3))))
    return played


def grid(parts: Sequence[Part], quarters_per_minute: float) -> tuple[float, float]:
    """(seconds per bar of four quarters, time of the first bar line), from the onsets of low and long notes."""
    quarter = 60.0 / quarters_per_minute
    notes = np.concatenate([part.notes for part in parts])
    phases = np.exp(2j * np.pi * notes["onset"] / (quarter / 4))
    sixteenth = float(np.angle(phases.sum())) / (2 * np.pi) * quarter / 4
    place = np.rint((notes["onset"] - sixteenth) / (quarter / 4)).astype(int) % 16
    weight = np.where(notes["pitch"] < 52, 3.0, 1.0) * np.minimum(notes["offset"] - notes["onset"], 2.0)
    weights = np.bincount(place, weights=weight, minlength=16)
    beat = int(np.argmax(weights.reshape(4, 4).sum(0)))
    bar = int(np.argmax(weights[beat::4])) * 4 + beat
    return 4 * quarter, sixteenth + bar * quarter / 4


def _given(part: Part, role: str, rng: np.random.Generator) -> Part:
    """The part on an instrument of a role, in a suitable octave, with notes outside its range folded in."""
    instrument = ROLES[role][int(rng.integers(len(ROLES[role])))]
    low, high = instrument.low, instrument.high
    notes = part.notes.copy()
    middle = float(np.median(notes["pitch"]))
    notes["pitch"] += 12 * round(((low + high) / 2 + rng.uniform(-6, 6) - middle) / 12)
    for _ in range(4):
        notes["pitch"] = np.where(notes["pitch"] < low, notes["pitch"] + 12, notes["pitch"])
        notes["pitch"] = np.where(notes["pitch"] > high, notes["pitch"] - 12, notes["pitch"])
    program = drawn_program(instrument, rng)
    return with_program(replace(part, name=role, notes=tidy(notes), pedal=np.empty((0, 2))), program)


def _left_hand(piano: Part) -> tuple[Part, Part]:
    """The lowest note of each chord in the lower half as one line, and the rest."""
    notes: NoteTable = piano.sounding()
    group = np.floor(notes["onset"] / 0.06).astype(int)
    order = np.lexsort((notes["pitch"], group))
    is_lowest = np.zeros(len(notes), bool)
    is_lowest[order[np.concatenate([[True], np.diff(group[order]) > 0])]] = True
    is_bass = is_lowest & (notes["pitch"] <= min(55, np.percentile(notes["pitch"], 45)))
    line = notes[is_bass]
    line = line[np.argsort(line["onset"], kind="stable")]
    if len(line) > 1:
        line["offset"][:-1] = np.minimum(line["offset"][:-1], line["onset"][1:])
    return replace(piano, notes=tidy(line)), replace(piano, notes=tidy(notes[~is_bass]))


def _sustained(part: Part) -> Part:
    """Chords held instead of repeated: each pitch lasts until it has not been struck for a second."""
    notes = part.notes[np.lexsort((part.notes["onset"], part.notes["pitch"]))].copy()
    keep = np.ones(len(notes), bool)
    last = 0
    for place in range(1, len(notes)):
        if notes["pitch"][place] == notes["pitch"][last] and notes["onset"][place] - notes["offset"][last] < 0.6:
            notes["offset"][last] = max(notes["offset"][place], notes["offset"][last])
            keep[place] = False
        else:
            last = place
    return replace(part, notes=tidy(notes[keep]))
