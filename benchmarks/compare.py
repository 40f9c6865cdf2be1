"""Compares other systems with ours: transcribes a folder with each, scores the results, and prints one table.

    python benchmarks/compare.py [FOLDER] [--model MODEL] [--system NAME ...] [--output FOLDER] [--markdown FILE]

FOLDER contains recordings and their notes: `index.json` (as in shared/realdata, the default), MAESTRO, SLAKH, or audio
and MIDI files of the same names. Each system runs in its own virtual environment, created when first needed below the
cache folder (`--cache`); our two networks run in the current one. A system that is missing or fails is reported with
the reason and does not stop the others. MIDI files and timings are kept in `--output`, so an interrupted command can be
run again to resume; `--fresh` starts over.

Scores are means over clips with 95 % intervals over clips (docs/evaluation.md); each names its protocol
(`mt3 evaluate --list`). Speed is wall clock with the model loaded, one clip after the other; memory is the peak
resident size of all processes of a system (Linux; shared pages count once per process).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import platformdirs
from systems import table
from systems.clips import Clip, read_clips
from systems.environments import EnvironmentProblem, python_of
from systems.port_weights import port_weights
from systems.registry import SYSTEMS, System, weights_of
from systems.running import Job, Outcome, run
from systems.scoring import Run, score

from mt3core.errors import MT3Error
from mt3core.files import atomic_output
from mt3core.processors import num_processors

SHARED = Path(__file__).resolve().parents[2] / "shared"


def main(arguments: Sequence[str] | None = None, systems: Sequence[System] = SYSTEMS) -> int:
    """Runs the comparison; returns 0 even if systems were skipped, 1 if none ran, 2 for unusable input."""
    options = parse(arguments, systems)
    try:
        clips = read_clips(options.folder, options.split, tuple(options.only), options.limit)
    except MT3Error as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    runs = []
    for system in systems:
        if system.name in options.system:
            outcome = transcribe(system, clips, options)
            runs.append(score(system, outcome, options.output / system.name, clips))
    text = "\n".join([table.as_text(table.comparison(runs, clips)), *table.remarks(runs)])
    print(f"\n{text}")
    if options.markdown:
        with atomic_output(options.markdown) as temporary:
            temporary.write_text(markdown(runs, clips), encoding="utf-8")
    with atomic_output(options.output / "comparison.json") as temporary:
        temporary.write_text(json.dumps(as_json(runs), indent=2) + "\n", encoding="utf-8")
    return 0 if any(run.outcome.records for run in runs) else 1


def parse(arguments: Sequence[str] | None, systems: Sequence[System]) -> argparse.Namespace:
    """The command line."""
    names = [system.name for system in systems]
    parser = argparse.ArgumentParser(description="Compare other transcription systems with ours, in one table.")
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "realdata")
    parser.add_argument("--model", default=str(SHARED / "mt3_checkpoint"), help="weights of our two networks")
    parser.add_argument("--weights", action="append", default=[], metavar="SYSTEM=PATH", help="for another system")
    parser.add_argument("--system", action="append", choices=names, help="default: all")
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="MIDI files and timings")
    parser.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("mt3kit") / "compare")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--split", default="test", help="of a data set")
    parser.add_argument("--only", action="append", default=[], help="only clips with this in their names")
    parser.add_argument("--limit", type=int, help="at most this many clips")
    parser.add_argument("--threads", type=int, help="for every system [each system's own]")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds allowed for a clip or for loading")
    parser.add_argument("--fresh", action="store_true", help="transcribe finished clips again")
    options = parser.parse_args(arguments)
    options.system = options.system or names
    if incomplete := [pair for pair in options.weights if not all(pair.partition("=")[::2])]:
        parser.error(f"--weights {incomplete[0]}: a system and its file or folder are needed, as SYSTEM=PATH")
    options.weights = dict(pair.split("=", 1) for pair in options.weights)
    if unknown := [name for name in options.weights if name not in names]:
        parser.error(f"--weights: unknown system {', '.join(unknown)}; there are {', '.join(names)}")
    return options


def transcribe(system: System, clips: Sequence[Clip], options: argparse.Namespace) -> Outcome:
    """One system over all clips; if it cannot run, the cause becomes the reason for skipping it."""
    print(f"== {system.name} ({system.summary})", flush=True)
    given = {name: Path(path) for name, path in options.weights.items()}
    weights, problem = weights_of(system, given, options.model, lambda: port_weights(options.model, options.cache))
    if problem is None:
        try:
            python = python_of(system, options.cache)
        except (EnvironmentProblem, OSError) as error:
            problem = str(error)
    if problem is not None:
        print(f"{system.name}: skipped: {problem}", flush=True)
        return Outcome(skipped=problem)
    job = Job(system, python, weights, options.output / system.name, options.threads, options.timeout)
    outcome = run(job, clips, options.fresh, lambda line: print(line, flush=True))
    if outcome.skipped:
        print(f"{system.name}: skipped: {outcome.skipped}", flush=True)
    return outcome


def markdown(runs: Sequence[Run], clips: Sequence[Clip]) -> str:
    """Both tables, the skipped systems, and what the numbers mean."""
    minutes = sum(clip.seconds for clip in clips) / 60
    loads = [record["load_average"] for run in runs for record in run.outcome.records.values()]
    known = [load for load in loads if load is not None]
    busy = f"; load average while it ran {min(known):.1f} to {max(known):.1f}" if known else ""
    head = (
        f"{len(clips)} clips, {minutes:.1f} minutes; {datetime.date.today().isoformat()}; {platform.system()} "
        f"{platform.machine()}, {num_processors()} processors, Python {platform.python_version()}{busy}. Means over "
        "clips with 95 % intervals over clips (Student's t, see evaluation.md)."
    )
    parts = [head, table.as_markdown(table.comparison(runs, clips), (1,))]
    parts += ["Onset F1 of each clip (mir_eval):", table.as_markdown(table.by_clip(runs, clips), (0,))]
    parts += ["\n".join(f"- {line}" for line in [*table.remarks(runs), *table.legend(runs)]) + "\n"]
    return "\n".join(f"{part}\n" if not part.endswith("\n") else part for part in parts)


def as_json(runs: Sequence[Run]) -> dict:
    """Every value of the table by system and clip, with the timings."""
    return {
        "schema_version": 1,
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
        "systems": [
            {
                "name": run.system.name,
                "summary": run.system.summary,
                "skipped": run.outcome.skipped,
                "failures": run.outcome.failures,
                "records": run.outcome.records,
                "scores": table.score_values(run),
            }
            for run in runs
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
