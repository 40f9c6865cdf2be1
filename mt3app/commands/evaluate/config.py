"""`mt3 evaluate --config`: decodes recordings of data sets with a model, and scores the notes by the chosen protocols.

The JSON, `OUTPUT/metrics_NAME.json`, is described in docs/evaluation_datasets.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt3app.backend import PACKAGES, choose_backend
from mt3app.commands.doctor import installed_version
from mt3app.commands.evaluate.decoding import SetDecoder
from mt3app.commands.evaluate.files import choose_protocols
from mt3app.commands.evaluate.metrics import REFERENCES, SetMetrics, backend_agreement, print_metrics, score_set
from mt3app.outputs import check_writable
from mt3app.progress import Reporter, describe
from mt3app.remarks import tell_used
from mt3core.config.evaluation import EvaluationConfig
from mt3core.config.files import load_evaluation_config
from mt3core.errors import DatasetError, MT3Error
from mt3core.extras import SCORE_PACKAGES, require
from mt3core.files import atomic_output
from mt3data.readers.tracks import Defect
from mt3eval.matching.note_accuracy import DEFINITION
from mt3eval.reading.dataset_pieces import EvaluationPiece, EvaluationSet, find_sets
from mt3eval.reading.pairing import counted, shorten

if TYPE_CHECKING:
    from mt3app.cli_evaluate import DataSetOptions

SCHEMA_VERSION = 2
_PACKAGES = ("mt3kit", "mir_eval", "numpy", "scipy", "torch", "jax", "flax")


@dataclass(frozen=True)
class Selection:
    """The pieces to evaluate; why others are left out, and why notes cannot be read; by (variant, name)."""

    sets: list[EvaluationSet]
    pieces: list[EvaluationPiece]
    left_out: dict[tuple[str, str], str]
    failures: dict[tuple[str, str], str]
    odd: list[Defect]  # that are used

    @property
    def variants(self) -> list[str]:
        return [one.variant for one in self.sets]


def evaluate_config(options: DataSetOptions, reporter: Reporter) -> int:
    """Decodes, scores, writes, prints; returns the exit code, 1 if a piece failed.

    Raises `UsageError`, `DatasetError`, `ModelError` and others for unusable options, before anything slow.
    """
    from mt3convert.sources import identify
    from mt3core.model.search import find_model

    config = settled_config(options)
    require("evaluate", "mt3 evaluate", SCORE_PACKAGES)
    backends = choose_backends(config.backend)
    protocols = choose_protocols(config.protocols)
    path = Path(config.output) / f"metrics_{config.name}.json"
    check_writable([path])
    model = find_model(config.model)
    source = model.source
    identify(source)
    if model.remark:
        reporter.line(model.remark)
    selection = select(config)
    _tell(selection, reporter)

    decoders = {one: SetDecoder(config, source, one, one == backends[0], reporter) for one in backends}
    decoded = {backend: decoder.run(selection.pieces) for backend, decoder in decoders.items()}
    started = time.perf_counter()
    scoring = protocols, options.processes
    scored = {
        backend: {variant: score_set(variant, found, *scoring, reporter) for variant in selection.variants}
        for backend, found in decoded.items()
    }
    metrics = _about(config, source, protocols, selection)
    metrics["scoring_seconds"] = time.perf_counter() - started
    failures = {one: selection.failures | decoders[one].failures | _not_scored(scored[one]) for one in backends}
    metrics["backends"] = {
        backend: {
            "model_loading_seconds": decoders[backend].loading_seconds,
            "failures": _named(failures[backend]),
            "variants": {variant: one.to_json() for variant, one in variants.items()},
        }
        for backend, variants in scored.items()
    }
    same = {one: backend_agreement(one, decoded, scored) for one in selection.variants} if len(backends) > 1 else None
    metrics["agreement"] = same
    _save(metrics, path)
    if not reporter.quiet:
        print_metrics(scored, same)
    reporter.line(f"Written: {path}, with the notes next to it.")
    failed = sorted({f"{variant} {name}" for one in failures.values() for variant, name in one})
    if failed:
        reporter.failure(f"mt3: {counted(len(failed), 'piece')} failed: {', '.join(failed)}")
    return 1 if failed else 0


def settled_config(options: DataSetOptions) -> EvaluationConfig:
    """The config with all changes; the options of the command also stand for some of its fields."""
    config = load_evaluation_config(options.config, options.changes)
    data = config.data if options.limit is None else dataclasses.replace(config.data, limit=options.limit)
    given: dict[str, Any] = {name: getattr(options, name) for name in ("backend", "model", "protocols")}
    given["output"] = None if options.output is None else str(options.output)
    given = {name: value for name, value in given.items() if value not in (None, ())}
    return dataclasses.replace(config, data=data, **given)


def choose_backends(name: str | None) -> list[str]:
    """The backends to run, PyTorch first. Raises `MissingExtraError` if one is not installed."""
    return [choose_backend(one) for one in PACKAGES] if name == "both" else [choose_backend(name)]


def select(config: EvaluationConfig) -> Selection:
    """The pieces that can be scored: their notes are read before anything is decoded.

    Raises `DatasetError` if there are none, and the errors of `find_sets`.
    """
    selection = Selection(find_sets(config.data), [], {}, {}, [])
    most_seconds = config.data.most_seconds
    for one in selection.sets:
        selection.left_out.update({(one.variant, name): why for name, why in one.left_out.items()})
        for piece in one.pieces:
            key = (piece.variant, piece.name)
            try:
                labels = piece.labels()
            except MT3Error as error:
                selection.failures[key] = describe(error)
                continue
            first_onset = labels.notes["onset"].min(initial=math.inf)
            selection.odd.extend(labels.defects)
            if first_onset < (most_seconds or math.inf):
                selection.pieces.append(piece)
            else:
                within = "" if most_seconds is None else f" within the first {most_seconds:g} s"
                selection.left_out[key] = f"{piece.name} has no notes{within}."
    if not selection.pieces:
        why = next(iter((*selection.failures.values(), *selection.left_out.values())))
        raise DatasetError(f"Nothing to decode. {why}", "Choose another split or data set.")
    return selection


def _tell(selection: Selection, reporter: Reporter) -> None:
    for one in selection.sets:
        count = sum(piece.variant == one.variant for piece in selection.pieces)
        out = [name for variant, name in selection.left_out if variant == one.variant]
        left_out = f"; left out: {shorten(out)}" if out else ""
        reporter.line(f"{one.variant}: {counted(count, 'piece')} of {one.root}{left_out}")
    for sentence in selection.failures.values():
        reporter.failure(f"mt3: {sentence}")
    tell_used(selection.odd, reporter)


def _not_scored(variants: Mapping[str, SetMetrics]) -> dict[tuple[str, str], str]:
    return {
        (variant, piece.name): piece.failure
        for variant, one in variants.items()
        for piece in one.result.pieces
        if piece.failure
    }


def _about(config: EvaluationConfig, source: str, protocols: tuple[str, ...], selection: Selection) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": dataclasses.asdict(config),
        "model": source,
        "datasets": {one.variant: str(one.root) for one in selection.sets},
        "references": {variant: REFERENCES[variant] for variant in selection.variants},
        "estimates": "the exact decoded notes on the model's own grid of time, not those of the MIDI files",
        "note_accuracy": DEFINITION,
        "protocols": list(protocols),
        "left_out": _named(selection.left_out),
        "versions": {name: installed_version(name) for name in _PACKAGES},
        "machine": {"python": platform.python_version(), "system": platform.platform()},
    }


def _named(by_piece: dict[tuple[str, str], str]) -> dict[str, str]:
    return {f"{variant}/{name}": text for (variant, name), text in by_piece.items()}


def _save(metrics: dict[str, Any], path: Path) -> None:
    text = json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_output(path) as temporary:
        temporary.write_bytes(f"{text}\n".encode(errors="backslashreplace"))
