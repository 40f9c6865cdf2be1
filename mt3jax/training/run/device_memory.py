"""Memory of the devices: how much there is, and what is said where it did not suffice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
from jax.sharding import Mesh

from mt3core.errors import TrainingError

# In this order: short numbers cost nothing, parts hardly anything, computing twice a quarter of the speed.
ADVICE = "Set compute.dtype=bfloat16, then batch.accumulation=2 (4, ...), then compute.remat=true."


def memory_limit(mesh: Mesh) -> int | None:
    """Bytes that JAX may take on the smallest of this process's devices; None where it does not say, as on CPUs."""
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    limits = [found["bytes_limit"] for found in stats if found.get("bytes_limit")]
    return min(limits, default=None)


@contextlib.contextmanager
def exhaustion_explained() -> Iterator[None]:
    """Makes a `TrainingError` of XLA's pages about memory that it could not get."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = str(error).splitlines()[0].strip().rstrip(".")
        raise TrainingError(f"The memory of the devices does not suffice ({said}).", ADVICE) from error
