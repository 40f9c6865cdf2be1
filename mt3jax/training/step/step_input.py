"""What the steps are fed with: the pipeline's batches, packed as they are made, and sent to the devices.

All batches have the decoder rows that nearly all of them need, so that the step is compiled for one shape and its
memory is known before. Of a batch that needs more, the shortest targets that find no place are left out and counted.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array
from jax.sharding import Mesh

from mt3core import packing
from mt3core.config.training import TrainingConfig
from mt3jax.pipeline import Pipeline, PipelineIterator
from mt3jax.training.step.sharding import to_global

SAMPLED_EXAMPLES = 1024  # whose lengths decide the rows


@dataclass(frozen=True)
class StepBatch:
    """One step's examples.

    `arrays` are on the devices, in the form of `packing.split_batch`. `host` has what this host's pipeline said of its
    share, without audio and targets, of which `num_left_out` found no place. `data_state` is where the pipeline goes
    on after it. `wait_seconds` went by before it was there.
    """

    arrays: dict[str, Array]
    host: dict[str, np.ndarray]
    data_state: dict[str, Any]
    num_left_out: int = 0
    wait_seconds: float = 0.0


class StepInput(PipelineIterator):
    """An endless source of `StepBatch`, from a state of the pipeline on. Close it, or use it as a context.

    Batches are packed where they are made, and made ahead from the beginning.

    Attributes:
        rows: decoder rows of a device and part, those of every batch.
        mean_tokens: of a target.
    """

    def __init__(
        self, pipeline: Pipeline, config: TrainingConfig, mesh: Mesh, data_state: dict[str, Any] | None = None
    ) -> None:
        self._mesh = mesh
        self.mean_tokens, self.rows = choose_rows(pipeline, config, mesh)
        num_groups = mesh.devices.size // pipeline.stream.shape.num_hosts
        pack = functools.partial(packing.for_step, config=config, num_groups=num_groups, rows=self.rows)
        super().__init__(pipeline, pack)
        if data_state is not None:
            self.set_state(data_state)
        self.start_prefetch()

    def __next__(self) -> StepBatch:
        """The next batch. Raises what reading it raised."""
        started = time.perf_counter()
        packed, host, num_left_out = super().__next__()
        wait_seconds = time.perf_counter() - started
        return StepBatch(to_global(packed, self._mesh), host, self.get_state(), int(num_left_out), wait_seconds)


def choose_rows(pipeline: Pipeline, config: TrainingConfig, mesh: Mesh) -> tuple[float, int]:
    """Tokens of a target on average, and decoder rows of a device and part that nearly all batches fit.

    The same on every host, as it depends on the configuration and the data only.
    """
    batch = config.batch
    most = batch.examples // batch.accumulation // mesh.size
    limit = config.model.network.max_target_tokens
    examples = (pipeline.stream.example(number) for number in range(SAMPLED_EXAMPLES))
    lengths = np.minimum([example.num_tokens for example in examples], limit)
    if not batch.packed:
        return float(lengths.mean()), most
    rows = batch.rows or packing.choose_rows(
        lengths, most, limit, batch.block_tokens, groups_per_step=batch.accumulation * mesh.size
    )
    return float(lengths.mean()), min(rows, most)
