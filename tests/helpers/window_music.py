"""Notes, and what a perfect network writes of them for each window: for the tests of overlapping windows."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st

from mt3core.config.model import ISMIR2021, MT3, MULTITRACK, ModelConfig, VocabularyConfig
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.table import Note, note_table

SMALL = dataclasses.replace(
    MT3,
    network=dataclasses.replace(MT3.network, input_frames=32, input_bands=256, max_target_tokens=128, vocab_size=640),
    spectrogram=dataclasses.replace(MT3.spectrogram, hop_samples=256, mel_bands=256),
    vocabulary=VocabularyConfig(
        steps_per_second=50, max_shift_seconds=2, program_granularity="midi_class", shortest_repeat_seconds=0.05
    ),
)
CONFIGS = {"mt3": MT3, "multitrack": MULTITRACK, "no ties": ISMIR2021, "small": SMALL}
RATE_HZ = 16_000


def written(config: ModelConfig, notes: list[Note], piece) -> np.ndarray:
    """What a perfect network writes for a window: onsets and ends in it, and what sounds at its start."""
    encoder = SegmentEncoder(config.vocabulary, config.spectrogram.frames_per_second)
    return encoder.tokens(encoder.segment(note_table(notes), piece.first_frame, piece.num_frames))


def on_grid(config: ModelConfig, notes: list[Note]) -> set[tuple]:
    step = 1 / config.vocabulary.steps_per_second
    return {(round(n.onset / step), round(n.offset / step), n.pitch, n.program, n.is_drum) for n in notes}


@st.composite
def pieces(draw):
    """Notes on the grid of both vocabularies that do not meet notes of their own pitch."""
    notes = []
    for pitch in draw(st.lists(st.integers(30, 60), min_size=1, max_size=8, unique=True)):
        time = 0.0
        for _ in range(draw(st.integers(1, 4))):
            onset = time + 0.02 * draw(st.integers(5, 80))
            time = onset + 0.02 * draw(st.integers(5, 200))
            notes.append(Note(onset, time, pitch, 127, 8 * draw(st.integers(0, 3)), False))
    for hit in draw(st.lists(st.integers(0, 400), max_size=6, unique=True)):
        notes.append(Note(0.1 * hit / 5, 0.1 * hit / 5 + 0.01, 36 + hit % 3, 127, 0, True))
    return notes
