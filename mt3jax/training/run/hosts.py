"""Several processes that train together: finding each other, and sharing what one of them knows.

JAX finds SLURM, Open MPI, TPU pods and Kubernetes by itself. Elsewhere three environment variables are needed:
JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mt3core.errors import TrainingError, UsageError
from mt3jax.training.run.meeting import MOST_SECONDS, SECONDS_BETWEEN_LINES, Job, Say, meet

# Sends the bytes of this host and returns those of all hosts in their order.
Gather = Callable[[bytes], list[bytes]]
COORDINATOR, NUM_PROCESSES, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
LOCAL_DEVICES = "JAX_LOCAL_DEVICE_IDS"
QUIET_SECONDS = 3.0  # JAX needs about one to start by itself
SPARE_SECONDS = 60.0  # by which JAX waits longer, so that it is not JAX that ends the program


def join_hosts(say: Say = print) -> None:
    """Joins the other processes of the job, if there are any. Must be called before JAX computes anything.

    `say` is called with a line when others are waited for. Raises `UsageError` if the environment names some of them
    but not everything that is needed or contradicts itself, `TrainingError` if they do not come.
    """
    if jax.distributed.is_initialized():
        return
    _check_device_numbers()
    if os.environ.get(NUM_PROCESSES) or os.environ.get(PROCESS_ID):
        job = job_of_environment()
        meet(job, say)
        # Each process uses all devices that it sees, whatever else is in the environment.
        _initialize(
            say,
            coordinator_address=job.address,
            num_processes=job.count,
            process_id=job.number,
            cluster_detection_method="deactivate",
        )
        return
    try:
        _initialize(say)
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


def job_of_environment() -> Job:
    """The job that the three variables describe. Raises `UsageError` for what is missing, no number or out of range."""
    next_step = f"Set {COORDINATOR} (host:port of process 0), {NUM_PROCESSES} and {PROCESS_ID}, or none of them."
    names = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    values = {name: os.environ.get(name, "").strip() for name in names}
    if missing := [name for name in names if not values[name]]:
        raise UsageError(f"The other processes cannot be found: {' and '.join(missing)} is missing.", next_step)
    host, _, port = values[COORDINATOR].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UsageError(
            f"{COORDINATOR} is {values[COORDINATOR]!r}, not a host and a port.",
            f"Use the host of process 0 and a port that is free there: {COORDINATOR}=host:12345.",
        )
    for name in (NUM_PROCESSES, PROCESS_ID):
        if not values[name].isdecimal():
            raise UsageError(f"{name} is {values[name]!r}, not a whole number.", next_step)
    count, number = int(values[NUM_PROCESSES]), int(values[PROCESS_ID])
    if count < 1:
        raise UsageError(f"{NUM_PROCESSES} is {count}.", "Use the number of processes, at least 1.")
    if number >= count:
        raise UsageError(
            f"{PROCESS_ID} is {number}, but there are {count} processes ({NUM_PROCESSES}).",
            f"Number them from 0 to {count - 1}.",
        )
    return Job(host.removeprefix("[").removesuffix("]"), int(port), count, number)


def _check_device_numbers() -> None:
    devices = os.environ.get(LOCAL_DEVICES, "")
    if devices and not all(part.strip().isdecimal() for part in devices.split(",")):
        raise UsageError(f"{LOCAL_DEVICES} is {devices!r}.", "Use numbers of devices separated by commas: 0,1,2,3.")


def _initialize(say: Say, **options: Any) -> None:
    """`jax.distributed.initialize` in a thread, since it hears no Ctrl-C and ends the program when it gives up."""
    outcome: list[BaseException | None] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(**options, initialization_timeout=int(MOST_SECONDS + SPARE_SECONDS))
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    started = time.monotonic()
    next_line = QUIET_SECONDS
    while thread.is_alive():
        thread.join(0.1)
        elapsed = time.monotonic() - started
        if elapsed > MOST_SECONDS:
            raise TrainingError(
                f"Gave up after {MOST_SECONDS:.0f} s: the other processes of this job did not come.",
                "Start the same command in all of them, and make sure that the first one's host can be reached.",
            )
        if elapsed > next_line:
            say(
                f"Waiting for the other processes; giving up in {MOST_SECONDS - elapsed:.0f} s (Ctrl-C ends it now) ..."
            )
            next_line = elapsed + SECONDS_BETWEEN_LINES
    if outcome and outcome[0] is not None:
        raise outcome[0]


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
