"""MIDI files to train the small model on: published music in other keys, tempi, densities and instruments.

    python recipes/small/music.py --sources FOLDER --out music

writes `piano/CORPUS/COMPOSITION/NNN.mid`, `multi/...` and `drums/...`, each folder ready for `mt3 render`. The same
seed gives the same files, with any number of processes; existing files are kept. Compositions that `mt3 render` assigns
to validation or test are in `piano_unseen`, `multi_unseen` and `drums_unseen`, so that they can be played by other
sounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from archives import unpacked
from bands import band_piece, chamber_arrangement, grid, song_arrangement, with_drums
from composer.styles import BAND_STYLES, DRUM_STYLES, PIANO_STYLES
from corpora import Piece, composed_pieces, find_pieces
from humanising import humanised
from piano import as_piano, piano_piece
from playing import density, faster, passage, with_pedal
from sources import MUSIC

from mt3core.errors import MT3Error
from mt3core.files import atomic_output
from mt3core.notes.midi_reading import read_content
from mt3core.processors import num_processors
from mt3render.score import Part, score_midi
from mt3render.variation import generator

MEAN_SECONDS = 130.0  # typical length of a varied piece, to turn hours into a number of pieces
COMPOSED_MEAN_SECONDS = 75.0
SECONDS = (90.0, 210.0)
MOST_HITS = 11.0  # of drums under a song, per second: denser ones are played at half their tempo
UNSEEN = "_unseen"  # suffix of the folders for validation and test
STYLES_OF = {"piano": PIANO_STYLES, "multi": BAND_STYLES, "drums": DRUM_STYLES}
SHARES = {  # shares of a kind's hours, by corpus
    "piano": {"giantmidi": 0.4, "pop909": 0.14, "lieder": 0.14, "quartets": 0.07, "composed": 0.25},
    "multi": {"pop909": 0.35, "freedoom": 0.12, "lieder": 0.1, "quartets": 0.13, "composed": 0.3},
    "drums": {"groove": 0.7, "composed": 0.3},
}


@dataclass(frozen=True)
class Task:
    """One file to write: variant `number` of a piece; `partners` are of the same split."""

    kind: str
    piece: Piece
    number: int
    partners: tuple[Piece, ...]
    seed: int

    @property
    def relative(self) -> str:
        root = self.kind if self.piece.split == "train" else f"{self.kind}{UNSEEN}"
        return f"{root}/{self.piece.folder}/{self.number:03d}.mid"


def plan(pieces: dict[str, list[Piece]], kind: str, hours: float, seed: int) -> list[Task]:
    """The files of a kind: each corpus cycles through its pieces, reshuffled each time, until its hours are full."""
    tasks = []
    for corpus, share in SHARES[kind].items():
        wanted = round(hours * share * 3600 / (COMPOSED_MEAN_SECONDS if corpus == "composed" else MEAN_SECONDS))
        own = composed_pieces(STYLES_OF[kind], wanted, seed) if corpus == "composed" else pieces.get(corpus, [])
        wanted = wanted if own else 0
        order: list[Piece] = []
        for turn in range(-(-wanted // max(len(own), 1))):
            rng = generator(seed, kind, corpus, str(turn))
            order += [own[place] for place in rng.permutation(len(own)).tolist()]
        counts: Counter[str] = Counter()
        others = _by_split([*own, *pieces.get("giantmidi", [])] if kind == "piano" else pieces.get("groove", []))
        for piece in order[:wanted]:
            number = counts[piece.folder]
            counts[piece.folder] += 1
            rng = generator(seed, kind, piece.folder, str(number), "partners")
            choices = others.get(piece.split, [])
            partners = tuple(choices[place] for place in rng.integers(len(choices), size=6)) if choices else ()
            tasks.append(Task(kind, piece, number, partners, seed))
    return tasks


def make(task: Task) -> list[Part]:
    """The parts of a file."""
    rng = generator(task.seed, task.relative)
    if task.piece.composed is not None:
        if task.kind == "drums":
            return _composed_drums(task.piece)
        parts = _parts(task.piece)
        return [with_pedal(as_piano(parts), rng)] if task.kind == "piano" and rng.random() < 0.5 else list(parts)
    seconds = float(rng.uniform(*SECONDS))
    if task.kind == "piano":
        part = _piano(task.piece, rng)
        partners = iter(task.partners)
        return [piano_piece(part, seconds, rng, lambda: _piano(next(partners, task.piece), rng))]
    if task.kind == "drums":
        return band_piece(_drum_loop(task.piece, seconds * 1.5), seconds, rng, 1.25)
    parts = _parts(task.piece)
    if task.piece.corpus == "pop909":
        return band_piece(_song(task, parts, rng), seconds, rng)
    if task.piece.is_score:
        begin = float(rng.uniform(0, max(0.0, max(p.notes["onset"].max() for p in parts) - 400)))
        parts = passage(parts, begin, 400.0)
        return band_piece(humanised(chamber_arrangement(parts, rng), rng), seconds, rng)
    return band_piece(parts, seconds, rng)


def write(task: Task, out: Path) -> tuple[str, float, int, str]:
    """Writes a file; returns its path, seconds, notes, and an empty string or the problem."""
    try:
        parts = [part for part in make(task) if len(part.notes)]
        if not parts:
            return task.relative, 0.0, 0, "it has no notes left"
        first = min(float(part.notes["onset"].min()) for part in parts)
        if first > 2.0:
            parts = list(passage(parts, first - 0.5, 1e6))
        target = out / task.relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_output(target) as temporary:
            temporary.write_bytes(score_midi(parts))
    except MT3Error as error:
        return task.relative, 0.0, 0, str(error)
    end = max(float(part.notes["offset"].max()) for part in parts)
    return task.relative, end, sum(len(part.notes) for part in parts), ""


def make_music(sources: Path | None, out: Path, hours: dict[str, float], seed: int, processes: int) -> dict[str, float]:
    """Writes all missing files; returns the hours written now, by kind."""
    pieces = {}
    for source in MUSIC:
        pieces[source.name] = find_pieces(source.name, unpacked(source, sources, out / ".unpacked"))
    written = dict.fromkeys(hours, 0.0)
    for kind, wanted in hours.items():
        tasks = [task for task in plan(pieces, kind, wanted, seed) if not (out / task.relative).exists()]
        tasks.sort(key=lambda task: task.relative)  # the variants of a piece are adjacent, so it is read once
        started, notes, failed = time.perf_counter(), 0, 0
        for relative, seconds, count, problem in _run(tasks, out, processes):
            written[kind] += seconds / 3600
            notes += count
            if problem:
                failed += 1
                print(f"{relative}: left out, {problem}", file=sys.stderr)
        rate = notes / max(written[kind] * 3600, 1.0)
        print(
            f"{kind}: {len(tasks) - failed} files, {written[kind]:.1f} h, {rate:.1f} notes per second, "
            f"{failed} left out, {time.perf_counter() - started:.0f} s"
        )
    return written


def _run(tasks: Sequence[Task], out: Path, processes: int) -> list[tuple[str, float, int, str]]:
    if processes <= 1 or len(tasks) < 2:
        return [write(task, out) for task in tasks]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(write, tasks, [out] * len(tasks), chunksize=16))


@lru_cache(maxsize=8)
def _parts(piece: Piece) -> tuple[Part, ...]:
    return piece.parts()


def _piano(piece: Piece, rng: np.random.Generator) -> Part:
    parts = _parts(piece)
    if piece.is_score:
        end = max(float(part.notes["onset"].max()) for part in parts)
        parts = passage(parts, float(rng.uniform(0, max(0.0, end - 500))), 500.0)
        parts = humanised(parts, rng)
    return as_piano(parts)


def _song(task: Task, parts: tuple[Part, ...], rng: np.random.Generator) -> list[Part]:
    """An arranged song, with drums in three of four; the drums follow the song's tempo, doubled or halved if needed."""
    arranged: Sequence[Part] = song_arrangement(parts, rng)
    tempo = _tempo(task.piece)
    if task.partners and rng.random() < 0.75:
        bar_seconds, first_bar = grid(parts, tempo)
        groove = min(task.partners, key=lambda one: _tempo_distance(one.tempo or tempo, tempo))
        ratio = min(
            (tempo / (groove.tempo or tempo) * power for power in (0.5, 1.0, 2.0)), key=lambda r: abs(np.log(r))
        )
        drums = next(part for part in _parts(groove) if part.is_drum)
        while density([drums]) * ratio > MOST_HITS:
            ratio /= 2
        arranged = with_drums(arranged, faster(drums, ratio), bar_seconds, first_bar)
    return list(humanised(arranged, rng))


def _composed_drums(piece: Piece) -> list[Part]:
    """The drums of a composed piece, or of another one in its style if it has none."""
    assert piece.composed is not None
    style, number, seed = piece.composed
    for attempt in range(20):
        other = replace(piece, composed=(style, number + 1_000_000 * attempt, seed))
        drums = [part for part in _parts(other) if part.is_drum]
        if drums:
            return drums
    return []


def _drum_loop(piece: Piece, seconds: float) -> list[Part]:
    """A groove repeated by whole bars until it is long enough."""
    drums = [part for part in _parts(piece) if part.is_drum]
    bar_seconds = 4 * 60.0 / (piece.tempo or 120.0)
    end = replace(drums[0], notes=drums[0].notes[-1:].copy())
    end.notes["onset"] += seconds
    return [part for part in with_drums([end], drums[0], bar_seconds, 0.0) if part is not end]


def _tempo_distance(one: float, other: float) -> float:
    return min(abs(np.log(one * power / other)) for power in (0.5, 1.0, 2.0))


@lru_cache(maxsize=64)
def _tempo(piece: Piece) -> float:
    return float(np.median(read_content(piece.path, drop_empty=True).tempos[:, 1]))


def _by_split(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.split, []).append(piece)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sources", type=Path, help="folder with the archives [downloaded]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--piano-hours", type=float, default=60.0)
    parser.add_argument("--multi-hours", type=float, default=60.0)
    parser.add_argument("--drums-hours", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=None)
    given = parser.parse_args()
    hours = {"piano": given.piano_hours, "multi": given.multi_hours, "drums": given.drums_hours}
    make_music(given.sources, given.out, hours, given.seed, given.processes or num_processors())
    return 0


if __name__ == "__main__":
    sys.exit(main())
