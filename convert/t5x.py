"""T5X checkpoint directories, the form in which Magenta publishes MT3: reading and writing.

A directory has `checkpoint`, a msgpack tree `optimizer.target...` with small arrays inline (as Flax serialises
them: extension type 1 or 3 around shape, type name and bytes) and, for every large array, a TensorStore spec
instead: the array is next to it as gzipped zarr, `target.decoder.logits_dense.kernel/`. The optimizer's state
is ignored. Format: t5x `checkpoints.py` (version 3) and flax `serialization.py`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mt3convert.recognise import recognise_config
from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError, listed
from mt3core.extras import needed
from mt3core.files import atomic_directory
from mt3core.json_text import read_json
from mt3core.model.parameters import Parameter, check_arrays, check_weights, parameters

TREE_FILE = "checkpoint"
# Not part of T5X: written by `write_t5x`, since heads, activations and the vocabulary do not show in the arrays.
CONFIG_FILE = "config.json"
FORMAT_VERSION = 3
_ARRAY, _SCALAR = 1, 3
_GZIP_START, _BLOCK_BYTES = b"\x1f\x8b", 1 << 20
_AGAIN = "Download or copy the checkpoint again."


def read_t5x(path: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Configuration and weights of a local T5X directory.

    Returns every array in float32 by PyTorch's name, in PyTorch's shape. The configuration comes from
    `config.json` if there is one, else from the arrays (`recognise.py`). Raises `ModelError`, naming every
    affected array, if arrays are missing, surplus, misshapen or truncated.
    """
    directory = Path(path)
    leaves = dict(_flatten(_read_tree(directory)))
    config = _read_config(directory) or recognise_config(
        {_flax_name(name): _leaf_shape(leaf) for name, leaf in leaves.items()}, str(directory)
    )
    table = parameters(config.network)
    check_arrays({p.t5x_name: p.shape for p in table}, _found_shapes(directory, leaves), str(directory))
    if unnamed := [p.t5x_name for p in table if p.t5x_name not in leaves]:
        raise ModelError(f"The checkpoint file in {directory} does not name {listed(unnamed)}.", _AGAIN)
    return config, _read_all(table, lambda p: _read_array(directory, p.t5x_name, leaves[p.t5x_name]))


def write_t5x(
    path: str | os.PathLike[str],
    config: ModelConfig,
    arrays: Mapping[str, np.ndarray],
    step: int = 0,
    overwrite: bool = False,
) -> None:
    """Writes a T5X directory, completely or not at all: norms inline, the rest as zarr, and `config.json`.

    Args:
        path: the directory, which must be absent or empty unless `overwrite`.
        config: what the weights belong to.
        arrays: every array of the network by its PyTorch name, in PyTorch's shape.
        step: the number of training steps, kept in the state.
        overwrite: replace an existing directory.
    """
    table = parameters(config.network)
    check_weights(config.network, arrays, "the weights")
    with atomic_directory(path, overwrite=overwrite) as directory:
        target: dict[str, Any] = {}
        for parameter in table:
            array = parameter.flip(np.asarray(arrays[parameter.torch_name], np.float32))
            *parents, leaf = parameter.t5x_name.split(".")[1:]
            branch = target
            for part in parents:
                branch = branch.setdefault(part, {})
            inline = parameter.kind == "norm"
            branch[leaf] = _pack_array(array) if inline else _write_zarr(directory, parameter.t5x_name, array)
        state = {"step": _pack_array(np.asarray(step, np.int32))}
        tree = {"version": FORMAT_VERSION, "optimizer": {"state": state, "target": target}}
        (directory / TREE_FILE).write_bytes(_msgpack().packb(tree))
        (directory / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def is_t5x_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` looks like a T5X directory, complete or not, without reading it."""
    directory = Path(path)
    return (directory / TREE_FILE).is_file() or any(directory.glob("target.*"))


def unpack_tree(packed: bytes, where: str) -> dict[str, Any]:
    """Content of a `checkpoint` file below `target`: leaves are arrays or TensorStore specs. Raises `ModelError`."""
    msgpack = _msgpack()
    try:
        tree = msgpack.unpackb(packed, ext_hook=_unpack_extension, raw=False, strict_map_key=False)
        target = tree["optimizer"]["target"]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ModelError(
            f"{where} is damaged or not a T5X checkpoint ({error or type(error).__name__}).", _AGAIN
        ) from error
    if not isinstance(target, dict):
        raise ModelError(f"{where} is not a T5X checkpoint: its target is not a tree.", _AGAIN)
    return target


def zarr_files(tree_file: bytes, where: str) -> list[str]:
    """The files, relative to the directory, that contain a `checkpoint` file's weights, besides that file.

    Chunk numbers follow from shape and chunk size; MT3's arrays have one chunk each.
    """
    names: list[str] = []
    for name, leaf in _flatten(unpack_tree(tree_file, where)):
        if isinstance(leaf, dict):
            try:
                sizes, chunks = leaf["metadata"]["shape"], leaf["metadata"]["chunks"]
                counts = [-(-size // chunk) for size, chunk in zip(sizes, chunks, strict=True)]
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise ModelError(f"{where} does not say how {name} is stored.", _AGAIN) from error
            names.append(f"{name}/.zarray")
            names.extend(f"{name}/{'.'.join(map(str, place))}" for place in np.ndindex(*counts))
    return names


def import_tensorstore() -> Any:
    """Raises `MissingExtraError` if it is not installed."""
    with needed("convert", "A T5X checkpoint"):
        import tensorstore
    return tensorstore


def _msgpack() -> Any:
    with needed("convert", "A T5X checkpoint"):
        import msgpack
    return msgpack


def _read_tree(directory: Path) -> dict[str, Any]:
    path = directory / TREE_FILE
    if not path.is_file():
        raise ModelError(
            f"{directory} is not a T5X checkpoint: it has no file {TREE_FILE!r}.",
            "Use the folder that contains it, for example gs://mt3/checkpoints/mt3.",
        )
    return unpack_tree(path.read_bytes(), str(path))


def _unpack_extension(code: int, data: bytes) -> np.ndarray:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"unknown extension type {code}")
    shape, type_name, content = _msgpack().unpackb(data, raw=False)
    return np.frombuffer(content, import_tensorstore().dtype(type_name).numpy_dtype).reshape(shape)


def _pack_array(array: np.ndarray) -> Any:
    msgpack = _msgpack()
    return msgpack.ExtType(_ARRAY, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def _flatten(tree: Mapping[str, Any], prefix: str = "target") -> Iterator[tuple[str, Any]]:
    """Names as T5X writes them, and leaves; a TensorStore spec is the dictionary that names its driver."""
    for part, value in tree.items():
        name = f"{prefix}.{part}"
        if isinstance(value, dict) and "driver" not in value:
            yield from _flatten(value, name)
        else:
            yield name, value


def _flax_name(t5x_name: str) -> str:
    return re.sub(r"layers_(\d+)", r"layers.\1", t5x_name.removeprefix("target."))


def _leaf_shape(leaf: Any) -> tuple[int, ...]:
    if isinstance(leaf, np.ndarray):
        return leaf.shape
    try:
        return tuple(leaf["metadata"]["shape"])
    except (TypeError, KeyError):
        return ()


def _found_shapes(directory: Path, leaves: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that really exist: inline ones, and zarr folders by their own `.zarray`."""
    found = {name: leaf.shape for name, leaf in leaves.items() if isinstance(leaf, np.ndarray)}
    for folder in directory.glob("target.*"):
        if (folder / ".zarray").is_file():
            found[folder.name] = _zarr_shape(folder / ".zarray")
    return found


def _zarr_shape(path: Path) -> tuple[int, ...]:
    try:
        return tuple(read_json(path)["shape"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}).", _AGAIN) from error


def _read_config(directory: Path) -> ModelConfig | None:
    path = directory / CONFIG_FILE
    if not path.is_file():
        return None
    try:
        return ModelConfig.from_dict(read_json(path))
    except ValueError as error:
        raise ModelError(
            f"{path} is not a configuration ({error}).", "Remove it, or convert the model again."
        ) from error


def _read_all(table: list[Parameter], read: Callable[[Parameter], np.ndarray]) -> dict[str, np.ndarray]:
    """All arrays; collects the damaged ones, so that one message names them all."""
    arrays, damaged = {}, []
    for parameter in table:
        try:
            arrays[parameter.torch_name] = parameter.flip(np.require(read(parameter), np.float32, "W"))
        except (ValueError, OSError) as error:
            damaged.append(f"{parameter.t5x_name} ({_reason(error)})")
    if damaged:
        raise ModelError(f"Damaged or truncated ({len(damaged)}): {listed(damaged)}.", _AGAIN)
    return arrays


def _reason(error: Exception) -> str:
    """The gist of TensorStore's message, which names the file at length and ends with source positions."""
    message = str(error).splitlines()[0].split(" [")[0]
    if "NOT_FOUND: chunk" in message:
        return "a chunk is missing"
    return re.sub(r'^.*Error \w+ (local )?file "[^"]*": ', "", message)


def _read_array(directory: Path, name: str, leaf: Any) -> np.ndarray:
    if isinstance(leaf, np.ndarray):
        return leaf
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str((directory / name).resolve())},
        # Otherwise a missing chunk reads as zeros.
        "fill_missing_data_reads": False,
    }
    array = import_tensorstore().open(spec, open=True, read=True).result().read().result()
    for chunk in sorted((directory / name).glob("[0-9]*")):
        _check_gzip(chunk)
    return array


def _check_gzip(path: Path) -> None:
    """Compares a chunk with the checksum at its end: TensorStore stops when it has as many bytes as it needs.

    Raises `ValueError`. A chunk that is compressed in another way, or not at all, is left to TensorStore.
    """
    with path.open("rb") as file:
        if file.read(2) != _GZIP_START:
            return
    try:
        with gzip.open(path) as content:
            while content.read(_BLOCK_BYTES):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"chunk {path.name} is damaged or truncated") from error


def _write_zarr(directory: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    """Writes one array in one chunk; returns the spec that T5X puts into the tree instead."""
    metadata = {
        "shape": list(array.shape),
        "chunks": list(array.shape),
        "dtype": "<f4",
        "compressor": {"id": "gzip", "level": 1},
    }
    kvstore = {"driver": "file", "path": str((directory / name).resolve())}
    # Zeros are stored like everything else: the reader treats an absent chunk as lost.
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata, "store_data_equal_to_fill_value": True}
    # Syncing every file would take many times as long; the directory is renamed into place at the end.
    tensorstore = import_tensorstore()
    context = tensorstore.Context({"file_io_sync": False})
    tensorstore.open(spec, context=context, create=True).result().write(array).result()
    return {
        "driver": "zarr",
        "dtype": "float32",
        "kvstore": {"driver": "file", "path": f"{name}/"},
        "metadata": metadata,
        "transform": {
            "input_exclusive_max": [[size] for size in array.shape],
            "input_inclusive_min": [0] * array.ndim,
        },
    }
