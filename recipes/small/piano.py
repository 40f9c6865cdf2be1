"""Solo piano from any piece: one part, in another key and tempo, with a requested density.

Published performances have 6 to 8 notes per second on average; music to be transcribed has up to 25. So a density is
drawn for each piece, and if a faster tempo does not reach it, the texture is thickened first: a second piece is laid
over it, hands are doubled in octaves, chords are broken into fast arpeggios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from humanising import tidy
from playing import HIGHEST, LOWEST, density, faster, passage, rescaled_velocities, transposed, with_pedal

from mt3core.notes.table import NOTE_DTYPE, NoteTable
from mt3render.score import Part, merged

SLOWEST, FASTEST = 0.75, 1.8
DENSITY_SHAPE, DENSITY_SCALE = 4.2, 2.7  # of a gamma distribution: mean 11, one in seven above 17
MOST_DENSE = 28.0
_PIANO = "Piano"


def as_piano(parts: tuple[Part, ...]) -> Part:
    """All pitched parts as one piano part. A pedal is kept if the part with most of the notes has it."""
    pitched = sorted((part for part in parts if not part.is_drum), key=lambda part: -len(part.notes))
    if len(pitched) == 1:
        return merged(pitched, _PIANO, 0)
    main, others = pitched[0], pitched[1:]
    notes = np.concatenate([main.notes, *(part.sounding() for part in others)])
    notes["program"] = 0
    return Part(_PIANO, 0, False, tidy(notes), main.pedal)


def piano_piece(part: Part, seconds: float, rng: np.random.Generator, second: Callable[[], Part]) -> Part:
    """A passage of about `seconds` with a drawn key, density, strength and pedal. `second` gives another piece."""
    wanted = float(np.clip(rng.gamma(DENSITY_SHAPE, DENSITY_SCALE), 2.5, MOST_DENSE))
    drawn_tempo = float(np.exp(rng.normal(0.12, 0.2)))
    part = _drawn_passage(part, seconds * min(FASTEST, 1.4), rng)
    thickeners = rng.permutation(["layered", "octaves", "arpeggios", "layered"]).tolist()
    while thickeners and density([part]) * FASTEST < wanted * 1.15:
        match thickeners.pop():
            case "layered":
                part = layered(part, _drawn_passage(second(), seconds * 1.4, rng), rng)
            case "octaves":
                part = with_octaves(part, rng)
            case _:
                part = with_arpeggios(part, rng)
    factor = float(np.clip(0.25 * drawn_tempo + 0.75 * wanted / density([part]), SLOWEST, FASTEST))
    part = faster(part, factor)
    (part,) = passage([part], 0.0, seconds)
    part = transposed(part, int(rng.integers(-6, 7)))
    part = rescaled_velocities(part, float(rng.uniform(45, 95)), float(rng.uniform(0.6, 1.4)))
    if rng.random() < 0.6:
        part = with_pedal(part, rng)
    return replace(part, notes=tidy(part.notes))


def layered(first: Part, second: Part, rng: np.random.Generator) -> Part:
    """Two pieces at once, the second moved to the key in which it agrees best with the first."""
    second = transposed(second, _agreeing_shift(first.notes, second.notes))
    second = faster(second, float(np.clip(density([first]) / density([second]), 0.8, 1.5)))
    second = rescaled_velocities(second, float(first.notes["velocity"].mean() - rng.uniform(-4, 12)), 1.0)
    end = float(first.notes["onset"].max())
    notes = np.concatenate([first.notes, second.notes[second.notes["onset"] < end]])
    return replace(first, notes=tidy(notes))


def with_octaves(part: Part, rng: np.random.Generator) -> Part:
    """The highest note of each chord doubled an octave above, the lowest an octave below, not quite together."""
    notes = part.notes
    group = np.floor(notes["onset"] / 0.05).astype(int)
    order = np.lexsort((notes["pitch"], group))
    first = np.concatenate([[True], np.diff(group[order]) > 0])
    last = np.concatenate([first[1:], [True]])
    above, below = notes[order[last]].copy(), notes[order[first]].copy()
    above["pitch"] += 12
    below["pitch"] -= 12
    added = np.concatenate([above, below])
    late = rng.normal(0, 0.008, len(added))
    added["onset"] += late
    added["offset"] += late
    added["velocity"] = np.clip(added["velocity"] + rng.integers(-12, 5, len(added)), 8, 127)
    return replace(part, notes=tidy(np.concatenate([notes, added[_on_keyboard(added)]])))


def with_arpeggios(part: Part, rng: np.random.Generator) -> Part:
    """Adds fast broken chords below or between, made from the sounding notes."""
    notes = part.notes
    end = float(notes["onset"].max())
    slice_seconds, rate = float(rng.uniform(0.4, 0.9)), float(rng.uniform(6.0, 13.0))
    octaves, low = int(rng.integers(1, 4)), int(rng.integers(36, 60))
    rows = []
    for begin in np.arange(0.0, end, slice_seconds):
        sounds = notes["pitch"][(notes["onset"] < begin + slice_seconds / 2) & (notes["offset"] > begin)]
        classes = np.unique(sounds % 12)
        if len(classes) < 2 or rng.random() < 0.12:
            continue
        ladder = np.concatenate([low + 12 * octave + np.sort((classes - low) % 12) for octave in range(octaves)])
        run = np.concatenate([ladder, ladder[-2:0:-1]]) if rng.random() < 0.7 else ladder[::-1]
        times = begin + np.arange(0, slice_seconds, 1 / rate)
        pitches = run[np.arange(len(times)) % len(run)]
        length = float(rng.choice([0.9, 1.0, 2.5])) / rate
        strength = float(notes["velocity"].mean()) - 8
        for time, pitch in zip(times, pitches, strict=True):
            onset = max(time + rng.normal(0, 0.005), 0.0)
            rows.append(
                (onset, onset + length, int(pitch), int(np.clip(strength + rng.normal(0, 6), 8, 127)), 0, False)
            )
    added = np.array(rows, NOTE_DTYPE)
    return replace(part, notes=tidy(np.concatenate([notes, added[_on_keyboard(added)]])))


def _drawn_passage(part: Part, seconds: float, rng: np.random.Generator) -> Part:
    last = float(part.notes["onset"].max())
    begin = float(rng.uniform(0.0, last - seconds)) if last > seconds else 0.0
    begin = float(part.notes["onset"][part.notes["onset"] >= begin].min()) - 0.2
    (found,) = passage([part], max(begin, 0.0), seconds)
    return found


def _agreeing_shift(first: NoteTable, second: NoteTable) -> int:
    one, other = (np.bincount(notes["pitch"] % 12, minlength=12) for notes in (first, second))
    return max(range(-6, 6), key=lambda shift: float(one @ np.roll(other, shift)))


def _on_keyboard(notes: NoteTable) -> np.ndarray:
    return (notes["pitch"] >= LOWEST) & (notes["pitch"] <= HIGHEST)
