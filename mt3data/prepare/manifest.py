"""The manifest of prepared data: a Parquet table with one row per chunk, which says in which shard it is.

Shards are ArrayRecord files (see `chunks.py` for a record) next to the manifest or below its folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from mt3core.config.data import DatasetChoice
from mt3core.errors import DatasetError
from mt3core.extras import needed
from mt3core.files import atomic_output
from mt3core.json_text import json_value
from mt3data.readers.defects import parquet_modules
from mt3data.readers.tracks import MIX

MANIFEST_NAME = "chunk_manifest.parquet"
COMPOSED_NAME = "composed"  # the data set that training makes itself, see composed.py
MANIFEST_VERSION = 1
# One record per group, because Grain reads single records at random. Not compressed: zstd saves 10 % of int16 audio and
# makes reading eight times slower (measured: 1.6 ms against 0.2 ms); FLAC inside the record saves much more.
SHARD_OPTIONS = "group_size:1,uncompressed"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"

COLUMNS: dict[str, str] = {
    "dataset": "string",  # maestro, slakh, folder, or the name it was prepared under
    "split": "string",
    "track": "string",
    "stem": "string",  # tracks.MIX for the whole recording
    "program": "int32",  # of a stem; DRUM_PROGRAM for drums, -1 for a mix
    "is_drum": "bool",
    "instrument_class": "string",
    "shard": "string",  # path relative to the manifest's folder, with slashes
    "index": "int32",  # of the record within the shard
    "start_seconds": "double",  # within the piece
    "duration_seconds": "double",
    "num_notes": "int32",  # that sound in the chunk
    "checksum": "uint32",  # CRC-32 of the record
    "defects": "string",  # words, with a count if useful: "clipped:12 notes_past_audio:3"
    "licence": "string",
}
_VERSION_KEY = b"mt3_manifest"


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, column by column; `manifest["program"]` is an array with one value per chunk."""

    path: Path
    columns: dict[str, Shaped[np.ndarray, " chunks"]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __getitem__(self, name: str) -> Shaped[np.ndarray, " chunks"]:
        return self.columns[name]

    def select(self, rows: Shaped[np.ndarray, " rows"]) -> Manifest:
        """Some of the rows, given by a mask or by indices."""
        return Manifest(self.path, {name: column[rows] for name, column in self.columns.items()})

    def belongs(self, split: str, datasets: Sequence[DatasetChoice] = ()) -> Bool[np.ndarray, " chunks"]:
        """Whether each chunk is of the split and of one of the data sets; of any if none are given."""
        names = [choice.name for choice in datasets]
        in_split = self["split"] == split
        return in_split & np.isin(self["dataset"].astype(str), names) if names else in_split

    def recordings(
        self, split: str, datasets: Sequence[DatasetChoice] = (), next_step: str = "Choose another split or data set."
    ) -> Bool[np.ndarray, " chunks"]:
        """Whether each chunk belongs to a whole recording of the split and of these data sets, or of all.

        Raises `DatasetError`, with the given next step, if none does.
        """
        chosen = self.belongs(split, datasets) & (self["stem"] == MIX)
        if not chosen.any():
            names = f" of {', '.join(choice.name for choice in datasets)}" if datasets else ""
            splits = ", ".join(sorted(set(self["split"].tolist())))
            raise DatasetError(
                f"{self.path} has no recordings{names} in {split!r}; its splits are {splits}.", next_step
            )
        return chosen

    def shards(self) -> list[str]:
        """The shards' relative paths in the order of the rows."""
        return list(dict.fromkeys(self.columns["shard"].tolist()))

    def shard_path(self, shard: str) -> Path:
        return self.path.parent / shard


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows, each with every name in COLUMNS, in the order given; the same rows give the same bytes."""
    parquet, pyarrow = parquet_modules()
    rows = list(rows)
    types = {name: pyarrow.type_for_alias(alias) for name, alias in COLUMNS.items()}
    try:
        arrays = [pyarrow.array([row[name] for row in rows], type_) for name, type_ in types.items()]
    except pyarrow.ArrowException as error:
        raise DatasetError(
            f"The rows of {path} have a value that does not fit: {error}.", "Prepare the data set again."
        ) from error
    schema = pyarrow.schema(list(types.items()), {_VERSION_KEY: json.dumps({"version": MANIFEST_VERSION})})
    with atomic_output(path) as temporary:
        try:
            parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")
        except OSError as error:
            raise DatasetError(f"{path} cannot be written: {error.strerror or error}.", "Free disk space.") from error


def read_manifest(path: str | Path) -> Manifest:
    """Reads a manifest, given by its file or by the folder that contains it.

    Strings are columns of Python objects; equal strings are the same object. Raises `DatasetError` for a file that
    is not a manifest, lacks a column or was made by a newer release, and `MissingExtraError` without pyarrow.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        raise DatasetError(f"There is no manifest {path}.", "Make it with mt3 prepare, or pass its path.")
    parquet, pyarrow = parquet_modules()
    try:
        with parquet.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow)
            table = file.read(columns=list(COLUMNS))
            columns = _columns(path, table)
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(f"{path} cannot be read as a manifest: {reason}.", "Make it again: mt3 prepare.") from error
    return Manifest(path, columns)


def check_shards(manifest: Manifest) -> None:
    """Opens every shard. Raises `DatasetError` naming the first that is missing, truncated or lacks records."""
    problems = shard_problems(manifest)
    if problems:
        others = f" So are {len(problems) - 1} more." if len(problems) > 1 else ""
        raise DatasetError(
            problems[0] + others, "Run mt3 prepare again: it makes the missing shards and keeps the rest."
        )


def shard_problems(manifest: Manifest) -> list[str]:
    """A sentence for each shard of the manifest that is missing, truncated, or has fewer records than the rows say."""
    needed: dict[str, int] = {}
    for shard, index in zip(manifest["shard"].tolist(), manifest["index"].tolist(), strict=True):
        needed[shard] = max(needed.get(shard, 0), index + 1)
    problems = [shard_problem(manifest.shard_path(shard), count) for shard, count in needed.items()]
    return [problem for problem in problems if problem]


def shard_problem(path: Path, num_records: int) -> str:
    """What is wrong with a shard that should have at least `num_records`; empty if nothing."""
    if not path.is_file():
        return f"The shard {path} is missing."
    reader = array_record_module().ArrayRecordReader(str(path), options=READER_OPTIONS)
    try:
        found = reader.num_records()
        if not reader.ok():
            return f"The shard {path} is truncated or damaged."
        return "" if found >= num_records else f"The shard {path} has {found} records instead of {num_records}."
    finally:
        with contextlib.suppress(RuntimeError):  # closing a damaged file raises its error again
            reader.close()


def array_record_module() -> Any:
    """ArrayRecord's reader and writer. Raises `MissingExtraError` if the package is not installed."""
    with needed("datasets", "Prepared data"):
        from array_record.python import array_record_module
    return array_record_module


def _check_schema(path: Path, schema: Any) -> None:
    try:
        version = json_value((schema.metadata or {})[_VERSION_KEY])["version"]
    except (KeyError, ValueError, TypeError) as error:
        raise DatasetError(
            f"{path} is a Parquet file but not a manifest of prepared chunks.", "Use the file written by mt3 prepare."
        ) from error
    if version > MANIFEST_VERSION:
        raise DatasetError(
            f"{path} is a manifest of version {version}; this release reads up to {MANIFEST_VERSION}.",
            "Install a newer release of mt3kit, or prepare the data again.",
        )
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(missing)}.", "Make it again: mt3 prepare.")


def _columns(path: Path, table: Any) -> dict[str, Shaped[np.ndarray, " chunks"]]:
    _, pyarrow = parquet_modules()
    columns = {}
    for name, alias in COLUMNS.items():
        if table.schema.field(name).type != pyarrow.type_for_alias(alias) or table[name].null_count:
            raise DatasetError(f"{path}: column {name} must be {alias} throughout.", "Make it again: mt3 prepare.")
        columns[name] = _strings(table[name]) if alias == "string" else table[name].to_numpy()
    return columns


def _strings(column: Any) -> Shaped[np.ndarray, " chunks"]:
    encoded = column.combine_chunks().dictionary_encode()
    if hasattr(encoded, "combine_chunks"):
        encoded = encoded.combine_chunks()
    values = np.array(encoded.dictionary.to_pylist(), dtype=object)
    return values[encoded.indices.to_numpy(zero_copy_only=False)] if len(values) else np.empty(0, dtype=object)
