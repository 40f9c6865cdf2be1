"""Weights in every form that is read, of a tiny network: one file of each is mutated in its place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from reliability.kinds import Case, Kind, Reading, Source, digest_of

# Below the folder of its form: files that mean nothing to the reader, or that several writers differ in.
_NOT_READ = ("README.md",)
_MOST_BYTES = 400_000


class Weights(Kind):
    """`load_weights` of a model directory, a port's file, a T5X and an Orbax checkpoint; `mt3 convert`."""

    name = "weights"
    command_every = 100

    @classmethod
    def build(cls, folder: Path) -> None:
        import torch

        from mt3convert.orbax import write_orbax
        from mt3convert.t5x import write_t5x
        from mt3convert.torch_port import write_port
        from mt3core.model.directory import save_model_directory
        from reliability.tiny import random_arrays, tiny_model

        config = tiny_model()
        arrays = random_arrays(config)
        for stored_type in ("float32", "bfloat16"):
            save_model_directory(folder / stored_type / "model", config, arrays, stored_type=stored_type)
        write_t5x(folder / "t5x" / "model", config, arrays)
        write_orbax(folder / "orbax" / "model", config, arrays)
        write_port(_new(folder / "port" / "model.pth"), config, arrays)
        state = torch.load(folder / "port" / "model.pth", weights_only=True)
        wrapped = {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}
        torch.save(wrapped, _new(folder / "lightning" / "model.ckpt"))
        torch.save(state, _new(folder / "old_pickle" / "model.pt"), _use_new_zipfile_serialization=False)

    def open(self) -> None:
        from mt3core.model.search import load_weights

        self._load = load_weights
        self.sources = []
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name = path.relative_to(self.folder).as_posix()
            self.place(name, path.read_bytes())
            if path.name not in _NOT_READ and path.stat().st_size <= _MOST_BYTES:
                self.sources.append(Source(name, path.read_bytes(), states_end=True))
        # A form may have fifty small files, and another a single large one: each form is drawn as often.
        forms = sorted({source.name.split("/")[0] for source in self.sources})
        self._by_form = [[one for one in self.sources if one.name.startswith(f"{form}/")] for form in forms]

    def case(self, rng) -> Case:
        readable = {source.name for source in self.sources}
        form = self._by_form[int(rng.integers(0, len(self._by_form)))]
        self.sources, every = [source for source in form if source.name in readable] or self.sources, self.sources
        try:
            return super().case(rng)
        finally:
            self.sources = every

    def read(self, source: Source, data: bytes) -> Reading:
        path = self.place(source.name, data)
        try:
            loaded = self._load(self._model_of(source))
        finally:
            self.place(source.name, source.data)
            del path
        arrays = loaded.arrays
        digest = digest_of(*(part for name in sorted(arrays) for part in (name, arrays[name])))
        return Reading(sum(array.size for array in arrays.values()), digest)

    def judge(self, case: Case, reading: Reading, whole: Reading) -> str:
        """Cut files never give other weights. A zip file has a checksum of everything in it, a gzip stream, too."""
        source, mutated = case.source, case.mutated
        if not mutated.is_single or reading.digest == whole.digest:
            return ""
        if mutated.is_prefix:
            return "a part of the file gave other weights than the whole"
        has_checksums = source.name.startswith(("port/", "lightning/")) or ".wi_0.kernel/0" in source.name
        if has_checksums and source.name.endswith((".pth", ".ckpt", "/0.0")) and mutated.kind in self.losses:
            return "weights that do not match their checksum were taken for the file's own"
        return ""

    def command(self, source: Source, data: bytes) -> tuple[list[str], Sequence[Path]] | None:
        copy, out = self.scratch / "mutated", self.scratch / "converted"
        shutil.rmtree(copy, ignore_errors=True)
        form = source.name.split("/")[0]
        shutil.copytree(self.scratch / form, copy / form)
        (copy / source.name).write_bytes(data)
        return ["convert", str(copy / self._model_of(source).relative_to(self.scratch)), str(out)], (out,)

    def check_written(self, path: Path) -> None:
        from mt3core.model.directory import load_model_directory

        if path.exists():
            load_model_directory(path)

    def _model_of(self, source: Source) -> Path:
        """What is given to the reader: the folder of the form, or the file of a port."""
        form = self.scratch / source.name.split("/")[0]
        return next((path for path in form.iterdir() if path.suffix in (".pth", ".ckpt", ".pt")), form / "model")


def _new(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
