"""What the steps are fed with: batches read and packed ahead by a thread, then sent to the devices before their turn.

All batches have the decoder rows that nearly all of them need, so that the step is compiled for one shape and its
memory is known before. Of a batch that needs more, the shortest targets that find no place are left out and counted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array
from jax.sharding import Mesh

from mt3core import packing
from mt3core.config.training import TrainingConfig
from mt3jax.pipeline import Pipeline
from mt3jax.training.step.sharding import to_global

BATCHES_AHEAD = 2  # packed and waiting
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


@dataclass(frozen=True)
class _Fetched:
    packed: dict[str, np.ndarray]
    host: dict[str, np.ndarray]
    data_state: dict[str, Any]
    num_left_out: int


class StepInput:
    """An endless source of `StepBatch`, from a state of the pipeline on. Close it, or use it as a context.

    Attributes:
        rows: decoder rows of a device and part, those of every batch.
        mean_tokens: of a target.
    """

    def __init__(
        self, pipeline: Pipeline, config: TrainingConfig, mesh: Mesh, data_state: dict[str, Any] | None = None
    ) -> None:
        self._config, self._mesh = config, mesh
        self._num_groups = mesh.devices.size // pipeline.num_hosts
        self.mean_tokens, self.rows = choose_rows(pipeline, config, mesh)
        self._batches = iter(pipeline)
        if data_state is not None:
            self._batches.set_state(data_state)
        self._ready: queue.Queue[_Fetched | Exception] = queue.Queue(maxsize=BATCHES_AHEAD)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read, name="step-input", daemon=True)
        self._thread.start()

    def next(self) -> StepBatch:
        """The next batch. Raises what reading it raised."""
        started = time.perf_counter()
        fetched = self._ready.get()
        wait_seconds = time.perf_counter() - started
        if isinstance(fetched, Exception):
            raise fetched
        arrays = to_global(fetched.packed, self._mesh)
        return StepBatch(arrays, fetched.host, fetched.data_state, fetched.num_left_out, wait_seconds)

    def close(self) -> None:
        """Ends the thread and the pipeline's processes."""
        self._ends.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get(timeout=0.05)
        self._batches.close()

    def __enter__(self) -> StepInput:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self) -> None:
        try:
            while not self._ends.is_set():
                batch = next(self._batches)
                packed = packing.split_batch(batch, self._config, self._num_groups, self.rows)
                host = {name: array for name, array in batch.items() if name not in ("audio", "log_mel", "targets")}
                num_left_out = packing.num_left_out(batch, packed)
                self._ready.put(_Fetched(packed, host, self._batches.get_state(), num_left_out))
        except Exception as error:  # handed to whoever asks for the next batch
            self._ready.put(error)


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
