"""The data of recipes/small/gpu.py: as much music as can be rendered in a given time, as chunks for training.

The music is in `piano`, `multi` and `drums`, and that for validation in `piano_unseen` and so on, as written by
recipes/small/music.py. It is rendered by this project's own code with all sound fonts and sampled instruments of the
folder `sounds`, and for validation with another font, that of pretty_midi. Each process takes the next piece until the
time is up; then all processes prepare the rendered pieces. The order is drawn once, so that every part of it has the
same mixture.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.errors import DatasetError, MT3Error
from mt3core.processes import end_with_the_parent
from mt3core.processors import num_processors
from mt3data.prepare.manifest import MANIFEST_NAME
from mt3data.prepare.prepare import claim_folder, merge
from mt3data.prepare.shards import write_unit
from mt3data.readers.locate import read_dataset
from mt3data.readers.units import Settings, Unit, plan_units
from mt3render.dataset import Outcome, Rendering, check_rendering, render_piece
from mt3render.sources import Source, find_sources

KINDS = ("piano", "multi", "drums")
# Layout of each, the programs that may play a part, and the share of its pieces that is used.
LAYOUTS = {"piano": "folder", "multi": "slakh", "drums": "folder"}
PROGRAMS = {"piano": "keep", "multi": "class", "drums": "class"}
SHARES = {"piano": 0.38, "multi": 0.5, "drums": 0.12}
UNSEEN, UNSEEN_SHARE = "_unseen", 0.04  # of the folders for validation, and of as many pieces as there are others
TUNING_CENTS = (-25.0, 25.0)  # of each piece: about 434 to 446 Hz
SAMPLE_RATE_HZ = 16_000
SPLITS = ("train", "validation")
# Share of the time for rendering; the rest is for preparing.
RENDERING_SHARE = 0.75
MOST_MINUTES = 5.0  # of a piece, so that none delays the end
Task = tuple[Source, Path, Rendering]


def make_data(music: Path, sounds: Path, out: Path, seconds: float, processes: int, limit: int = 0) -> dict[str, Any]:
    """Renders for a share of `seconds` and prepares; returns a summary. At most `limit` pieces (0: all).

    Raises `DatasetError` if nothing could be rendered.
    """
    started = time.monotonic()
    tasks = planned(music, sounds, out / "rendered")[: limit or None]
    context = get_context("spawn")  # a process with threads must not be forked
    with ProcessPoolExecutor(processes, context, initializer=end_with_the_parent) as pool:
        outcomes = list(_until(pool, processes, tasks, started + RENDERING_SHARE * seconds))
        rendered = time.monotonic() - started
        written = [outcome for outcome in outcomes if outcome.state == "written"]
        if not written:
            failed = next((str(outcome.error) for outcome in outcomes if outcome.error), "there was no time")
            raise DatasetError(f"No piece could be rendered: {failed}", "Check the music and the sounds.")
        prepared = [_planned_units(kind, out) for kind in KINDS if (out / "rendered" / kind).is_dir()]
        _prepare(pool, prepared, out / "cache")
    for settings, units in prepared:
        merge(units, settings, out / "cache")
    return {
        "manifest": str(out / "cache" / MANIFEST_NAME),
        "pieces": len(written),
        "failed": len(outcomes) - len(written),
        "of_pieces": len(tasks),
        "hours": round(sum(outcome.seconds for outcome in written) / 3600, 2),
        "rendering_seconds": round(rendered, 1),
        "preparing_seconds": round(time.monotonic() - started - rendered, 1),
        "first_error": next((str(outcome.error) for outcome in outcomes if outcome.error), ""),
    }


def planned(music: Path, sounds: Path, rendered: Path) -> list[Task]:
    """Every piece with its rendering, ordered so that the kinds alternate by their shares.

    Pieces of the test split are left out. Raises `UsageError` for sounds that cannot be read.
    """
    fonts = tuple(sorted(path for path in sounds.iterdir() if not path.name.startswith(".")))
    draw = np.random.default_rng(0)
    placed: list[tuple[float, Task]] = []
    for kind in KINDS:
        for folder, its_fonts, share in (
            (music / kind, fonts, SHARES[kind]),
            (music / (kind + UNSEEN), (), UNSEEN_SHARE * SHARES[kind]),
        ):
            if not folder.is_dir():
                continue
            rendering = check_rendering(
                Rendering(
                    LAYOUTS[kind],
                    "tinysoundfont",
                    its_fonts,
                    programs=PROGRAMS[kind],
                    sample_rate_hz=SAMPLE_RATE_HZ,
                    most_minutes=MOST_MINUTES,
                    tuning_cents=TUNING_CENTS,
                    mixed_kits=bool(its_fonts),
                )
            )
            sources = [source for source in find_sources(folder) if source.split != "test"]
            for place, number in enumerate(draw.permutation(len(sources)).tolist()):
                placed.append((place / share, (sources[number], rendered / kind, rendering)))
    return [task for _, task in sorted(placed, key=lambda one: one[0])]


def _until(pool: ProcessPoolExecutor, processes: int, tasks: Sequence[Task], ends_at: float) -> Iterator[Outcome]:
    """Outcomes of the tasks that could be started in time."""
    running: set[Future[Outcome]] = set()
    left = iter(tasks)
    while True:
        while len(running) < 2 * processes and time.monotonic() < ends_at:
            task = next(left, None)
            if task is None:
                break
            running.add(pool.submit(render_piece, *task))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)
        if time.monotonic() >= ends_at:  # waiting tasks are cancelled
            running = {future for future in running if not future.cancel()}


def _planned_units(kind: str, out: Path) -> tuple[Settings, list[Unit]]:
    layout = LAYOUTS[kind]
    settings = Settings(f"small_{kind}", layout, kind, sustain=True, flac=False, splits=SPLITS)
    return settings, plan_units(read_dataset(layout, out / "rendered" / kind), settings)


def _prepare(pool: ProcessPoolExecutor, prepared: Sequence[tuple[Settings, list[Unit]]], cache: Path) -> None:
    running = []
    for settings, units in prepared:
        folder = claim_folder(cache, settings)
        running += [pool.submit(write_unit, unit, settings, folder) for unit in units]
    for future in as_completed(running):
        future.result()


def main() -> int:
    parser = argparse.ArgumentParser(description="Render and prepare as much as time allows.")
    parser.add_argument("music", type=Path)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--processes", type=int, default=num_processors())
    parser.add_argument("--limit", type=int, default=0, help="pieces at most")
    options = parser.parse_args()
    try:
        found = make_data(options.music, options.sounds, options.out, options.seconds, options.processes, options.limit)
    except MT3Error as error:
        print(f"gpu_data: {error}", file=sys.stderr)
        return 1
    (options.out / "data.json").write_text(json.dumps(found) + "\n")
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
