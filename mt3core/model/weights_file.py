"""The arrays of a model on disk, `model.safetensors`: stored as float32 or bfloat16, always float32 in memory.

bfloat16 is the upper half of a float32: the same range, 8 significant bits instead of 24, half the bytes. NumPy has no
such type, so here it is uint16 on its way to and from the file; PyTorch and JAX read the file as their own bfloat16.
The file is written here because safetensors' writer accepts only NumPy's types: the length of a JSON header in 8 bytes,
the header with type, shape and position of each array, then the arrays (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from mt3core.errors import ModelError, UsageError
from mt3core.model.parameters import check_arrays, check_finite

STORED_TYPES = ("float32", "bfloat16")
_SAFETENSORS_NAMES = {"float32": "F32", "bfloat16": "BF16"}
_WRITABLE: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}
_ALIGNMENT_BYTES = 8  # of the first array; the header is padded with spaces
# The element types that are read, by their names in safetensors; all become float32, which represents each exactly.
_READABLE: dict[str, np.dtype] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_BFLOAT16_NAN = 0x7FC0
_MOST_NAMED = 3  # in a message; if one array has the wrong type, usually all have


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
    with _readable(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        check_arrays(expected_shapes, {name: tuple(part.get_shape()) for name, part in slices.items()}, str(path))
        types = {name: part.get_dtype() for name, part in slices.items()}
        _check_types(path, types)
        if "BF16" in types.values():  # `get_tensor` cannot return it: use the raw bytes
            stored = deserialize(path.read_bytes())
            arrays = {name: _to_float32(part["data"], part["dtype"], part["shape"]) for name, part in stored}
        else:
            arrays = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in types}
    check_finite(arrays, path)
    return arrays


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 of each float32 as uint16; ties go to the even one, NaN stays NaN."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    # Adding half a unit of the kept part carries from just above the middle, or from the middle if that part is odd.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), _BFLOAT16_NAN, rounded).astype(np.uint16)


def _check_types(path: Path, types: Mapping[str, str]) -> None:
    unreadable = sorted(f"{name} ({kind})" for name, kind in types.items() if kind not in _READABLE)
    if unreadable:
        more = f" and {len(unreadable) - _MOST_NAMED} more" if len(unreadable) > _MOST_NAMED else ""
        raise ModelError(
            f"{path} has arrays that are not float32, float16 or bfloat16: "
            f"{', '.join(unreadable[:_MOST_NAMED])}{more}.",
            "Convert the model again from its source: mt3 convert.",
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or truncated: {error}.", "Copy or convert the model again: mt3 convert."
        ) from error


def _to_float32(data: bytes, kind: str, shape: list[int]) -> np.ndarray:
    stored = np.frombuffer(data, _READABLE[kind]).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)
