"""`mt3 evaluate --config`: decodes recordings of data sets with a model, and scores the notes by every protocol asked.

The JSON, `OUTPUT/metrics_NAME.json`, is described in docs/evaluation.md.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mt3app.backend import PACKAGES, choose_backend
from mt3app.evaluate import choose_protocols
from mt3app.evaluate_decoding import SetDecoder
from mt3app.evaluate_metrics import REFERENCES, agreement, print_metrics, score_set
from mt3app.jobs import check_writable
from mt3app.progress import Reporter, describe
from mt3core.config_files import load_evaluation_config
from mt3core.errors import DatasetError, MT3Error
from mt3core.evaluation.config import EvaluationConfig, check_evaluation_config
from mt3core.evaluation.dataset_pieces import EvaluationPiece, EvaluationSet, find_sets
from mt3core.evaluation.note_accuracy import DEFINITION
from mt3core.files import atomic_output

SCHEMA_VERSION = 1
_PACKAGES = ("mt3kit", "mir_eval", "numpy", "scipy", "torch", "jax", "flax")


@dataclass(frozen=True)
class ConfigOptions:
    """What the command line says; None or nothing where it says nothing."""

    config: str
    changes: tuple[str, ...] = ()
    limit: int | None = None
    backend: str | None = None
    model: str | None = None
    output: Path | None = None
    protocols: tuple[str, ...] = ()
    processes: int | None = None


def evaluate_config(options: ConfigOptions, reporter: Reporter) -> int:
    """Decodes, scores, writes, prints; returns the exit code, 1 where a piece failed.

    Raises `UsageError`, `DatasetError`, `ModelError` and others for what cannot be, before anything slow.
    """
    from mt3convert.sources import identify, resolve_model

    config = settled_config(options)
    backends = choose_backends(config.backend)
    protocols = choose_protocols(config.protocols)
    metrics_path = Path(config.output) / f"metrics_{config.name}.json"
    check_writable([metrics_path])
    source = resolve_model(config.model)
    identify(source)
    sets = find_sets(config.data)
    pieces, failures, left_out = _with_references(sets, config.data.most_seconds)
    _tell(sets, pieces, left_out, reporter)
    for sentence in failures.values():
        reporter.failure(f"mt3: {sentence}")

    decoders = {
        backend: SetDecoder(config, source, backend, number == 0, reporter) for number, backend in enumerate(backends)
    }
    decoded = {backend: decoder.run(pieces) for backend, decoder in decoders.items()}
    started = time.perf_counter()
    scored = {
        backend: {one.variant: score_set(one.variant, found, protocols, options.processes, reporter) for one in sets}
        for backend, found in decoded.items()
    }
    scoring_seconds = time.perf_counter() - started
    all_failures = {backend: failures | decoder.failures for backend, decoder in decoders.items()}
    metrics = {
        **_about(config, source, protocols, sets, left_out),
        "scoring_seconds": scoring_seconds,
        "backends": {
            backend: {
                "model_loading_seconds": decoders[backend].loading_seconds,
                "failures": _named(all_failures[backend]),
                "variants": {variant: one.to_json() for variant, one in variants.items()},
            }
            for backend, variants in scored.items()
        },
        "agreement": {one.variant: agreement(one.variant, decoded, scored) for one in sets}
        if len(backends) > 1
        else None,
    }
    _save(metrics, metrics_path)
    print_metrics(scored, metrics["agreement"])
    reporter.line(f"Written: {metrics_path}, and the notes beside it.")
    failed = sorted({name for one in all_failures.values() for _, name in one})
    if failed:
        reporter.failure(f"mt3: {len(failed)} pieces failed: {', '.join(failed)}")
    return 1 if failed else 0


def settled_config(options: ConfigOptions) -> EvaluationConfig:
    """The config with all changes; the options of the command stand for fields of it, too."""
    config = load_evaluation_config(options.config, options.changes)
    data = config.data if options.limit is None else dataclasses.replace(config.data, limit=options.limit)
    given: dict[str, Any] = {
        "backend": options.backend,
        "model": options.model,
        "output": None if options.output is None else str(options.output),
        "protocols": options.protocols or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    config = dataclasses.replace(config, data=data, **given)
    check_evaluation_config(config)
    return config


def choose_backends(name: str | None) -> list[str]:
    """The back ends to run, PyTorch first. Raises `MissingExtraError` where one is not installed."""
    return [choose_backend(one) for one in PACKAGES] if name == "both" else [choose_backend(name)]


def _with_references(
    sets: list[EvaluationSet], most_seconds: float | None
) -> tuple[list[EvaluationPiece], dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """The pieces that can be scored, why others cannot be read, and why others are left out: read before decoding."""
    pieces: list[EvaluationPiece] = []
    failures: dict[tuple[str, str], str] = {}
    left_out: dict[tuple[str, str], str] = {}
    for one in sets:
        left_out |= {(one.variant, name): why for name, why in one.left_out.items()}
        for piece in one.pieces:
            key = (piece.variant, piece.name)
            try:
                first = piece.reference()["onset"].min(initial=float("inf"))
            except MT3Error as error:
                failures[key] = describe(error)
                continue
            if first < (most_seconds or float("inf")):
                pieces.append(piece)
            else:
                within = "" if most_seconds is None else f" within the first {most_seconds:g} s"
                left_out[key] = f"{piece.name} has no notes{within}."
    if not pieces:
        why = next(iter((*failures.values(), *left_out.values())), "")
        raise DatasetError(f"There is nothing to decode. {why}".strip(), "Choose another split or data set.")
    return pieces, failures, left_out


def _tell(
    sets: list[EvaluationSet],
    pieces: list[EvaluationPiece],
    left_out: dict[tuple[str, str], str],
    reporter: Reporter,
) -> None:
    for one in sets:
        count = sum(piece.variant == one.variant for piece in pieces)
        out = [name for variant, name in left_out if variant == one.variant]
        note = (
            f"; left out: {', '.join(out[:10])}{f' and {len(out) - 10} more' if len(out) > 10 else ''}" if out else ""
        )
        reporter.line(f"{one.variant}: {count} pieces of {one.root}{note}")


def _about(
    config: EvaluationConfig,
    source: str,
    protocols: tuple[str, ...],
    sets: list[EvaluationSet],
    left_out: dict[tuple[str, str], str],
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": dataclasses.asdict(config),
        "model": source,
        "datasets": {one.variant: str(one.root) for one in sets},
        "references": {one.variant: REFERENCES[one.variant] for one in sets},
        "estimates": "the exact decoded notes on the model's own grid of time, not those of the MIDI files",
        "note_accuracy": DEFINITION,
        "protocols": list(protocols),
        "left_out": _named(left_out),
        "versions": {name: _version(name) for name in _PACKAGES},
        "machine": {"python": platform.python_version(), "system": platform.platform()},
    }


def _named(by_piece: dict[tuple[str, str], str]) -> dict[str, str]:
    return {f"{variant}/{name}": text for (variant, name), text in by_piece.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _save(metrics: dict[str, Any], path: Path) -> None:
    text = json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_output(path) as temporary:
        temporary.write_bytes(f"{text}\n".encode(errors="backslashreplace"))
