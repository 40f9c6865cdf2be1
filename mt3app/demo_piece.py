"""The demonstration's piece: written here as notes, so that its transcription can be scored, and rendered to audio.

Sixteen seconds for guitar, electric bass, flute and drums over the chords Am F C G, played twice. TinySoundFont
plays them with the sound font that pretty_midi brings. (symusic 0.5.8 was tried first: it plays the onsets right,
but two thirds of that sound font's instruments out of tune, by up to two octaves.)
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3core.midi import write_midi
from mt3core.notes import Note

QUARTER_SECONDS = 0.5  # 120 quarters a minute
BAR_SECONDS = 4 * QUARTER_SECONDS
GUITAR, BASS, FLUTE = 24, 33, 73  # General MIDI programs, counted from 0
KICK, SNARE, CLOSED_HAT, CRASH = 36, 38, 42, 49  # General MIDI drum notes
SAMPLE_RATE_HZ = 44_100
PEAK = 0.8
TAIL_SECONDS = 1.0
DRUM_BANK = 128  # where sound fonts keep General MIDI's drum kits

_CHORDS = {"Am": (57, 60, 64), "F": (57, 60, 65), "C": (55, 60, 64), "G": (55, 59, 62)}
_ROOTS = {"Am": 33, "F": 29, "C": 36, "G": 31}
_PROGRESSION = ("Am", "F", "C", "G") * 2
# The flute's line, one bar a row: (quarter in the bar, length in quarters, pitch).
_MELODY = (
    ((0, 1.5, 76), (1.5, 0.5, 74), (2, 2, 72)),
    ((0, 1, 69), (1, 1, 72), (2, 2, 77)),
    ((0, 1.5, 76), (1.5, 0.5, 74), (2, 1, 72), (3, 1, 67)),
    ((0, 3, 71), (3, 1, 74)),
    ((0, 1, 76), (1, 1, 81), (2, 2, 79)),
    ((0, 1, 77), (1, 1, 76), (2, 2, 72)),
    ((0, 1, 79), (1, 1, 76), (2, 1, 72), (3, 1, 74)),
    ((0, 4, 71),),
)


def piece() -> list[Note]:
    """The notes of the piece, sorted by onset; times in seconds."""
    notes: list[Note] = []

    def add(bar: int, quarter: float, quarters: float, pitch: int, velocity: int, program: int | None) -> None:
        onset = bar * BAR_SECONDS + quarter * QUARTER_SECONDS
        # A little shorter than written, so that a repeated note is struck anew.
        offset = onset + max(quarters * QUARTER_SECONDS - 0.03, 0.03)
        notes.append(Note(round(onset, 3), round(offset, 3), pitch, velocity, program or 0, program is None))

    for bar, chord in enumerate(_PROGRESSION):
        for quarter, quarters in ((0, 1.5), (1.5, 1.5), (3, 1)):
            for pitch in _CHORDS[chord]:
                add(bar, quarter, quarters, pitch, 80, GUITAR)
        for eighth in range(8):
            octave = 12 if eighth in (3, 6) else 0
            add(bar, eighth / 2, 0.5, _ROOTS[chord] + octave, 95, BASS)
        for quarter, quarters, pitch in _MELODY[bar]:
            add(bar, quarter, quarters, pitch, 100, FLUTE)
        for eighth in range(8):
            add(bar, eighth / 2, 0.25, CLOSED_HAT, 80, None)
        for quarter, drum in ((0, KICK), (1, SNARE), (2, KICK), (2.5, KICK), (3, SNARE)):
            add(bar, quarter, 0.25, drum, 105, None)
        if bar % 4 == 0:
            add(bar, 0, 0.25, CRASH, 90, None)
    return sorted(notes, key=lambda note: (note.onset, note.is_drum, note.program, note.pitch))


def render(notes: list[Note], folder: Path) -> tuple[Float[np.ndarray, " samples"], str]:
    """The notes as mono audio at 44.1 kHz, and what rendered them.

    TinySoundFont with the sound font that pretty_midi brings, or, where tinysoundfont is not installed, pretty_midi's
    own sine waves, which have no drums. `folder` receives `reference.mid` with the same notes.
    """
    path = folder / "reference.mid"
    write_midi(notes, path)
    end = round((max(note.offset for note in notes) + TAIL_SECONDS) * SAMPLE_RATE_HZ)
    if importlib.util.find_spec("tinysoundfont"):
        samples, name = _render_with_sound_font(notes, end), "TinySoundFont, TimGM6mb"
    else:
        pretty_midi = importlib.import_module("pretty_midi")
        samples, name = pretty_midi.PrettyMIDI(str(path)).synthesize(fs=SAMPLE_RATE_HZ), "sine waves, no drums"
    samples = np.asarray(samples, np.float32)[:end]
    return samples * np.float32(PEAK / np.abs(samples).max()), name


def _render_with_sound_font(notes: list[Note], num_samples: int) -> np.ndarray:
    """Plays the notes sample by sample: a channel an instrument, silence after the last release until the end."""
    pretty_midi = importlib.import_module("pretty_midi")
    synthesizer = importlib.import_module("tinysoundfont").Synth(samplerate=SAMPLE_RATE_HZ)
    font = synthesizer.sfload(str(Path(str(pretty_midi.__file__)).with_name("TimGM6mb.sf2")))
    channels: dict[tuple[int, bool], int] = {}
    for note in notes:
        part = note.program, note.is_drum
        if part not in channels:
            channels[part] = len(channels)
            synthesizer.program_select(channels[part], font, DRUM_BANK if note.is_drum else 0, note.program)
    # Releases come before strikes of the same instant, so that a repeated note is struck anew.
    events = [(round(note.offset * SAMPLE_RATE_HZ), 0, note) for note in notes]
    events += [(round(note.onset * SAMPLE_RATE_HZ), 1, note) for note in notes]
    pieces, now = [], 0
    for sample, is_onset, note in sorted(events, key=lambda event: event[:2]):
        pieces.append(_generate(synthesizer, sample - now))
        now = sample
        channel = channels[note.program, note.is_drum]
        if is_onset:
            synthesizer.noteon(channel, note.pitch, note.velocity)
        else:
            synthesizer.noteoff(channel, note.pitch)
    pieces.append(_generate(synthesizer, num_samples - now))
    return np.concatenate(pieces)


def _generate(synthesizer: Any, num_samples: int) -> np.ndarray:
    if num_samples == 0:
        return np.zeros(0, np.float32)
    return np.frombuffer(synthesizer.generate(num_samples), np.float32).reshape(-1, 2).mean(axis=1)
