"""Where arrays are: a mesh of devices, and which axis of which parameter is split over it.

The mesh has two axes. Batches are split over both, so each device computes its own examples. Parameters and their
optimizer state are split over `fsdp`, gathered for a step, and copied along `data`. The rules below are all
there is to it; the network does not know about devices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from mt3core.config.training import ComputeConfig, TrainingConfig
from mt3core.errors import UsageError

DATA, FSDP = "data", "fsdp"
EXAMPLES = PartitionSpec((DATA, FSDP))  # of arrays whose first axis are examples or rows

# The first specification whose axis divides is used; if none does, the parameter is copied everywhere.
RULES: tuple[tuple[str, tuple[PartitionSpec, ...]], ...] = (
    (r"\.scale$", ()),  # a few hundred numbers: not worth the communication
    (r"\.embedding$", (PartitionSpec(None, FSDP), PartitionSpec(FSDP, None))),
    (r"\.kernel$", (PartitionSpec(FSDP, None), PartitionSpec(None, FSDP))),
)


def make_mesh(compute: ComputeConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The devices that `compute` asks for, by default out of all devices of all hosts.

    Raises `UsageError` if the mesh does not fit the devices. One process may leave devices unused, several may not.
    """
    found = jax.devices() if devices is None else devices
    shape = {DATA: compute.data, FSDP: compute.fsdp}
    if any(size < 1 and size != -1 for size in shape.values()) or list(shape.values()) == [-1, -1]:
        raise UsageError(
            f"compute.data={compute.data} and compute.fsdp={compute.fsdp} do not form a mesh.",
            "Use numbers of devices; one of the two may be -1 (all that remain).",
        )
    for axis, other in ((DATA, FSDP), (FSDP, DATA)):
        if shape[axis] == -1:
            if len(found) % shape[other]:
                raise UsageError(
                    f"{len(found)} devices cannot be split into rows of compute.{other}={shape[other]}.",
                    f"Choose compute.{other} so that it divides {len(found)}.",
                )
            shape[axis] = len(found) // shape[other]
    size = shape[DATA] * shape[FSDP]
    if size > len(found) or (jax.process_count() > 1 and size != len(found)):
        raise UsageError(
            f"A mesh of {shape[DATA]} x {shape[FSDP]} needs {size} devices; there are {len(found)}.",
            f"Set compute.data=-1 to use all devices, or choose numbers whose product is {len(found)}.",
        )
    axis_types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((shape[DATA], shape[FSDP]), (DATA, FSDP), axis_types=axis_types, devices=found[:size])


def check_batch(config: TrainingConfig, mesh: Mesh) -> None:
    """Raises `UsageError` unless every device gets equally many examples in every microbatch."""
    parts, examples = config.batch.accumulation, config.batch.examples
    if examples % (mesh.size * parts):
        among = f"{mesh.size} devices" + (f" in {parts} microbatches" if parts > 1 else "")
        lower = examples // (mesh.size * parts) * mesh.size * parts
        near = [size for size in (lower, lower + mesh.size * parts) if size]
        raise UsageError(
            f"{examples} examples cannot be divided equally among {among}.",
            f"Set batch.examples to {' or '.join(map(str, near))}.",
        )


def num_local_groups(mesh: Mesh) -> int:
    """Devices of the mesh that belong to this process."""
    return len(mesh.local_devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_shardings(mesh: Mesh) -> NamedSharding:
    """For every array of a step's batch: (microbatches, examples or rows, ...)."""
    return NamedSharding(mesh, PartitionSpec(None, *EXAMPLES))


def to_global(batch: Mapping[str, Shaped[np.ndarray, "parts local *rest"]], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's share of a step's batch, sent to its devices as part of the batch of all hosts."""
    sharding = batch_shardings(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def place(tree: Any, shardings: Any) -> Any:
    """Host arrays, the same on every host, laid out as `shardings` (a tree of the same form) says."""

    def put(array: Any, sharding: NamedSharding) -> jax.Array:
        host = np.asarray(array)
        # Copies, as JAX may use a host array's memory directly, and two trees may share an array.
        return jax.make_array_from_callback(host.shape, sharding, lambda index: np.array(host[index]))

    return jax.tree.map(put, tree, shardings)


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """A tree like `params` (nested dictionaries of arrays or shapes in Flax's names) of shardings."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, partition(".".join(_names(path)), leaf.shape, mesh.shape[FSDP])), params
    )


def partition(name: str, shape: tuple[int, ...], num_shards: int) -> PartitionSpec:
    """How the parameter of this name is split, according to `RULES`."""
    for pattern, specifications in RULES:
        if re.search(pattern, name):
            for specification in specifications:
                if shape[tuple(specification).index(FSDP)] % num_shards == 0:
                    return specification
            return PartitionSpec()
    raise ValueError(f"No sharding rule for the parameter {name}.")


def state_shardings(state: Any, params: Any, mesh: Mesh) -> Any:
    """Shardings of a tree that contains trees like `params`, as optimizer states do.

    A leaf whose path ends in a parameter's and that has its shape is laid out like the parameter; all else, such as
    Adafactor's rows and columns and counters, is copied everywhere.
    """
    placed, _ = jax.tree_util.tree_flatten_with_path(param_shardings(params, mesh))
    shapes = {_names(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    known = {_names(path): (shapes[_names(path)], sharding) for path, sharding in placed}

    def find(path: tuple, leaf: Any) -> NamedSharding:
        names = _names(path)
        for start in range(len(names)):
            shape, sharding = known.get(names[start:], (None, None))
            if sharding is not None and shape == leaf.shape:
                return sharding
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(find, state)


def _names(path: tuple) -> tuple[str, ...]:
    """A path's parts as text, for any kind of container."""
    return tuple(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)
