"""Batches for training and evaluation, read by Grain: ahead of time, in worker processes, resumable at any example.

The content of an example is decided in `mt3data` as a pure function of configuration, manifest and number. Grain
loads it: here it reads whole batches by number, in threads or processes. So neither hosts nor workers nor an
interruption can change the examples.

    data = DataConfig("cache/chunk_manifest.parquet", num_workers=16)
    with iter(training_pipeline(data, batch_size=256)) as batches:
        for batch in batches:
            ...  # a dictionary of NumPy arrays, this host's share; see `ExampleStream.batch`
            state = batches.get_state()  # JSON-ready; batches.set_state(state) continues with the next batch

With `num_workers` a program needs `if __name__ == "__main__":` around this, since its workers import it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import multiprocessing
import os
import re
import select
import signal
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np

from mt3core.config.data import DataConfig
from mt3core.config.values import decisive
from mt3core.errors import DatasetError, ProcessError, UsageError
from mt3core.extras import needed
from mt3core.processes import serve_until_the_parent_ends
from mt3data.examples.chunk_table import ChunkTable
from mt3data.examples.example_streams import Batch, BatchShape, EvaluationStream, ExampleStream, TrainingStream
from mt3data.examples.examples import ExampleConfig, ExampleMaker
from mt3data.examples.process_memory import keep_freed_memory
from mt3data.examples.sampling import Sampler
from mt3data.examples.shared_memory import check_shared_memory
from mt3data.prepare.manifest import Manifest, check_shards, read_manifest

with needed("datasets", "Reading prepared data for training"):
    import grain

STATE_VERSION = 1


DEFAULT_EXAMPLE = ExampleConfig()


def training_pipeline(
    data: DataConfig,
    batch_size: int = 256,
    *,
    example: ExampleConfig = DEFAULT_EXAMPLE,
    split: str = "train",
    seed: int = 0,
    host: int | None = None,
    num_hosts: int | None = None,
) -> Pipeline:
    """Endless shuffled, mixed and augmented examples.

    Args:
        data: which examples, and how they are loaded.
        batch_size: examples in a batch of all hosts together.
        example: the form of an example: segment, tokens, audio.
        split: train, validation or test.
        seed: of all random draws.
        host: of `num_hosts`, reads its share of every batch; None asks JAX.

    Raises `DatasetError` for a manifest or shard that is missing or damaged and for data sets or splits that do not
    exist, `UsageError` for a batch that cannot be divided among the hosts.
    """
    manifest, maker = _open(data, example, split)
    sampler = Sampler(manifest, maker.table, split, data, seed)
    stream = TrainingStream(maker, sampler, _shape(batch_size, host, num_hosts))
    return Pipeline(data, manifest, stream, split, seed)


def evaluation_pipeline(
    data: DataConfig,
    batch_size: int = 256,
    *,
    example: ExampleConfig = DEFAULT_EXAMPLE,
    split: str = "validation",
    host: int | None = None,
    num_hosts: int | None = None,
) -> Pipeline:
    """Every segment of every recording of the split, once and in order, unchanged: the mix if there are stems.

    The last batch is padded with rows whose `index` is -1. Targets that are too long are cut (see `num_tokens`),
    since leaving them out would change the evaluation. Arguments and errors are those of `training_pipeline`.
    """
    manifest, maker = _open(data, example, split)
    rows = np.flatnonzero(manifest.recordings(split, data.datasets))
    return Pipeline(data, manifest, EvaluationStream(maker, rows, _shape(batch_size, host, num_hosts)), split)


class Pipeline:
    """Batches by number or one after the other; `iter` starts with the first. See `ExampleStream.batch`."""

    def __init__(self, data: DataConfig, manifest: Manifest, stream: ExampleStream, split: str, seed: int = 0) -> None:
        self.data, self.manifest, self.stream = data, manifest, stream
        self.fingerprint = _fingerprint(data, manifest, stream, split, seed)

    def __len__(self) -> int:
        """Number of batches until the end; for training, a number that no run reaches."""
        return len(self.stream)

    def batch(self, number: int) -> Batch:
        """This host's share of a batch, made immediately in this process."""
        return self.stream[number]

    def dataset(self, first_example: int = 0, finish: Callable[[Batch], Any] | None = None) -> grain.IterDataset:
        """The Grain data set of this host's batches from an example on; `finish` is applied by the workers."""
        data = self.data
        source = grain.MapDataset.source(self.stream.starting_at(first_example))
        ahead = data.batches_ahead if data.num_threads else 0
        options = grain.ReadOptions(data.num_threads, max(ahead, data.num_threads))
        dataset = (source if finish is None else source.map(finish)).to_iter_dataset(options)
        if data.num_workers:
            _refuse_to_start_twice()
            check_shared_memory(data.num_workers, data.batches_ahead, self.stream.num_bytes)
            _let_grain_read_its_flags()
            keep_freed_memory()  # for the batches copied out of the workers' memory
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(data.num_workers, per_worker_buffer_size=data.batches_ahead),
                serve_until_the_parent_ends,
            )
        return dataset

    def __iter__(self) -> PipelineIterator:
        return PipelineIterator(self)


class PipelineIterator(grain.DatasetIterator):
    """One pass through a pipeline; `finish` may change its batches in the workers.

    The state is the number of the next example with fingerprints of configuration and manifest: it can be restored
    with other numbers of hosts and workers and another batch size. Since this is a Grain iterator, the checkpoint
    handlers of Orbax and Grain can save it as well.
    """

    def __init__(self, pipeline: Pipeline, finish: Callable[[Batch], Any] | None = None) -> None:
        super().__init__()
        self._pipeline, self._finish = pipeline, finish
        self._next_example = 0
        self._batches: Any = None

    def __next__(self) -> Any:
        self._assert_not_closed()
        if self._batches is None:
            self.start_prefetch()
        try:
            batch = next(self._batches)
        except RuntimeError as error:
            if ended := re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error)):  # of Grain
                raise _worker_ended(int(ended[1]), self._pipeline.data) from error
            raise
        self._next_example += self._pipeline.stream.shape.global_size
        if self._pipeline.data.num_workers:
            # Copied out of the memory shared with the workers, which Grain frees only when its last view is gone.
            batch = jax.tree.map(np.array, batch)
        return batch

    def get_state(self) -> dict[str, Any]:
        """JSON-ready: the argument of `set_state`."""
        return {
            "version": STATE_VERSION,
            "next_example": self._next_example,
            "fingerprint": self._pipeline.fingerprint,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the example after the last one returned when the state was saved.

        Raises `DatasetError` if the state belongs to another configuration or other data.
        """
        if state.get("version") != STATE_VERSION or not isinstance(state.get("next_example"), int):
            raise DatasetError(
                f"This is not the state of a data pipeline of version {STATE_VERSION}.", "Start without it."
            )
        for part, name in (("config", "configuration"), ("manifest", "manifest")):
            if state["fingerprint"][part] != self._pipeline.fingerprint[part]:
                raise DatasetError(
                    f"The state of the data pipeline was saved with a different {name}; the examples would differ.",
                    f"Use the {name} of the run, or start a new one.",
                )
        self._stop()
        self._next_example = state["next_example"]

    def start_prefetch(self) -> None:
        """Starts reading ahead, before the first batch is requested."""
        if self._batches is None:
            self._batches = iter(self._pipeline.dataset(self._next_example, self._finish))
            self._batches.start_prefetch()

    def close(self) -> None:
        """Ends threads and processes."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _worker_ended(exit_code: int, data: DataConfig) -> ProcessError:
    """The error for a reading process that ended by itself or was killed; the exit code is then minus the signal."""
    which = f"A reading process (data.num_workers is {data.num_workers})"
    again = "Run the same command again to resume"
    if exit_code >= 0:
        return ProcessError(f"{which} ended with exit code {exit_code}.", f"Its own message is above. {again}.")
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    reasons = {
        "SIGKILL": (
            ", probably by the system because memory ran out",
            f"{again}, with fewer --set data.num_workers or data.batches_ahead, or with more memory.",
        ),
        "SIGBUS": (
            ", because /dev/shm, through which batches are passed, is full",
            f"{again}, with more shared memory (docs/training.md), or with fewer --set data.num_workers or "
            "data.batches_ahead.",
        ),
    }
    reason, next_step = reasons.get(name, ("", f"{again}; with --set data.num_workers=0 there are no such processes."))
    return ProcessError(f"{which} was killed by {name}{reason}.", next_step)


def _refuse_to_start_twice() -> None:
    """Ends a worker that imports a program without a guard, which would start workers while it is imported.

    The process that started it may still be writing to it (the table of chunks is larger than a pipe) and would
    wait for ever, so its data is read until there is no more.
    """
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    frame = inspect.currentframe()
    while frame is not None and "from_parent" not in frame.f_locals:  # of multiprocessing.spawn
        frame = frame.f_back
    if frame is not None and os.name == "posix":
        pipe = frame.f_locals["from_parent"].fileno()
        while select.select([pipe], [], [], 1.0)[0] and os.read(pipe, 1 << 20):
            pass
    raise UsageError(
        "The processes of num_workers import your program, which starts them again.",
        'Put the main part of the program under: if __name__ == "__main__":',
    )


def _let_grain_read_its_flags() -> None:
    """Grain's processes read absl's command line flags, which nobody has parsed in a program without absl's `run`."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _open(data: DataConfig, example: ExampleConfig, split: str) -> tuple[Manifest, ExampleMaker]:
    """The manifest, with the shards checked as far as they are needed, and the source of examples of all its chunks."""
    manifest = read_manifest(data.manifest)
    check_shards(manifest.select(manifest.belongs(split, data.datasets)))
    return manifest, ExampleMaker(example, ChunkTable.from_manifest(manifest), data)


def _shape(batch_size: int, host: int | None, num_hosts: int | None) -> BatchShape:
    host = jax.process_index() if host is None else host
    num_hosts = jax.process_count() if num_hosts is None else num_hosts
    if batch_size < 1 or batch_size % num_hosts or not 0 <= host < num_hosts:
        raise UsageError(
            f"A global batch of {batch_size} examples cannot be divided equally among {num_hosts} hosts.",
            "Choose a multiple.",
        )
    return BatchShape(batch_size, host, num_hosts)


def _fingerprint(data: DataConfig, manifest: Manifest, stream: ExampleStream, split: str, seed: int) -> dict[str, str]:
    """Fingerprint of the settings that decide which examples come; not of those that only decide how they load."""
    values = decisive(data)
    del values["composed_pieces"]  # it has already decided the content of the manifest
    # In its original layout, so that existing saved states stay valid.
    example = (
        dataclasses.asdict(stream.config)
        | {"model": stream.config.model.values()}
        | {name: values.pop(name) for name in ("part_gain_db", "augmentation")}
    )
    values |= {"mode": type(stream).__name__, "split": split, "seed": seed, "example": example}
    listed = hashlib.sha256()
    for name in ("checksum", "index", "start_seconds"):
        listed.update(np.ascontiguousarray(manifest[name]).tobytes())
    text = json.dumps(values, sort_keys=True)
    return {"config": hashlib.sha256(text.encode()).hexdigest()[:16], "manifest": listed.hexdigest()[:16]}
