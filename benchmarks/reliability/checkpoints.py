"""Checkpoints of a training run: a damaged one is noticed and set aside, and the one before it is taken."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from reliability.findings import Found
from reliability.kinds import Case, Kind, Reading, Source, digest_of

_STEPS = (2, 4)
_LOOSE = ("run.json", "metrics.jsonl")  # beside the checkpoints


class TrainingCheckpoints(Kind):
    """Opens a run's folder and restores its newest checkpoint, one file of which is mutated."""

    name = "checkpoints"
    command_every = 0

    @classmethod
    def build(cls, folder: Path) -> None:
        from mt3jax.training.run.checkpoints import Checkpoints

        config, shapes = _config_and_shapes()
        with Checkpoints(folder / "run", config, say=lambda line: None) as checkpoints:
            for step in _STEPS:
                checkpoints.save(_state(shapes, step), {"next_example": 8 * step}, {"validation/loss": 1.0 / step})

    def open(self) -> None:
        self._config, self._shapes = _config_and_shapes()
        newest = self.folder / "run" / str(_STEPS[-1])
        paths = [path for path in newest.rglob("*") if path.is_file()] + [self.folder / "run" / "run.json"]
        self.sources = [
            Source(path.relative_to(self.folder).as_posix(), path.read_bytes(), True) for path in sorted(paths)
        ]

    def read(self, source: Source, data: bytes) -> Reading:
        from mt3jax.training.run.checkpoints import Checkpoints

        run = self.scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "run", run)
        (self.scratch / source.name).write_bytes(data)
        said: list[str] = []
        with Checkpoints(run, self._config, said.append) as checkpoints:
            restored = checkpoints.restore(self._shapes)
        if restored is None:
            raise Found("wrong acceptance", "no checkpoint was found in a folder that has two")
        step = int(restored.state.step)
        if step not in _STEPS or _digest(restored.state) != _digest(_state(self._shapes, step)):
            raise Found("wrong acceptance", f"step {step} was restored with other numbers than were saved")
        if restored.data_state != {"next_example": 8 * step}:
            raise Found("wrong acceptance", f"step {step} was restored with the place {restored.data_state}")
        if step != _STEPS[-1] and not any("damaged" in line for line in said):
            raise Found("wrong acceptance", "an earlier checkpoint was taken without a word")
        return Reading(step, digest_of(str(step)), tuple(said))

    def judge(self, case: Case, reading: Reading, whole: Reading) -> str:
        return ""  # `read` compares with what was saved


def _config_and_shapes() -> tuple[Any, Any]:
    from mt3jax.training.step.sharding import make_mesh
    from mt3jax.training.step.state import abstract_state
    from reliability.tiny import tiny_run

    config = tiny_run("cache")
    return config, abstract_state(config, make_mesh(config.compute))


def _state(shapes: Any, step: int) -> Any:
    """Numbers of a step's own in the form of the state."""
    import jax

    leaves, form = jax.tree.flatten(shapes)
    rng = np.random.default_rng(step)
    arrays = [
        jax.device_put((rng.integers(0, 1 << 20, leaf.shape) + 0.1).astype(leaf.dtype), leaf.sharding)
        for leaf in leaves
    ]
    return dataclasses.replace(jax.tree.unflatten(form, arrays), step=jax.device_put(np.int32(step)))


def _digest(state: Any) -> str:
    import jax

    return digest_of(*(np.asarray(leaf) for leaf in jax.tree.leaves(state)))
