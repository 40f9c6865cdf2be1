"""Several processes that train together: finding each other, and sharing what one of them knows.

JAX finds SLURM, Open MPI, TPU pods and Kubernetes by itself. Elsewhere three environment variables are needed:
JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mt3core.errors import TrainingError, UsageError

# Sends the bytes of this host and returns those of all hosts in their order.
Gather = Callable[[bytes], list[bytes]]
COORDINATOR, NUM_PROCESSES, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_hosts() -> None:
    """Joins the other processes of the job, if there are any. Must be called before JAX computes anything.

    Raises `UsageError` if the environment names some of them but not everything that is needed.
    """
    if jax.distributed.is_initialized():
        return
    if os.environ.get(NUM_PROCESSES) or os.environ.get(PROCESS_ID):
        try:
            address = os.environ[COORDINATOR]
            count, number = int(os.environ[NUM_PROCESSES]), int(os.environ[PROCESS_ID])
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"The other processes cannot be found: {error}.",
                f"Set {COORDINATOR} (host:port of process 0), {NUM_PROCESSES} and {PROCESS_ID}, or none of them.",
            ) from None
        # Each process uses all devices that it sees, whatever else is in the environment.
        jax.distributed.initialize(address, count, number, cluster_detection_method="deactivate")
        return
    try:
        jax.distributed.initialize()
    except ValueError as error:
        if os.environ.get(COORDINATOR):  # it was configured to have others
            raise UsageError(
                f"{COORDINATOR} is set, but the other processes cannot be found: {str(error).rstrip('.')}.",
                f"Set {NUM_PROCESSES} and {PROCESS_ID} as well, or none of the three.",
            ) from None
        return  # no cluster: this process is alone
    except RuntimeError as error:
        if "before any JAX" in str(error):  # a program that has already computed, so it has no others
            return
        raise


def first_process_does(action: Callable[[], None]) -> None:
    """Runs `action` only in the first process while the others wait; if it raises anything, all of them stop."""
    trouble: Exception | None = None
    if jax.process_index() == 0:
        try:
            action()
        except Exception as error:  # of any kind: the others must not wait for ever
            trouble = error
    if said_by_first_process(trouble is not None):
        raise trouble or TrainingError("The first process had to stop.", "Its message says why.")


def said_by_first_process(flag: bool) -> bool:
    """The first process's value, in all of them."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.int32(flag)))


def true_for_all_processes(flag: bool) -> bool:
    return flag if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.int32(flag))))


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
    """Parameters laid out over a mesh, whole on one device of this host. All hosts must call it."""

    def whole(array: jax.Array) -> jax.Array:
        if not isinstance(array, jax.Array) or array.is_fully_addressable:
            return jax.device_put(array, device)
        if array.is_fully_replicated:
            return jax.device_put(array.addressable_data(0), device)
        return jax.device_put(multihost_utils.process_allgather(array, tiled=True), device)

    return jax.tree.map(whole, params)
