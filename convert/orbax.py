"""Orbax checkpoints, the form in which training stores weights: reading and writing. Needs the extra `[jax]`.

A checkpoint is written with two items: `params`, a nested dictionary of arrays in Flax's names and
shapes, and `config`, the model's configuration as JSON. Other forms can be read as well:

    a run's folder of numbered steps              the last step is used, even while the run continues to write
    an item `params`, `state` or `default`        or the bare folder of such an item
    a tree of parameters, or one with `params`    `{"params": ..., "opt_state": ..., ...}`: the rest is not read
    an item `config`, or `config.json` next to it  if neither, from the arrays (`recognise.py`)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mt3convert.recognise import recognise_config
from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError
from mt3core.extras import needed
from mt3core.files import atomic_directory
from mt3core.model.parameters import check_arrays, check_weights, parameters

PARAMS_ITEM, CONFIG_ITEM = "params", "config"
_TREE_ITEMS = (PARAMS_ITEM, "state", "default")
# File names of Orbax: the description of a tree, and the content of a JSON item.
_TREE_FILE, _JSON_FILE = "_METADATA", "metadata"


def write_orbax(
    path: str | os.PathLike[str], config: ModelConfig, arrays: Mapping[str, np.ndarray], overwrite: bool = False
) -> None:
    """Writes an Orbax checkpoint, completely or not at all.

    Args:
        path: the directory, which must be absent or empty unless `overwrite`.
        config: what the weights belong to.
        arrays: every array of the network by its PyTorch name, in PyTorch's shape; stored as float32.
        overwrite: replace an existing checkpoint.
    """
    table = parameters(config.network)
    check_weights(config.network, arrays, "the weights")
    checkpoint = _import_orbax()
    from flax.traverse_util import unflatten_dict

    flat = {p.flax_name: p.flip(np.asarray(arrays[p.torch_name], np.float32)) for p in table}
    tree = unflatten_dict(flat, sep=".")
    items = checkpoint.args.Composite(
        **{
            PARAMS_ITEM: checkpoint.args.StandardSave(tree),
            CONFIG_ITEM: checkpoint.args.JsonSave(config.to_dict()),
        }
    )
    with (
        atomic_directory(path, overwrite=overwrite) as directory,
        checkpoint.Checkpointer(checkpoint.CompositeCheckpointHandler()) as checkpointer,
    ):
        checkpointer.save(directory.resolve(), items, force=True)


def read_orbax(path: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """Configuration and weights of an Orbax checkpoint (forms above): PyTorch names and shapes, float32.

    Raises `ModelError` if there is none, or if arrays are missing, surplus, misshapen or damaged.
    """
    tree_directory = _find_tree(Path(path))
    while tree_directory is not None:
        try:
            return _read_tree(tree_directory, str(path))
        except (ModelError, FileNotFoundError):
            newer = _find_tree(Path(path))
            # A run that is still training may have replaced the step that was being read with a newer one.
            if newer == tree_directory:
                raise
            tree_directory = newer
    raise ModelError(
        f"{path} is not an Orbax checkpoint: it has neither an item {', '.join(_TREE_ITEMS)} nor a numbered step.",
        "Use the folder of a checkpoint, or of a run with numbered steps.",
    )


def is_orbax_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` looks like an Orbax checkpoint or a run's folder of them, without reading it."""
    return _find_tree(Path(path)) is not None


def _read_tree(tree_directory: Path, path: str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    _check_files(tree_directory)
    from mt3jax.loading import flatten

    leaves = flatten(dict(_restore_parameters(tree_directory.resolve())))
    found = {name: np.asarray(leaf) for name, leaf in leaves.items() if leaf is not None}
    shapes = {name: array.shape for name, array in found.items()}
    config = _read_config(tree_directory) or recognise_config(shapes, path)
    table = parameters(config.network)
    check_arrays({p.flax_name: p.shape for p in table}, shapes, path)
    return config, {p.torch_name: p.flip(np.require(found[p.flax_name], np.float32, "W")) for p in table}


def _check_files(tree_directory: Path) -> None:
    """Compares with the checksums recorded by training, if there are any."""
    _import_orbax()
    from mt3jax.training.run.checkpoints import quiet_orbax
    from mt3jax.training.run.checksums import find_damage

    quiet_orbax()
    if damage := find_damage(tree_directory.parent, (tree_directory.name, CONFIG_ITEM)):
        raise ModelError(f"The Orbax checkpoint {tree_directory.parent} is damaged: {damage}.", "Use an earlier step.")


def _import_orbax() -> Any:
    with needed("jax", "An Orbax checkpoint"):
        import orbax.checkpoint
    return orbax.checkpoint


def _find_tree(directory: Path) -> Path | None:
    for candidate in (directory, *(directory / item for item in _TREE_ITEMS)):
        if (candidate / _TREE_FILE).is_file():
            return candidate
    steps = [entry for entry in directory.iterdir() if entry.name.isdigit()] if directory.is_dir() else []
    for step in sorted(steps, key=lambda entry: int(entry.name), reverse=True):
        if (found := _find_tree(step)) is not None:
            return found
    return None


def _restore_parameters(directory: Path) -> Mapping[str, Any]:
    """Only the parameters, as NumPy arrays: wherever they were saved, they are restored to the host."""
    checkpoint = _import_orbax()
    import jax

    handler = checkpoint.PyTreeCheckpointHandler()
    try:
        described = dict(handler.metadata(directory).tree)
        wanted = {"params": described["params"]} if "params" in described else described
        as_numpy = jax.tree.map(lambda _: checkpoint.RestoreArgs(restore_type=np.ndarray), wanted)
        arguments = checkpoint.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        restored = handler.restore(directory, args=arguments)
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ModelError(f"The Orbax checkpoint {directory} is damaged: {reason}.", "Use an earlier step.") from error
    return restored.get("params", restored)


def _read_config(tree_directory: Path) -> ModelConfig | None:
    for place in (tree_directory, tree_directory.parent):
        for path in (place / CONFIG_ITEM / _JSON_FILE, place / "config.json"):
            if path.is_file():
                try:
                    return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
                except ValueError as error:
                    raise ModelError(f"{path} is not a configuration ({error}).") from error
    return None
