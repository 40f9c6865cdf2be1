"""Pieces of known tempo, as notes and as sound, for the tests of musical time."""

import itertools

import numpy as np

from mt3core.notes.table import Note
from mt3core.transcription import Transcription

RATE_HZ = 16_000
SCALE = (60, 62, 64, 65, 67, 69, 71, 72)  # C major
KICK, SNARE, HI_HAT = 36, 38, 42
BASS, GUITAR = 33, 24


def scale(bars=2, beats_per_minute=100.0, start=0.0):
    """Quarters up the scale of C major, two bars of 4/4 each time."""
    period = 60 / beats_per_minute
    pitches = SCALE * (bars // 2)
    return [Note(start + period * i, start + period * (i + 1) - 0.03, p) for i, p in enumerate(pitches)]


def band(beat_seconds, beats_per_bar=4, first=0, drums=True):
    """Bass and chord on each downbeat, chords on the other beats, eighths on the hi-hat."""
    notes = []
    for number, (begin, end) in enumerate(itertools.pairwise(beat_seconds)):
        place, bar = (number - first) % beats_per_bar, (number - first) // beats_per_bar
        root = (0, 5, 7, 2)[bar % 4]
        if place == 0:
            notes.append(Note(begin, begin + 0.9 * (end - begin) * beats_per_bar, 36 + root, 100, BASS))
        notes += [Note(begin, begin + 0.8 * (end - begin), 60 + root + step, 80, GUITAR) for step in (0, 4, 7)]
        if drums:
            hit = SNARE if (place % 2 if beats_per_bar == 4 else place) else KICK
            notes.append(Note(begin, begin + 0.05, hit, 100, 0, True))
            notes += [Note(at, at + 0.05, HI_HAT, 70, 0, True) for at in (begin, (begin + end) / 2)]
    return notes


def sound(notes, seconds):
    """(samples, rate): decaying tones, and noise for drums."""
    samples = np.zeros(round(seconds * RATE_HZ), np.float32)
    noise = np.random.default_rng(0).standard_normal(RATE_HZ)
    for note in notes:
        length = round((note.offset - note.onset) * RATE_HZ)
        times = np.arange(length) / RATE_HZ
        wave = noise[:length] if note.is_drum else np.sin(2 * np.pi * 440 * 2 ** ((note.pitch - 69) / 12) * times)
        begin = round(note.onset * RATE_HZ)
        heard = (0.1 * wave * np.exp(-6 * times))[: len(samples) - begin]
        samples[begin : begin + len(heard)] += heard
    return samples, RATE_HZ


def transcription(notes):
    """Notes as a result of that length."""
    return Transcription(list(notes), duration_seconds=max(note.offset for note in notes) + 0.5)
