"""What the campaign works with: a model of random weights, a few short recordings with notes, a run of two steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from mt3core.config.model import MT3, ModelConfig
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    OptimizerConfig,
    ReportConfig,
    TrainingConfig,
    ValidationConfig,
)
from mt3core.model.parameters import parameters
from mt3core.notes.midi_writing import write_midi
from mt3core.notes.table import note_table

RATE_HZ = 16_000


def tiny_model(max_target_tokens: int = 24) -> ModelConfig:
    """One layer on either side, and segments of a second; random weights would otherwise write a thousand tokens."""
    network = dataclasses.replace(
        MT3.network,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_heads=1,
        emb_dim=8,
        mlp_dim=16,
        input_bands=16,
        input_frames=128,
        max_target_tokens=max_target_tokens,
        max_positions=128,
    )
    spectrogram = dataclasses.replace(MT3.spectrogram, mel_bands=16)
    return dataclasses.replace(MT3, name="tiny", network=network, spectrogram=spectrogram)


def random_arrays(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by PyTorch name."""
    rng = np.random.default_rng(seed)
    return {p.torch_name: rng.standard_normal(p.torch_shape, np.float32) for p in parameters(config.network)}


def write_pairs(folder: Path, count: int = 4, seconds: float = 1.2) -> None:
    """Recordings of a tone with MIDI files of the same names, in train and validation."""
    for number in range(count):
        place = folder / ("validation" if number == count - 1 and count > 1 else "train")
        place.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
        noise = np.random.default_rng(number).normal(0, 0.02, len(time))
        samples = 0.3 * np.sin(2 * np.pi * 110 * (number + 2) * time) + noise
        soundfile.write(place / f"piece{number}.wav", samples, RATE_HZ, subtype="PCM_16")
        rows = [(t / 4, t / 4 + 0.2, 50 + 3 * t + number, 80, number, False) for t in range(int(seconds * 4))]
        write_midi(note_table(rows), place / f"piece{number}.mid")


def tiny_run(manifest: str, num_steps: int = 4) -> TrainingConfig:
    """A run that saves a checkpoint every other step."""
    return TrainingConfig(
        name="tiny",
        model=tiny_model(max_target_tokens=64),
        num_steps=num_steps,
        data=DataConfig(manifest=manifest),
        batch=BatchConfig(examples=2, block_tokens=16),
        optimizer=OptimizerConfig(kind="adamw", learning_rate=1e-3, warmup_steps=2),
        checkpoint=CheckpointConfig(every_steps=2, keep_last=2),
        validation=ValidationConfig(every_steps=0),
        report=ReportConfig(every_steps=1, tensorboard=False),
    )
