"""Speed of the training data: examples per second and core, with workers, and whether memory stays constant.

    python benchmarks/data.py cache/chunk_manifest.parquet [--examples 1000] [--workers 0 --workers 2]
                              [--memory-examples 100000] [--json FILE]

The manifest comes from `mt3 prepare`. An example is 2.048 s of audio with its tokens, made on one thread. Rates "per
core" are examples per second of this process's processor time, the best of several rounds, so that other programs have
little influence; "wall" is wall-clock time. For comparison, the same recordings are read as FLAC and MIDI files by a
plain PyTorch Dataset that does for every item what earlier systems did: read the recording, cut a segment, compute the
log-mel, and make tokens with loops in Python; once with whole files, and once more favourably, reading only the segment
and parsing each MIDI file once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from plain_dataset import PlainDataset, write_recordings

from mt3core.config.data import AugmentationConfig, DataConfig, DatasetChoice
from mt3data.examples.examples import ExampleConfig
from mt3data.prepare.manifest import read_manifest
from mt3jax.pipeline import Pipeline, training_pipeline

BATCH_SIZE = 50
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ALL_EFFECTS = AugmentationConfig(
    gain_probability=1, polarity_probability=1, tilt_probability=1, noise_probability=1, reverb_probability=1,
    detune_probability=1,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of the data pipeline.")
    parser.add_argument("manifest", type=Path, nargs="?", default=Path("cache/chunk_manifest.parquet"))
    parser.add_argument("--examples", type=int, default=1000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, action="append", help="default: 0, 1 and 2")
    parser.add_argument("--memory-examples", type=int, default=0, help="0: do not measure memory")
    parser.add_argument("--skip-plain", action="store_true", help="do not measure the plain Dataset")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; {len(read_manifest(options.manifest))} chunks; load {os.getloadavg()[0]:.1f}")
    results: dict[str, Any] = {"machine": machine, "single": one_core(options), "workers": workers(options)}
    if not options.skip_plain:
        results["plain"] = plain(options)
    if options.memory_examples:
        results["memory"] = memory(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def one_core(options: argparse.Namespace) -> list[dict]:
    """Batches made in this thread."""
    kinds: list[tuple[str, dict, dict]] = [
        ("recording or mix, int16", {"mix": 1.0}, {}),
        ("single stem, int16", {"stem": 1.0}, {}),
        ("single stem, float32", {"stem": 1.0}, {"audio": "float32"}),
        ("single stem, no tokens", {"stem": 1.0}, {"load_tokens": False}),
        ("1 to 4 stems across tracks", {"across": 1.0}, {}),
        ("4 stems across tracks", {"across": 1.0}, {"parts": 4}),
        ("subset of a track's stems", {"subset": 1.0}, {}),
        ("single stem, every effect", {"stem": 1.0}, {"augmentation": ALL_EFFECTS}),
        ("single stem, host log-mel", {"stem": 1.0}, {"audio": "log_mel"}),
    ]
    print(f"\n{'one thread':30} examples/s per core  wall  parts  tokens")
    results = []
    for name, shares, settings in kinds:
        pipeline = pipeline_of(options, shares, **settings)
        if pipeline is None:
            continue
        parts = settings.get("parts")
        indices = indices_with(pipeline, parts, options.examples) if parts else range(options.examples)
        rate, wall = best_rate(lambda i, p=pipeline: p.stream.example(i), indices, options.rounds)
        if settings.get("audio") == "log_mel":
            rate, wall = best_rate(lambda number, p=pipeline: p.batch(number), range(2), options.rounds, BATCH_SIZE)
        batch = pipeline.batch(0)
        size, tokens = float(batch["num_parts"].mean()), float(batch["num_tokens"].mean())
        print(f"{name:30} {rate:19.0f} {wall:5.0f} {parts or size:6.2f} {tokens:7.1f}")
        results.append({"name": name, "per_core": rate, "wall": wall, "parts": parts or size, "tokens": tokens})
    return results


def workers(options: argparse.Namespace) -> list[dict]:
    """Whole batches through Grain, in wall-clock time."""
    print(f"\n{'through Grain':30} workers  examples/s  first batch s")
    results = []
    for name, shares in (("recording or mix, int16", {"mix": 1.0}), ("1 to 4 stems across tracks", {"across": 1.0})):
        for number in options.workers or [0, 1, 2]:
            pipeline = pipeline_of(options, shares, num_workers=number)
            if pipeline is None:
                continue
            with iter(pipeline) as batches:
                started = time.perf_counter()
                next(batches)
                first_seconds = time.perf_counter() - started
                for _ in range(3 * max(number, 1)):  # those made while waiting for the first
                    next(batches)
                started = time.perf_counter()
                count = -(-options.examples // BATCH_SIZE)
                for _ in range(count):
                    next(batches)
                rate = count * BATCH_SIZE / (time.perf_counter() - started)
            print(f"{name:30} {number:7} {rate:11.0f} {first_seconds:14.1f}")
            results.append({"name": name, "workers": number, "examples_per_second": rate})
    return results


def plain(options: argparse.Namespace) -> list[dict]:
    """The same recordings from FLAC and MIDI files."""
    print(f"\n{'plain PyTorch Dataset':30} examples/s per core  wall")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_recordings(read_manifest(options.manifest), Path(folder), limit=10)
        for name, whole, count in (("whole files for every item", True, 10), ("segment only, MIDI kept", False, 60)):
            dataset = PlainDataset(files, whole_files=whole)
            rate, wall = best_rate(dataset.__getitem__, range(count), options.rounds)
            print(f"{name:30} {rate:19.1f} {wall:5.1f}")
            results.append({"name": name, "per_core": rate, "wall": wall})
    return results


def memory(options: argparse.Namespace) -> list[dict]:
    """Resident memory of this process while it makes examples of all kinds."""
    pipeline = pipeline_of(options, {"mix": 1.0, "stem": 1.0, "subset": 0.2, "across": 0.5})
    assert pipeline is not None
    print("\n examples  resident MB  of it not files")
    results = []
    step = max(options.memory_examples // 10 // BATCH_SIZE, 1)
    for number in range(10 * step + 1):
        if number % step == 0:
            resident, files = resident_megabytes()
            results.append({"examples": number * BATCH_SIZE, "resident_mb": resident, "anonymous_mb": resident - files})
            print(f"{number * BATCH_SIZE:9} {resident:12.0f} {resident - files:16.0f}", flush=True)
        pipeline.batch(number)
    return results


def pipeline_of(options: argparse.Namespace, shares: dict, num_workers: int = 0, **settings: Any) -> Pipeline | None:
    """A pipeline of all data sets that have the variants; None if there is none."""
    settings.pop("parts", None)
    manifest = read_manifest(options.manifest)
    with_stems = sorted(set(manifest["dataset"][manifest["stem"] != "mix"].tolist()))
    names = sorted(set(manifest["dataset"].tolist())) if shares.keys() == {"mix"} else with_stems
    if not names:
        return None
    every = {"mix": 0.0, "stem": 0.0, "subset": 0.0, "across": 0.0, **shares}
    data = DataConfig(
        str(options.manifest),
        datasets=tuple(DatasetChoice(name, **every) for name in names),
        augmentation=settings.pop("augmentation", AugmentationConfig()),
        num_workers=num_workers,
    )
    return training_pipeline(data, BATCH_SIZE, example=ExampleConfig(**settings), host=0, num_hosts=1)


def indices_with(pipeline: Pipeline, parts: int, count: int) -> list[int]:
    """The first examples that have this number of parts."""
    found, index = [], 0
    while len(found) < min(count, 300):
        if len(pipeline.stream.example(index).rows) == parts:
            found.append(index)
        index += 1
    return found


def best_rate(make: Callable[[int], Any], indices: Any, rounds: int, examples_each: int = 1) -> tuple[float, float]:
    """Examples per second of processor time and of wall-clock time, the best of the rounds each; one round warms up."""
    best_cpu, best_wall = 0.0, 0.0
    for round_number in range(rounds + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        for index in indices:
            make(index)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if round_number:
            examples = len(indices) * examples_each
            best_cpu, best_wall = max(best_cpu, examples / cpu), max(best_wall, examples / wall)
    return best_cpu, best_wall


def resident_megabytes() -> tuple[float, float]:
    """Memory of this process, and how much of it is file pages."""
    fields = np.array(Path("/proc/self/statm").read_text().split()[1:3], float)
    return tuple((fields * os.sysconf("SC_PAGE_SIZE") / 1e6).tolist())


if __name__ == "__main__":
    if not ONE_THREAD.items() <= os.environ.items():  # NumPy reads them when it is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    main()
