"""What all processes know together, brought to each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# Takes bytes of this host and returns those of all hosts in their order.
Gather = Callable[[bytes], list[bytes]]


def gather_bytes(data: bytes) -> list[bytes]:
    """The bytes of every process, in their order."""
    if jax.process_count() == 1:
        return [data]
    lengths = multihost_utils.process_allgather(np.asarray(len(data), np.int32)).reshape(-1).tolist()
    padded = np.zeros(max(lengths), np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    rows = multihost_utils.process_allgather(padded).reshape(len(lengths), -1)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def on_one_device(params: Any, device: jax.Device) -> Any:
    """Parameters as they are laid out over a mesh, whole on one device of this host. All hosts must call it."""

    def whole(array: jax.Array) -> jax.Array:
        if not isinstance(array, jax.Array) or array.is_fully_addressable:
            return jax.device_put(array, device)
        if array.is_fully_replicated:
            return jax.device_put(array.addressable_data(0), device)
        return jax.device_put(multihost_utils.process_allgather(array, tiled=True), device)

    return jax.tree.map(whole, params)
