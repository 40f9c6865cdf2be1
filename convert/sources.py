"""Sources and destinations of weights: recognising a source, loading it, converting.

t5x               a directory with `checkpoint` (and zarr arrays), as Magenta publishes MT3
model_directory   `config.json` and `model.safetensors`, as `mt3 convert` writes it
orbax             an Orbax checkpoint, or a training run's folder of them
port              a file of a PyTorch port (a pickle of PyTorch or safetensors, whatever its name), or a folder with one
remote            `gs://` or `https://` address of a T5X or model directory
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mt3convert import orbax, remote, t5x, torch_port
from mt3convert.recognise import guess_note
from mt3convert.weight_files import SUFFIXES, form_of_file
from mt3core.config.model import PRESETS, ModelConfig
from mt3core.errors import ModelError, OutputError, UsageError, listed
from mt3core.model.directory import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    has_foreign_config,
    is_model_directory,
    load_model_directory,
    read_card,
    save_model_directory,
)
from mt3core.model.parameters import check_finite
from mt3core.model.search import PUBLISHED, LoadedWeights, Progress, find_model, is_address
from mt3core.model.weights_file import check_stored_type

Kind = Literal["t5x", "model_directory", "orbax", "port", "remote"]
DestinationKind = Literal["t5x", "model_directory", "orbax", "port"]
# Of the files in a folder, those that Hugging Face's programs name so are the network.
_USUAL_NAMES = (WEIGHTS_FILE, "pytorch_model.bin")
# Forms of other programs, which would not read what is written under such a name.
_FOREIGN = (".onnx", ".tflite", ".mlmodel", ".mlpackage", ".gguf", ".ggml", ".h5", ".hdf5", ".keras", ".pb", ".engine")
DESTINATION_KINDS: tuple[DestinationKind, ...] = ("model_directory", "t5x", "orbax", "port")


@dataclass(frozen=True)
class ConversionReport:
    """The result of `convert`."""

    source: str
    source_kind: str
    destination: Path
    destination_kind: DestinationKind
    config: ModelConfig
    num_arrays: int
    num_parameters: int
    notes: tuple[str, ...]


def identify(source: str | os.PathLike[str]) -> Kind:
    """The kind of a source, by its form and the files in it, without reading them. Raises `ModelError`."""
    if is_address(source):
        return "remote"
    path = Path(source)
    if not path.exists():
        raise ModelError(f"There is no model at {path}.", "Check the path, or make a model with mt3 convert.")
    if path.is_file():
        kind = _kind_of_file(path)
    elif is_model_directory(path):
        kind = "model_directory"
    elif t5x.is_t5x_directory(path):
        kind = "t5x"
    elif orbax.is_orbax_directory(path):
        kind = "orbax"
    elif (path / WEIGHTS_FILE).is_file() and not has_foreign_config(path):
        kind = "model_directory"
    elif _weight_files(path):
        kind = "port"
    else:
        kind = "model_directory" if (path / CONFIG_FILE).is_file() else None
    if kind is None:
        raise ModelError(
            f"{path} is not in a known form of weights.",
            "Use a T5X directory, a model directory, an Orbax checkpoint, or a file of a PyTorch port.",
        )
    return kind


def _kind_of_file(path: Path) -> Kind | None:
    """By its content; by its name if that says nothing, so that the message says what is wrong with it."""
    if form_of_file(path):
        return "port"
    if path.name == t5x.TREE_FILE:
        return "t5x"
    return "port" if path.suffix.lower() in SUFFIXES else None


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _port_file(path: Path) -> Path:
    """The one file of weights in a folder, or the file itself. Raises `ModelError` if there are several."""
    if path.is_file():
        return path
    found = _weight_files(path)
    usual = [one for one in found if one.name in _USUAL_NAMES]
    if len(found) > 1 and len(usual) != 1:
        raise ModelError(
            f"{path} contains several files of weights: {listed([one.name for one in found])}.",
            f"Name one of them: {found[0]}.",
        )
    return usual[0] if usual else found[0]


def load(source: str | os.PathLike[str], progress: Progress | None = None) -> LoadedWeights:
    """Loads weights of any kind; a remote source is downloaded into the cache first, `progress` counting its files.

    Raises `ModelError` for weights that are missing, incomplete or damaged, or contain values that are not finite.
    """
    kind = identify(source)
    if kind == "remote":
        local = remote.fetch(str(source), progress)
        loaded = load(local)
        return replace(loaded, kind="remote")
    path, card, is_guessed = Path(source), None, False
    notes: list[str] = []
    if kind == "t5x":
        folder = path.parent if path.is_file() else path
        config, arrays = t5x.read_t5x(folder)
        # Magenta's own checkpoints have no configuration either.
        is_guessed = not (folder / CONFIG_FILE).is_file() and config not in PRESETS.values()
    elif kind == "orbax":
        config, arrays = orbax.read_orbax(path)
        is_guessed = not orbax.has_config(path)
    elif kind == "port":
        config, arrays, notes = torch_port.read_port(_port_file(path))
    else:
        config, arrays = load_model_directory(path)
        card = read_card(path)
    if is_guessed:
        notes.append(guess_note(config))
    if kind != "model_directory":  # which is checked when it is read
        check_finite(arrays, path)
    return LoadedWeights(config, arrays, kind, tuple(notes), card)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    overwrite: bool = False,
    to: DestinationKind | None = None,
    progress: Progress | None = None,
    stored_type: str | None = None,
) -> ConversionReport:
    """Loads `source`, a name, a path or an address, and writes `destination`, completely or not at all.

    The kind of the destination is `to`, or follows from its name: `.pth` for the ports' form, `.orbax` for Orbax, none
    for a model directory. Only the last can be stored as another `stored_type` than float32. Its card is the source's,
    if that is a model directory with a card. Raises `ModelError` for the source, `OutputError` for the destination,
    `UsageError` for a form that cannot be written.
    """
    destination = Path(destination)
    if to is not None and to not in DESTINATION_KINDS:
        raise UsageError(f"Weights cannot be written as {to!r}.", f"Choose {', '.join(DESTINATION_KINDS)}.")
    kind = _destination_kind(destination, to)
    if stored_type is not None:
        check_stored_type(stored_type)
        if kind != "model_directory":
            raise UsageError(f"Weights of kind {kind!r} cannot be stored as another type.", "Leave --dtype out.")
    _check_free(destination, overwrite)
    source = _named(os.fspath(source), destination)
    loaded = load(source, progress)
    if kind == "port":
        torch_port.write_port(destination, loaded.config, loaded.arrays)
    elif kind == "orbax":
        orbax.write_orbax(destination, loaded.config, loaded.arrays, overwrite=overwrite)
    elif kind == "t5x":
        t5x.write_t5x(destination, loaded.config, loaded.arrays, overwrite=overwrite)
    else:
        shown = source if loaded.kind == "remote" else f"{Path(source).name} ({loaded.kind})"
        save_model_directory(
            destination,
            loaded.config,
            loaded.arrays,
            source=shown,
            overwrite=overwrite,
            stored_type=stored_type or "float32",
            card=loaded.card,
        )
    return ConversionReport(
        source=source,
        source_kind=loaded.kind,
        destination=destination,
        destination_kind=kind,
        config=loaded.config,
        num_arrays=len(loaded.arrays),
        num_parameters=sum(array.size for array in loaded.arrays.values()),
        notes=loaded.notes,
    )


def _named(source: str, destination: Path) -> str:
    """What a name means as `--model`; if that is the destination itself, the published model, to get it again."""
    found = find_model(source).source
    return PUBLISHED[source] if source in PUBLISHED and Path(found) == destination else found


def _destination_kind(destination: Path, to: DestinationKind | None) -> DestinationKind:
    """`to`, or by the ending. Raises `UsageError` for an ending that promises another form than would be written."""
    suffix = destination.suffix.lower()
    if suffix in _FOREIGN:
        raise UsageError(
            f"Weights cannot be written as {suffix}, as {destination} asks for.",
            "Name a folder for a model directory, or a .pth file for the PyTorch ports; for ONNX use mt3 export.",
        )
    if to is not None:
        return to
    if suffix in (".pth", ".pt"):
        return "port"
    if suffix == ".orbax":
        return "orbax"
    # A name may contain a version: `mt3-1.2`, `mine.v2`.
    if destination.is_dir() or not re.fullmatch(r"\.[a-z]\w*", suffix) or re.fullmatch(r"\.v\d+", suffix):
        return "model_directory"
    raise UsageError(
        f"{destination} ends in {suffix}, a form in which weights cannot be written.",
        "Name a folder for a model directory (with --to model_directory its name may end in anything), or a .pth "
        "file for the PyTorch ports.",
    )


def _check_free(destination: Path, overwrite: bool) -> None:
    """A check before anything is loaded; an empty directory is accepted."""
    taken = destination.exists() and (destination.is_file() or any(destination.iterdir()))
    if taken and not overwrite:
        raise OutputError(f"{destination} already exists.", "Choose another path, or use --overwrite.")
