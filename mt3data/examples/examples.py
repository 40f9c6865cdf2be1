"""From chunks to the network's input: the audio of one segment and its target tokens.

A part here is a segment of one chunk. Parts of one track at the same time are stems: they keep their levels, and their
notes are encoded together. Other parts are mixed with equal peaks and merged event by event, as in the original -
except for their tie sections. The original leaves them one after the other; a decoder reads the first as the tie
section and the contents of the others as notes that start. Here they are merged into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, Num

from mt3core.config.data import DataConfig
from mt3core.config.model import MT3, ModelConfig
from mt3core.config.values import Checked
from mt3core.errors import UsageError
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.mixing import mix_events, remove_redundant_changes
from mt3core.notes.table import NoteTable, trim_overlapping
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3data.examples.augmentation import augment
from mt3data.examples.chunk_table import ChunkTable, ShardReader
from mt3data.examples.mixing import mix_audio
from mt3data.prepare.chunks import CHUNK_SAMPLES, FULL_SCALE, SAMPLE_RATE_HZ, Chunk, decode_segment

AudioForm = Literal["int16", "float32", "log_mel"]
TooLong = Literal["redraw", "cut"]


@dataclass(frozen=True)
class ExampleConfig(Checked, section="example"):
    """The form of an example; a `DataConfig` says what it is made from.

    Attributes:
        model: segment length, spectrogram and vocabulary (velocities, ties, programs) of the network.
        audio: the form of the audio: samples, or the log-mel computed here.
        too_long: what happens to a target of more than the network's `max_target_tokens`. `redraw` draws another
            example and counts it; if that also fails, or with `cut`, the target keeps its first whole events and
            has no end token, and `Example.num_tokens` says how long it was.
        stale_ties: list notes that have ended after the last event of a piece, as the original does, if the chunk
            has them: a last chunk without any notes has none to list.
        one_tie_section: merge the tie sections of mixed parts; otherwise each stays, as in the original.
        load_tokens: whether there are targets; without them, `tokens` are empty.
    """

    model: ModelConfig = MT3
    audio: AudioForm = "int16"
    too_long: TooLong = "redraw"
    stale_ties: bool = False
    one_tie_section: bool = True
    load_tokens: bool = True

    def _check_together(self) -> None:
        spectrogram = self.model.spectrogram
        if spectrogram.sample_rate_hz != SAMPLE_RATE_HZ or CHUNK_SAMPLES % self.model.segment_samples:
            raise UsageError(
                f"Segments of {self.model.segment_samples} samples at {spectrogram.sample_rate_hz} Hz do not divide "
                f"chunks of {CHUNK_SAMPLES} samples at {SAMPLE_RATE_HZ} Hz.",
                "Choose a power of two of input frames, and 16 kHz.",
            )


@dataclass(frozen=True, eq=False)
class Example:
    """One segment.

    `samples` are int16 or float32, `model.segment_samples` of them, zeros after `num_frames` frames. `tokens` have at
    most `max_target_tokens`; `num_tokens` is their number before cutting.
    """

    samples: Num[np.ndarray, " samples"]
    num_frames: int
    tokens: Int[np.ndarray, " tokens"]
    num_tokens: int
    rows: tuple[int, ...]  # the chunks it is made of, as rows of the manifest
    first_frames: tuple[int, ...]  # where each part starts, in frames of its piece
    start_seconds: float = 0.0  # of the first part, the time its tokens are counted from; see `vocabulary`
    num_rejected: int = 0  # draws before this one whose targets were too long


class ExampleMaker:
    """Makes examples from a table of chunks. Threads may share it, and it can be sent to other processes."""

    def __init__(self, config: ExampleConfig, table: ChunkTable, data: DataConfig | None = None) -> None:
        """`data` says how loud the parts of a mix are and how their sum is augmented; without it, neither changes."""
        self.config = config
        self.table = table
        self.data = data or DataConfig()
        self.reader = ShardReader(table.shard_paths)
        spectrogram = config.model.spectrogram
        self._hop = spectrogram.hop_samples
        self._augments = self.data.augmentation.is_on
        self._encoder = SegmentEncoder(config.model.vocabulary, spectrogram.frames_per_second, config.stale_ties)

    def num_chunk_frames(self, row: int) -> int:
        """Frames that start in a chunk; a recording has one more at its end, see `segments.num_frames`."""
        return int(self.table.num_samples[row]) // self._hop + int(self.table.ends_recording[row])

    def draw_frame(self, row: int, rng: np.random.Generator) -> int:
        """A frame of the chunk from which a whole segment fits, or 0 in a chunk shorter than a segment."""
        last = self.num_chunk_frames(row) - self.config.model.network.input_frames
        return int(rng.random() * (last + 1)) if last > 0 else 0

    def make(
        self,
        rows: Sequence[int],
        frames: Sequence[int],
        same_place: bool,
        rng: np.random.Generator | None = None,
        num_rejected: int = 0,
    ) -> Example:
        """The example of the segments that start at these frames of these chunks.

        Args:
            frames: counted from each chunk's start.
            same_place: the parts are stems of one track, all from the same time.
            rng: for gains and augmentation; None for neither.
            num_rejected: stored in the example.
        """
        parts = [self._cut(row, frame) for row, frame in zip(rows, frames, strict=True)]
        length = self.config.model.network.input_frames
        lengths = [min(length, self.num_chunk_frames(r) - f) for r, f in zip(rows, frames, strict=True)]
        first_frames = [part.start_sample // self._hop for part in parts]
        ends = [
            bool(self.table.ends_recording[row]) and frame + length >= self.num_chunk_frames(row)
            for row, frame in zip(rows, frames, strict=True)
        ]
        tokens = self._tokens(parts, first_frames, ends, same_place)
        return Example(
            samples=self._samples([part.audio for part in parts], same_place, rng),
            num_frames=max(lengths),
            tokens=fit_tokens(tokens, self.config.model.network.max_target_tokens, self._encoder.vocabulary),
            num_tokens=len(tokens),
            rows=tuple(rows),
            first_frames=tuple(first_frames),
            start_seconds=self._encoder.start_seconds(first_frames[0]),
            num_rejected=num_rejected,
        )

    def _cut(self, row: int, frame: int) -> Chunk:
        data = self.reader.read(int(self.table.shard[row]), int(self.table.record[row]))
        return decode_segment(data, frame * self._hop, self.config.model.segment_samples)

    def _tokens(
        self, parts: list[Chunk], first_frames: list[int], ends: list[bool], same_place: bool
    ) -> Int[np.ndarray, " tokens"]:
        encoder, length = self._encoder, self.config.model.network.input_frames
        if not self.config.load_tokens:
            return np.zeros(0, np.int32)
        if same_place or len(parts) == 1:
            notes = parts[0].piece_notes if len(parts) == 1 else _join_stems([part.piece_notes for part in parts])
            return encoder.tokens(encoder.segment(notes, first_frames[0], length, all(ends)))
        segments = [
            encoder.segment(part.piece_notes, first, length, end)
            for part, first, end in zip(parts, first_frames, ends, strict=True)
        ]
        if self.config.one_tie_section:
            return encoder.tokens(encoder.merge(segments))
        merged = mix_events([encoder.events(segment) for segment in segments], encoder.vocabulary)
        return encoder.vocabulary.events_to_tokens(remove_redundant_changes(merged, encoder.vocabulary))

    def _samples(
        self, parts: list[np.ndarray], same_place: bool, rng: np.random.Generator | None
    ) -> Num[np.ndarray, " samples"]:
        config = self.config
        changes = rng is not None and self._augments
        if len(parts) == 1 and not changes:
            return parts[0] if config.audio == "int16" else parts[0] * np.float32(1 / FULL_SCALE)
        gains = None
        if rng is not None and self.data.part_gain_db > 0 and len(parts) > 1 and not same_place:
            gains = (10 ** (-rng.uniform(0, self.data.part_gain_db, len(parts)) / 20)).tolist()
        samples = mix_audio(parts, normalise=len(parts) > 1 and not same_place, gains=gains)
        if rng is not None and changes:
            samples = augment(samples, self.data.augmentation, rng)
        if config.audio != "int16":
            return samples
        # Full scale is one step less upwards than downwards; the samples are within +-1.
        return np.rint(samples * np.float32(FULL_SCALE - 1)).astype(np.int16)


def _join_stems(stems: list[NoteTable]) -> NoteTable:
    """The notes of several stems; overlaps within the same instrument are trimmed as in a mix."""
    kinds = [(int(notes["program"][0]), bool(notes["is_drum"][0])) for notes in stems if len(notes)]
    notes = np.concatenate(stems)
    return notes if len(set(kinds)) == len(kinds) else trim_overlapping(notes)


def fit_tokens(
    tokens: Int[np.ndarray, " tokens"], max_target_tokens: int, vocabulary: Vocabulary
) -> Int[np.ndarray, " fitting"]:
    """The tokens if they fit; otherwise their first whole events, without an end token: more would follow."""
    if len(tokens) <= max_target_tokens:
        return tokens
    events = tokens[:max_target_tokens] - NUM_SPECIAL_TOKENS
    closes = np.zeros(len(events), bool)
    for kind in ("pitch", "drum", "tie"):
        closes |= vocabulary.is_type(kind, events)
    return tokens[: int(np.flatnonzero(closes)[-1]) + 1] if closes.any() else tokens[:0]
