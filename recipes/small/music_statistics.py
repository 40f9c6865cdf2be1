"""Statistics of music: composed pieces compared with published ones and with the training data.

    python recipes/small/music_statistics.py [FOLDER ...] [--composed 300] [--most-files 200]

Each FOLDER contains MIDI files and becomes a row, after two rows of composed pieces (piano styles, and all others). All
columns except the first two are over the seconds, notes or chords of all files together. A chord is the notes that
start within 30 ms.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from composer.pieces import compose_piece
from composer.styles import BAND_STYLES, PIANO_STYLES

from mt3core.errors import MT3Error
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import NoteTable, note_table
from mt3render.sources import find_sources

HEADINGS = (
    "music", "pieces", "hours", "notes/s", "p10-p90 over pieces", "s above 15", "polyphony", "pitch p5-p50-p95",
    "notes a chord", "gaps < 0.1 s", "0.1-0.2", "0.2-0.5", "longer", "note length p50", "classes a piece", "drums",
)  # fmt: skip
_CHORD_SECONDS = 0.03
_DENSE = 15


@dataclass(frozen=True)
class _Piece:
    seconds: float
    num_notes: int
    per_second: np.ndarray  # notes that start in each second
    polyphony_seconds: float  # lengths of all notes
    pitches: np.ndarray
    gaps: np.ndarray  # between chords
    lengths: np.ndarray
    num_pitched: int
    num_classes: int
    num_drums: int


def described(name: str, tables: Iterable[NoteTable]) -> tuple[str, ...]:
    """A row of the table."""
    pieces = [_measured(table) for table in tables if len(table) > 1]
    seconds = sum(piece.seconds for piece in pieces)
    rates = [piece.num_notes / piece.seconds for piece in pieces]
    gaps = np.concatenate([piece.gaps for piece in pieces])
    within = np.histogram(gaps, (0, 0.1, 0.2, 0.5, np.inf))[0] / max(len(gaps), 1)
    pitches = np.concatenate([piece.pitches for piece in pieces])
    per_second = np.concatenate([piece.per_second for piece in pieces])
    lengths = np.concatenate([piece.lengths for piece in pieces])
    pitch = "-".join(f"{value:.0f}" for value in np.percentile(pitches, (5, 50, 95))) if len(pitches) else "none"
    return (
        name, str(len(pieces)), f"{seconds / 3600:.1f}", f"{sum(p.num_notes for p in pieces) / seconds:.1f}",
        f"{np.percentile(rates, 10):.1f}-{np.percentile(rates, 90):.1f}", f"{(per_second > _DENSE).mean():.0%}",
        f"{sum(p.polyphony_seconds for p in pieces) / seconds:.1f}", pitch,
        f"{len(pitches) / max(len(gaps) + len(pieces), 1):.1f}", *(f"{share:.0%}" for share in within),
        f"{np.median(lengths) if len(lengths) else 0:.2f} s",
        f"{np.mean([p.num_classes for p in pieces]):.1f}",
        f"{sum(p.num_drums for p in pieces) / sum(p.num_notes for p in pieces):.0%}",
    )  # fmt: skip


def _measured(table: NoteTable) -> _Piece:
    table = table[np.argsort(table["onset"], kind="stable")]
    begin, end = float(table["onset"][0]), float(table["onset"][-1])
    pitched = table[~table["is_drum"]]
    onsets = pitched["onset"]
    chords = onsets[np.concatenate([[True], np.diff(onsets) > _CHORD_SECONDS])] if len(onsets) else onsets
    return _Piece(
        seconds=max(end - begin, 1.0),
        num_notes=len(table),
        per_second=np.bincount((table["onset"] - begin).astype(int)),
        polyphony_seconds=float((pitched["offset"] - onsets).sum()),
        pitches=pitched["pitch"],
        gaps=np.diff(chords),
        lengths=pitched["offset"] - onsets,
        num_pitched=len(pitched),
        num_classes=len(np.unique(pitched["program"] // 8)),
        num_drums=len(table) - len(pitched),
    )


def _composed(styles: Sequence[str], count: int) -> Iterable[NoteTable]:
    return (note_table(compose_piece(number, 0, styles[number % len(styles)])) for number in range(count))


def _read(folder: Path, most_files: int) -> Iterable[NoteTable]:
    for source in find_sources(folder, most_files):
        try:
            yield read_midi(source.path, sustain=True)
        except MT3Error as error:
            print(error, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--composed", type=int, default=300, help="composed pieces of each kind")
    parser.add_argument("--most-files", type=int, default=200, help="files per folder, spread over it")
    given = parser.parse_args(arguments)
    print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    rows = [("composed, piano", PIANO_STYLES), ("composed, others", BAND_STYLES)]
    for name, styles in rows if given.composed else []:
        print("| " + " | ".join(described(name, _composed(styles, given.composed))) + " |", flush=True)
    for folder in given.folders:
        name = "/".join(folder.parts[-2:])
        print("| " + " | ".join(described(name, _read(folder, given.most_files))) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
