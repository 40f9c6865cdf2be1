"""The model directory, the form in which weights travel: `config.json`, `model.safetensors`, `README.md`.

The arrays carry PyTorch's names and shapes (see `parameters.py`), in float32. Reading runs no code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from mt3core.config import ModelConfig
from mt3core.errors import ModelError
from mt3core.files import atomic_directory
from mt3core.parameters import check_arrays, parameters

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

# How safetensors writes the element types that are read; all become float32, which holds each exactly.
_READABLE: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# Of a network, what may differ between weights and config: it changes no array and no array's meaning.
FREE_FIELDS = ("dropout_rate", "input_frames", "max_target_tokens", "max_positions")


def save_model_directory(
    directory: str | os.PathLike[str],
    config: ModelConfig,
    arrays: Mapping[str, np.ndarray],
    source: str = "",
    overwrite: bool = False,
) -> None:
    """Writes a model whole or not at all; the same input gives the same bytes.

    Args:
        directory: must be absent or empty, unless `overwrite`.
        config: what the weights belong to.
        arrays: every array of the network by its PyTorch name, in PyTorch's shape; stored as float32.
        source: one line for the model card, where the weights come from.
        overwrite: replace what is there.

    Raises `ModelError` where the arrays do not fit the configuration, `OutputError` where it cannot be written.
    """
    directory = Path(directory)
    check_arrays(_expected_shapes(config), {name: array.shape for name, array in arrays.items()}, "the weights to save")
    ordered = {name: np.ascontiguousarray(arrays[name], np.float32) for name in sorted(arrays)}
    with atomic_directory(directory, overwrite=overwrite) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        save_file(ordered, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        # safetensors lets only the owner read its file; the user's own rules hold for it as for the others.
        shutil.copymode(temporary / CONFIG_FILE, temporary / WEIGHTS_FILE)
        (temporary / CARD_FILE).write_text(_model_card(config, ordered, source), encoding="utf-8")


def load_model_directory(directory: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Reads a model: its configuration, and every array in float32 by its PyTorch name, in PyTorch's shape.

    Arrays stored as float16 or bfloat16 become float32. Raises `ModelError` where the directory, a file of it
    or an array is missing, surplus, misshapen, cut off, of another element type or holds NaN or infinity.
    """
    directory = Path(directory)
    config = load_config(directory)
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{directory} has no {WEIGHTS_FILE}.", "Convert the model again: mt3 convert.")
    with _readable_weights(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        check_arrays(_expected_shapes(config), shapes, str(path))
        types = {name: part.get_dtype() for name, part in slices.items()}
    return config, _read_arrays(path, types)


def load_config(directory: str | os.PathLike[str]) -> ModelConfig:
    """Only the configuration of a model directory: a cheap check that a model is there. Raises `ModelError`."""
    directory = Path(directory)
    path = directory / CONFIG_FILE
    if not directory.exists():
        raise ModelError(f"There is no model at {directory}.", "Check the path, or make one with mt3 convert.")
    if not path.is_file():
        raise ModelError(
            f"{directory} is no model directory: it has no {CONFIG_FILE}.",
            "Give a folder that mt3 convert has written, or convert these weights first.",
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}.", "Convert the model again: mt3 convert.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds no configuration.", "Convert the model again: mt3 convert.")
    return ModelConfig.from_dict(values)


def is_model_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` looks like a model directory, without reading it."""
    return (Path(path) / CONFIG_FILE).is_file() and (Path(path) / WEIGHTS_FILE).is_file()


def check_fit(found: ModelConfig, wanted: ModelConfig, source: str) -> None:
    """Raises `ModelError` naming every difference that makes weights of one model useless to another."""
    differences = []
    for part in ("network", "spectrogram", "vocabulary"):
        theirs, ours = _fields(getattr(found, part)), _fields(getattr(wanted, part))
        differences += [
            f"{part}.{name} {_shown(theirs[name])} instead of {_shown(ours[name])}"
            for name in ours
            if theirs[name] != ours[name] and name not in FREE_FIELDS
        ]
    if differences:
        raise ModelError(
            f"The weights {source} do not fit the config: they have {', '.join(differences)}.",
            "Train the model they belong to (--set model=PRESET, or --set model.network.NAME=VALUE), or start from "
            "others with --init.",
        )


def _fields(values: Any) -> dict[str, Any]:
    return {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}


def _shown(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {parameter.torch_name: parameter.torch_shape for parameter in parameters(config.network)}


@contextlib.contextmanager
def _readable_weights(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is broken or cut off: {error}.", "Copy or convert the model again: mt3 convert."
        ) from error


def _read_arrays(path: Path, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    unreadable = sorted(f"{name} ({kind})" for name, kind in types.items() if kind not in _READABLE)
    if unreadable:
        raise ModelError(f"{path} has arrays of another type than float32, float16, bfloat16: {', '.join(unreadable)}.")
    with _readable_weights(path) as file:
        if "BF16" in types.values():  # no such type in NumPy: take the bytes as they are
            stored = deserialize(path.read_bytes())
            arrays = {name: _to_float32(part["data"], part["dtype"], part["shape"]) for name, part in stored}
        else:
            arrays = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in types}
    not_finite = sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
    if not_finite:
        raise ModelError(
            f"{path} holds values that are no numbers (NaN or infinite) in {', '.join(not_finite)}.",
            "Use an earlier checkpoint: training has diverged, or the file is damaged.",
        )
    return arrays


def _to_float32(data: bytes, kind: str, shape: list[int]) -> np.ndarray:
    stored = np.frombuffer(data, _READABLE[kind]).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _model_card(config: ModelConfig, arrays: Mapping[str, np.ndarray], source: str) -> str:
    """A short README.md. No date: the same model must give the same bytes."""
    network, vocabulary = config.network, config.vocabulary
    ties = "with" if vocabulary.ties else "without"
    count = sum(array.size for array in arrays.values())
    velocity = "one velocity" if vocabulary.velocity_bins == 1 else f"{vocabulary.velocity_bins} velocity steps"
    return f"""# {config.name}

A model for mt3kit: music recordings in, multi-instrument MIDI out.

- Weights from: {source or "not stated"}
- Network: T5, {network.num_encoder_layers} + {network.num_decoder_layers} layers, {count:,} parameters
- Reads: {network.input_frames} frames of {network.input_bands} mel bands at {config.spectrogram.sample_rate_hz} Hz
- Writes: notes with {velocity}, programs `{vocabulary.program_granularity}`, {ties} ties

    mt3 transcribe song.mp3 --model PATH/TO/THIS/FOLDER

`{CONFIG_FILE}` holds all settings, `{WEIGHTS_FILE}` the arrays in PyTorch's names and shapes.
"""
