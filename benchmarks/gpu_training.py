"""The training sections of benchmarks/gpu.py: steps of the published sizes, attention, and a short real run.

Steps take made-up audio and tokens with target lengths drawn like those of rendered SLAKH (`step_timing.py`), so that
nothing has to be carried to the machine; what a step costs depends on the lengths alone.
"""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from step_timing import TimedStep, draw_lengths, made_up_batch, training_config

from mt3core import packing
from mt3core.config import MT3, MULTITRACK, ModelConfig, NetworkConfig, SpectrogramConfig
from mt3core.training_config import TrainingConfig

# For rehearsals: compiles in seconds.
TINY = ModelConfig(
    name="tiny",
    network=NetworkConfig(1, 1, 2, 8, 16, 32, input_frames=64, input_bands=64, max_target_tokens=128),
    spectrogram=SpectrogramConfig(mel_bands=64),
)
Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One kind of step; `batch` and `compute` change fields of these parts of the config."""

    name: str
    model: ModelConfig
    examples: int = 256
    batch: dict[str, Any] = field(default_factory=dict)
    compute: dict[str, Any] = field(default_factory=dict)


def cases() -> list[Case]:
    """The most important first, as time may not suffice for all."""
    both = (MULTITRACK, MT3)
    padded = {"packed": False, "accumulation": 4}
    return [
        *(Case(f"{model.name} 256", model) for model in both),
        *(Case(f"{model.name} 256 padded, 4 parts", model, batch=padded) for model in both),
        *(Case(f"{model.name} 256 xla attention", model, compute={"attention": "xla"}) for model in both),
        *(Case(f"{model.name} 256 blocks of 64", model, batch={"block_tokens": 64}) for model in both),
        *(Case(f"{model.name} 512", model, 512) for model in both),
        *(Case(f"{model.name} 256 blocks of 128", model, batch={"block_tokens": 128}) for model in both),
        *(Case(f"{model.name} 256 remat", model, compute={"remat": True}) for model in both),
        *(Case(f"{model.name} 256, 2 parts", model, batch={"accumulation": 2}) for model in both),
        *(Case(f"{model.name} 1024 remat", model, 1024, compute={"remat": True}) for model in both),
        *(Case(f"{model.name} 64 float32", model, 64, compute={"dtype": "float32"}) for model in both),
    ]


def rehearsal_cases() -> list[Case]:
    packed = {"block_tokens": 8, "accumulation": 2}
    return [
        Case("tiny 4 remat, 2 parts", TINY, 4, packed, {"remat": True}),
        Case("tiny 4 padded", TINY, 4, {"packed": False}, {"dtype": "float32"}),
    ]


def training(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    """Examples a second, MFU and memory of each case in bfloat16; cases that fail are reported as such."""
    import jax

    yield "device", {"kind": jax.devices()[0].device_kind, "backend": jax.default_backend()}
    slowest = 0.0
    for case in rehearsal_cases() if quick else cases():
        started = time.monotonic()
        if started + slowest > ends_at:
            yield case.name, {"left_out": "no time"}
            continue
        try:
            yield case.name, measured(case, 2 if quick else 20)
        except Exception as error:  # out of memory, mostly
            yield case.name, {"failed": f"{type(error).__name__}: {error}"[:300]}
        gc.collect()
        slowest = max(slowest, time.monotonic() - started)
    statistics = jax.devices()[0].memory_stats() or {}
    yield "peak_gib_of_all", {"gib": round(statistics.get("peak_bytes_in_use", 0) / 2**30, 2)}


def config_of(case: Case) -> TrainingConfig:
    return training_config(case.model, case.examples, case.batch, {"dtype": "bfloat16", **case.compute})


def measured(case: Case, num_steps: int) -> Figures:
    from mt3jax.training.estimate import example_flops, memory_estimate, mfu
    from mt3jax.training.sharding import make_mesh

    config = config_of(case)
    draws = [draw_lengths(case.model, case.examples, seed) for seed in range(4)]
    batches = [made_up_batch(case.model, lengths, seed) for seed, lengths in enumerate(draws)]
    step = TimedStep(config, batches, draw_lengths(case.model, 1000, seed=4))
    step.run(2)
    seconds = min(step.run(num_steps) for _ in range(2)) / num_steps
    rate, tokens = case.examples / seconds, float(np.mean(draws))
    share = mfu(rate, case.model, tokens)
    return {
        "examples_per_second": round(rate, 1),
        "step_ms": round(1e3 * seconds, 1),
        "mfu": share and round(share, 3),
        "tflops": round(rate * example_flops(case.model, tokens) / 1e12, 2),
        "planned_gib": round(step.planned_bytes / 2**30, 2),
        "estimated_gib": round(memory_estimate(config, make_mesh(config.compute), step.rows).total / 2**30, 2),
        "rows": step.rows,
        "tokens": round(tokens, 1),
        "padding": round(float(step.padding), 3),
        "compile_seconds": round(step.compile_seconds, 1),
        "losses": [round(step.losses[0], 4), round(step.losses[-1], 4)],
    }


def attention(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    """Loss and gradient in bfloat16 with XLA's and cuDNN's attention: against float32, and against each other."""
    import jax

    for model in (TINY,) if quick else (MT3, MULTITRACK):
        examples = 2 if quick else 16
        batch = made_up_batch(model, draw_lengths(model, examples))
        with jax.default_matmul_precision("highest"):
            reference = loss_and_gradient(model, batch, {"dtype": "float32", "attention": "xla"})
        found = {"float32": reference}
        for name in ("xla", "cudnn") if jax.default_backend() == "gpu" else ("xla",):
            try:
                found[name] = loss_and_gradient(model, batch, {"dtype": "bfloat16", "attention": name})
                yield f"{model.name} {name} against float32", difference(found[name], reference)
            except Exception as error:
                yield f"{model.name} {name}", {"failed": f"{type(error).__name__}: {error}"[:300]}
        if {"xla", "cudnn"} <= found.keys():
            yield f"{model.name} cudnn against xla", difference(found["cudnn"], found["xla"])


def loss_and_gradient(model: ModelConfig, batch: dict, compute: dict[str, Any]) -> tuple[float, list[np.ndarray]]:
    import jax

    from mt3jax.training.loss import loss_sums
    from mt3jax.training.state import drawn_params, network

    config = training_config(model, len(batch["num_tokens"]), compute=compute)
    rows = packing.rows_of_batch(batch, config, 1)
    part = {name: array[0] for name, array in packing.split_batch(batch, config, 1, rows).items()}

    def loss(params: Any, part: Any) -> Any:
        sums = loss_sums(network(model, params), part, config)
        return sums.loss / sums.num_tokens

    value, gradient = jax.jit(jax.value_and_grad(loss))(drawn_params(model, 0), part)
    return float(value), [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient)]


def difference(found: tuple[float, list[np.ndarray]], expected: tuple[float, list[np.ndarray]]) -> Figures:
    """Of the loss, of the whole gradient, and of the parameter whose gradient differs most; all relative."""
    pairs = list(zip(found[1], expected[1], strict=True))
    norms = [(float(np.linalg.norm(a - b)), float(np.linalg.norm(b))) for a, b in pairs]
    differing, whole = (float(np.linalg.norm([pair[place] for pair in norms])) for place in (0, 1))
    return {
        "loss": abs(found[0] - expected[0]) / expected[0],
        "gradient": differing / whole,
        "worst_parameter": max(part / (size or 1.0) for part, size in norms),
    }


def training_run(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    """`mt3jax.train` with data rendered here; stopped by SIGTERM, which saves, when time is up."""
    import tempfile

    from mt3core.rendering.compose import composed_manifest

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        manifest = composed_manifest(2 if quick else 32, folder=folder)
        yield "data", {"seconds": round(time.monotonic() - started, 1)}
        command = [sys.executable, "-m", "mt3jax.train", "--output", str(folder / "run"), "--config"]
        command += ["multitrack_test"] if quick else [str(Path(__file__).with_name("gpu_run.py"))]
        changes = [f"data.manifest={manifest}"]
        if quick:
            changes += ["data.composed_pieces=0", "data.num_workers=1", "num_steps=20", "batch.examples=8"]
            changes += ["validation.loss_examples=16", "validation.num_pieces=1", "validation.piece_seconds=2"]
        command += [part for change in changes for part in ("--set", change)]
        started = time.monotonic()
        process = subprocess.Popen(command)
        try:
            code = process.wait(max(ends_at - 60 - time.monotonic(), 60))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        seconds = round(time.monotonic() - started, 1)
        yield "run", {"exit_code": code, "seconds": seconds, **run_figures(folder / "run" / "metrics.jsonl")}
        if code not in (0, 75):
            raise RuntimeError(f"The run ended with {code}.")


def run_figures(path: Path) -> Figures:
    """First and last loss, speed (the median report), and the last validation of a run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    reports = [line for line in lines if "train/loss" in line]
    validations = [line for line in lines if any(key.startswith("validation/") for key in line)]
    figures: Figures = {"steps": reports[-1]["step"], "losses": [reports[0]["train/loss"], reports[-1]["train/loss"]]}
    for key in ("examples_per_second", "input_wait", "mfu"):
        values = [line[f"speed/{key}"] for line in reports if line.get(f"speed/{key}") is not None]
        if values:
            figures[key] = round(float(np.median(values)), 4)
    figures["padding"] = round(float(np.median([line["data/padding"] for line in reports])), 4)
    return figures | {key: value for key, value in (validations[-1] if validations else {}).items() if "/" in key}
