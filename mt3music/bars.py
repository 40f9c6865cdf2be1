"""Which beats begin a bar, and whether a bar has three beats or four.

Each beat has evidence of being the first of its bar: a bass note, a change of harmony, a kick drum and no snare drum, a
crash cymbal, long notes. It is compared with the other beats of the bar for bars of three and of four beats from each
possible first beat, as a statistician would (Student's t), and the clearest difference wins; four beats have a start,
since they are more frequent, and so has the beat of the first note.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mt3core.notes.table import NoteTable
from mt3core.notes.tempo_map import TempoMap, TimeSignature
from mt3music.beat_level import harmonic_changes
from mt3music.onset_strength import CRASHES, KICKS, SNARES, is_bass, note_weights

_NEAR_BEATS = 0.2  # a note this near to a beat belongs to it
_WEIGHTS = {"bass": 1.0, "harmony": 2.5, "kick": 0.7, "snare": -0.7, "crash": 1.0, "length": 0.7, "onsets": 0.3}
_LONGEST_BEATS = 4.0
_MOST = 2.5  # standard deviations that one beat counts
_LEAST_DEVIATION = 0.15  # smaller differences are inaccuracy, not music
_LEAST_VARIANCE = 0.5  # of the evidence; ordinary pieces have 5 to 20
_FOUR_BEATS = 1.0  # what four beats have ahead of three, in standard errors
_FIRST_NOTE = 1.0  # and the beat of the first note of others
_TRUSTED_BEATS = 32
CHOICES = (TimeSignature(4, 4), TimeSignature(3, 4))


def find_bars(
    beat_seconds: Float[np.ndarray, " beats"],
    notes: NoteTable,
    given: TimeSignature | None = None,
    first_seconds: float | None = None,
) -> tuple[TimeSignature, int]:
    """The time signature, unless it is given, and the number of the first beat that begins a bar.

    `first_seconds` is when the music begins, by default with the first note.
    """
    # After the last note begins, nothing speaks for or against a beat.
    last = float(notes["onset"].max(initial=beat_seconds[-1] if not len(notes) else -np.inf))
    num_beats = max(int(np.searchsorted(beat_seconds, last, side="right")), 2)
    evidence = downbeat_evidence(beat_seconds, notes)[:num_beats]
    if first_seconds is None and len(notes):
        first_seconds = float(notes["onset"].min())
    first_note = None if first_seconds is None else _number_of(beat_seconds, first_seconds)
    best, best_score = (given or CHOICES[0], 0), -np.inf
    for signature in CHOICES if given is None else (given,):
        size = signature.beats_per_bar
        for first in range(size):
            score = _difference(evidence, first, size)
            score += _FIRST_NOTE * (first_note is not None and (first_note - first) % size == 0)
            score += _FOUR_BEATS * (size == 4)
            if score > best_score:
                best, best_score = (signature, first), score
    return best


def downbeat_evidence(beat_seconds: Float[np.ndarray, " beats"], notes: NoteTable) -> Float[np.ndarray, " beats"]:
    """How much speaks for each beat being the first of a bar, around 0."""
    count = len(beat_seconds)
    positions = TempoMap(tuple(beat_seconds.tolist())).beats_at(notes["onset"])
    numbers = np.rint(positions).astype(np.int64)
    is_near = (np.abs(positions - numbers) <= _NEAR_BEATS) & (numbers >= 0) & (numbers < count)
    near, numbers = notes[is_near], numbers[is_near]
    beat = float(np.median(np.diff(beat_seconds)))
    lengths = np.clip((near["offset"] - near["onset"]) / beat, 0.0, _LONGEST_BEATS)
    is_drum = near["is_drum"]

    def totals(chosen: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, " beats"]:
        return np.bincount(numbers[chosen], weights[chosen], count)

    ones = np.ones(len(near))
    drums = {name: is_drum & np.isin(near["pitch"], kind) for name, kind in _DRUMS.items()}
    parts = {name: np.minimum(totals(chosen, ones), 1.0) for name, chosen in drums.items()}
    parts["bass"] = np.minimum(totals(is_bass(near), 0.5 + lengths), 3.0)
    parts["length"] = totals(~is_drum, lengths) / np.maximum(totals(~is_drum, ones), 1.0)
    parts["onsets"] = totals(np.ones(len(near), bool), note_weights(near))
    parts["harmony"] = harmonic_changes(notes, beat_seconds, 2) + harmonic_changes(notes, beat_seconds, 1)
    # A line of single notes has no harmony: what changes in it is the melody.
    pitched = notes[~notes["is_drum"]]
    sounding = (pitched["offset"] - pitched["onset"]).sum() / (beat_seconds[-1] - beat_seconds[0])
    weights = {**_WEIGHTS, "harmony": _WEIGHTS["harmony"] * float(np.clip(sounding - 1, 0, 1))}
    return np.sum([weight * _standard(parts[name]) for name, weight in weights.items()], axis=0)


_DRUMS = {"kick": KICKS, "snare": SNARES, "crash": CRASHES}


def _standard(values: Float[np.ndarray, " beats"]) -> Float[np.ndarray, " beats"]:
    return np.clip((values - values.mean()) / max(values.std(), _LEAST_DEVIATION), -_MOST, _MOST)


def _difference(evidence: Float[np.ndarray, " beats"], first: int, size: int) -> float:
    """Student's t of the beats `first`, `first + size`, ... against the others; 0 if there are too few."""
    is_first = (np.arange(len(evidence)) - first) % size == 0
    here, others = evidence[is_first], evidence[~is_first]
    if len(here) < 2 or len(others) < 2:
        return 0.0
    variance = (((here - here.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()) / (len(evidence) - 2)
    error = np.sqrt(max(variance, _LEAST_VARIANCE) * (1 / len(here) + 1 / len(others)))
    # The evidence of neighbouring beats is not independent: a long recording would drown the starts, and in a short one
    # a clear difference may be chance.
    share = len(evidence) / _TRUSTED_BEATS
    return float((here.mean() - others.mean()) / error * min(share, 1.0) / np.sqrt(max(share, 1.0)))


def _number_of(beat_seconds: Float[np.ndarray, " beats"], seconds: float) -> int | None:
    """The number of the beat at a time, if there is one."""
    distances = np.abs(beat_seconds - seconds)
    number = int(distances.argmin())
    return number if distances[number] <= _NEAR_BEATS * np.median(np.diff(beat_seconds)) else None
