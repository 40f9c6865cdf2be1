"""Searches the training music for held-out works by their notes, since names may not reveal them.

    python recipes/small/check_held_out.py REALDATA MUSIC/.unpacked

REALDATA contains MIDI files of recordings that must not be trained on. Runs of intervals in the highest and in the
lowest voice are compared, so neither key nor tempo matters. Scales and broken chords are common to all music, so a few
shared runs mean nothing; a held-out work shares dozens.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from corpora import find_pieces

from mt3core.errors import MT3Error
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import NoteTable

RUN_INTERVALS = 9
LEAST_SHARED = 8
_CHORD_SECONDS = 0.045
_LEAST_DIFFERENT = 4  # intervals in a run; a trill or a scale has fewer


def runs(tables: Sequence[NoteTable]) -> set[tuple[int, ...]]:
    """The runs of intervals of the highest and the lowest notes of each table."""
    return {run for table in tables for line in _outer_voices(table) for run in _runs(line)}


def index_of(references: dict[str, set[tuple[int, ...]]]) -> dict[tuple[int, ...], list[str]]:
    """The names of the references that have a run, for each run."""
    index = defaultdict(list)
    for name, known in references.items():
        for run in known:
            index[run].append(name)
    return dict(index)


def shared_works(index: dict[tuple[int, ...], list[str]], tables: Sequence[NoteTable]) -> Counter[str]:
    """How many runs a piece shares with each reference."""
    return Counter(name for run in runs(tables) for name in index.get(run, ()))


def _outer_voices(table: NoteTable) -> Iterator[np.ndarray]:
    pitched = table[~table["is_drum"]]
    if len(pitched):
        pitched = pitched[np.argsort(pitched["onset"], kind="stable")]
        begins = np.flatnonzero(np.concatenate([[True], np.diff(pitched["onset"]) > _CHORD_SECONDS]))
        yield np.maximum.reduceat(pitched["pitch"], begins)
        yield np.minimum.reduceat(pitched["pitch"], begins)


def _runs(line: np.ndarray) -> Iterator[tuple[int, ...]]:
    intervals = np.diff(line).tolist()
    for begin in range(len(intervals) - RUN_INTERVALS + 1):
        run = tuple(intervals[begin : begin + RUN_INTERVALS])
        if len(set(run)) >= _LEAST_DIFFERENT:
            yield run


def main(real: Path, unpacked: Path) -> int:
    paths = [path for path in sorted(real.glob("*.mid")) if ".orig" not in path.name]
    index = index_of({path.stem: runs([read_midi(path)]) for path in paths})
    found = 0
    for folder in sorted(path for path in unpacked.iterdir() if path.name != "groove"):
        for piece in find_pieces(folder.name, folder):
            try:
                tables = [part.notes for part in piece.parts()]
            except MT3Error as error:
                print(f"{piece.path.name}: {error}", file=sys.stderr)
                continue
            shared = shared_works(index, [*tables, np.concatenate(tables)])
            for name, count in shared.items():
                if count >= LEAST_SHARED:
                    found += 1
                    print(f"{piece.path.relative_to(unpacked)}: {count} runs of {name}")
    print(f"{found} pieces share at least {LEAST_SHARED} runs with a held-out recording")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
