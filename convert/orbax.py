"""Orbax checkpoints, the form in which training stores weights: reading and writing. Needs the extra `[jax]`.

A checkpoint is written with two items: `params`, a nested dictionary of arrays in Flax's names and
shapes, and `config`, the model's configuration as JSON. Other forms can be read as well:

    a run's folder of numbered steps              the last step is used, even while the run continues to write
    an item `params`, `state` or `default`        or the bare folder of such an item
    a tree of parameters, or one with `params`    `{"params": ..., "opt_state": ..., ...}`: the rest is not read
    an item `config`, or `config.json` next to it  if neither, from the arrays (`recognise.py`)
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mt3convert.recognise import recognise_config
from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError, listed
from mt3core.extras import needed
from mt3core.files import atomic_directory
from mt3core.json_text import read_json
from mt3core.model.parameters import check_arrays, check_finite, check_weights, parameters

PARAMS_ITEM, CONFIG_ITEM = "params", "config"
_RUN_FILE = "run.json"  # of a training run: `mt3jax/training/run/run_record.py`, which imports JAX
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

    Raises `ModelError` if there is none, or if arrays are missing, surplus, misshapen or damaged; of a run, it then
    names the newest step that can be read.
    """
    checkpoints = _checkpoints(Path(path))
    while checkpoints:
        newest, *earlier = checkpoints
        try:
            return _read_checkpoint(newest, str(path))
        except (ModelError, OSError) as error:
            checkpoints = _checkpoints(Path(path))
            # A run that is still training may have replaced the step that was being read with a newer one.
            if checkpoints and checkpoints[0] == newest:
                problem = error.problem if isinstance(error, ModelError) else f"{newest} is damaged: {error}."
                if newest == Path(path):  # no run
                    raise
                raise ModelError(problem, _advice(earlier)) from error
    if steps := _steps(Path(path)):
        names = listed([step.name for step in steps])
        raise ModelError(
            f"{path} has no checkpoint that can be read: the steps {names} have none of the items "
            f"{', '.join(_TREE_ITEMS)}.",
            "Restore one from a copy.",
        )
    raise ModelError(
        f"{path} is not an Orbax checkpoint: it has neither an item {', '.join(_TREE_ITEMS)} nor a numbered step.",
        "Use the folder of a checkpoint, or of a run with numbered steps.",
    )


def has_config(path: str | os.PathLike[str]) -> bool:
    """Whether the checkpoint that `read_orbax` reads has a configuration."""
    tree = _find_tree(Path(path))
    return tree is not None and _read_config(tree) is not None


def is_orbax_directory(path: str | os.PathLike[str]) -> bool:
    """Whether `path` looks like an Orbax checkpoint or a run's folder of them, without reading it."""
    return _find_tree(Path(path)) is not None or ((Path(path) / _RUN_FILE).is_file() and bool(_steps(Path(path))))


def _checkpoints(path: Path) -> list[Path]:
    """The checkpoint itself, or those of a run, newest first; empty if there is none with a tree.

    Steps without a tree are listed as well: of a run that has others, they are damaged.
    """
    if _own_tree(path) is not None:
        return [path]
    steps = _steps(path)
    return steps if any(_find_tree(step) for step in steps) else []


def _read_checkpoint(checkpoint: Path, path: str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    tree = _find_tree(checkpoint)
    if tree is None:
        raise ModelError(
            f"The Orbax checkpoint {checkpoint} is damaged: it has none of the items {', '.join(_TREE_ITEMS)}.",
            "Use an earlier step.",
        )
    return _read_tree(tree, path)


def _advice(earlier: list[Path]) -> str:
    """The newest earlier checkpoint that can be read, as the next step."""
    for checkpoint in earlier:
        try:
            _read_checkpoint(checkpoint, str(checkpoint))
        except (ModelError, OSError):
            continue
        return f"Use {checkpoint}, the newest one that can be read."
    return "None of the earlier ones can be read either; restore one from a copy." if earlier else "It is the only one."


def _read_tree(tree_directory: Path, path: str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    _check_files(tree_directory)
    from mt3jax.loading import flatten

    leaves = flatten(dict(_restore_parameters(tree_directory.resolve())))
    found = {name: np.asarray(leaf) for name, leaf in leaves.items() if leaf is not None}
    shapes = {name: array.shape for name, array in found.items()}
    config = _read_config(tree_directory) or recognise_config(shapes, path)
    table = parameters(config.network)
    check_arrays({p.flax_name: p.shape for p in table}, shapes, path)
    arrays = {p.torch_name: p.flip(np.require(found[p.flax_name], np.float32, "W")) for p in table}
    check_finite(arrays, tree_directory.parent)
    return config, arrays


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
    """The tree of a checkpoint, or of the newest step that has one."""
    if (own := _own_tree(directory)) is not None:
        return own
    return next((found for step in _steps(directory) if (found := _find_tree(step)) is not None), None)


def _own_tree(directory: Path) -> Path | None:
    places = (directory, *(directory / item for item in _TREE_ITEMS))
    return next((place for place in places if (place / _TREE_FILE).is_file()), None)


def _steps(directory: Path) -> list[Path]:
    """The numbered folders of a run, newest first."""
    steps = [entry for entry in directory.iterdir() if entry.name.isdigit()] if directory.is_dir() else []
    return sorted(steps, key=lambda entry: int(entry.name), reverse=True)


def _restore_parameters(directory: Path) -> Mapping[str, Any]:
    """Only the parameters, as NumPy arrays: wherever they were saved, they are restored to the host."""
    checkpoint = _import_orbax()
    import jax

    handler = checkpoint.PyTreeCheckpointHandler(type_handler_registry=_array_readers())
    try:
        described = dict(handler.metadata(directory).tree)
        wanted = {"params": described["params"]} if "params" in described else described
        as_numpy = jax.tree.map(lambda _: checkpoint.RestoreArgs(restore_type=np.ndarray), wanted)
        arguments = checkpoint.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        restored = handler.restore(directory, args=arguments)
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
        raise ModelError(f"The Orbax checkpoint {directory} is damaged: {reason}.", "Use an earlier step.") from error
    return restored.get("params", restored)


@functools.cache
def _array_readers() -> Any:
    """Orbax's registry of readers, but with all reads of arrays at an end before the first error is raised.

    Otherwise those that end later find the event loop closed, and print tracebacks on the terminal.
    """
    from orbax.checkpoint import type_handlers

    class Reader(type_handlers.NumpyHandler):
        async def metadata(self, infos: Sequence[Any]) -> list[Any]:
            describe = super().metadata
            return await _one_by_one(describe([info]) for info in infos)

        async def deserialize(self, infos: Sequence[Any], args: Sequence[Any] | None = None) -> list[np.ndarray]:
            read = super().deserialize
            each = [None] * len(infos) if args is None else [[arg] for arg in args]
            return await _one_by_one(read([info], arg) for info, arg in zip(infos, each, strict=True))

    class Readers(type(type_handlers.create_type_handler_registry())):  # type: ignore[misc]
        def get(self, kind: Any) -> Any:
            usual = type_handlers.get_type_handler(kind)
            arrays = type_handlers.NumpyHandler | type_handlers.ArrayHandler | type_handlers.ScalarHandler
            return reader if isinstance(usual, arrays) else usual

    reader = Reader()
    return Readers()


async def _one_by_one(reads: Iterable[Awaitable[Sequence[Any]]]) -> list[Any]:
    """The single result of each, when all have ended."""
    ends = await asyncio.gather(*reads, return_exceptions=True)
    if errors := [end for end in ends if isinstance(end, BaseException)]:
        raise errors[0]
    return [end[0] for end in ends if not isinstance(end, BaseException)]


def _read_config(tree_directory: Path) -> ModelConfig | None:
    for place in (tree_directory, tree_directory.parent):
        for path in (place / CONFIG_ITEM / _JSON_FILE, place / "config.json"):
            if path.is_file():
                try:
                    return ModelConfig.from_dict(read_json(path))
                except ValueError as error:
                    raise ModelError(f"{path} is not a configuration ({error}).") from error
    return None
