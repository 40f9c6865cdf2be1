"""The sections of benchmarks/gpu.py about training: steps of the published sizes, attention, and a short real run.

Steps use made-up audio and tokens, with target lengths drawn like those of rendered SLAKH (`step_timing.py`). Batches
are already on the device, so examples per second and MFU are upper limits for a run; `training_run` shows the speed
with data from the disk.
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
from step_timing import TINY, TimedStep, draw_lengths, made_up_batch, rows_for, training_config

from mt3core.config.model import MT3, MULTITRACK, ModelConfig
from mt3core.config.training import TrainingConfig
from mt3jax import row_packing

Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One kind of step; `batch` and `compute` change fields of these sections of the config."""

    name: str
    model: ModelConfig
    examples: int = 256
    batch: dict[str, Any] = field(default_factory=dict)
    compute: dict[str, Any] = field(default_factory=dict)

    def config(self) -> TrainingConfig:
        return training_config(self.model, self.examples, self.batch, {"dtype": "bfloat16", **self.compute})


def cases() -> list[Case]:
    """The most important first, since time may run out. 256 examples of `mt3` are in the section `parts`."""
    return [
        Case("multitrack 256", MULTITRACK),
        Case("mt3 512", MT3, 512),
        Case("mt3 256 padded, 4 parts", MT3, batch={"packed": False, "accumulation": 4}),
        Case("mt3 256 blocks of 64", MT3, batch={"block_tokens": 64}),
        Case("mt3 256 blocks of 128", MT3, batch={"block_tokens": 128}),
    ]


def rehearsal_cases() -> list[Case]:
    return [Case("tiny 4, 2 parts", TINY, 4, {"block_tokens": 8, "accumulation": 2})]


def training(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    """Examples per second, MFU and memory of each case in bfloat16; failed cases are reported as such."""
    import jax

    slowest = 0.0
    for case in rehearsal_cases() if quick else cases():
        started = time.monotonic()
        if started + slowest > ends_at:
            yield case.name, {"left_out": "no time"}
            continue
        yield case.name, tried(case, 2 if quick else 20)
        slowest = max(slowest, time.monotonic() - started)
    statistics = jax.devices()[0].memory_stats() or {}
    yield "peak_gib_of_all", {"gib": round(statistics.get("peak_bytes_in_use", 0) / 2**30, 2)}


def tried(case: Case, num_steps: int) -> Figures:
    """The figures of a case, or why there are none."""
    reason = too_large(case)
    if reason:
        return {"left_out": reason}
    try:
        return measured(case, num_steps)
    except Exception as error:  # out of memory, mostly
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    finally:
        gc.collect()


def too_large(case: Case) -> str:
    """Why a case is not tried: its estimated memory is more than JAX may use. Empty if it may fit."""
    from mt3jax.training.run.estimate import memory_estimate, memory_limit
    from mt3jax.training.step.sharding import make_mesh

    config = case.config()
    mesh = make_mesh(config.compute)
    limit = memory_limit(mesh)
    needed = memory_estimate(config, mesh, rows_for(config, draw_lengths(case.model, 1000, seed=4))).total
    if limit is None or needed <= limit:
        return ""
    return f"needs {needed / 2**30:.0f} GiB by the estimate, of {limit / 2**30:.0f}"


def timed_step(case: Case, config: TrainingConfig | None = None) -> tuple[TimedStep, float]:
    """A case's compiled step, and the mean number of tokens of its targets."""
    draws = [draw_lengths(case.model, case.examples, seed) for seed in range(4)]
    batches = [made_up_batch(case.model, lengths, seed) for seed, lengths in enumerate(draws)]
    lengths = draw_lengths(case.model, 1000, seed=4)
    return TimedStep(config or case.config(), batches, lengths), float(np.mean(draws))


def measured(case: Case, num_steps: int) -> Figures:
    step, tokens = timed_step(case)
    return figures_of(case, step, tokens, num_steps)


def figures_of(case: Case, step: TimedStep, tokens: float, num_steps: int) -> Figures:
    """Speed on resident batches: the better of two runs of `num_steps`, after two steps that do not count."""
    from mt3jax.training.run.estimate import example_flops, memory_estimate, mfu
    from mt3jax.training.step.sharding import make_mesh

    config = step.config
    step.run(2)
    seconds = min(step.run(num_steps) for _ in range(2)) / num_steps
    rate = case.examples / seconds
    share = mfu(rate, case.model, tokens)
    return {
        "examples_per_second": round(rate, 1),
        "step_ms": round(1e3 * seconds, 1),
        "mfu_of_resident_batches": share and round(share, 3),
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
    """Loss and gradient in bfloat16 with XLA's and cuDNN's attention, compared with float32 and with each other."""
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


Gradient = dict[str, np.ndarray]


def loss_and_gradient(model: ModelConfig, batch: dict, compute: dict[str, Any]) -> tuple[float, Gradient]:
    """Loss per token; the gradient by parameter name."""
    import jax

    from mt3jax.loading import network
    from mt3jax.training.step.loss import loss_sums
    from mt3jax.training.step.state import drawn_params

    config = training_config(model, len(batch["num_tokens"]), compute=compute)
    rows = row_packing.rows_of_batch(batch, config, 1)
    part = {name: array[0] for name, array in row_packing.split_batch(batch, config, 1, rows).items()}

    def loss(params: Any, part: Any) -> Any:
        sums = loss_sums(network(model, params), part, config)
        return sums.loss / sums.num_tokens

    value, gradient = jax.jit(jax.value_and_grad(loss))(drawn_params(model, 0), part)
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    return float(value), {jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in leaves}


def difference(found: tuple[float, Gradient], expected: tuple[float, Gradient]) -> Figures:
    """Relative differences of the loss, the whole gradient, the token embedding's, and the most different one."""
    norms = {
        name: (float(np.linalg.norm(found[1][name] - array)), float(np.linalg.norm(array)))
        for name, array in expected[1].items()
    }
    differing, whole = (float(np.linalg.norm([pair[place] for pair in norms.values()])) for place in (0, 1))
    relative = {name: part / (size or 1.0) for name, (part, size) in norms.items()}
    worst = max(relative, key=relative.__getitem__)
    return {
        "loss": abs(found[0] - expected[0]) / expected[0],
        "gradient": differing / whole,
        "token_embedding": next(value for name, value in relative.items() if "token_embedder" in name),
        "worst": [worst, relative[worst]],
    }


# `mt3 train` needs packages that draw on a terminal, and tells more than is asked here.
RUN_PROGRAM = """
import sys
from mt3core.config.files import load_config
from mt3jax.train import train
folder, name, *changes = sys.argv[1:]
sys.exit(train(load_config(name, changes), folder, say=lambda line: print(line, file=sys.stderr)).exit_code)
"""


def training_run(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    """`mt3jax.train` with data rendered here; stopped by SIGTERM, which saves, when time is up."""
    import tempfile

    from mt3data.prepare.composed import composed_manifest

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        manifest = composed_manifest(2 if quick else 32, folder=folder)
        yield "data", {"seconds": round(time.monotonic() - started, 1)}
        command = [sys.executable, "-c", RUN_PROGRAM, str(folder / "run")]
        command += ["multitrack_test"] if quick else [str(Path(__file__).with_name("gpu_run.py"))]
        changes = [f"data.manifest={manifest}"]
        if quick:
            changes += ["data.composed_pieces=0", "data.num_workers=1", "num_steps=20", "batch.examples=8"]
            changes += ["validation.loss_examples=16", "validation.num_pieces=1", "validation.piece_seconds=2"]
            changes += ["report.tensorboard=false"]
        command += changes
        started = time.monotonic()
        process = subprocess.Popen(command)  # in this section's process group, so it ends with the section
        try:
            code = process.wait(max(ends_at - 30 - time.monotonic(), 20))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
        seconds = round(time.monotonic() - started, 1)
        yield "run", {"exit_code": code, "seconds": seconds, **run_figures(folder / "run" / "metrics.jsonl")}
        if code not in (0, 75):
            raise RuntimeError(f"The run ended with {code}.")


def run_figures(path: Path) -> Figures:
    """First and last loss, speed (the median report), and the last validation of a run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    reports = [line for line in lines if "train/loss" in line]
    if not reports:
        return {}
    validations = [line for line in lines if any(key.startswith("validation/") for key in line)]
    figures: Figures = {"steps": reports[-1]["step"], "losses": [reports[0]["train/loss"], reports[-1]["train/loss"]]}
    for key in ("examples_per_second", "input_wait", "mfu"):
        values = [line[f"speed/{key}"] for line in reports if line.get(f"speed/{key}") is not None]
        if values:
            figures[key] = round(float(np.median(values)), 4)
    figures["padding"] = round(float(np.median([line["data/padding"] for line in reports])), 4)
    return figures | {key: value for key, value in (validations[-1] if validations else {}).items() if "/" in key}
