"""The network among the tensors of a file: found by its names, wherever they lie and whatever stands before them.

A training checkpoint has the network in a dictionary (`state_dict`, `module`, ...), wrappers put their names in front
(`module.`, `model.`, `_orig_mod.`), and beside it lie tensors of a loss or an optimizer. All that stands before the
names of one network is its *prefix*: every tensor whose name ends with a name of the network belongs to the network
with the prefix that is left. The largest network is read, and what was not read is named.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mt3convert.weight_files import FileContent, Tensor
from mt3core.errors import ModelError, listed
from mt3core.model.weights_file import to_bfloat16

# Parts of a prefix that say nothing of what the tensors are, in the order in which they are preferred.
_WRAPPERS = ("state_dict", "model_state_dict", "module", "model", "_orig_mod", "net", "network", "weights", "params")
# Significant bits; what is stored with fewer is compared with that many.
_PRECISION_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
_LEAST_SHARE = 0.9  # of the largest network's arrays that another one has, to count as a network of its own


@dataclass(frozen=True)
class FoundNetwork:
    """The tensors of one network.

    `tensors` are by our names, each with every tensor that stands for it and its name in the file. `unknown` are
    tensors within the network that no network of ours has. `notes` name what was not read.
    """

    tensors: dict[str, list[tuple[str, Tensor]]]
    unknown: dict[str, Tensor]
    notes: tuple[str, ...]


def find_network(
    content: FileContent, our_name: Callable[[str], str | None], path: str | os.PathLike[str]
) -> FoundNetwork:
    """The network in a file.

    Args:
        content: the file's tensors.
        our_name: our name for a tensor by a name that a network may use; None for other names.
        path: the file, for messages.

    Raises `ModelError` if there are no tensors, none of a network, or several networks of which none is preferred.
    """
    if not content.tensors:
        keys = f"; its keys are {listed(content.keys)}" if content.keys else ""
        raise ModelError(
            f"{path} contains no state dictionary (names and tensors){keys}.", "Save the model's state_dict()."
        )
    networks: dict[str, dict[str, list[tuple[str, Tensor]]]] = defaultdict(lambda: defaultdict(list))
    surplus: dict[str, Tensor] = {}
    for name, tensor in content.tensors.items():
        prefix, ours = _split(name, our_name)
        if ours is None:
            surplus[name] = tensor
        else:
            networks[prefix][ours].append((name, tensor))
    prefix = _choose(networks, path) if networks else ""
    chosen = networks.pop(prefix, {})
    if not any(name.startswith(("encoder.", "decoder.")) for name in chosen):
        raise ModelError(
            f"{path} contains no MT3 network: its keys are {listed(content.keys)}; "
            f"its {len(content.tensors)} tensors are {listed(content.tensors)}.",
            "Save the model's state_dict(), with the names of the PyTorch ports or of mt3.",
        )
    notes = []
    for other, tensors in networks.items():
        if len(tensors) >= _LEAST_SHARE * len(chosen):
            notes.append(
                f"{_named(path)} contains a second network, {_shown(other)}, which was not read; "
                f"the one read is {_shown(prefix)}."
            )
        else:
            surplus |= dict(pair for pairs in tensors.values() for pair in pairs)
    unknown = {name: tensor for name, tensor in surplus.items() if _is_inside(name, prefix)}
    beside = [name for name in surplus if name not in unknown]
    if beside:
        count = "One tensor" if len(beside) == 1 else f"{len(beside)} tensors"
        notes.append(f"{count} beside the network {'was' if len(beside) == 1 else 'were'} not read: {listed(beside)}.")
    return FoundNetwork(chosen, unknown, tuple(notes))


def read_tensors(found: FoundNetwork, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The network's arrays as float32 by our names. Tensors that stand for the same array must have the same values.

    Raises `ModelError` if they differ by more than the precision that they are stored with, or are no floating-point
    numbers.
    """
    arrays = {}
    for ours, tensors in found.tensors.items():
        whole = [f"{name} ({tensor.kind})" for name, tensor in tensors if tensor.kind not in _PRECISION_BITS]
        if whole:
            raise ModelError(
                f"{path} has weights that are not floating-point numbers of 16 bits or more: {listed(whole)}.",
                "Save the network before it is quantised.",
            )
        # The most precise of them is kept.
        (name, tensor), *others = sorted(tensors, key=lambda one: -_PRECISION_BITS[one[1].kind])
        arrays[ours] = tensor.read()
        for other_name, other in others:
            expected = rounded(arrays[ours], other.kind)
            if not np.array_equal(rounded(other.read(), other.kind), expected, equal_nan=True):
                raise ModelError(
                    f"{path} contains two different arrays for {ours}: {name} and {other_name}.",
                    "Save the model's state_dict() again, without changing one of them.",
                )
    return arrays


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """Float32 values with the precision of another type: what it can represent stays as it is."""
    values = np.asarray(values, np.float32)
    if kind == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if kind == "bfloat16":
        return (to_bfloat16(values).astype(np.uint32) << 16).view(np.float32)
    return values


def _split(name: str, our_name: Callable[[str], str | None]) -> tuple[str, str | None]:
    """Prefix and our name: the longest end of `name`, beginning after a dot, that a network may use."""
    start = 0
    while True:
        if ours := our_name(name[start:]):
            return name[:start], ours
        dot = name.find(".", start)
        if dot < 0:
            return "", None
        start = dot + 1


def _choose(networks: Mapping[str, Mapping[str, object]], path: str | os.PathLike[str]) -> str:
    """The prefix of the largest network; of several as large, the one whose prefix consists of wrappers only."""
    most = max(map(len, networks.values()))
    largest = [prefix for prefix, tensors in networks.items() if len(tensors) >= _LEAST_SHARE * most]
    if len(largest) == 1:
        return largest[0]
    plain = sorted((_rank(prefix), prefix) for prefix in largest if _rank(prefix) is not None)
    if not plain:
        raise ModelError(
            f"{path} contains several networks: {listed([_shown(prefix) for prefix in largest])}.",
            "Save the state_dict() of one of them.",
        )
    return plain[0][1]


def _rank(prefix: str) -> tuple[int, ...] | None:
    """How much a prefix is preferred, small for much; None if it says what the tensors are, like `ema_model.`."""
    parts = prefix.split(".")[:-1]
    return tuple(map(_WRAPPERS.index, parts)) if set(parts) <= {*_WRAPPERS} else None


def _is_inside(name: str, prefix: str) -> bool:
    """Whether a tensor without a name of ours seems to belong to the network: then it is another kind of network."""
    if not name.startswith(prefix):
        return False
    parts = name.removeprefix(prefix).split(".")
    return any("encoder" in part or "decoder" in part for part in parts) or parts[0] in ("proj", "shared", "lm_head")


def _shown(prefix: str) -> str:
    return f"{prefix}*" if prefix else "the one without a prefix"


def _named(path: str | os.PathLike[str]) -> str:
    return os.path.basename(path)
