"""Single files of weights: told apart by their first bytes whatever their name, and read without running code.

safetensors            the length of a JSON header, then the header; every tensor by name
PyTorch's own files    a ZIP archive or, before PyTorch 1.6, a bare pickle: dictionaries and lists with tensors in them

What else is taken for weights (a web page saved instead of a file, a pointer of Git LFS, HDF5, GGUF) is named.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mt3core.errors import ModelError, listed
from mt3core.extras import needed
from mt3core.model.weights_file import LENGTH_BYTES, MOST_HEADER_BYTES, read_array, read_header

# Endings by which a file counts as weights although its content does not say so: then the message names the damage.
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_AGAIN = "Download or copy it again."
_FIRST_BYTES = 512
_BYTES_AT_ONCE = 1 << 20
_LONGEST_REASON = 200
_FOLDER = 0x10  # among the attributes of a ZIP entry
_ARCHIVE = b"PK\x03\x04"
_DEEPEST = 12  # levels of dictionaries and lists in which tensors are looked for
_KINDS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_EXPORTED = "Convert the PyTorch, T5X or Orbax checkpoint that it was made from."
_PAGE = ("a web page, not weights", "Download the file itself; the page may ask to log in first.")
# How other files begin (in lower case), what they are, and the next step.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights", "Run git lfs pull where it was cloned."),
    (b"<!doctype", *_PAGE),
    (b"<html", *_PAGE),
    (b"\x89hdf", "an HDF5 file", _EXPORTED),
    (b"gguf", "a GGUF file", _EXPORTED),
    (b"\x93numpy", "a NumPy array, not a network", "Save the network's state_dict() with torch.save."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first, with gunzip or tar -xzf."),
)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file. `kind` is its stored type, such as `float16`; `read` gives it as float32."""

    shape: tuple[int, ...]
    kind: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class FileContent:
    """The tensors of a file by name; names of dictionaries within dictionaries are joined with dots.

    `keys` are the names in the outermost dictionary, for messages.
    """

    tensors: dict[str, Tensor]
    keys: tuple[str, ...]


def form_of_file(path: str | os.PathLike[str]) -> Literal["safetensors", "torch", ""]:
    """What a file is by its first bytes; empty for anything else, and for a file that cannot be read."""
    try:
        start = _first_bytes(Path(path))
    except OSError:
        return ""
    # Before the test for a pickle: a header's length may begin with the same byte.
    if start[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and _little_endian(start) <= MOST_HEADER_BYTES:
        return "safetensors"
    return "torch" if start.startswith((_ARCHIVE, pickle.PROTO)) else ""


def read_weight_file(path: Path) -> FileContent:
    """All tensors of a file. Raises `ModelError` for one that is damaged, is something else or needs pickle code."""
    if not path.is_file():
        raise ModelError(f"There is no file {path}.", "Check the path.")
    form = form_of_file(path)
    if form == "safetensors":
        return _read_safetensors(path)
    if form == "torch":
        loaded = _load_torch(path)
        return FileContent(dict(_tensors(loaded)), tuple(map(str, loaded)) if isinstance(loaded, Mapping) else ())
    raise _something_else(path)


def import_torch() -> Any:
    with needed("torch", "A file of a PyTorch port"):
        import torch
    return torch


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_FIRST_BYTES)


def _little_endian(start: bytes) -> int:
    return int.from_bytes(start[:LENGTH_BYTES], "little")


def _something_else(path: Path) -> ModelError:
    """The error for a file that is neither safetensors nor PyTorch's."""
    try:
        start = _first_bytes(path)
    except OSError as error:
        return _damaged(path, error)
    if not start:
        return ModelError(f"{path} is damaged: it is empty.", _AGAIN)
    beginning = start.lstrip().lower()
    for magic, what, next_step in _OTHERS:
        if beginning.startswith(magic):
            return ModelError(f"{path} is damaged or not a file of weights: it is {what}.", next_step)
    return ModelError(f"{path} is damaged: it is neither a PyTorch nor a safetensors file.", _AGAIN)


def _damaged(path: Path, error: Exception) -> ModelError:
    if isinstance(error, PermissionError):
        return ModelError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.")
    reason = str(getattr(error, "strerror", None) or str(error).strip() or type(error).__name__)
    reason = reason.splitlines()[0].rstrip(".")
    if not reason.isascii() or not reason.isprintable() or len(reason) > _LONGEST_REASON or "\\x" in reason:
        reason = "its parts contradict each other"  # the message quotes bytes of the file
    return ModelError(f"{path} is damaged or truncated: {reason}.", _AGAIN)


def _read_safetensors(path: Path) -> FileContent:
    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
    except (ValueError, OSError) as error:
        raise _damaged(path, error) from error

    def reader(name: str) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            try:
                with path.open("rb") as file:
                    return read_array(file, header, name)
            except (ValueError, OSError) as error:
                raise _damaged(path, error) from error

        return read

    tensors = {
        name: Tensor(one.shape, _KINDS.get(one.kind, one.kind), reader(name)) for name, one in header.arrays.items()
    }
    return FileContent(tensors, tuple(tensors))


def _load_torch(path: Path) -> Any:
    """The content of a file of PyTorch; nothing in it is executed."""
    torch = import_torch()
    if _first_bytes(path).startswith(_ARCHIVE):
        _check_archive(path)
    try:
        # An open file, as torch judges a path by its ending.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about newer pickle protocols, which it then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says the same about pickles with code and about files that are not pickles.
        named = re.search(r"GLOBAL (\S+)", str(error))
        if not named and not zipfile.is_zipfile(path) and _first_bytes(path)[:1] != pickle.PROTO:
            raise _damaged(path, error) from error
        raise ModelError(
            f"{path} contains more than tensors{f' ({named[1]})' if named else ''}: reading it would run code from the "
            "file (pickle), which mt3 never does.",
            "If you trust it, load it in the program that wrote it and save only its state_dict().",
        ) from error
    except Exception as error:  # a damaged pickle fails in any way: IndexError, KeyError, AttributeError, ...
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """Raises `ModelError` for a ZIP archive that is not one of PyTorch's weights, or is not as it was written.

    PyTorch itself does not compare the checksums, so that changed bytes would become changed weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for entry in archive.infolist():
                if entry.CRC:  # 0: written with `torch.serialization.set_crc32_options(False)`
                    num_bytes = 0
                    with archive.open(entry) as member:
                        while part := member.read(_BYTES_AT_ONCE):
                            num_bytes += len(part)
                    if num_bytes != entry.file_size:
                        raise zipfile.BadZipFile(f"{entry.filename} has {num_bytes} bytes, not {entry.file_size}")
                if entry.external_attr & _FOLDER:
                    # PyTorch would read nothing, and give whatever was in memory before as the tensor.
                    raise zipfile.BadZipFile(f"{entry.filename} is marked as a folder")
    except Exception as error:  # zipfile raises many kinds for damaged archives
        raise _damaged(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(
            f"{path} is a TorchScript program: reading it would run code from the file, which mt3 never does.",
            "If you trust it, load it with torch.jit.load and save only its state_dict().",
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise ModelError(
            f"{path} is a ZIP archive, but not one of PyTorch: it contains {listed(names, 3) or 'nothing'}.",
            "If the weights are inside, unpack it first.",
        )


def _tensors(loaded: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in dictionaries and lists, by the names on the way to it; each container is entered once."""
    entered: set[int] = set()

    def walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if hasattr(value, "dtype") and hasattr(value, "detach"):
            yield (
                name,
                Tensor(tuple(value.shape), str(value.dtype).removeprefix("torch."), lambda: _to_numpy(value, name)),
            )
        elif isinstance(value, Mapping | list | tuple) and id(value) not in entered and depth < _DEEPEST:
            entered.add(id(value))
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, part in parts:
                yield from walk(part, f"{name}.{key}" if name else str(key), depth + 1)

    if not hasattr(loaded, "detach"):  # a single tensor has no name
        yield from walk(loaded, "", 0)


def _to_numpy(tensor: Any, name: str) -> np.ndarray:
    try:
        dense = tensor.detach().to_dense() if tensor.layout != import_torch().strided else tensor.detach()
        return np.ascontiguousarray(dense.float().cpu().numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(f"The tensor {name} cannot be read: {reason}.", "Save a plain copy of it.") from error
