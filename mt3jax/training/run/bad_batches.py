"""The content of batches whose update was not applied, one line each in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mt3jax.pipeline import Pipeline


def bad_batches_file() -> str:
    """One per process: appending to one file from several hosts loses lines on some file systems."""
    return "bad_batches.jsonl" if jax.process_count() == 1 else f"bad_batches.{jax.process_index()}.jsonl"


def note_bad_batch(
    run_directory: Path,
    step: int,
    reason: str,
    metrics: Mapping[str, Any],
    chunks: list[str],
    say: Callable[[str], None],
) -> None:
    """Appends this host's chunks of the batch to the run's list of bad ones."""
    entry = {
        "step": step,
        "reason": reason,
        "host": jax.process_index(),
        "loss": repr(float(metrics["loss"])),
        "gradient_norm": repr(float(metrics["gradient_norm"])),
        "chunks": chunks,
    }
    try:
        with (run_directory / bad_batches_file()).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:  # no reason to stop, least of all for one process alone
        say(f"The bad batch could not be recorded: {error.strerror or error}.")


def chunk_names(pipeline: Pipeline, host: dict[str, np.ndarray]) -> list[str]:
    """The origin of a batch's examples: `dataset/split/track/stem`, seconds, row of the manifest."""
    manifest = pipeline.manifest
    frames_per_second = pipeline.stream.config.model.spectrogram.frames_per_second
    return [
        "/".join(str(manifest[name][row]) for name in ("dataset", "split", "track", "stem"))
        + f" at {frame / frames_per_second:.2f} s (row {row}, example {index}, {parts} parts)"
        for row, frame, index, parts in zip(
            host["row"].tolist(),
            host["first_frame"].tolist(),
            host["index"].tolist(),
            host["num_parts"].tolist(),
            strict=True,
        )
        if row >= 0
    ]
