"""The model directory, the form in which weights are exchanged: `config.json`, `model.safetensors`, `README.md`.

The arrays have PyTorch's names and shapes (see `parameters.py`), in float32 or bfloat16 (see `weights_file.py`).
Reading one runs no code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError, listed
from mt3core.files import atomic_directory
from mt3core.json_text import read_json
from mt3core.model.parameters import check_weights, torch_shapes
from mt3core.model.weights_file import check_stored_type, read_weights, write_weights

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
_CARD_HEADER = "---\n"  # a card written by a person starts with YAML, as on the Hugging Face hub
# What may differ between weights and config: settings that change no array and no array's meaning. The events written
# for a note (`onsets_only`) change no token's meaning, so a run may start with onsets only and continue with all; and
# ignoring some of the network's events (`shortest_repeat_seconds`) does not concern the network.
FREE_FIELDS = (
    *("dropout_rate", "input_frames", "max_target_tokens", "max_positions", "onsets_only"),
    "shortest_repeat_seconds",
)


def save_model_directory(
    directory: str | os.PathLike[str],
    config: ModelConfig,
    arrays: Mapping[str, np.ndarray],
    source: str = "",
    overwrite: bool = False,
    stored_type: str = "float32",
    card: str | None = None,
) -> None:
    """Writes a model completely or not at all; the same input gives the same bytes.

    Args:
        directory: must be absent or empty, unless `overwrite`.
        config: what the weights belong to.
        arrays: every array of the network by its PyTorch name, in PyTorch's shape.
        source: one line for the model card on the origin of the weights.
        overwrite: replace an existing directory.
        stored_type: type of the stored arrays: `float32` or, in half the bytes, `bfloat16`.
        card: the model card; without it, a short one is written.

    Raises `ModelError` if the arrays do not match the configuration, `OutputError` if it cannot be written,
    `UsageError` for another type.
    """
    directory = Path(directory)
    check_stored_type(stored_type)
    check_weights(config.network, arrays, "the weights to save")
    with atomic_directory(directory, overwrite=overwrite) as temporary:
        (temporary / CONFIG_FILE).write_text(config.to_text(), encoding="utf-8")
        write_weights(temporary / WEIGHTS_FILE, arrays, stored_type)
        if card is None:
            card = _model_card(config, arrays, source, stored_type)
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")


def load_model_directory(directory: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Reads a model: its configuration, and every array in float32 by its PyTorch name, in PyTorch's shape.

    Arrays stored as bfloat16 (or float16) become float32. Raises `ModelError` if the directory, a file of it
    or an array is missing, surplus, misshapen, truncated, of another element type or contains NaN or infinity.
    """
    directory = Path(directory)
    config = load_model_config(directory)
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{directory} has no {WEIGHTS_FILE}.", "Convert the model again: mt3 convert.")
    return config, read_weights(path, torch_shapes(config.network))


def read_card(directory: str | os.PathLike[str]) -> str | None:
    """The model card of a model directory if a person wrote it; None if there is none, or only the short one."""
    path = Path(directory) / CARD_FILE
    try:
        card = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return card if card.startswith(_CARD_HEADER) else None


def load_model_config(directory: str | os.PathLike[str]) -> ModelConfig:
    """Only the configuration of a model directory: a cheap check that a model exists. Raises `ModelError`."""
    directory = Path(directory)
    path = directory / CONFIG_FILE
    if not directory.exists():
        raise ModelError(f"There is no model at {directory}.", "Check the path, or make a model with mt3 convert.")
    if not path.is_file():
        raise ModelError(
            f"{directory} is not a model directory: {CONFIG_FILE} is missing.",
            "Use a folder written by mt3 convert, or convert these weights first.",
        )
    try:
        values = read_json(path)
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "Convert the model again: mt3 convert.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} contains no configuration.", "Convert the model again: mt3 convert.")
    return ModelConfig.from_dict(values)


def is_model_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` looks like a model directory, complete or damaged; a folder of Hugging Face's does not."""
    folder = Path(path)
    return (folder / CONFIG_FILE).is_file() and (folder / WEIGHTS_FILE).is_file() and not has_foreign_config(folder)


def has_foreign_config(folder: Path) -> bool:
    """Whether `config.json` is the configuration of a Hugging Face T5, which the PyTorch ports of MT3 use."""
    try:
        values = read_json(folder / CONFIG_FILE)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "format_version" not in values and "d_kv" in values


def check_fit(found: ModelConfig, wanted: ModelConfig, source: str) -> None:
    """Raises `ModelError` naming every difference that makes weights of one model useless to another."""
    differences = []
    for part in ("network", "spectrogram", "vocabulary"):
        theirs, ours = vars(getattr(found, part)), vars(getattr(wanted, part))
        differences += [
            f"{part}.{name} {_shown(theirs[name])} instead of {_shown(ours[name])}"
            for name in ours
            if theirs[name] != ours[name] and name not in FREE_FIELDS
        ]
    if differences:
        raise ModelError(
            f"The weights {source} do not match the config: they have {listed(differences)}.",
            "Train the matching model (--set model=PRESET, or --set model.network.NAME=VALUE), or use "
            "other weights with --init.",
        )


def _shown(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _model_card(config: ModelConfig, arrays: Mapping[str, np.ndarray], source: str, stored_type: str) -> str:
    """A short README.md. No date: the same model must give the same bytes."""
    network, vocabulary = config.network, config.vocabulary
    ties = "with" if vocabulary.ties else "without"
    count = sum(array.size for array in arrays.values())
    velocity = "one velocity" if vocabulary.velocity_bins == 1 else f"{vocabulary.velocity_bins} velocity steps"
    return f"""# {config.name}

A model for mt3kit: music recordings in, multi-instrument MIDI out.

- Weights from: {source or "not stated"}
- Network: T5, {network.num_encoder_layers} + {network.num_decoder_layers} layers, {count:,} parameters in {stored_type}
- Reads: {network.input_frames} frames of {network.input_bands} mel bands at {config.spectrogram.sample_rate_hz} Hz
- Writes: notes with {velocity}, programs `{vocabulary.program_granularity}`, {ties} ties

    mt3 transcribe song.mp3 --model PATH/TO/THIS/FOLDER

`{CONFIG_FILE}` holds all settings, `{WEIGHTS_FILE}` the arrays in PyTorch's names and shapes.
"""
