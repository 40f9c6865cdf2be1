"""Times every protocol on pairs of long piano pieces, including files and processes.

    python benchmarks/evaluate.py                                  100 pairs of 10 minutes, all protocols
    python benchmarks/evaluate.py --protocol mt3 --pairs 20        one protocol, fewer pairs

The pieces are generated from a seed: chords and runs of about ten notes per second with repeated keys, a sustain pedal
that moves in small steps, and an estimate that misses, moves, adds and splits notes. They are written as MIDI to a
temporary folder and scored as `mt3 evaluate` does it: for every protocol it matches names, starts processes, reads
files, scores notes and averages with intervals.
"""

from __future__ import annotations

import argparse
import os
import struct
import tempfile
import time
from pathlib import Path

import numpy as np

from mt3core.processors import num_processors
from mt3eval.protocol import all_protocols, protocol
from mt3eval.reading.pairing import pair_files
from mt3eval.result import summarise
from mt3eval.runner import ScoringTask, score_pairs

NOTES_PER_SECOND = 10.0
PEDALS_PER_SECOND = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--protocol", action="append", help="repeatable [default: all]")
    parser.add_argument("--processes", type=int, default=num_processors())
    parser.add_argument("--analyse", action="store_true", help="also analyse the errors of every note, as --json does")
    options = parser.parse_args()
    names = options.protocol or list(all_protocols())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        num_notes = make_pairs(root, options.pairs, 60 * options.minutes)
        print(
            f"{options.pairs} pairs, {num_notes / options.pairs:.0f} notes per reference, "
            f"{options.processes} processes, load before {os.getloadavg()[0]:.1f}"
        )
        print(f"{'protocol':40} {'s':>6} {'load':>6}  values that are shown first")
        for name in names:
            time_protocol(root, name, options.processes, options.analyse)


def time_protocol(root: Path, name: str, processes: int, analyse: bool) -> None:
    """Scores all pairs by one protocol, averages them with intervals, and prints how long that took."""
    started = time.perf_counter()
    pairs = pair_files(root / "reference", root / "estimate").pairs
    pieces = score_pairs(pairs, ScoringTask((protocol(name).name,), analyse=analyse), processes)
    result = summarise((name,), pieces)
    seconds = time.perf_counter() - started
    failures = sum(piece.values(name) is None for piece in pieces)
    values = ", ".join(f"{metric} {value:.3f}" for metric, value in list(result.averages[name].values.items())[:3])
    print(f"{name:40} {seconds:6.1f} {os.getloadavg()[0]:6.1f}  {values}{f'; {failures} without' if failures else ''}")


def make_pairs(root: Path, pairs: int, seconds: float) -> int:
    """Writes the MIDI files of both sides; returns the number of reference notes."""
    total = 0
    for number in range(pairs):
        rng = np.random.default_rng(number)
        rows = piano_notes(rng, seconds)
        pedal = pedal_moves(rng, seconds)
        write_piano(root / "reference" / f"{number:03}.mid", rows, pedal)
        write_piano(root / "estimate" / f"{number:03}.mid", perturbed(rng, rows), pedal)
        total += len(rows)
    return total


def piano_notes(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Rows of onset, offset, pitch, velocity: a random walk over the keys, one to four at a time."""
    rows = []
    onset, centre = 0.5, 60.0
    while onset < seconds:
        centre = float(np.clip(centre + rng.normal(0, 3), 35, 85))
        for pitch in set(np.clip(np.rint(centre + rng.normal(0, 7, rng.integers(1, 5))), 21, 108).astype(int).tolist()):
            length = float(rng.gamma(2.0, 0.15)) + 0.03
            rows.append(
                (onset + float(rng.uniform(0, 0.015)), onset + 0.02 + length, pitch, int(rng.integers(30, 110)))
            )
        onset += float(rng.exponential(2.4 / NOTES_PER_SECOND)) + 0.01
    return np.array(rows)


def perturbed(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """A plausible estimate of a good system: 6 % missed, 5 % ghosts, 2 % split, inexact times and velocities."""
    found = rows[rng.random(len(rows)) > 0.06].copy()
    found[:, 0] = np.maximum(found[:, 0] + rng.normal(0, 0.012, len(found)), 0)
    found[:, 1] = np.maximum(found[:, 1] + rng.normal(0, 0.06, len(found)), found[:, 0] + 0.02)
    found[:, 3] = np.clip(np.rint(found[:, 3] + rng.normal(0, 8, len(found))), 1, 127)
    ghosts = rows[rng.random(len(rows)) < 0.05].copy()
    ghosts[:, :2] += rng.uniform(0.1, 1.0, (len(ghosts), 1))
    split = rng.random(len(found)) < 0.02
    halves = found[split].copy()
    middle = (halves[:, 0] + halves[:, 1]) / 2
    halves[:, 0] = middle
    found[split, 1] = middle
    return np.concatenate([found, ghosts, halves])


def pedal_moves(rng: np.random.Generator, seconds: float) -> list[tuple[float, int]]:
    """(time, value) of the pedal, down and up in steps like a real one."""
    moves = []
    down = 0.3
    while down < seconds:
        up = down + float(rng.uniform(0.3, 1.2))
        moves += [(down + 0.01 * step, 12 * step) for step in range(1, 11)]
        moves += [(up + 0.01 * step, 120 - 12 * step) for step in range(1, 11)]
        down = up + 0.2 + float(rng.exponential(1 / PEDALS_PER_SECOND - 1))
    return moves


def write_piano(path: Path, rows: np.ndarray, pedal: list[tuple[float, int]]) -> None:
    """One piano track with its pedal, one tick per millisecond. By hand: a MIDI library takes a second per file."""
    events = [(round(1000 * moment), bytes([0xB0, 64, value])) for moment, value in pedal]
    for onset, offset, pitch, velocity in rows.tolist():
        start = round(1000 * onset)
        events.append((start, bytes([0x90, int(pitch), int(velocity)])))
        events.append((max(round(1000 * offset), start + 1), bytes([0x80, int(pitch), 0])))
    events.sort(key=lambda event: (event[0], event[1][0] == 0x90))  # keys are released before they are struck again
    track = bytearray()
    before = 0
    for tick, message in events:
        track += variable_length(tick - before) + message
        before = tick
    track += b"\x00\xff\x2f\x00"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(track)) + track)


def variable_length(number: int) -> bytes:
    """Seven bits per byte, the highest first: the format of times in MIDI files."""
    found = [number & 0x7F]
    while number := number >> 7:
        found.insert(0, 0x80 | number & 0x7F)
    return bytes(found)


if __name__ == "__main__":
    main()
