"""Which of several related grids of beats is the one that a listener would tap.

Half, double or one and a half times the tempo, and the moments between the beats, fit most music nearly as well. The
score is a weighted sum of measures that musicians would name: a usual tempo; that music repeats after four beats (or
three) and after eight; that eighths are played, and thirds and quarters of beats less than beats; that harmony changes
on beats; that the snare drum is not on the beats while the kick drum is between them; and that music begins on a beat.
The weights were fitted (conditional logit, then a search around it) to 22 pieces of the Freedoom collection, rendered
and transcribed with `small`, and to simple bands of many tempos. `docs/music.md` says how well they do on others.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from mt3core.notes.table import NoteTable
from mt3music.onset_strength import FRAMES_PER_SECOND, KICKS, SNARES, is_bass, strength_of_notes

USUAL_TEMPO = 118.0  # beats per minute
_WEIGHTS = {
    "unusual": -7.0,
    "bar": 12.0,
    "two bars": 1.0,
    "eighths": 8.0,
    "not halves": 2.0,
    "not thirds": 6.0,
    "not quarters": 4.0,
    "harmony": 9.0,
    "drums": 2.0,
    "first": 0.6,
}
_NEAR_FRAMES = np.arange(-3, 4)
_LAG_FRAMES = np.arange(-2, 3)
_MOST_EIGHTHS = 0.4  # music need not be made of eighths only
_BAR_OF_THREE = 0.9  # of the weight of a bar of four


class BeatLevels:
    """Scores grids of beats of one recording."""

    def __init__(self, strength: Float[np.ndarray, " frames"], notes: NoteTable) -> None:
        self._strength, self._notes = strength, notes
        centred = strength - strength.mean()
        size = 1 << (2 * len(centred) - 1).bit_length()
        found = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[: len(centred)]
        # Far lags have fewer frames; beyond three quarters of the recording they say little and are not made larger.
        counts = np.maximum(len(centred) - np.arange(len(centred)), len(centred) / 4)
        self._repeats = found / max(found[0], 1e-9) * len(centred) / counts
        drums = notes["is_drum"]
        self._kicks = strength_of_notes(notes[drums & np.isin(notes["pitch"], KICKS)], len(strength))
        self._snares = strength_of_notes(notes[drums & np.isin(notes["pitch"], SNARES)], len(strength))

    def score(self, frames: Int[np.ndarray, " beats"]) -> float:
        """How likely these beats are, compared with others of the same recording (a logarithm)."""
        measures = self.measures(frames)
        return sum(weight * measures[name] for name, weight in _WEIGHTS.items())

    def measures(self, frames: Int[np.ndarray, " beats"]) -> dict[str, float]:
        """What the score is made of."""
        period = (frames[-1] - frames[0]) / (len(frames) - 1)
        thirds = [self._contrast(self._strength, frames, share) for share in (1 / 3, 2 / 3)]
        quarters = [self._contrast(self._strength, frames, share) for share in (1 / 4, 3 / 4)]
        kick, snare = (self._contrast(one, frames, 0.5) for one in (self._kicks, self._snares))
        return {
            "unusual": float(unusual(60 * FRAMES_PER_SECOND / period)),
            "bar": max(self._repeat(4 * period), _BAR_OF_THREE * self._repeat(3 * period)),
            "two bars": self._repeat(8 * period),
            "eighths": min(self._repeat(period / 2), _MOST_EIGHTHS),
            "not halves": self._contrast(self._strength, frames, 0.5),
            "not thirds": float(np.mean(thirds)),
            "not quarters": float(np.mean(quarters)),
            "harmony": self._harmony(frames),
            "drums": -min(max(-kick, 0.0), max(snare, 0.0)),
            "first": self._first(frames, period),
        }

    def _repeat(self, lag: float) -> float:
        places = round(lag) + _LAG_FRAMES
        places = places[(places >= 0) & (places < len(self._repeats))]
        return float(self._repeats[places].max()) if len(places) else 0.0

    def _contrast(self, strength: Float[np.ndarray, " frames"], frames: Int[np.ndarray, " beats"], at: float) -> float:
        """How much more begins on the beats than at a share of the way to the next; from -1 to 1."""
        between = np.rint(frames[:-1] + np.diff(frames) * at).astype(int)
        there, here = (near(strength, one).mean() for one in (between, frames))
        return float((here - there) / (here + there + 1e-6))

    def _harmony(self, frames: Int[np.ndarray, " beats"]) -> float:
        """How much more the harmony changes on beats than between them; from -1 to 1."""
        seconds = frames / FRAMES_PER_SECOND
        halves = np.interp(np.arange(0, len(seconds) - 0.75, 0.5), np.arange(len(seconds)), seconds)
        changes = harmonic_changes(self._notes, halves, 2)
        on_beats, between = changes[::2].mean(), changes[1::2].mean()
        return float((on_beats - between) / (on_beats + between + 1e-6))

    def _first(self, frames: Int[np.ndarray, " beats"], period: float) -> float:
        """1 if the first note is on a beat, -1 if it is between two."""
        if not len(self._notes):
            return 0.0
        first = float(self._notes["onset"].min()) * FRAMES_PER_SECOND
        return float(np.cos(2 * np.pi * (first - frames[0]) / period))


def unusual(tempo: float | Float[np.ndarray, " tempos"]) -> float | Float[np.ndarray, " tempos"]:
    """How far a tempo in beats per minute is from a usual one, in squared octaves."""
    return np.log2(tempo / USUAL_TEMPO) ** 2


def near(strength: Float[np.ndarray, " frames"], frames: Int[np.ndarray, " beats"]) -> Float[np.ndarray, " beats"]:
    """The most strength within 30 ms of each frame."""
    return strength[np.clip(frames[:, None] + _NEAR_FRAMES, 0, len(strength) - 1)].max(axis=1)


def harmonic_changes(notes: NoteTable, edges: Float[np.ndarray, " edges"], spans: int) -> Float[np.ndarray, " edges"]:
    """How different what sounds in the `spans` after each edge is from that before it: 0 alike, 1 nothing in common.

    The bass counts twice. 0 where nothing sounds on one of the sides, and near both ends.
    """
    pitched = notes[~notes["is_drum"]]
    chroma = np.zeros((len(edges) - 1, 12))
    weights = np.where(is_bass(pitched), 2.0, 1.0)
    firsts = np.maximum(np.searchsorted(edges, pitched["onset"] + 0.03, side="right") - 1, 0)
    lasts = np.minimum(np.searchsorted(edges, pitched["offset"] - 0.03), len(edges) - 1)
    columns = (pitched["onset"], pitched["offset"], pitched["pitch"] % 12, weights, firsts, lasts)
    for onset, offset, pitch_class, weight, first, last in zip(*(one.tolist() for one in columns), strict=True):
        for span in range(first, last):
            sounding = min(offset, edges[span + 1]) - max(onset, edges[span])
            chroma[span, pitch_class] += weight * max(sounding, 0.0)
    chroma /= np.linalg.norm(chroma, axis=1, keepdims=True) + 1e-9
    sums = np.cumsum(np.concatenate([np.zeros((1, 12)), chroma]), axis=0)
    changes = np.zeros(len(edges))
    if len(chroma) < 2 * spans:
        return changes
    windows = sums[spans:] - sums[:-spans]
    before, after = windows[:-spans], windows[spans:]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    alike = (before * after).sum(axis=1) / np.maximum(norms, 1e-9)
    changes[spans : spans + len(alike)] = np.where(norms > 1e-9, 1 - alike, 0.0)
    return changes
