"""Speed and peak memory of transcription on this machine: makes the tables of docs/performance.md.

    python benchmarks/speed.py [--model MODEL] [--minutes 3 --minutes 30] [--backend torch --backend jax]
    python benchmarks/speed.py --against CHECKOUT [--rounds 3] [--minutes 3] [--workers 1]

Each run has its own process, so that its peak memory is its own. The music is a folder of recordings, joined and
repeated to the requested length (default shared/realdata next to the checkout), or else a piece rendered here. Loading
the model and compiling are timed separately.

With `--against`, another checkout of this repository transcribes the same file, in turn with this one: where other
programs use the processors too, only such ratios mean something, those of processor time more than those of wall time.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from mt3core.processors import num_processors

SHARED = Path(__file__).resolve().parents[2] / "shared"
RATE_HZ = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure speed and peak memory of transcription.")
    parser.add_argument("--model", default=default_model(), help="default: the published weights, if they are there")
    parser.add_argument("--music", type=Path, default=SHARED / "realdata")
    parser.add_argument("--minutes", type=float, action="append", help="default: 3 and 30")
    parser.add_argument("--backend", action="append", choices=["torch", "jax"])
    parser.add_argument("--decoding", action="append", choices=["greedy", "t5x"], help="default: t5x")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--workers", type=int, action="append", help="for PyTorch; default: 1 and the processors")
    parser.add_argument("--precision", default="float32", help="for PyTorch")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with another checkout, in turns")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; the medians of the ratios are given")
    parser.add_argument("--run", nargs=3, metavar=("BACKEND", "DECODING", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--max-tokens", type=int, help="default: the model's; fewer to check memory, not speed")
    parser.add_argument("--only", action="append", default=[], help="recordings whose names contain this")
    options = parser.parse_args()
    if options.run:
        workers = (options.workers or [1])[0]
        sizes = options.batch_size, workers, options.max_tokens
        print(json.dumps(one_run(options.model, *options.run, *sizes, options.precision)))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("backend workers decoding  minutes  load s  compile s  transcribe s  processor s", end="  ")
    print("x real time  peak memory MiB  tokens")
    runs = [("torch", workers) for workers in options.workers or [1, min(num_processors(), 4)]] + [("jax", 1)]
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes or [3, 30]:
            file = Path(folder) / f"{minutes:g}.wav"
            soundfile.write(file, music(options.music, options.only, minutes * 60), RATE_HZ, subtype="PCM_16")
            for decoding in options.decoding or ["t5x"]:
                for backend, workers in runs:
                    if backend not in (options.backend or ["torch", "jax"]):
                        continue
                    if options.against:
                        compare(options, backend, workers, decoding, minutes, file)
                    else:
                        report(backend, workers, decoding, minutes, child(options, backend, workers, decoding, file))


def default_model() -> str:
    published = SHARED / "mt3_checkpoint"
    return str(published) if published.exists() else "small"


def compare(options: argparse.Namespace, backend: str, workers: int, decoding: str, minutes: float, file: Path) -> None:
    """Alternates with another checkout; prints every run, and the medians of the ratios of the rounds."""
    ratios: dict[str, list[float]] = {"transcribe": [], "processor": []}
    tokens = set()
    for _ in range(options.rounds):
        other = child(options, backend, workers, decoding, file, options.against)
        mine = child(options, backend, workers, decoding, file)
        for run in (other, mine):
            report(backend, workers, decoding, minutes, run)
            tokens.add(run["tokens"])
        for name, values in ratios.items():
            values.append(other[name] / mine[name])
    wall, processor = (float(np.median(values)) for values in ratios.values())
    same = "the same tokens" if len(tokens) == 1 else "other tokens"
    print(f"{wall:.2f} times as fast, {processor:.2f} times by processor time, {same}", flush=True)


def child(
    options: argparse.Namespace, backend: str, workers: int, decoding: str, file: Path, checkout: Path | None = None
) -> dict:
    command = [sys.executable, __file__, "--model", options.model, "--run", backend, decoding, str(file)]
    command += ["--workers", str(workers), "--precision", options.precision]
    if options.max_tokens:
        command += ["--max-tokens", str(options.max_tokens)]
    if options.batch_size:
        command += ["--batch-size", str(options.batch_size)]
    root = (checkout or Path(__file__).parents[1]).resolve()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=root)
    return json.loads(found.stdout.splitlines()[-1])


def report(backend: str, workers: int, decoding: str, minutes: float, run: dict) -> None:
    print(
        f"{backend:7} {workers:7} {decoding:8} {minutes:8g} {run['load']:7.1f} {run['compile']:10.1f} "
        f"{run['transcribe']:13.1f} "
        f"{run['processor']:12.1f} {minutes * 60 / run['transcribe']:12.1f} {run['memory']:16.0f} {run['tokens']:>16}",
        flush=True,
    )


def one_run(
    model: str,
    backend: str,
    method: str,
    file: str,
    batch_size: int | None,
    workers: int,
    max_tokens: int | None,
    precision: str,
) -> dict:
    """Loads, warms up on a few seconds, transcribes; seconds, MiB of all processes, and a checksum of all tokens."""
    from mt3core.decoding import Decoding
    from mt3core.model.search import find_model, load_weights

    start = time.perf_counter()
    network = importlib.import_module(f"mt3{backend}")
    weights = load_weights(find_model(model).source)
    built = network.build_model(weights.config, weights.arrays, "auto")
    options: dict[str, object] = {}
    if backend == "torch":  # older checkouts have processes instead of workers
        known = inspect.signature(network.Transcriber).parameters
        options = {"workers" if "workers" in known else "processes": workers}
        if precision != "float32":
            options["precision"] = precision
        if workers == 1:
            importlib.import_module("torch").set_num_threads(1)
    max_tokens = max_tokens or weights.config.network.max_target_tokens
    decoding = Decoding(method=method, max_tokens=max_tokens)  # type: ignore[arg-type]
    transcriber = network.Transcriber(built, decoding, batch_size, **options)
    del weights
    if hasattr(transcriber, "start_processes") and workers > 1:
        transcriber.start_processes()
    transcriber.transcribe((np.zeros(RATE_HZ * 4 * workers, np.float32), RATE_HZ))
    compiled = transcriber.compile_seconds
    started, processor_started = time.perf_counter(), time.process_time()
    result = transcriber.transcribe(file)
    seconds, processor = time.perf_counter() - started, time.process_time() - processor_started
    compiling = transcriber.compile_seconds
    tokens = [token for segment in result.segments for token in segment.tokens]
    transcriber.close()
    children = workers * peak_mib(resource.RUSAGE_CHILDREN)  # nothing without processes
    return {
        "load": started - start,
        "compile": compiling,
        # Compilation on the way is not part of the run.
        "transcribe": seconds - (compiling - compiled),
        "processor": processor,
        "memory": peak_mib(resource.RUSAGE_SELF) + children,
        "tokens": f"{len(tokens)}:{hash(tuple(tokens)) & 0xFFFFFF:06x}",
    }


def peak_mib(who: int) -> float:
    """Of this process, or of the largest of its children."""
    return resource.getrusage(who).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def music(folder: Path, only: list[str], seconds: float) -> np.ndarray:
    """Mono float32 at 16 kHz: the folder's recordings in alphabetical order, repeated as needed."""
    from mt3core.audio.load import load_audio

    files = sorted(p for p in folder.glob("*") if p.suffix in {".flac", ".wav", ".ogg", ".mp3"})
    files = [file for file in files if not only or any(name in file.name for name in only)]
    if files:
        pieces = [load_audio(file) for file in files]
    else:
        from mt3app.commands.demo_piece import piece
        from mt3render.playing import play_notes

        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "demo.wav")
            play_notes(piece(), file)
            pieces = [load_audio(file)]
    return np.resize(np.concatenate(pieces), int(seconds * RATE_HZ))


if __name__ == "__main__":
    main()
