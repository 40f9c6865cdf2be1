"""The first minutes of whole recordings from prepared chunks: audio and reference notes to transcribe and score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mt3core.config.model import VocabularyConfig
from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.table import NoteTable
from mt3data.examples.chunk_table import ChunkTable, ShardReader
from mt3data.examples.example_streams import waveform
from mt3data.prepare.chunks import SAMPLE_RATE_HZ, decode_chunk
from mt3data.prepare.manifest import Manifest

Rows = Int[np.ndarray, " rows"]


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The beginning of a recording: float32 samples within +-1 at 16 kHz, and the notes that start in it."""

    dataset: str
    track: str
    samples: Float[np.ndarray, " samples"]
    notes: NoteTable

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.track}"

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def choose_pieces(manifest: Manifest, table: ChunkTable, chosen: Bool[np.ndarray, " chunks"], count: int) -> list[Rows]:
    """The chunks, in order of time, of `count` pieces among those `chosen`; of all if there are fewer.

    Each data set gets the same number if it has enough; its pieces are spread evenly over the order of names.
    """
    datasets = manifest["dataset"].astype(str)
    by_dataset = [
        np.unique(table.piece[chosen & (datasets == name)]) for name in sorted(set(datasets[chosen].tolist()))
    ]
    quotas = _quotas([len(pieces) for pieces in by_dataset], count)
    numbers = [pieces[spread(len(pieces), quota)] for pieces, quota in zip(by_dataset, quotas, strict=True)]
    result = []
    for number in np.concatenate(numbers).tolist() if numbers else []:
        rows = np.flatnonzero(chosen & (table.piece == number))
        result.append(rows[np.argsort(table.start_sample[rows], kind="stable")])
    return result


def spread(size: int, count: int) -> Int[np.ndarray, " chosen"]:
    """Evenly spaced numbers from 0 to size - 1, `count` of them or all: the middles of equal shares."""
    count = min(size, count)
    return (2 * np.arange(count) + 1) * size // (2 * count) if count else np.zeros(0, np.int64)


def read_piece(manifest: Manifest, table: ChunkTable, rows: Rows, seconds: float, reader: ShardReader) -> Excerpt:
    """The first `seconds` of the recording with these chunks, or all of it.

    Notes that start later are left out, and those that last longer are cut. Raises `DatasetError` for unreadable data.
    """
    num_samples = max(1, round(seconds * SAMPLE_RATE_HZ))
    rows = rows[table.start_sample[rows] < num_samples]
    chunks = [decode_chunk(reader.read(int(table.shard[row]), int(table.record[row]))) for row in rows.tolist()]
    samples = waveform(np.concatenate([chunk.audio for chunk in chunks])[:num_samples])
    notes = np.unique(np.concatenate([chunk.piece_notes for chunk in chunks]))  # notes in two chunks come twice
    end_seconds = len(samples) / SAMPLE_RATE_HZ
    notes = notes[notes["onset"] < end_seconds]
    notes["offset"] = np.minimum(notes["offset"], end_seconds)
    return Excerpt(str(manifest["dataset"][rows[0]]), str(manifest["track"][rows[0]]), samples, notes)


def as_written(notes: NoteTable, vocabulary: VocabularyConfig) -> NoteTable:
    """The notes with instruments only as far as a vocabulary distinguishes them, for comparison with decoded notes."""
    result = notes.copy()
    if vocabulary.onsets_only:
        result["is_drum"] = False
    if vocabulary.onsets_only or vocabulary.program_granularity == "flat":
        result["program"] = 0
    elif vocabulary.program_granularity == "midi_class":
        result["program"] -= result["program"] % PROGRAMS_PER_CLASS
    return result


def _quotas(available: list[int], count: int) -> list[int]:
    """`count` distributed one by one to whichever has least so far and has room for more."""
    quotas = [0] * len(available)
    for _ in range(min(count, sum(available))):
        takers = [number for number, most in enumerate(available) if quotas[number] < most]
        quotas[min(takers, key=lambda number: quotas[number])] += 1
    return quotas
