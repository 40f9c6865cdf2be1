"""The arrays of a model on disk, `model.safetensors`: stored as float32 or bfloat16, always float32 in memory.

bfloat16 is the upper half of a float32: the same range, 8 significant bits instead of 24, half the bytes. NumPy has no
such type, so here it is uint16 on its way to and from the file; PyTorch and JAX read the file as their own bfloat16.
The file is written here because safetensors' writer accepts only NumPy's types: the length of a JSON header in 8 bytes,
the header with type, shape and position of each array, then the arrays (https://github.com/huggingface/safetensors).
The header says where the last array ends, so a file that was cut off is recognised without reading the arrays.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mt3core.errors import ModelError, UsageError, listed
from mt3core.model.parameters import check_arrays, check_finite

STORED_TYPES = ("float32", "bfloat16")
_SAFETENSORS_NAMES = {"float32": "F32", "bfloat16": "BF16"}
_WRITABLE: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}
_ALIGNMENT_BYTES = 8  # of the first array; the header is padded with spaces
# The element types that can be read, by their names in safetensors; all become float32.
FLOATS: dict[str, np.dtype] = {
    kind: np.dtype(code) for kind, code in (("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2"), ("F64", "<f8"))
}
_OF_MODELS = ("F32", "F16", "BF16")  # which float32 represents exactly
LENGTH_BYTES = 8  # in front of the header
MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
_BFLOAT16_NAN = 0x7FC0


@dataclass(frozen=True)
class StoredArray:
    """One array of a safetensors file: its type by safetensors' name, shape, and place among the arrays' bytes."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The arrays of a safetensors file by name. `first_byte` is where their bytes start in the file."""

    arrays: dict[str, StoredArray]
    first_byte: int


def write_weights(path: Path, arrays: Mapping[str, np.ndarray], stored_type: str = "float32") -> None:
    """Writes arrays in the order of their names; the same arrays give the same bytes.

    With `bfloat16` each value is rounded to the nearest one, ties to even, as PyTorch and JAX do.
    Raises `UsageError` for a type that is not in `STORED_TYPES`.
    """
    check_stored_type(stored_type)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(arrays):
        begin, end = end, end + arrays[name].size * _WRITABLE[stored_type].itemsize
        shape = list(arrays[name].shape)
        header[name] = {"dtype": _SAFETENSORS_NAMES[stored_type], "shape": shape, "data_offsets": [begin, end]}
    described = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    described += b" " * (-len(described) % _ALIGNMENT_BYTES)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(described)) + described)
        for name in sorted(arrays):
            values = np.ascontiguousarray(arrays[name], np.float32)
            stored = to_bfloat16(values) if stored_type == "bfloat16" else values
            file.write(stored.astype(_WRITABLE[stored_type], copy=False).tobytes())


def check_stored_type(stored_type: str) -> None:
    """Raises `UsageError` for a type that cannot be written."""
    if stored_type not in STORED_TYPES:
        raise UsageError(f"Weights cannot be stored as {stored_type!r}.", f"Choose {' or '.join(STORED_TYPES)}.")


def read_weights(path: Path, expected_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All arrays of a file by name, as float32 whatever their stored type.

    Raises `ModelError` for a damaged or truncated file, and if an array is missing, surplus, of another shape
    or element type, or contains NaN or infinity.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file, path.stat().st_size)
            check_arrays(expected_shapes, {name: one.shape for name, one in header.arrays.items()}, str(path))
            _check_types(path, {name: one.kind for name, one in header.arrays.items()})
            arrays = {name: read_array(file, header, name) for name in sorted(header.arrays)}
    except (ValueError, OSError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
        raise ModelError(
            f"{path} is damaged or truncated: {reason}.", "Copy or convert the model again: mt3 convert."
        ) from error
    check_finite(arrays, path)
    return arrays


def read_header(file: BinaryIO, num_bytes: int) -> Header:
    """The header of a safetensors file of `num_bytes`, open at its start.

    Raises `ValueError` with the reason in words: no safetensors file, a header that contradicts itself, or another
    number of bytes than the header says.
    """
    start = file.read(LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < LENGTH_BYTES or not 2 <= length <= MOST_HEADER_BYTES:
        raise ValueError(f"it is not a safetensors file ({num_bytes:,} bytes)")
    if LENGTH_BYTES + length > num_bytes:
        raise ValueError(f"its header alone has {length:,} bytes, but the file ends after {num_bytes:,}")
    try:
        described = json.loads(file.read(length))
        described.pop("__metadata__", None)
        arrays = {str(name): _stored_array(entry) for name, entry in described.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("its header cannot be read") from error
    first_byte = LENGTH_BYTES + length
    end = 0
    for name, one in sorted(arrays.items(), key=lambda item: (item[1].begin, item[1].end)):
        itemsize = FLOATS[one.kind].itemsize if one.kind in FLOATS else None
        if one.begin != end or (itemsize and one.end - one.begin != itemsize * math.prod(one.shape)):
            raise ValueError(f"its header gives {name} a place that does not fit its shape or the other arrays")
        end = one.end
    if first_byte + end != num_bytes:
        raise ValueError(f"by its header it has {first_byte + end:,} bytes, but there are {num_bytes:,}")
    return Header(arrays, first_byte)


def read_array(file: BinaryIO, header: Header, name: str) -> np.ndarray:
    """One array of a file whose header was read, as float32. Its type must be in `FLOATS`."""
    one = header.arrays[name]
    file.seek(header.first_byte + one.begin)
    content = file.read(one.end - one.begin)
    if len(content) != one.end - one.begin:  # it has become shorter since the header was read
        raise ValueError(f"it ends within {name}")
    stored = np.ndarray(one.shape, FLOATS[one.kind], content)
    if one.kind == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # of float64: becomes infinity, which the caller finds
        return stored.astype(np.float32)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 of each float32 as uint16; ties go to the even one, NaN stays NaN."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    # Adding half a unit of the kept part carries from just above the middle, or from the middle if that part is odd.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), _BFLOAT16_NAN, rounded).astype(np.uint16)


def _stored_array(entry: Mapping[str, Any]) -> StoredArray:
    begin, end = map(int, entry["data_offsets"])
    shape = tuple(int(size) for size in entry["shape"])
    if begin < 0 or end < begin or any(size < 0 for size in shape):
        raise ValueError("negative sizes")
    return StoredArray(str(entry["dtype"]), shape, begin, end)


def _check_types(path: Path, types: Mapping[str, str]) -> None:
    unreadable = sorted(f"{name} ({kind})" for name, kind in types.items() if kind not in _OF_MODELS)
    if unreadable:
        raise ModelError(
            f"{path} has arrays that are not float32, float16 or bfloat16: {listed(unreadable)}.",
            "Convert the model again from its source: mt3 convert.",
        )
