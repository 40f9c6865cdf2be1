"""What the steps are fed with: batches read and packed ahead by a thread, then sent to the devices before their turn.

A batch comes in one of two shapes: with the decoder rows that nearly all batches need, or with one row an example,
which every batch fits. Which one, all hosts have to agree on; that is asked two batches ahead, so that no device waits.
"""

from __future__ import annotations

import collections
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
from mt3core.datasets.example_streams import Batch
from mt3core.training_config import TrainingConfig
from mt3jax.pipeline import Pipeline
from mt3jax.training.hosts import Agreement
from mt3jax.training.sharding import to_global

ASKED_AHEAD = 2
SAMPLED_EXAMPLES = 256  # whose lengths decide the rows


@dataclass(frozen=True)
class StepBatch:
    """One step's examples.

    `arrays` are on the devices, in the form of `packing.split_batch`; `rows` are those of a device and part. `host`
    has what this host's pipeline said of its share, without audio and targets. `data_state` is where the pipeline
    goes on after it. `wait_seconds` went by before it was there.
    """

    arrays: dict[str, Array]
    rows: int
    host: dict[str, np.ndarray]
    data_state: dict[str, Any]
    wait_seconds: float


@dataclass
class _Fetched:
    batch: Batch
    packed: dict[str, np.ndarray]
    needs_more: bool
    data_state: dict[str, Any]
    question: Any = None


class StepInput:
    """An endless source of `StepBatch`, from a state of the pipeline on. Close it, or use it as a context."""

    def __init__(
        self, pipeline: Pipeline, config: TrainingConfig, mesh: Mesh, data_state: dict[str, Any] | None = None
    ) -> None:
        self._config, self._mesh = config, mesh
        self._num_groups = mesh.devices.size // pipeline.num_hosts
        self.mean_tokens, self.rows, self.most_rows = choose_rows(pipeline, config, mesh)
        self._batches = iter(pipeline)
        if data_state is not None:
            self._batches.set_state(data_state)
        self._agreement = Agreement(mesh)
        self._asked: collections.deque[_Fetched] = collections.deque()
        self._ready: queue.Queue[_Fetched | Exception] = queue.Queue(maxsize=ASKED_AHEAD)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read, name="step-input", daemon=True)
        self._thread.start()

    def next(self) -> StepBatch:
        """The next batch. Raises what reading it raised."""
        started = time.perf_counter()
        while len(self._asked) < ASKED_AHEAD:
            fetched = self._ready.get()
            if isinstance(fetched, Exception):
                raise fetched
            fetched.question = self._agreement.ask(int(fetched.needs_more))
            self._asked.append(fetched)
        wait_seconds = time.perf_counter() - started
        fetched = self._asked.popleft()
        is_more = bool(self._agreement.answer(fetched.question))
        if is_more and not fetched.needs_more:
            fetched.packed = self._pack(fetched.batch, self.most_rows)
        return StepBatch(
            to_global(fetched.packed, self._mesh),
            self.most_rows if is_more else self.rows,
            {name: array for name, array in fetched.batch.items() if name not in ("audio", "log_mel", "targets")},
            fetched.data_state,
            wait_seconds,
        )

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
                needed = self._rows_needed(batch)
                packed = self._pack(batch, self.rows if needed <= self.rows else self.most_rows)
                self._ready.put(_Fetched(batch, packed, needed > self.rows, self._batches.get_state()))
        except Exception as error:  # handed to whoever asks for the next batch
            self._ready.put(error)

    def _rows_needed(self, batch: Batch) -> int:
        """Rows that the fullest group of any part needs."""
        if self.rows == self.most_rows:
            return self.rows
        return packing.rows_of_batch(batch, self._config, self._num_groups)

    def _pack(self, batch: Batch, rows: int) -> dict[str, np.ndarray]:
        return packing.split_batch(batch, self._config, self._num_groups, rows)


def choose_rows(pipeline: Pipeline, config: TrainingConfig, mesh: Mesh) -> tuple[float, int, int]:
    """Tokens of a target on average; decoder rows of a device and part that nearly all batches need, and the most.

    The same on every host, as it depends on the configuration and the data only.
    """
    batch = config.batch
    most = batch.examples // batch.accumulation // mesh.size
    limit = config.model.network.max_target_tokens
    examples = (pipeline.stream.example(number) for number in range(SAMPLED_EXAMPLES))
    lengths = np.minimum([example.num_tokens for example in examples], limit)
    if not batch.packed:
        return float(lengths.mean()), most, most
    rows = batch.rows or packing.choose_rows(
        lengths, most, limit, batch.block_tokens, groups_per_step=batch.accumulation * mesh.size
    )
    return float(lengths.mean()), min(rows, most), most


def chunk_names(pipeline: Pipeline, host: dict[str, np.ndarray]) -> list[str]:
    """What the examples of a batch were cut from: `dataset/split/track/stem`, seconds, row of the manifest."""
    manifest = pipeline.manifest
    frames_per_second = pipeline.config.example.model.spectrogram.frames_per_second
    return [
        "/".join(str(manifest[name][row]) for name in ("dataset", "split", "track", "stem"))
        + f" at {frame / frames_per_second:.2f} s (row {row}, example {index}, {parts} parts)"
        for row, frame, index, parts in zip(
            host["row"].tolist(),
            host["first_frame"].tolist(),
            host["index"].tolist(),
            host["num_parts"].tolist(),
            strict=True,
        )
        if row >= 0
    ]
