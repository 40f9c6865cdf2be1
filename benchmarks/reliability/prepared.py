"""Prepared data: the manifest, and the shards with its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reliability.kinds import Kind, Reading, Source, digest_of

_MANIFEST = "chunk_manifest.parquet"


class Prepared(Kind):
    """A data set of four short pieces, once as it is and once compressed."""

    command_every = 200

    @classmethod
    def build(cls, folder: Path) -> None:
        from mt3app.cli_data import PrepareOptions
        from mt3app.commands.prepare import prepare_dataset
        from mt3app.progress import Reporter
        from reliability.tiny import write_pairs

        write_pairs(folder / "pieces", seconds=0.4)
        for name, flac in (("raw", False), ("flac", True)):
            options = PrepareOptions("folder", folder / "pieces", folder / name, flac=flac, processes=1)
            assert prepare_dataset(options, Reporter(quiet=True)) == 0

    def open(self) -> None:
        self.sources = []
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name = path.relative_to(self.folder).as_posix()
            self.place(name, path.read_bytes())
            if name.startswith(("raw/", "flac/")) and self.is_source(path):
                self.sources.append(Source(name, path.read_bytes(), states_end=True, is_checked=self.is_checked))
        self._manifests = {form: self.scratch / form / _MANIFEST for form in ("raw", "flac")}

    is_checked = False

    def is_source(self, path: Path) -> bool:
        raise NotImplementedError

    def command(self, source: Source, data: bytes) -> tuple[list[str], Sequence[Path]] | None:
        self.place(source.name, data)
        out = self.scratch / "shown"
        try:
            return ["data", "show", str(self._manifests[source.name.split("/")[0]]), "0", "-o", str(out)], (out,)
        finally:
            self._mended = source

    def read(self, source: Source, data: bytes) -> Reading:
        self.place(source.name, data)
        try:
            return self._read(self._manifests[source.name.split("/")[0]])
        finally:
            self.place(source.name, source.data)

    def check_written(self, path: Path) -> None:
        self.place(self._mended.name, self._mended.data)

    def _read(self, path: Path) -> Reading:
        raise NotImplementedError


class Manifests(Prepared):
    """`read_manifest`, and the use that training makes of it."""

    name = "manifests"

    def is_source(self, path: Path) -> bool:
        return path.name == _MANIFEST

    def _read(self, path: Path) -> Reading:
        from mt3core.config.data import DataConfig
        from mt3data.examples.chunk_table import ChunkTable, ShardReader
        from mt3data.examples.pieces import choose_pieces, read_piece
        from mt3data.examples.sampling import Sampler
        from mt3data.prepare.manifest import check_shards, read_manifest

        manifest = read_manifest(path)
        check_shards(manifest)
        table = ChunkTable.from_manifest(manifest)
        Sampler(manifest, table, "train", DataConfig(), 0)
        chosen = manifest.recordings("train")
        rows = choose_pieces(manifest, table, chosen, 1)[0]
        read_piece(manifest, table, rows, 60.0, ShardReader(table.shard_paths))
        return Reading(len(manifest), digest_of(repr([manifest[name].tolist() for name in manifest.columns])))


class Shards(Prepared):
    """The check of all shards, and every record by its number, as training reads them."""

    name = "shards"
    is_checked = True

    def is_source(self, path: Path) -> bool:
        return path.suffix == ".array_record"

    def _read(self, path: Path) -> Reading:
        from mt3core.errors import DatasetError
        from mt3data.examples.chunk_table import ChunkTable, ShardReader
        from mt3data.prepare.chunks import decode_chunk, decode_segment
        from mt3data.prepare.manifest import read_manifest, shard_problems

        manifest = read_manifest(path)
        problems = shard_problems(manifest)
        table = ChunkTable.from_manifest(manifest)
        reader = ShardReader(table.shard_paths)
        parts: list[Any] = []
        for shard, record in zip(table.shard.tolist(), table.record.tolist(), strict=True):
            data = reader.read(shard, record)
            chunk = decode_chunk(data)
            decode_segment(data, 100, 500)
            parts += [chunk.audio, np.ascontiguousarray(chunk.piece_notes)]
        if problems:
            raise DatasetError(problems[0])
        return Reading(sum(len(part) for part in parts), digest_of(*parts))
