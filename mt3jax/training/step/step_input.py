"""The input of the steps: the pipeline's batches, packed as they are made, and sent to the devices.

All batches have the number of decoder rows that nearly all of them need, so that the step is compiled for one shape and
its memory is known in advance. If a batch needs more, the shortest targets without a place are left out and counted.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array
from jax.sharding import Mesh

from mt3core.config.training import TrainingConfig
from mt3jax import row_packing
from mt3jax.pipeline import Pipeline, PipelineIterator
from mt3jax.training.step.sharding import to_global

SAMPLED_EXAMPLES = 1024  # their lengths decide the number of rows


@dataclass(frozen=True)
class StepBatch:
    """One step's examples.

    `arrays` are on the devices, in the form of `row_packing.split_batch`. `host` has the pipeline's other data on this
    host's share, without audio and targets; `num_left_out` of them found no place. `data_state` is where the pipeline
    continues after it. `wait_seconds` is how long the loop waited for it.
    """

    arrays: dict[str, Array]
    host: dict[str, np.ndarray]
    data_state: dict[str, Any]
    num_left_out: int = 0
    wait_seconds: float = 0.0


class StepInput(PipelineIterator):
    """An endless source of `StepBatch`, starting at a state of the pipeline. Close it, or use it as a context.

    Batches are packed where they are made, and made ahead from the start.

    Attributes:
        rows: decoder rows per device and microbatch, the same for every batch.
        mean_tokens: per target.
    """

    def __init__(
        self, pipeline: Pipeline, config: TrainingConfig, mesh: Mesh, data_state: dict[str, Any] | None = None
    ) -> None:
        self._mesh = mesh
        self.mean_tokens, self.rows = choose_rows(pipeline, config, mesh)
        num_groups = mesh.devices.size // pipeline.stream.shape.num_hosts
        pack = functools.partial(row_packing.for_step, config=config, num_groups=num_groups, rows=self.rows)
        super().__init__(pipeline, pack)
        if data_state is not None:
            self.set_state(data_state)
        self.start_prefetch()

    def __next__(self) -> StepBatch:
        """The next batch. Raises the errors of reading it."""
        started = time.perf_counter()
        packed, host, num_left_out = super().__next__()
        wait_seconds = time.perf_counter() - started
        return StepBatch(to_global(packed, self._mesh), host, self.get_state(), int(num_left_out), wait_seconds)


def choose_rows(pipeline: Pipeline, config: TrainingConfig, mesh: Mesh) -> tuple[float, int]:
    """Mean number of tokens per target, and decoder rows per device and microbatch that fit nearly all batches.

    The same on every host, since it depends only on the configuration and the data.
    """
    batch = config.batch
    most = batch.examples // batch.accumulation // mesh.size
    limit = config.model.network.max_target_tokens
    examples = (pipeline.stream.example(number) for number in range(SAMPLED_EXAMPLES))
    lengths = np.minimum([example.num_tokens for example in examples], limit)
    if not batch.packed:
        return float(lengths.mean()), most
    rows = batch.rows or row_packing.choose_rows(
        lengths, most, limit, batch.block_tokens, groups_per_step=batch.accumulation * mesh.size
    )
    return float(lengths.mean()), min(rows, most)
