"""What the pipeline keeps of a manifest - numbers only, small enough for worker processes - and the records."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Shaped

from mt3core.errors import DatasetError
from mt3data.examples.process_memory import keep_freed_memory
from mt3data.prepare.chunks import SAMPLE_RATE_HZ
from mt3data.prepare.manifest import READER_OPTIONS, Manifest, array_record_module
from mt3data.readers.tracks import MIX

# Each open shard needs a file descriptor, of which Linux allows 1,024 by default.
MAX_OPEN_SHARDS = 256


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """The chunks of a manifest in its order, one value per chunk; names as indices into tuples of names."""

    shard_paths: tuple[str, ...]
    shard: Int[np.ndarray, " chunks"]
    record: Int[np.ndarray, " chunks"]
    num_samples: Int[np.ndarray, " chunks"]
    start_sample: Int[np.ndarray, " chunks"]  # within the piece
    has_notes: Bool[np.ndarray, " chunks"]
    is_mix: Bool[np.ndarray, " chunks"]
    piece: Int[np.ndarray, " chunks"]  # number of dataset, split and track; the stems of a track share it
    ends_recording: Bool[np.ndarray, " chunks"]  # the last chunk of its stem or mix

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> ChunkTable:
        """Reads the columns of a manifest. A piece is a track of one data set and split."""
        piece = _codes(manifest, ("dataset", "split", "track"))
        stem = _codes(manifest, ("stem",))
        shards, shard = _unique(manifest["shard"])
        start_sample = np.rint(manifest["start_seconds"] * SAMPLE_RATE_HZ).astype(np.int64)
        order = np.lexsort((start_sample, stem, piece))
        ends = np.ones(len(order), bool)
        ends[:-1] = (piece[order][1:] != piece[order][:-1]) | (stem[order][1:] != stem[order][:-1])
        ends_recording = np.empty(len(order), bool)
        ends_recording[order] = ends
        return cls(
            shard_paths=tuple(str(manifest.shard_path(name)) for name in shards.tolist()),
            shard=shard.astype(np.int32),
            record=manifest["index"].astype(np.int32),
            num_samples=np.rint(manifest["duration_seconds"] * SAMPLE_RATE_HZ).astype(np.int32),
            start_sample=start_sample,
            has_notes=manifest["num_notes"] > 0,
            is_mix=(manifest["stem"] == MIX).astype(bool),
            piece=piece,
            ends_recording=ends_recording,
        )

    def __len__(self) -> int:
        return len(self.shard)


def _codes(manifest: Manifest, names: tuple[str, ...]) -> Int[np.ndarray, " chunks"]:
    """A number for every combination of the columns' values, in the order of the values."""
    codes = np.zeros(len(manifest), np.int64)
    for name in names:
        values, inverse = _unique(manifest[name])
        codes = codes * (len(values) + 1) + inverse
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def _unique(column: Shaped[np.ndarray, " chunks"]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct strings, and the number of each row's; through a dictionary, for millions of equal objects."""
    names = np.array(sorted(set(column.tolist())), dtype=object)
    numbers = {name: number for number, name in enumerate(names.tolist())}
    return names, np.fromiter((numbers[name] for name in column.tolist()), np.int64, len(column))


class ShardReader:
    """Reads records by shard and number; opens shards when they are needed. Threads may share one.

    It can be sent to another process, where it opens its own files. The first one opened changes how the process
    keeps memory, see `keep_freed_memory`.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = paths
        # A reader that is dropped is closed when the last thread that reads from it releases it.
        self._reader = functools.lru_cache(MAX_OPEN_SHARDS)(self._open)

    def __reduce__(self) -> tuple[type[ShardReader], tuple[tuple[str, ...]]]:
        return ShardReader, (self.paths,)

    def read(self, shard: int, record: int) -> bytes:
        """One record. Raises `DatasetError` naming the shard if it cannot be read."""
        try:
            return self._reader(shard).read([record])[0]
        except (IndexError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DatasetError(
                f"Record {record} of the shard {self.paths[shard]} cannot be read: {reason}.",
                "Delete the shard and run mt3 prepare again; finished shards are kept.",
            ) from error

    def _open(self, shard: int) -> Any:
        path = self.paths[shard]
        if not Path(path).is_file():
            raise DatasetError(
                f"The shard {path} is missing.",
                "Run mt3 prepare again: it makes the missing shards and keeps the rest.",
            )
        keep_freed_memory()
        return array_record_module().ArrayRecordReader(path, options=READER_OPTIONS)
