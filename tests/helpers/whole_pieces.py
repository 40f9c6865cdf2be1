"""Whole pieces, encoded and decoded segment by segment, and an encoder written the slow and plain way."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mt3core.config.model import VocabularyConfig
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.encoding import SegmentEncoder
from mt3core.notes.table import NoteTable, to_notes
from mt3core.notes.vocabulary import velocity_to_bin

FRAMES_PER_SECOND = 125.0


@dataclass(frozen=True, eq=False)
class EncodedSegment:
    first_frame: int
    num_frames: int
    start_seconds: float
    events: np.ndarray  # with programs and velocities that repeat the last
    tokens: np.ndarray


def encode_piece(
    notes: NoteTable, num_frames: int, config: VocabularyConfig, segment_frames: int
) -> list[EncodedSegment]:
    """A piece in segments of `segment_frames`, the last perhaps shorter, with the original's stale ties."""
    encoder = SegmentEncoder(config, FRAMES_PER_SECOND, stale_ties=True)
    segments = []
    for first in range(0, num_frames, segment_frames):
        length = min(segment_frames, num_frames - first)
        segment = encoder.segment(notes, first, length, ends_piece=first + length == num_frames)
        start_seconds = encoder.start_seconds(first)
        segments.append(EncodedSegment(first, length, start_seconds, encoder.events(segment), encoder.tokens(segment)))
    return segments


def plain_events(
    notes: NoteTable, num_frames: int, config: VocabularyConfig, encoder: SegmentEncoder, first: int, length: int
) -> list[int]:
    """The events of frames `first` to `first + length` of a piece, note event by note event."""
    first_id, events = encoder.vocabulary.first_id, []
    for note in to_notes(notes):
        is_drum, key = note.is_drum and not config.onsets_only, (note.is_drum, note.program, note.pitch)
        if not note.is_drum and not config.onsets_only:
            events.append((note.offset, False, key, 0))
        events.append((note.onset, True, (note.pitch,) if config.onsets_only else key, note.velocity))
    # Sorted by key among equal offsets and onsets; Python's sort leaves equal keys in the table's order.
    events.sort(key=lambda event: event[:3])
    steps = [max(round(time * config.steps_per_second), 0) for time, *_ in events]
    start, ends = encoder.frame_step(first), first + length >= num_frames
    end = float("inf") if ends else encoder.frame_step(first + length)

    def program_ids(program: int) -> list[int]:
        mapped = {"flat": [], "midi_class": [program // 8 * 8], "full": [program]}[config.program_granularity]
        return [first_id("program") + number for number in mapped]

    written: list[int] = []
    if config.ties:
        bound = min(start, max(steps, default=start)) if ends else start
        sounding = {}
        for step, (_, is_onset, (is_drum, *key), _) in zip(steps, events, strict=True):
            if step < bound and not is_drum:
                sounding[tuple(key)] = is_onset
        for program, pitch in sorted(key for key, sounds in sounding.items() if sounds):
            written += [*program_ids(program), first_id("pitch") + pitch]
        written.append(first_id("tie"))
    last = start
    for step, (_, is_onset, key, velocity) in zip(steps, events, strict=True):
        if not start <= step < end:
            continue
        if step > last:
            whole, rest = divmod(step - start, encoder.vocabulary.max_shift_steps)
            written += [encoder.vocabulary.max_shift_steps] * whole + [rest] * (rest > 0)
        last = step
        if config.onsets_only:
            written.append(first_id("pitch") + key[0])
            continue
        is_drum, program, pitch = key
        velocity_bin = int(velocity_to_bin(velocity, config.velocity_bins)) if is_onset else 0
        written += [] if is_drum else program_ids(program)
        written += [first_id("velocity") + velocity_bin, first_id("drum" if is_drum else "pitch") + pitch]
    return written


@dataclass(frozen=True, eq=False)
class DecodedPiece:
    """The notes in the order in which they ended, and (start, invalid events, dropped events) of each segment."""

    notes: NoteTable
    segments: tuple[tuple[float, int, int], ...]

    @property
    def invalid_events(self) -> int:
        return sum(invalid for _, invalid, _ in self.segments)

    @property
    def dropped_events(self) -> int:
        return sum(dropped for *_, dropped in self.segments)

    @property
    def instruments(self) -> list[int]:
        """The original's instrument number of each note: programs by first appearance, 9 left to the drums."""
        numbers: dict[int, int] = {}
        for note in to_notes(self.notes):
            if not note.is_drum:
                numbers.setdefault(note.program, len(numbers) + (len(numbers) >= 9))
        return [9 if note.is_drum else numbers[note.program] for note in to_notes(self.notes)]


def decode_piece(
    segments: Iterable[tuple[float, np.ndarray]], config: VocabularyConfig, are_events: bool = False
) -> DecodedPiece:
    """Decodes (start seconds, tokens) in order of time; `are_events`: event ids, some of which no token stands for."""
    ordered = sorted(segments, key=lambda segment: segment[0])
    starts = [start for start, _ in ordered]
    decoder, counts = NoteDecoder(config), []
    for (start, row), end in zip(ordered, [*starts[1:], None], strict=False):
        add = decoder.add_events if are_events else decoder.add_segment
        counts.append((start, *add(start, np.asarray(row, dtype=np.int64), end)))
    return DecodedPiece(decoder.finish(), tuple(counts))
