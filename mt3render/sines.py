"""The engine that needs only pretty_midi: decaying sine waves, and bursts of noise for the drums.

pretty_midi plays no drums at all; labelled notes that cannot be heard would be worse than noise.
"""

from __future__ import annotations

import numpy as np
import pretty_midi
from jaxtyping import Float

from mt3core.notes.table import NoteTable

# pretty_midi keeps several arrays of the whole length, so long parts are played in sections of this length.
_STRETCH_SECONDS = 30.0
_KICKS = (35, 36)  # General MIDI drum notes, as are the next
_RINGING = (46, 49, 51, 52, 53, 55, 57, 59)  # open hi-hat, crashes, rides, splash, Chinese cymbal
_KICK_HZ = 60.0
_KICK_SECONDS, _RINGING_SECONDS, _SHORT_SECONDS = 0.1, 0.3, 0.05  # to 1/e
_HIT_LENGTHS = 7  # after this many time constants a hit is below -60 dB
_DRUM_LEVEL = 2.0  # relative to a pitched note of the same velocity


def play_sines(
    notes: NoteTable, is_drum: bool, num_samples: int, sample_rate_hz: int, tuning_cents: float = 0.0
) -> Float[np.ndarray, " samples"]:
    """The notes of one part in mono; full velocity of a single note is about 1."""
    samples = np.zeros(num_samples, np.float32)
    if is_drum:
        _add_hits(samples, notes, sample_rate_hz)
    else:
        _add_waves(samples, notes, sample_rate_hz, tuning_cents)
    return samples


def _add_waves(samples: np.ndarray, notes: NoteTable, sample_rate_hz: int, tuning_cents: float) -> None:
    stretches = (notes["onset"] // _STRETCH_SECONDS).astype(np.int64)
    for stretch in np.unique(stretches).tolist():
        first = round(stretch * _STRETCH_SECONDS * sample_rate_hz)
        instrument = pretty_midi.Instrument(program=0)
        for note in notes[stretches == stretch].tolist():
            onset, offset, pitch, velocity = note[:4]
            begin = stretch * _STRETCH_SECONDS
            tuned = pitch + tuning_cents / 100
            instrument.notes.append(pretty_midi.Note(velocity, tuned, onset - begin, offset - begin))
        played = instrument.synthesize(fs=sample_rate_hz)[: max(len(samples) - first, 0)]
        samples[first : first + len(played)] += played / 127


def _add_hits(samples: np.ndarray, notes: NoteTable, sample_rate_hz: int) -> None:
    hits: dict[int, np.ndarray] = {}
    for onset, _, pitch, velocity, *_ in notes.tolist():
        if pitch not in hits:
            hits[pitch] = _hit(pitch, sample_rate_hz)
        first = round(onset * sample_rate_hz)
        heard = hits[pitch][: max(len(samples) - first, 0)]
        samples[first : first + len(heard)] += heard * np.float32(velocity / 127)


def _hit(pitch: int, sample_rate_hz: int) -> np.ndarray:
    seconds = _KICK_SECONDS if pitch in _KICKS else _RINGING_SECONDS if pitch in _RINGING else _SHORT_SECONDS
    times = np.arange(round(_HIT_LENGTHS * seconds * sample_rate_hz)) / sample_rate_hz
    if pitch in _KICKS:
        wave = np.cos(2 * np.pi * _KICK_HZ * times)
    else:
        wave = np.random.default_rng(pitch).uniform(-1, 1, len(times))
    return (_DRUM_LEVEL * wave * np.exp(-times / seconds)).astype(np.float32)
