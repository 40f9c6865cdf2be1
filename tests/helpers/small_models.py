"""A model directory and recordings that the tests of the command line work with, made in no time."""

import dataclasses

import numpy as np
import soundfile

from mt3core.model.directory import save_model_directory

RATE_HZ = 16_000


def with_few_tokens(model, max_target_tokens=24):
    """The model with its output cut short: random weights would otherwise write a thousand tokens a segment."""
    config, arrays = model
    return dataclasses.replace(
        config, network=dataclasses.replace(config.network, max_target_tokens=max_target_tokens)
    ), arrays


def save_model(directory, model):
    """Writes a model directory; returns its path as text."""
    save_model_directory(directory, *with_few_tokens(model))
    return str(directory)


def write_wav(path, seconds=0.5, rate_hz=RATE_HZ, channels=1, subtype="PCM_16"):
    """A tone of 440 Hz, the same in all channels; the format follows from the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), rate_hz, subtype=subtype)
