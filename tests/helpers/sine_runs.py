"""Short training runs: pieces of sine waves as prepared data, a network that learns them, and a program to be killed.

python tests/helpers/sine_runs.py DATA RUN STEPS [path=value ...]
"""

import sys
from pathlib import Path

import numpy as np
from prepared_chunks import Recording, prepare

from mt3core.config.data import DatasetChoice
from mt3core.config.files import apply_changes
from mt3core.config.model import ModelConfig, NetworkConfig, SpectrogramConfig
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    OptimizerConfig,
    ReportConfig,
    TrainingConfig,
    ValidationConfig,
)
from mt3core.notes.table import note_table
from mt3data.prepare.chunks import SAMPLE_RATE_HZ
from mt3render.sines import play_sines

# A second of 128 frames, so that a piece shorter than that is one segment and always begins at its start.
SMALL = ModelConfig(
    name="small",
    network=NetworkConfig(
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        head_dim=32,
        emb_dim=64,
        mlp_dim=128,
        input_frames=128,
        input_bands=128,
        max_target_tokens=64,
        max_positions=128,
    ),
    spectrogram=SpectrogramConfig(mel_bands=128),
)


def piece(seed, seconds=1.0, program=0):
    """Five notes of one instrument: (onset, offset, pitch, velocity, program, is_drum) in seconds."""
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.choice(np.arange(0, int((seconds - 0.2) * 10)), 5, replace=False)) / 10
    pitches = rng.choice(np.arange(48, 84), 5, replace=False)
    return [[t, t + 0.15, int(p), 100, program, False] for t, p in zip(onsets.tolist(), pitches, strict=True)]


def piece_audio(notes, seconds=1.0):
    """A piece as sine waves, int16 at 16 kHz."""
    audio = play_sines(note_table(notes), False, int(seconds * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    return (audio / np.abs(audio).max() * 20_000).astype(np.int16)


def sine_pieces(folder, num_train=6, num_validation=2):
    """Prepares pieces 0, 1, ... in `train` and 1000, 1001, ... in `validation`; returns the manifest's path."""
    recordings = []
    for seed in [*range(num_train), *range(1000, 1000 + num_validation)]:
        notes = piece(seed)
        split = "train" if seed < 1000 else "validation"
        recordings.append(Recording(f"piece{seed}", piece_audio(notes), notes, dataset="folder", split=split))
    return prepare(folder, recordings)


def small_run(manifest, num_steps, *changes):
    """A run of the small network on these pieces, each alone; `changes` as for --set."""
    config = TrainingConfig(
        name="small",
        model=SMALL,
        num_steps=num_steps,
        data=DataConfig(manifest=str(manifest), datasets=(DatasetChoice("folder", across=0.0),)),
        batch=BatchConfig(examples=4, block_tokens=16),
        optimizer=OptimizerConfig(kind="adamw", learning_rate=2e-3, schedule="constant", warmup_steps=20),
        checkpoint=CheckpointConfig(every_steps=5, keep_last=3),
        validation=ValidationConfig(every_steps=0),
        report=ReportConfig(every_steps=1, tensorboard=False),
    )
    return apply_changes(config, changes)


def main():
    from mt3jax.train import train

    data, run, steps, *changes = sys.argv[1:]
    result = train(small_run(Path(data), int(steps), *changes), run, say=lambda line: print(line, flush=True))
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()
