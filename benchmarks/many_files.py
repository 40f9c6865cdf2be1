"""Thousands of short files through `mt3 transcribe`: memory at every tenth, and their cost beside one long file.

    python benchmarks/many_files.py growth --files 10000 --seconds 1
    python benchmarks/many_files.py cost --files 1000 --seconds 2

`growth` transcribes that many files in one run of the command (with `--quiet`) and prints the resident memory whenever
another tenth of the results has been written; those after the first tenth should be equal. `cost` transcribes the same
files and one file of their joined length, `--repeats` times by turns, each in a process of its own, and prints wall
clock and processor time, without those of a run with one short file: loading the model is not counted.

The files are made here: plucked tones, a different melody in each of a hundred files, which the others link to.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16_000
NUM_DIFFERENT = 100
TENTHS = 10
POLL_SECONDS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description="Transcribe many short files.")
    parser.add_argument("what", choices=["growth", "cost"])
    parser.add_argument("--files", type=int, default=1000, help="how many [%(default)s]")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each [%(default)g]")
    parser.add_argument("--model", default="small", help="[%(default)s]")
    parser.add_argument("--backend", default="torch", help="[%(default)s]")
    parser.add_argument("--repeats", type=int, default=2, help="of `cost` [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (growth if options.what == "growth" else cost)(folder, options)


def growth(folder: Path, options: argparse.Namespace) -> None:
    """In this process, so that its own memory is read."""
    from mt3app.cli import run

    make_files(folder / "in", options.files, options.seconds)
    is_done = threading.Event()
    watching = threading.Thread(target=watch, args=(folder / "out", options.files, is_done))
    watching.start()
    started = time.perf_counter()
    code = run(command(options, folder / "in", folder / "out"))
    seconds = time.perf_counter() - started
    is_done.set()
    watching.join()
    written = num_results(folder / "out")
    print(f"exit code {code}, {written} results in {seconds:.1f} s ({written / seconds:.1f} files/s)")


def watch(out: Path, num_files: int, is_done: threading.Event) -> None:
    """Prints the resident memory at every tenth of the results."""
    tenth, started = 1, time.perf_counter()
    while tenth <= TENTHS and not is_done.wait(POLL_SECONDS):
        done = len(os.listdir(out)) if out.is_dir() else 0
        if done >= tenth * num_files // TENTHS:
            threads = threading.active_count()
            elapsed = time.perf_counter() - started
            print(
                f"{done} files: {resident_megabytes():.0f} MB resident, {threads} threads, {elapsed:.0f} s", flush=True
            )
            tenth += 1
    print(f"at the end: {resident_megabytes():.0f} MB")


def num_results(out: Path) -> int:
    return sum(name.endswith(".jsonl") for name in os.listdir(out)) if out.is_dir() else 0


def cost(folder: Path, options: argparse.Namespace) -> None:
    make_files(folder / "short", options.files, options.seconds)
    make_files(folder / "one", 1, options.seconds)
    (folder / "long").mkdir()
    with soundfile.SoundFile(folder / "long/long.wav", "w", RATE_HZ, 1, subtype="PCM_16") as file:
        for path in sorted((folder / "short").iterdir()):
            file.write(soundfile.read(path, dtype="float32")[0])
    for repeat in range(options.repeats):
        base, short, long = (timed(folder, name, repeat, options) for name in ("one", "short", "long"))
        ratios = [(many - start) / (single - start) for start, many, single in zip(base, short, long, strict=True)]
        print(
            f"{options.files} files of {options.seconds:g} s: {short[0] - base[0]:.1f} s, processors "
            f"{short[1] - base[1]:.1f} s; one of {options.files * options.seconds:g} s: {long[0] - base[0]:.1f} s, "
            f"processors {long[1] - base[1]:.1f} s; {ratios[0]:.2f} times, processors {ratios[1]:.2f} times",
            flush=True,
        )


def timed(folder: Path, name: str, repeat: int, options: argparse.Namespace) -> tuple[float, float]:
    """Wall clock and processor time of the command for a folder."""
    program = "import sys; from mt3app.cli import run; sys.exit(run(sys.argv[1:]))"
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    out = folder / f"{name}_{repeat}"
    subprocess.run([sys.executable, "-c", program, *command(options, folder / name, out)], check=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(options: argparse.Namespace, source: Path, out: Path) -> list[str]:
    chosen = ["--model", options.model, "--backend", options.backend, "--format", "jsonl", "--quiet"]
    return ["transcribe", str(source), "-o", f"{out}/", "--quality", "fast", *chosen]


def make_files(folder: Path, num_files: int, seconds: float) -> None:
    folder.mkdir()
    for number in range(num_files):
        path = folder / f"{number:06d}.wav"
        if number < NUM_DIFFERENT:
            soundfile.write(path, melody(number, seconds), RATE_HZ, subtype="PCM_16")
        else:
            os.link(folder / f"{number % NUM_DIFFERENT:06d}.wav", path)


def melody(number: int, seconds: float) -> np.ndarray:
    """Plucked tones, three a second; float32 (samples,)."""
    random, result = np.random.default_rng(number), np.zeros(round(seconds * RATE_HZ))
    for onset in np.arange(0, seconds, 1 / 3):
        first = round(onset * RATE_HZ)
        clock = np.arange(len(result) - first) / RATE_HZ
        hz = 440 * 2 ** ((random.integers(48, 84) - 69) / 12)
        tone = sum(np.sin(2 * np.pi * hz * partial * clock) / partial for partial in range(1, 6))
        result[first:] += 0.15 * np.exp(-4 * clock) * tone
    return np.clip(result, -1, 1).astype(np.float32)


def resident_megabytes() -> float:
    """Of this process now (Linux); elsewhere the most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
