"""Runs a preparation and looks at what it wrote."""

import os
from pathlib import Path

import numpy as np

from mt3app.cli_data import PrepareOptions
from mt3app.commands.prepare import prepare_dataset
from mt3app.progress import Reporter
from mt3data.prepare.chunks import decode_chunk
from mt3data.prepare.manifest import array_record_module, read_manifest

QUIET = Reporter(quiet=True)


def run(directory: Path, out: Path, **options) -> int:
    return prepare_dataset(
        PrepareOptions(**{"kind": "folder", "processes": 1, **options, "directory": directory, "out": out}), QUIET
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and every folder."""
    paths = [Path(place) / name for place, folders, files in os.walk(folder) for name in [*folders, *files]]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in paths}


def chunks_of(out: Path, **wanted) -> list:
    """The decoded chunks whose row has these values, in the order of the manifest."""
    manifest = read_manifest(out)
    rows = np.ones(len(manifest), bool)
    for name, value in wanted.items():
        rows &= manifest[name] == value
    chosen = manifest.select(rows)
    readers = {s: array_record_module().ArrayRecordReader(str(manifest.shard_path(s))) for s in chosen.shards()}
    records = zip(chosen["shard"].tolist(), chosen["index"].tolist(), strict=True)
    return [decode_chunk(readers[shard].read([index])[0]) for shard, index in records]
