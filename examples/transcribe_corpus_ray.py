"""Transcribes a folder of recordings on all processors of a machine or of a Ray cluster.

    pip install "ray[data]==2.60.0"
    python examples/transcribe_corpus_ray.py recordings/ notes/ [--model small] [--format mid] [--actors 8]

Each actor holds one transcriber. Results are written completely or not at all, in the folders of the recordings, so
the same command goes on after an interruption: what exists is skipped. Recordings that could not be transcribed are in
`notes/failures.jsonl` with the reason, and the exit code is 1; they are tried again the next time. The address of a
cluster is taken from RAY_ADDRESS; its machines need this environment and the folders under the same paths.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise Ray reports over the network

import ray
import ray.data

from mt3app.formats import FORMATS, save
from mt3app.outputs import check_writable, plan
from mt3app.progress import describe
from mt3core.errors import MT3Error
from mt3core.model.search import find_model

AT_ONCE = 16  # recordings in the hands of an actor: they share its lanes, which short ones would not fill
MOST_DEATHS = 2  # of an actor over one recording
FAILURES = "failures.jsonl"
Rows = dict[str, np.ndarray]


class Worker:
    """An actor: transcribes batches of rows (`audio`, `output`, `trying`), and adds `seconds` of audio and an `error`.

    Ray gives the batch of an actor that died, for example without memory, to the next. Therefore each recording has a
    file `trying` while it is transcribed, of as many bytes as tries. Those that have one are taken one at a time, until
    the one that is to blame is found.
    """

    def __init__(self, model: str, format: str, workers: int | None) -> None:
        from mt3torch import Transcriber  # here, where the network is needed

        self.format = format
        self.transcriber = Transcriber.from_pretrained(model, workers=workers)

    def __call__(self, batch: Rows) -> Rows:
        rows = list(zip(batch["audio"], batch["output"], batch["trying"], strict=True))
        suspects = [row for row in rows if os.path.exists(row[2])]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            others = [row for row in rows if row not in suspects]
            done = dict(zip(others, pool.map(self.transcribe, others), strict=True))
        done |= {row: self.transcribe(row) for row in suspects}
        seconds, errors = zip(*(done[row] for row in rows), strict=True)
        return {**batch, "seconds": np.array(seconds), "error": np.array(errors, dtype=object)}

    def transcribe(self, row: tuple[str, str, str]) -> tuple[float, str]:
        audio, output, trying = row
        if os.path.exists(output):  # written by an actor that died before it could say so
            return 0.0, ""
        if os.path.exists(trying) and os.path.getsize(trying) >= MOST_DEATHS:
            return 0.0, f"The process that transcribed it died {MOST_DEATHS} times. Is there enough memory?"
        with open(trying, "a") as tries:
            tries.write(".")
        try:
            result = self.transcriber.transcribe(audio)
            save(result, Path(output), self.format, Path(audio))
        except Exception as error:
            return 0.0, describe(error)
        finally:
            os.remove(trying)
        return result.duration_seconds, ""


def transcribed(rows: list[dict[str, str]], model: str, options: argparse.Namespace) -> Iterator[dict]:
    """The rows, in the order in which they are finished, with the `seconds` of audio and the `error` or ""."""
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = -1  # a long recording is no standstill
    context.enable_progress_bars = False
    num_batches = -(-len(rows) // AT_ONCE)
    workers = None if options.gpus else options.cpus  # a GPU is not to be shared by several
    dataset = ray.data.from_items(rows, override_num_blocks=num_batches).map_batches(
        Worker,
        fn_constructor_args=(model, options.format, workers),
        batch_size=AT_ONCE,
        compute=ray.data.ActorPoolStrategy(size=min(options.actors or actors_that_fit(options), num_batches)),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
    )
    yield from dataset.iter_rows()


def actors_that_fit(options: argparse.Namespace) -> int:
    have = ray.cluster_resources()
    fitting = have.get("GPU", 0) / options.gpus if options.gpus else have.get("CPU", 1) / options.cpus
    return max(int(fitting), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Transcribe a folder of recordings with Ray.")
    parser.add_argument("recordings")
    parser.add_argument("notes", type=Path, help="folder of the results")
    parser.add_argument("--model", help="default: as of mt3 transcribe")
    parser.add_argument("--format", default="mid", choices=FORMATS)
    parser.add_argument("--actors", type=int, help="default: as many as fit")
    parser.add_argument("--cpus", type=int, default=1, help="processors of each actor")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each actor; parts such as 0.5 can be shared")
    options = parser.parse_args()
    try:
        FORMATS[options.format].check()
        model = find_model(options.model).source  # here rather than in every actor
        planned = plan([options.recordings], f"{options.notes}/", (options.format,), overwrite=False).jobs
        check_writable(output.path for job in planned for output in job.outputs)
    except MT3Error as error:
        parser.exit(error.exit_code, f"transcribe_corpus_ray: {error}\n")
    trying, failures = options.notes.absolute() / ".trying", options.notes / FAILURES
    paths = [(os.path.abspath(job.audio), os.path.abspath(output.path)) for job in planned for output in job.outputs]
    rows = [
        {"audio": audio, "output": output, "trying": str(trying / str(number))}
        for number, (audio, output) in enumerate(paths)
    ]
    print(f"{len(planned)} recordings, {len(planned) - len(rows)} finished before.", flush=True)
    if not rows:
        return 0

    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    shutil.rmtree(trying, ignore_errors=True)  # of a run that was killed
    trying.mkdir(parents=True)
    done = failed = 0
    heard_seconds, started = 0.0, time.perf_counter()
    with failures.open("w") as list_of_failures:
        for row in transcribed(rows, os.path.abspath(model) if os.path.exists(model) else model, options):
            done += 1
            heard_seconds += row["seconds"]
            if row["error"]:
                failed += 1
                reason = {"audio": row["audio"], "error": row["error"]}
                print(json.dumps(reason), file=list_of_failures, flush=True)
            if done % AT_ONCE == 0 or done == len(rows):
                print(f"{done} of {len(rows)}, {failed} failed", flush=True)
    shutil.rmtree(trying)
    seconds = time.perf_counter() - started
    print(f"{heard_seconds:.1f} s of audio in {seconds:.1f} s, with the start of the actors.")
    if failed:
        print(f"{failed} recordings failed: {failures}", file=sys.stderr)
        return 1
    failures.unlink()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on.")
