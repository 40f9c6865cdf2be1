"""Finds a model by path, address or name, or the default one, and loads its weights, whatever their form.

The default is the first of these that exists; the network is never used for it:

    the environment variable MT3_MODEL     a path, an address or a name
    models/mt3                             in the current folder, then in the user's data folder
    small                                  ships with mt3kit, in `mt3core/models`

A model directory is read here. T5X and Orbax checkpoints, files of PyTorch ports and addresses are read by
`mt3convert`, imported only for them: the one place where this package reaches above itself.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError
from mt3core.files import expanded
from mt3core.model.directory import is_model_directory, load_model_directory, read_card

MODEL_VARIABLE = "MT3_MODEL"
SHIPPED_NAME = "small"
PUBLISHED_NAME = "mt3"
# Magenta's bucket; the code that reads them: magenta/mt3, colab/music_transcription_with_transformers.ipynb.
PUBLISHED = {name: f"gs://mt3/checkpoints/{name}" for name in (PUBLISHED_NAME, "ismir2021")}
SCHEMES = ("gs", "https", "http")

GET_PUBLISHED = f"mt3 convert {PUBLISHED[PUBLISHED_NAME]} models/{PUBLISHED_NAME}"
_GET_ONE = f"Get the published model: {GET_PUBLISHED}; or set --model or {MODEL_VARIABLE}."
# Called with the number of files done and the total, while an address is downloaded.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FoundModel:
    """A model that was found: `source`, a path or an address, is for `load_weights`.

    `remark` tells the user which model it is and how to get the published one; empty if the user has named it.
    """

    source: str
    remark: str = ""


@dataclass(frozen=True)
class LoadedWeights:
    """A model in memory: every array in float32 by PyTorch's name in PyTorch's shape.

    `kind` is the form of the source (see `mt3convert.sources`). `notes` are what the user should know about its
    conversion, and `card` is the model card written by a person, if there is one.
    """

    config: ModelConfig
    arrays: Mapping[str, np.ndarray]
    kind: str
    notes: tuple[str, ...] = ()
    card: str | None = None


def find_model(model: str | os.PathLike[str] | None = None) -> FoundModel:
    """Finds the model.

    An address or an existing path is used unchanged. A name is looked for as `models/NAME` in the current folder and
    in the user's data folder, then among the models that ship. A published name that is not found becomes its address,
    which `load_weights` downloads once; only naming it does that. For None see above. Raises `ModelError`.
    """
    if model is not None:
        return FoundModel(_find_given(os.fspath(model)))
    if given := os.environ.get(MODEL_VARIABLE):
        try:
            return FoundModel(_find_given(given), f"Using the model {given} ({MODEL_VARIABLE}).")
        except ModelError as error:
            raise ModelError(f"{MODEL_VARIABLE}: {error.problem}", error.next_step) from None
    if installed := _find_installed(PUBLISHED_NAME):
        return FoundModel(installed, f"Using the model {installed}.")
    if shipped := _find_shipped(SHIPPED_NAME):
        remark = f"Using the model {SHIPPED_NAME}, which ships with mt3kit. To use Magenta's: {GET_PUBLISHED}"
        return FoundModel(shipped, remark)
    raise ModelError("No model was found, and none ships with this copy of mt3kit.", _GET_ONE)


def load_weights(source: str | os.PathLike[str], progress: Progress | None = None) -> LoadedWeights:
    """The weights at a path or an address, in any form; an address is downloaded once, `progress` counting its files.

    Raises `ModelError` for what is missing, incomplete, damaged or of an unknown form.
    """
    if not is_address(source) and is_model_directory(source):
        config, arrays = load_model_directory(source)
        return LoadedWeights(config, arrays, "model_directory", card=read_card(source))
    from mt3convert.sources import load

    return load(source, progress)


def load_pretrained(model: str | os.PathLike[str] | None = None) -> tuple[ModelConfig, Mapping[str, np.ndarray]]:
    """Configuration and arrays of the model that `find_model` finds, as `load_weights` reads it.

    What the user should know about a conversion becomes a `UserWarning`.
    """
    weights = load_weights(find_model(model).source)
    for note in weights.notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    return weights.config, weights.arrays


def is_address(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is an address rather than a path."""
    return isinstance(source, str) and "://" in source and source.split("://")[0] in SCHEMES


def models_here() -> list[Path]:
    """Everything in the folders where models are looked for by name; those that ship come last."""
    folders = [folder for folder in (*_model_folders(), shipped_folder()) if folder.is_dir()]
    return [entry for folder in folders for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]


def shipped_folder() -> Path:
    """The folder of the models that ship with this package."""
    return Path(__file__).parents[1] / "models"


def _find_given(given: str) -> str:
    if is_address(given):
        return given
    path = expanded(given)
    if os.path.exists(path):
        return given if path == Path(given) else str(path)
    found = _find_installed(given) or _find_shipped(given) or PUBLISHED.get(given)
    if found:
        return found
    if given == SHIPPED_NAME:
        raise ModelError(f"The model {SHIPPED_NAME} does not ship with this copy of mt3kit.", _GET_ONE)
    raise ModelError(
        f"Model {given!r} was not found: there is no such path, and no folder of that name in "
        f"{' or '.join(map(str, _model_folders()))}.",
        _GET_ONE,
    )


def _find_installed(name: str) -> str | None:
    candidates = (folder / name for folder in _model_folders())
    return next((str(path) for path in candidates if path.exists()), None)


def _find_shipped(name: str) -> str | None:
    path = shipped_folder() / name
    return str(path) if path.parent == shipped_folder() and is_model_directory(path) else None


def _model_folders() -> tuple[Path, Path]:
    return Path("models"), Path(platformdirs.user_data_dir("mt3kit"), "models")
