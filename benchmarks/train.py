"""Speed and memory of training: packed and padded targets, and a straightforward step as a baseline.

    python benchmarks/train.py cache --network mt3 --examples 8
    python benchmarks/train.py --network small                      first composes and renders some data

Three variants of a step use the same examples of prepared data, each in its own process that stays alive. They take
turns, so that other load on the machine affects all of them, and ratios are within one run.

    packed   the project's step, several targets per decoder row
    padded   the same step with a row of 1,024 tokens for every target
    plain    benchmarks/plain_training.py: padded, all logits at once, float32, as in Flax's tutorial

A round is a few steps of every variant; the first, which compiles, is not counted. `--parts` also times the stages of
the packed step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from step_timing import NETWORKS, Batch, TimedStep, training_config, with_layers

from mt3core.config.data import DataConfig, DatasetChoice
from mt3core.config.model import ModelConfig
from mt3data.examples.examples import ExampleConfig

VARIANTS = ("packed", "padded", "plain")
LENGTH_SAMPLE = 1000  # examples whose target lengths are reported


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure speed and memory of training steps.")
    parser.add_argument("manifest", nargs="?", type=Path, help="prepared data [composed here]")
    parser.add_argument("--dataset", help="of the manifest [slakh if present, else all]")
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--layers", type=int, default=0, help="fewer encoder and decoder layers, for slow machines")
    parser.add_argument("--examples", type=int, default=8, help="of a step")
    parser.add_argument("--steps", type=int, default=1, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of packed and padded")
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--block-tokens", type=int, default=32)
    parser.add_argument("--chunk-tokens", type=int, default=128)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="[all]")
    parser.add_argument("--parts", action="store_true", help="also time the stages of a step")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("VARIANT", "BATCHES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options, *options.child)
        return
    results: dict[str, Any] = {"machine": machine(), "command": sys.argv[1:]}
    print(results["machine"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.npz"
        results["data"] = write_batches(options, path)
        results["variants"] = take_turns(options, path)
        results["ratios"] = report(results["variants"])
        if options.parts:
            results["parts"] = run_child(options, "parts", path)
            print(
                "\npart of the packed step: seconds\n" + "\n".join(f"  {n}: {s}" for n, s in results["parts"].items())
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}"
    )


# ---- Data


def write_batches(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Writes one batch per step of a round, at most 8, to a file; prints the lengths of targets."""
    from mt3data.prepare.manifest import read_manifest
    from mt3jax.pipeline import training_pipeline

    if options.manifest is None:
        from mt3data.prepare.composed import composed_manifest

        options.manifest = composed_manifest(8)
    model = with_layers(NETWORKS[options.network], options.layers)
    there = set(read_manifest(options.manifest)["dataset"].tolist())
    name = options.dataset or ("slakh" if "slakh" in there else "")
    data = DataConfig(str(options.manifest), datasets=(DatasetChoice(name),) if name else ())
    pipeline = training_pipeline(data, options.examples, example=ExampleConfig(model=model), host=0, num_hosts=1)
    arrays = {}
    for number in range(min(options.steps, 8)):
        batch = pipeline.batch(number)
        arrays |= {f"{number}/{key}": batch[key] for key in ("audio", "num_frames", "targets", "num_tokens")}
    limit = model.network.max_target_tokens
    lengths = np.minimum([pipeline.stream.example(i).num_tokens for i in range(LENGTH_SAMPLE)], limit)
    np.savez(path, lengths=lengths, **arrays)
    drawn = np.concatenate([array for key, array in arrays.items() if key.endswith("num_tokens")])
    found = {
        "dataset": name or "all",
        "mean_tokens": round(float(lengths.mean()), 1),
        "percentiles": {str(p): int(np.percentile(lengths, p)) for p in (5, 25, 50, 75, 95, 100)},
        "mean_tokens_of_batches": round(float(drawn.mean()), 1),
    }
    print(f"targets of {found['dataset']}: {found}")
    return found


def read_batches(path: str) -> list[Batch]:
    batches: dict[str, Batch] = {}
    with np.load(path) as file:
        for key in file.files:
            if "/" in key:
                number, name = key.split("/")
                batches.setdefault(number, {})[name] = file[key]
    return list(batches.values())


# ---- The parent process


def take_turns(options: argparse.Namespace, path: Path) -> dict[str, dict[str, Any]]:
    """Rounds of all variants, one after the other; results by variant."""
    names = options.variant or list(VARIANTS)
    processes = {name: start_child(options, name, path) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    # One at a time, since compiling takes all processors.
    figures = {name: ask(processes[name], "prepare") for name in names}
    for round_number in range(options.rounds):
        for name in names:
            seconds[name].append(ask(processes[name], "round")["seconds"] / options.steps)
            print(f"  round {round_number + 1} {name}: {seconds[name][-1]:.2f} s per step", flush=True)
    for name, process in processes.items():
        figures[name] |= ask(process, "end") | {"step_seconds": [round(s, 4) for s in seconds[name]]}
        best = min(seconds[name])
        figures[name] |= {"best_step_seconds": round(best, 4), "examples_per_second": options.examples / best}
        process.wait()
    return figures


def start_child(options: argparse.Namespace, variant: str, path: Path) -> subprocess.Popen[str]:
    arguments = [argument for argument in sys.argv[1:] if argument != str(options.manifest)]
    command = [sys.executable, __file__, *arguments, "--child", variant, str(path)]
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # they share the device
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(process: subprocess.Popen[str], question: str) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"The process {process.args[-2]} ended with {process.wait()}.")  # type: ignore[index]
    return json.loads(line)


def run_child(options: argparse.Namespace, variant: str, path: Path) -> dict[str, Any]:
    process = start_child(options, variant, path)
    figures = ask(process, "prepare")
    process.wait()
    return figures


def report(variants: dict[str, dict[str, Any]]) -> dict[str, float]:
    print("\nvariant   rows  padding  compile s  s per step (best, all)    examples/s  peak MiB  of it planned by XLA")
    for name, run in variants.items():
        steps = " ".join(f"{seconds:.2f}" for seconds in run["step_seconds"])
        print(
            f"{name:8} {run['rows']:5} {run['padding']:8.2f} {run['compile_seconds']:10.1f}  "
            f"{run['best_step_seconds']:.2f} ({steps}) {run['examples_per_second']:11.2f} "
            f"{run['peak_mib']:9.0f} {run['planned_mib']:9.0f}"
        )
    ratios = {}
    for other in ("padded", "plain"):
        if {"packed", other} <= variants.keys():
            pairs = zip(variants[other]["step_seconds"], variants["packed"]["step_seconds"], strict=True)
            ratios[f"packed_over_{other}"] = round(float(np.median([slow / fast for slow, fast in pairs])), 2)
    print(f"examples per second, median of the rounds' ratios: {ratios}")
    return ratios


# ---- The worker processes


def child(options: argparse.Namespace, variant: str, path: str) -> None:
    """Answers one line for each line: prepare, round, end."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing else may be printed in between
    model = with_layers(NETWORKS[options.network], options.layers)
    step: Any = None
    for question in sys.stdin:
        if question.strip() == "prepare":
            if variant == "parts":
                print(json.dumps(parts(options, model, read_batches(path)[0])), file=answers, flush=True)
                return
            step = make_variant(options, model, variant, path)
            step.run(1)
            answer: dict[str, Any] = {
                "rows": step.rows,
                "padding": round(float(step.padding), 4),
                "compile_seconds": round(step.compile_seconds, 2),
                "planned_mib": step.planned_bytes / 2**20,
            }
        elif question.strip() == "round":
            answer = {"seconds": step.run(options.steps)}
        else:
            answer = {"loss": step.losses[-1], "peak_mib": peak_mib()}
        print(json.dumps(answer), file=answers, flush=True)
        if question.strip() == "end":
            return


def make_variant(options: argparse.Namespace, model: ModelConfig, variant: str, path: str) -> Any:
    batches = read_batches(path)
    if variant == "plain":
        from plain_training import PlainStep

        return PlainStep(model, batches)
    with np.load(path) as file:
        lengths = file["lengths"]
    return TimedStep(config_of(options, model, packed=variant == "packed"), batches, lengths)


def config_of(options: argparse.Namespace, model: ModelConfig, packed: bool):
    config = training_config(
        model,
        options.examples,
        {"packed": packed, "accumulation": options.accumulation, "block_tokens": options.block_tokens},
        {"dtype": options.dtype, "remat": options.remat},
    )
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, chunk_tokens=options.chunk_tokens))


def peak_mib() -> float:
    """Peak memory so far: of the accelerator, or of this process, including compilation."""
    import jax

    statistics = jax.devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if statistics:
        return statistics["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024


def parts(options: argparse.Namespace, model: ModelConfig, batch: Batch) -> dict[str, float]:
    """Seconds of the stages of the packed step, each a separate program: the best of the rounds."""
    import jax

    from mt3jax import row_packing
    from mt3jax.loading import network
    from mt3jax.training.step.loss import for_training, loss_sums, network_input
    from mt3jax.training.step.state import drawn_params

    config = config_of(options, model, packed=True)
    rows = row_packing.rows_of_batch(batch, config, 1)
    part = {name: array[0] for name, array in row_packing.split_batch(batch, config, 1, rows).items()}
    params = jax.device_put(drawn_params(model, 0))

    def encoded(params: Any, part: Any) -> Any:
        return for_training(network(model, params), config).encode(network_input(part, config).astype(options.dtype))

    def loss(params: Any, part: Any) -> Any:
        return loss_sums(network(model, params), part, config).loss

    programs = {
        "log-mel": lambda params, part: network_input(part, config),
        "log-mel, encoder": encoded,
        "log-mel, encoder, decoder, loss": loss,
        "all that, and its gradient": jax.value_and_grad(loss),
    }
    seconds = {}
    for name, program in programs.items():
        compiled = jax.jit(program).lower(params, part).compile()
        jax.block_until_ready(compiled(params, part))
        times = []
        for _ in range(options.rounds):
            started = time.perf_counter()
            jax.block_until_ready(compiled(params, part))
            times.append(time.perf_counter() - started)
        seconds[name] = round(min(times), 4)
    return seconds


if __name__ == "__main__":
    main()
