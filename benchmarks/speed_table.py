"""One table of speed: sparse piano, dense piano and a band, before and after, beside other systems, on this machine.

    python benchmarks/speed_table.py [--before CHECKOUT] [--rounds 2] [--minutes 3] [--other NAME ...] [--markdown FILE]

Three files of three minutes are joined from recordings (default shared/realdata next to the checkout). Every row has
its own process, which loads the model, warms up, and then transcribes the file; loading is timed apart. The rows take
turns, and each figure is the median of the rounds. `--before` names another checkout of this repository, which runs the
same weights in the same turns. Other systems run in environments of their own below `--cache`, as in compare.py; one
that is missing is left out, with the reason.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import platformdirs
import soundfile
import speed
from systems.clips import Clip
from systems.environments import EnvironmentProblem, python_of
from systems.port_weights import port_weights
from systems.registry import SYSTEMS, weights_of
from systems.running import Job, run

from mt3core.files import atomic_output
from mt3core.notes.table import note_table
from mt3core.processors import num_processors
from mt3eval.reading.performance import Performance

ROOT = Path(__file__).resolve().parents[1]
# Names of recordings: few notes a second, many, and several instruments with drums.
MUSIC = {
    "sparse": ("mz_545_3", "scn15_3_", "scn15_13"),
    "dense": ("chpn_p19", "scn15_12", "bor_ps6"),
    "band": ("multi_rendered",),
}
BEFORE = "before: "
OTHERS = ("mt3-infer", "basic-pitch")  # the first is half as fast as real time on two cores


@dataclass(frozen=True)
class Row:
    """A way to transcribe; `measure` takes a file and gives seconds of loading and of transcribing, and the largest
    resident memory in MiB."""

    name: str
    measure: Callable[[Path], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="One table of speed, before and after, beside other systems.")
    parser.add_argument("--model", default=str(speed.SHARED / "mt3_checkpoint"), help="the published weights")
    parser.add_argument("--small", default=str(ROOT / "mt3core/models/small"), help="weights that every checkout reads")
    parser.add_argument("--music", type=Path, default=speed.SHARED / "realdata")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=num_processors(), help="of our network; default: the processors")
    parser.add_argument(
        "--other", action="append", choices=[one.name for one in SYSTEMS], help=f"default: {' and '.join(OTHERS)}"
    )
    parser.add_argument("--only", action="append", default=[], help="only rows with this in their names")
    parser.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("mt3kit") / "compare")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder, f"{kind}.wav") for kind in MUSIC}
        for kind, file in files.items():
            audio = speed.music(options.music, list(MUSIC[kind]), options.minutes * 60)
            soundfile.write(file, audio, speed.RATE_HZ, subtype="PCM_16")
        rows = [*own_rows(options), *other_rows(options, Path(folder))]
        rows = [row for row in rows if is_wanted(row.name, options)]
        found = measured(rows, files, options.rounds)
    text = table(rows, found, options.minutes * 60)
    print(text, end="")
    if options.markdown:
        with atomic_output(options.markdown) as temporary:
            temporary.write_text(text, encoding="utf-8")


def own_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Both weights, with both ways of decoding and both precisions; in float32 also from the checkout of before."""
    for weights, model in (("published", options.model), ("small", options.small)):
        for method in ("t5x", "greedy"):
            if options.before:
                name = f"{BEFORE}{weights}, {method}, float32"
                yield Row(name, own_measure(options, model, method, "float32", options.before))
            for precision in ("float32", "bfloat16"):
                yield Row(f"{weights}, {method}, {precision}", own_measure(options, model, method, precision, ROOT))


def is_wanted(name: str, options: argparse.Namespace) -> bool:
    return not options.only or any(part in name for part in options.only)


def own_measure(
    options: argparse.Namespace, model: str, method: str, precision: str, checkout: Path
) -> Callable[[Path], dict[str, float]]:
    settings = SimpleNamespace(model=model, precision=precision, max_tokens=None, batch_size=None)

    def measure(file: Path) -> dict[str, float]:
        return speed.child(settings, "torch", options.workers, method, file, checkout)

    return measure


def other_rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    for system in SYSTEMS:
        if system.name not in (options.other or OTHERS) or not is_wanted(system.name, options):
            continue
        try:
            python = python_of(system, options.cache)
        except EnvironmentProblem as problem:
            print(f"{system.name} is left out: {problem}")
            continue
        weights, problem = weights_of(system, {}, options.model, lambda: port_weights(options.model, options.cache))
        if problem:
            print(f"{system.name} is left out: {problem}")
            continue
        job = Job(system, python, weights, folder / system.name)

        def measure(file: Path, job: Job = job) -> dict[str, float]:
            clip = Clip(file.stem, file, options.minutes * 60, Performance(note_table([])))
            outcome = run(job, [clip], fresh=True, say=lambda line: None)
            if file.stem not in outcome.records:
                print(f"{job.system.name}: {outcome.skipped or outcome.failures}")
                return {}
            record = outcome.records[file.stem]
            names = {"load": "load_seconds", "transcribe": "seconds"}
            return {ours: record[theirs] for ours, theirs in names.items()} | {"memory": record["peak_bytes"] / 2**20}

        yield Row(system.name, measure)


Found = dict[tuple[str, str], list[dict[str, float]]]


def measured(rows: list[Row], files: dict[str, Path], rounds: int) -> Found:
    """The figures of every row and kind of music, a list over the rounds."""
    found: Found = {}
    for number in range(rounds):
        for kind, file in files.items():
            for row in rows:
                figures = row.measure(file)
                if figures:
                    found.setdefault((row.name, kind), []).append(figures)
                    print(f"round {number + 1}: {kind}, {row.name}: {figures['transcribe']:.1f} s", flush=True)
    return found


def table(rows: list[Row], found: Found, seconds: float) -> str:
    """In Markdown. Speeds are times real time; in brackets, the ratio to the row of before.

    Of wall time only: older checkouts decode in processes, whose processor time is not counted.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    lines = [
        f"{datetime.date.today()}; {platform.system()} {platform.machine()}, {num_processors()} processors, Python "
        f"{platform.python_version()}; {seconds / 60:g} minutes of each kind of music; load average at the end "
        f"{load:.1f}. Times real time with the model loaded; in brackets, the gain over the row of before.",
        "",
        f"| | {' | '.join(MUSIC)} | load, s | peak memory, MiB |",
        f"|---{'|---' * (len(MUSIC) + 2)}|",
    ]
    for row in rows:
        cells = [cell(row, kind, found, seconds) for kind in MUSIC]
        all_runs = [run for kind in MUSIC for run in found.get((row.name, kind), [])]
        if not all_runs:
            continue
        loads, memory = (np.median([run["load"] for run in all_runs]), max(run["memory"] for run in all_runs))
        lines.append(f"| {row.name} | {' | '.join(cells)} | {loads:.1f} | {memory:,.0f} |")
    return "\n".join(lines) + "\n"


def cell(row: Row, kind: str, found: Found, seconds: float) -> str:
    runs, before = found.get((row.name, kind)), found.get((BEFORE + row.name, kind))
    if not runs:
        return "-"
    text = f"{seconds / median(runs, 'transcribe'):.1f}"
    if before:
        ratio = median(before, "transcribe") / median(runs, "transcribe")
        same = "" if {run["tokens"] for run in runs} == {run["tokens"] for run in before} else ", other tokens"
        text += f" ({ratio:.2f}{same})"
    return text


def median(runs: list[dict[str, float]], name: str) -> float:
    return float(np.median([run[name] for run in runs]))


if __name__ == "__main__":
    main()
