"""Transcriptions and other files of notes, and the JSON that commands write for each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from reliability.kinds import Case, Kind, Reading, Source, digest_of, sources_in
from reliability.mutations import mutate_json

_BY_STRUCTURE = 0.6  # the share of JSON cases that stay JSON


class Notes(Kind):
    """Everything that is read as text; what is accepted is also used: written in every form, made a vocabulary."""

    name = "notes"

    @classmethod
    def build(cls, folder: Path) -> None:
        from mt3core.config.model import ISMIR2021, MT3
        from mt3core.notes.table import Note
        from mt3core.transcription import SegmentTokens, Transcription

        rng = np.random.default_rng(5)
        notes = [
            Note(t / 7, t / 7 + 0.2, int(rng.integers(21, 108)), int(rng.integers(1, 128)), t % 3, t % 4 == 0)
            for t in range(12)
        ]
        segments = [SegmentTokens(0.0, [1, 5, 9], 1, 0), SegmentTokens(2.048, [1], 0, 2)]
        transcription = Transcription(notes, segments, 4.1, "tiny", "song.wav", "It is very quiet.")
        for name in ("transcription.json", "lines.jsonl", "table.csv"):
            transcription.save(folder / name)
        rows = [f"{note.onset:.3f}\t{note.offset:.3f}\t{note.pitch}\t{note.velocity}" for note in notes]
        (folder / "columns.tsv").write_text("\n".join(["onset\toffset\tpitch\tvelocity", *rows]) + "\n")
        (folder / "columns.txt").write_text("\n".join(row.replace("\t", " ") for row in rows) + "\n")
        performance = {"notes": [[n.onset, n.offset, n.pitch, n.velocity] for n in notes], "controls": [[0.1, 64, 127]]}
        (folder / "controls.json").write_text(json.dumps(performance))
        for config in (MT3, ISMIR2021):
            values = config.to_dict()
            (folder / f"config_{config.name}.json").write_text(json.dumps(values, indent=2))
        _build_settings(folder)

    def open(self) -> None:
        self.sources = sources_in(self.folder, lambda path: Source(path.name, path.read_bytes()))

    def case(self, rng: np.random.Generator) -> Case:
        case = super().case(rng)
        if case.source.name.endswith(".json") and rng.random() < _BY_STRUCTURE:
            return Case(case.source, mutate_json(rng, case.source.data.decode()))
        return case

    def read(self, source: Source, data: bytes) -> Reading:
        name = source.name
        if name.startswith("config_"):
            return self._read_config(data)
        path = self.place(name, data)
        if name == "run.json":
            return _read_run_record(path)
        if name in ("settings.json", "prepared.json", "train-00000.json"):
            return self._read_prepared(name, data)
        if name == "transcription.json":
            _use_transcription(path)
        from mt3eval.reading.reading import Reading as How
        from mt3eval.reading.reading import read_with_remarks

        performance, remarks = read_with_remarks(path, How(sustain=True, drop_empty=True))
        return Reading(len(performance.notes), digest_of(performance.notes), remarks)

    def command(self, source: Source, data: bytes) -> tuple[list[str], tuple[Path, ...]] | None:
        if source.name.startswith(("config_", "run", "settings", "prepared", "train-")):
            return None
        path = self.place(f"scores/{source.name}", data)
        return ["evaluate", str(self.folder / source.name), str(path), "--protocol", "mt3"], ()

    def _read_config(self, data: bytes) -> Reading:
        from mt3core.model.directory import load_model_config
        from mt3core.model.parameters import parameters
        from mt3core.notes.vocabulary import Vocabulary

        config = load_model_config(self.place("model/config.json", data).parent)
        Vocabulary(config.vocabulary)
        if config.network.num_encoder_layers + config.network.num_decoder_layers < 1_000:
            parameters(config.network)
        again = json.dumps(config.to_dict(), allow_nan=False)
        return Reading(1, digest_of(again))

    def _read_prepared(self, name: str, data: bytes) -> Reading:
        """A file of a prepared data set in its place, and the manifest made from all of them."""
        from mt3data.prepare.manifest import read_manifest
        from mt3data.prepare.prepare import merge
        from mt3data.prepare.shards import read_report
        from mt3data.readers.units import Settings, Unit

        for other in ("settings.json", "prepared.json", "train-00000.json"):
            self.place(f"cache/folder/{other}", data if other == name else (self.folder / other).read_bytes())
        folder = self.scratch / "cache"
        (folder / "folder/train-00000.array_record").write_bytes(b"12345678")
        settings = Settings("folder", "folder", "pieces", False, False, ("train",))
        report = read_report("train-00000", folder / "folder")
        if report is not None:
            merge([Unit("train-00000", (), report.digest)], settings, folder)
            return Reading(len(read_manifest(folder)), digest_of(repr(report)))
        return Reading(0, "", ("not prepared",))


def _build_settings(folder: Path) -> None:
    """A run's record, and what `mt3 prepare` writes besides shards."""
    from dataclasses import asdict

    from mt3core.config.training import TrainingConfig
    from mt3data.prepare.shards import Report
    from mt3data.readers.units import Settings

    record = {"time": "2026-01-01T00:00:00", "git": None, "versions": {}, "config": asdict(TrainingConfig("tiny"))}
    (folder / "run.json").write_text(json.dumps({**record, "earlier": []}))
    settings = Settings("folder", "folder", "pieces", False, False, ("train",))
    (folder / "settings.json").write_text(settings.as_json())
    (folder / "prepared.json").write_text(json.dumps({"units": ["train-00000"]}, indent=1))
    recording = {
        **{"split": "train", "track": "piece", "stem": "mix", "program": -1, "is_drum": False},
        **{"instrument_class": "", "defects": "", "licence": "", "samples": 140_000, "first": 0},
        "chunks": [[3, 12345], [1, 678]],
    }
    report = Report("train-00000", "ab12", 8, (recording,), ())
    (folder / "train-00000.json").write_text(json.dumps(asdict(report)))


def _read_run_record(path: Path) -> Reading:
    """As resuming a run does."""
    from mt3core.config.training import TrainingConfig
    from mt3jax.training.run.run_record import check_folder, read_run_record

    record = read_run_record(path.parent)
    check_folder(path.parent, TrainingConfig("tiny"))
    return Reading(1, digest_of(json.dumps(record)))


def _use_transcription(path: Path) -> None:
    """Reads a transcription as our own, and writes it in every form."""
    from mt3core.transcription import FORMATS, Transcription

    transcription = Transcription.load(path)
    for form in FORMATS:
        transcription.to_bytes(form)
