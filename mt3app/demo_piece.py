"""The demonstration's piece: written here as notes, so that its transcription can be scored, and rendered to audio.

Twelve seconds for electric piano, double bass, oboe and drums over the chords Am F C G, played twice. Of the sound
font's instruments symusic 0.5.8 renders about a third in tune in the range used here (piano, strings and electric
bass come out up to two octaves off), hence these.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mt3core.midi import write_midi
from mt3core.notes import Note

QUARTER_SECONDS = 0.375  # 160 quarters a minute
BAR_SECONDS = 4 * QUARTER_SECONDS
PIANO, BASS, OBOE = 5, 43, 68  # General MIDI programs, counted from 0
KICK, SNARE, CLOSED_HAT, CRASH = 36, 38, 42, 49  # General MIDI drum notes
SAMPLE_RATE_HZ = 44_100
PEAK = 0.8
TAIL_SECONDS = 1.0

_CHORDS = {"Am": (57, 60, 64), "F": (57, 60, 65), "C": (55, 60, 64), "G": (55, 59, 62)}
_ROOTS = {"Am": 33, "F": 29, "C": 36, "G": 31}
_PROGRESSION = ("Am", "F", "C", "G") * 2
# The oboe's line, one bar a row: (quarter in the bar, length in quarters, pitch).
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
                add(bar, quarter, quarters, pitch, 80, PIANO)
        for eighth in range(8):
            octave = 12 if eighth in (3, 6) else 0
            add(bar, eighth / 2, 0.5, _ROOTS[chord] + octave, 95, BASS)
        for quarter, quarters, pitch in _MELODY[bar]:
            add(bar, quarter, quarters, pitch, 100, OBOE)
        for eighth in range(8):
            add(bar, eighth / 2, 0.25, CLOSED_HAT, 80, None)
        for quarter, drum in ((0, KICK), (1, SNARE), (2, KICK), (2.5, KICK), (3, SNARE)):
            add(bar, quarter, 0.25, drum, 105, None)
        if bar % 4 == 0:
            add(bar, 0, 0.25, CRASH, 90, None)
    return sorted(notes, key=lambda note: (note.onset, note.is_drum, note.program, note.pitch))


def render(notes: list[Note], folder: Path) -> tuple[Float[np.ndarray, " samples"], str]:
    """The notes as mono audio at 44.1 kHz, and what rendered them.

    symusic with the sound font that pretty_midi brings, or, where symusic is not installed, pretty_midi's own
    sine waves, which have no drums. `folder` receives `reference.mid`, which is what is rendered.
    """
    path = folder / "reference.mid"
    write_midi(notes, path)
    if importlib.util.find_spec("symusic"):
        samples, name = _render_with_sound_font(path), "symusic, sound font TimGM6mb"
    else:
        pretty_midi = importlib.import_module("pretty_midi")
        samples, name = pretty_midi.PrettyMIDI(str(path)).synthesize(fs=SAMPLE_RATE_HZ), "sine waves, no drums"
    end = round((max(note.offset for note in notes) + TAIL_SECONDS) * SAMPLE_RATE_HZ)
    samples = np.asarray(samples, np.float32)[:end]
    return samples * np.float32(PEAK / np.abs(samples).max()), name


def _render_with_sound_font(path: Path) -> np.ndarray:
    symusic = importlib.import_module("symusic")
    pretty_midi = importlib.import_module("pretty_midi")
    sound_font = Path(str(pretty_midi.__file__)).with_name("TimGM6mb.sf2")
    synthesizer = symusic.Synthesizer(sf_path=str(sound_font), sample_rate=SAMPLE_RATE_HZ)
    return np.asarray(synthesizer.render(symusic.Score(str(path)), stereo=True)).mean(axis=0)
