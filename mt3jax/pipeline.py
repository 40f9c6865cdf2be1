"""Batches for training and evaluation, read by Grain: ahead of time, in worker processes, resumable at any example.

What an example holds is decided in `mt3data` as a pure function of configuration, manifest and number. Grain
brings it: here it reads whole batches by number, in threads or processes. So neither hosts nor workers nor an
interruption can change what comes.

    config = PipelineConfig("cache/chunk_manifest.parquet", global_batch_size=256, num_workers=16)
    with iter(training_pipeline(config)) as batches:
        for batch in batches:
            ...  # a dictionary of NumPy arrays, this host's share; see `example_streams.make_batch`
            state = batches.get_state()  # JSON-ready; batches.set_state(state) goes on with the next batch

With `num_workers` a program needs `if __name__ == "__main__":` around this, since its workers import it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import multiprocessing
import os
import select
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.config.data import DatasetChoice
from mt3core.errors import DatasetError, UsageError
from mt3core.extras import needed
from mt3core.processes import serve_until_the_parent_ends
from mt3data.examples.chunk_table import ChunkTable
from mt3data.examples.example_streams import (
    Batch,
    BatchShape,
    BatchSource,
    EvaluationStream,
    ExampleStream,
    TrainingStream,
)
from mt3data.examples.examples import ExampleConfig, ExampleMaker
from mt3data.examples.process_memory import keep_freed_memory
from mt3data.examples.sampling import Sampler
from mt3data.examples.shared_memory import check_shared_memory
from mt3data.prepare.manifest import Manifest, check_shards, read_manifest

with needed("datasets", "Feeding prepared data to training"):
    import grain

STATE_VERSION = 1


@dataclass(frozen=True)
class PipelineConfig:
    """Which examples, in batches of how many, and how they are fetched.

    Attributes:
        manifest: a `chunk_manifest.parquet` or the folder that holds it.
        split: train, validation or test.
        datasets: which data sets in which variants (see `sampling`); empty for all of the manifest.
        temperature: data sets are weighted by size ** (1 / temperature); 10/3 is MT3's, 1 follows the size.
        max_examples_per_mix: most stems in a mix across tracks.
        seed: of everything that is drawn.
        global_batch_size: examples in a batch of all hosts together.
        example: segment, tokens, mixing and augmentation.
        num_workers: processes that make batches; 0 for threads of this one.
        num_threads: in each of these processes. NumPy and Python share one core for the most part, so one is enough.
        batches_ahead: that each process keeps ready.
    """

    manifest: str | Path
    split: str = "train"
    datasets: tuple[DatasetChoice, ...] = ()
    temperature: float = 10 / 3
    max_examples_per_mix: int = 4
    seed: int = 0
    global_batch_size: int = 256
    example: ExampleConfig = field(default_factory=ExampleConfig)
    num_workers: int = 0
    num_threads: int = 1
    batches_ahead: int = 2

    def __post_init__(self) -> None:
        if self.global_batch_size < 1 or self.num_workers < 0 or self.num_threads < 0 or self.batches_ahead < 1:
            raise UsageError(
                f"global_batch_size {self.global_batch_size}, num_workers {self.num_workers}, num_threads "
                f"{self.num_threads} and batches_ahead {self.batches_ahead} do not make a pipeline.",
                "Batches and batches ahead are at least 1, workers and threads at least 0.",
            )
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"The seed is {self.seed}.", "Give one of at least 0 that fits 63 bits.")


def training_pipeline(config: PipelineConfig, host: int | None = None, num_hosts: int | None = None) -> Pipeline:
    """Shuffled, mixed and augmented examples without end.

    `host` of `num_hosts` takes its share of every global batch; None asks JAX. Raises `DatasetError` for a manifest
    or shard that is missing or broken and for data sets or splits that are not there.
    """
    manifest, table = _open(config)
    sampler = Sampler(
        manifest,
        table,
        config.split,
        config.datasets,
        config.temperature,
        config.max_examples_per_mix,
        config.seed,
    )
    stream = TrainingStream(ExampleMaker(config.example, table), sampler)
    return Pipeline(config, manifest, stream, *_place(config, host, num_hosts))


def evaluation_pipeline(config: PipelineConfig, host: int | None = None, num_hosts: int | None = None) -> Pipeline:
    """Every segment of every recording of the split, in order and once, as it is: its mix where there are stems.

    The last batch is filled up with rows whose `index` is -1. Targets that are too long are cut (`num_tokens`
    tells), as leaving them out would change what is evaluated. Raises as `training_pipeline`.
    """
    manifest, table = _open(config)
    chosen = (manifest["split"] == config.split) & table.is_mix
    if config.datasets:
        chosen = chosen & np.isin(manifest["dataset"].astype(str), [choice.name for choice in config.datasets])
    if not chosen.any():
        raise DatasetError(
            f"{manifest.path} has no recordings to evaluate in {config.split!r}.",
            f"It has the splits {', '.join(sorted(set(manifest['split'].tolist())))}.",
        )
    stream = EvaluationStream(ExampleMaker(config.example, table), np.flatnonzero(chosen))
    return Pipeline(config, manifest, stream, *_place(config, host, num_hosts))


class Pipeline:
    """Batches by number or one after the other; `iter` begins at the first. See `example_streams.make_batch`."""

    def __init__(
        self, config: PipelineConfig, manifest: Manifest, stream: ExampleStream, host: int, num_hosts: int
    ) -> None:
        self.config = config
        self.manifest = manifest
        self.stream = stream
        self.host, self.num_hosts = host, num_hosts
        self.fingerprint = _fingerprint(config, manifest, type(stream).__name__)

    def shape(self, first_example: int = 0) -> BatchShape:
        return BatchShape(self.config.global_batch_size, self.host, self.num_hosts, first_example)

    def __len__(self) -> int:
        """Batches until the end; for training a number without meaning that no run reaches."""
        return self.shape().num_batches(len(self.stream))

    def batch(self, number: int) -> Batch:
        """This host's share of a batch, made here and now."""
        return BatchSource(self.stream, self.shape())[number]

    def dataset(self, first_example: int = 0) -> grain.IterDataset:
        """The Grain data set of this host's batches from an example on."""
        config = self.config
        source = BatchSource(self.stream, self.shape(first_example))
        ahead = config.batches_ahead if config.num_threads else 0
        options = grain.ReadOptions(config.num_threads, max(ahead, config.num_threads))
        dataset = grain.MapDataset.source(source).to_iter_dataset(options)
        if config.num_workers:
            _refuse_to_start_twice()
            check_shared_memory(config.num_workers, config.batches_ahead, source.num_bytes)
            _let_grain_read_its_flags()
            keep_freed_memory()  # for the batches copied out of the workers' memory
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(config.num_workers, per_worker_buffer_size=config.batches_ahead),
                serve_until_the_parent_ends,
            )
        return dataset

    def __iter__(self) -> PipelineIterator:
        return PipelineIterator(self)


class PipelineIterator(grain.DatasetIterator):
    """One pass through a pipeline.

    The state is the number of the next example with fingerprints of configuration and manifest: it can be taken up
    with other numbers of hosts and workers and another batch size. Being a Grain iterator, it is saved by Orbax's and
    Grain's checkpoint handlers, too.
    """

    def __init__(self, pipeline: Pipeline, first_example: int = 0) -> None:
        super().__init__()
        self._pipeline = pipeline
        self._next_example = first_example
        self._batches: Any = None

    def __next__(self) -> Batch:
        self._assert_not_closed()
        if self._batches is None:
            self.start_prefetch()
        batch = next(self._batches)
        self._next_example += self._pipeline.config.global_batch_size
        if self._pipeline.config.num_workers:
            # Out of the memory shared with the workers, which Grain frees only when the last view of it is gone.
            batch = {name: np.array(array) for name, array in batch.items()}
        return batch

    def get_state(self) -> dict[str, Any]:
        """JSON-ready: what `set_state` takes."""
        return {
            "version": STATE_VERSION,
            "next_example": self._next_example,
            "fingerprint": self._pipeline.fingerprint,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the example after the last that had been given out when the state was taken.

        Raises `DatasetError` where the state belongs to another configuration or other data.
        """
        if state.get("version") != STATE_VERSION or not isinstance(state.get("next_example"), int):
            raise DatasetError(
                f"This is no state of a data pipeline of version {STATE_VERSION}.", "Start again without it."
            )
        for part, name in (("config", "configuration"), ("manifest", "manifest")):
            if state["fingerprint"][part] != self._pipeline.fingerprint[part]:
                raise DatasetError(
                    f"The state of the data pipeline was saved with another {name}; the examples would not be those "
                    "that follow.",
                    f"Use the {name} of the run, or start a new one.",
                )
        self._stop()
        self._next_example = state["next_example"]

    def start_prefetch(self) -> None:
        """Starts reading ahead, before the first batch is asked for."""
        if self._batches is None:
            self._batches = iter(self._pipeline.dataset(self._next_example))
            self._batches.start_prefetch()

    def close(self) -> None:
        """Ends threads and processes."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def __enter__(self) -> PipelineIterator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _refuse_to_start_twice() -> None:
    """Ends a worker that imports a program without a guard, which starts workers as it is imported.

    The process that started it may still be writing to it (the table of chunks is larger than a pipe holds) and
    would wait for ever, so that is read until no more comes.
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
        'Put what the program does below a line: if __name__ == "__main__":',
    )


def _let_grain_read_its_flags() -> None:
    """Grain's processes ask absl's command line flags, which nobody has parsed in a program without absl's `run`."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _open(config: PipelineConfig) -> tuple[Manifest, ChunkTable]:
    """The manifest, its shards looked at as far as the configuration needs them, and the table of all its chunks."""
    manifest = read_manifest(config.manifest)
    needed = manifest["split"] == config.split
    if config.datasets:
        needed = needed & np.isin(manifest["dataset"].astype(str), [choice.name for choice in config.datasets])
    check_shards(manifest.select(needed))
    return manifest, ChunkTable.from_manifest(manifest)


def _place(config: PipelineConfig, host: int | None, num_hosts: int | None) -> tuple[int, int]:
    if host is None or num_hosts is None:
        import jax

        host, num_hosts = jax.process_index(), jax.process_count()
    if config.global_batch_size % num_hosts or not 0 <= host < num_hosts:
        raise UsageError(
            f"A global batch of {config.global_batch_size} examples cannot be shared equally by {num_hosts} hosts.",
            "Choose a multiple.",
        )
    return host, num_hosts


def _fingerprint(config: PipelineConfig, manifest: Manifest, mode: str) -> dict[str, str]:
    """Of what decides which examples come; not of what only decides how they are fetched."""
    values = dataclasses.asdict(config)
    for name in ("manifest", "global_batch_size", "num_workers", "num_threads", "batches_ahead"):
        del values[name]
    data = hashlib.sha256()
    for name in ("checksum", "index", "start_seconds"):
        data.update(np.ascontiguousarray(manifest[name]).tobytes())
    text = json.dumps({"mode": mode, **values}, sort_keys=True)
    return {"config": hashlib.sha256(text.encode()).hexdigest()[:16], "manifest": data.hexdigest()[:16]}
