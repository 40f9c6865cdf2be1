"""Notes to events: what the network is taught to write for a segment, from the notes of its chunk.

The result is that of the original's `encode_and_index_events`, `extract_target_sequence_with_indices`,
`map_midi_programs`, `run_length_encode_shifts` and `remove_redundant_state_changes`, applied in this order.
Three of its properties are worth knowing:

- Shifts are absolute: each counts steps from the segment's start, not from the event before.
- Events are sorted by their exact times and only then rounded to steps, half to even.
- The tie section of a segment that starts after the last event of a piece lists the notes that sounded *before*
  that event, so it may list notes that have ended ("stale ties").

The original indexes a whole piece and then cuts it. In training every example comes from another chunk, so only what
the segment needs is sorted here, and repeated states are left out on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mt3core.config.model import VocabularyConfig
from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.table import NoteTable
from mt3core.notes.vocabulary import (
    EOS_ID,
    MAX_MIDI_VALUE,
    NUM_SPECIAL_TOKENS,
    Vocabulary,
    segment_start_seconds,
    velocity_to_bin,
)

_ABSENT = -1  # in tables of event ids: nothing is written
_PITCHES = MAX_MIDI_VALUE + 1
_DRUM_KEY = 1 << 14  # above every program * 128 + pitch


@dataclass(frozen=True, slots=True, eq=False)
class SegmentEvents:
    """The note events of a segment in order, not yet written as event ids.

    `steps` count from the segment's start; `table` has the ids of program, velocity and pitch (or drum) of each, or
    -1 for one that is not written; `ties` are the notes sounding at the start as program * 128 + pitch, ascending.
    """

    steps: Int[np.ndarray, " note_events"]
    table: Int[np.ndarray, "note_events 3"]
    ties: Int[np.ndarray, " ties"]


def tie_keys(notes: Iterable[tuple[int, int]]) -> Int[np.ndarray, " ties"]:
    """Notes, each (program, pitch), as the `ties` of `SegmentEvents`."""
    return np.array(sorted(program * _PITCHES + pitch for program, pitch in notes), np.int64)


class SegmentEncoder:
    """Encodes segments of chunks with one vocabulary; contains only tables, so threads may share it.

    With `stale_ties` a segment that starts after the last event of a piece lists the notes that sounded before
    that event, as the original does; without, it lists none: they have ended.
    """

    def __init__(self, config: VocabularyConfig, frames_per_second: float, stale_ties: bool = False) -> None:
        self.vocabulary = Vocabulary(config)
        self.frames_per_second = frames_per_second
        self.stale_ties = stale_ties
        first_id = self.vocabulary.first_id
        programs = np.arange(256)
        if config.program_granularity == "midi_class":
            programs -= programs % PROGRAMS_PER_CLASS
        writes_programs = config.program_granularity != "flat" and not config.onsets_only
        self._program_ids = np.where(writes_programs, first_id("program") + programs, _ABSENT).astype(np.int32)
        bins = velocity_to_bin(np.arange(_PITCHES), config.velocity_bins)
        self._velocity_ids = (first_id("velocity") + bins).astype(np.int32)
        self._first_pitch, self._first_drum = first_id("pitch"), first_id("drum")
        self._tie = first_id("tie")

    def frame_step(self, frame: int) -> int:
        """The last step at or before a frame's time, compared as float64 quotients like the original's loop."""
        seconds, steps_per_second = frame / self.frames_per_second, self.vocabulary.config.steps_per_second
        step = int(seconds * steps_per_second)
        while (step + 1) / steps_per_second <= seconds:
            step += 1
        while step / steps_per_second > seconds:
            step -= 1
        return step

    def start_seconds(self, first_frame: int) -> float:
        """The segment's start as decoding needs it, see `segment_start_seconds`."""
        return segment_start_seconds(first_frame, self.frames_per_second, self.vocabulary.config.steps_per_second)

    def segment(self, notes: NoteTable, first_frame: int, num_frames: int, ends_piece: bool = False) -> SegmentEvents:
        """The note events of `num_frames` frames from `first_frame` of the piece on.

        `notes` have times within the piece and include at least those that sound in the segment. With `ends_piece` the
        segment reaches the piece's last frame and also gets everything after it.
        """
        config = self.vocabulary.config
        first_step, size = self.frame_step(first_frame), len(notes)
        # Offsets, then onsets: the order of events at one time.
        times = np.empty((2, size))
        times[0], times[1] = notes["offset"], notes["onset"]
        steps = times * config.steps_per_second
        np.rint(steps, out=steps)
        np.maximum(steps, 0, out=steps)  # nothing is placed before the first frame of the piece
        is_drum = notes["is_drum"]
        keys = notes["program"] * _PITCHES + notes["pitch"] + is_drum * _DRUM_KEY
        is_event = np.ones((2, size), bool)
        is_event[0] = False if config.onsets_only else ~is_drum
        chosen = is_event & (steps >= first_step)
        if not ends_piece:
            chosen &= steps < self.frame_step(first_frame + num_frames)
        places = chosen.reshape(-1).nonzero()[0]
        rows = places % size if size else places
        is_onset = places >= size
        # At equal times: offsets, drums last, by program and pitch (by pitch if only onsets are written).
        by_key = notes["pitch"][rows] if config.onsets_only else keys[rows]
        order = np.lexsort((by_key, is_onset, times.reshape(-1)[places]))
        rows, is_onset = rows[order], is_onset[order]
        return SegmentEvents(
            (steps.reshape(-1)[places[order]] - first_step).astype(np.int64),
            self._table(notes, rows, is_onset, is_drum[rows]),
            self._sounding(times, steps, is_event, keys, first_step, ends_piece),
        )

    def merge(self, parts: Sequence[SegmentEvents]) -> SegmentEvents:
        """Several segments sounding together, with one tie section.

        Otherwise mixed as in the original: within a step the parts follow each other in their order, except in step
        0, where the last comes first (see `mixing`).
        """
        steps = np.concatenate([part.steps for part in parts])
        numbers = np.repeat(np.arange(len(parts)), [len(part.steps) for part in parts])
        order = np.lexsort((np.where(steps == 0, -numbers, numbers), steps))
        table = np.concatenate([part.table for part in parts])
        return SegmentEvents(steps[order], table[order], np.unique(np.concatenate([part.ties for part in parts])))

    def tokens(self, segment: SegmentEvents) -> Int[np.ndarray, " tokens"]:
        """The target: token ids without programs and velocities that repeat the last, and the end token."""
        events = self.events(segment, drop_repeats=True)
        tokens = np.empty(len(events) + 1, np.int32)
        np.add(events, NUM_SPECIAL_TOKENS, out=tokens[:-1])
        tokens[-1] = EOS_ID
        return tokens

    def events(self, segment: SegmentEvents, drop_repeats: bool = False) -> Int[np.ndarray, " events"]:
        """Event ids with shifts and, if the vocabulary has one, the tie section."""
        steps, count = segment.steps, len(segment.steps)
        table = np.empty((count, 4), np.int32)
        table[:, 1:] = segment.table
        table[:, 0] = steps
        if count:
            table[0, 0] = steps[0] or _ABSENT
            table[1:, 0][steps[1:] == steps[:-1]] = _ABSENT
        section = self._tie_section(segment.ties, drop_repeats)
        if drop_repeats:
            self._drop_repeats(table, section)
        events = table[table >= 0]
        if count and steps[-1] > self.vocabulary.max_shift_steps:
            events = self._split_shifts(table)
        return np.concatenate([section, events])

    def _table(
        self, notes: NoteTable, rows: np.ndarray, is_onset: Bool[np.ndarray, " n"], is_drum: Bool[np.ndarray, " n"]
    ) -> Int[np.ndarray, "n 3"]:
        table = np.empty((len(rows), 3), np.int32)
        table[:, 2] = notes["pitch"][rows]
        if self.vocabulary.config.onsets_only:
            table[:, :2] = _ABSENT
            table[:, 2] += self._first_pitch
            return table
        table[:, 0] = self._program_ids[notes["program"][rows]]
        table[is_drum, 0] = _ABSENT
        table[:, 1] = self._velocity_ids[notes["velocity"][rows] * is_onset]
        table[:, 2] += np.where(is_drum, self._first_drum, self._first_pitch)
        return table

    def _sounding(
        self,
        times: Float[np.ndarray, "2 notes"],
        steps: Float[np.ndarray, "2 notes"],
        is_event: Bool[np.ndarray, "2 notes"],
        keys: Int[np.ndarray, " notes"],
        first_step: int,
        ends_piece: bool,
    ) -> Int[np.ndarray, " ties"]:
        """The keys whose last event before the segment is an onset, in ascending order. Drums never sound on."""
        if not self.vocabulary.config.ties or not is_event[0].any():
            return np.zeros(0, np.int64)
        bound = first_step
        if self.stale_ties and ends_piece:
            bound = min(bound, int(steps[is_event].max()))
        places = (is_event & is_event[0] & (steps < bound)).reshape(-1).nonzero()[0]
        by_row = keys[places % len(keys)]
        is_onset = places >= len(keys)
        order = np.lexsort((is_onset, times.reshape(-1)[places], by_row))
        ordered = by_row[order]
        is_last = is_onset[order]
        is_last[:-1] &= ordered[1:] != ordered[:-1]
        return ordered[is_last].astype(np.int64)

    def _tie_section(self, ties: Int[np.ndarray, " ties"], drop_repeats: bool) -> Int[np.ndarray, " section"]:
        if not self.vocabulary.config.ties:
            return np.zeros(0, np.int32)
        section = np.empty(2 * len(ties) + 1, np.int32)
        programs = section[0:-1:2]
        programs[:] = self._program_ids[ties // _PITCHES]
        section[1::2] = ties % _PITCHES + self._first_pitch
        section[-1] = self._tie
        if drop_repeats and len(ties) > 1:
            programs[1:][programs[1:] == programs[:-1]] = _ABSENT
        return section[section >= 0]

    def _drop_repeats(self, table: Int[np.ndarray, "n 4"], section: Int[np.ndarray, " section"]) -> None:
        """Marks as absent the programs and velocities that repeat the last one, including those of the tie section."""
        velocities = table[:, 2]
        velocities[1:][velocities[1:] == velocities[:-1]] = _ABSENT
        with_program = (table[:, 1] >= 0).nonzero()[0]
        if not len(with_program):
            return
        programs = table[with_program, 1]
        repeats = np.zeros(len(programs), bool)
        repeats[1:] = programs[1:] == programs[:-1]
        named = section[section > self._tie]  # programs come after the tie in the vocabulary, pitches before
        repeats[0] = len(named) > 0 and named[-1] == programs[0]
        table[with_program[repeats], 1] = _ABSENT

    def _split_shifts(self, table: Int[np.ndarray, "n 4"]) -> Int[np.ndarray, " events"]:
        """The events with shifts longer than the vocabulary allows written as several that add up."""
        ids = table[:, 1:]
        is_new = table[:, 0] >= 0
        starts = np.cumsum((ids >= 0).sum(axis=1)) - (ids >= 0).sum(axis=1)
        positions, shifts = split_shifts(
            starts[is_new], table[is_new, 0].astype(np.int64), self.vocabulary.max_shift_steps
        )
        return np.insert(ids[ids >= 0], positions, shifts).astype(np.int32)


def split_shifts(
    positions: Int[np.ndarray, " shifts"], steps: Int[np.ndarray, " shifts"], max_shift_steps: int
) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " pieces"]]:
    """Positions and values with each shift longer than the vocabulary allows written as several that add up."""
    pieces = -(-steps // max_shift_steps)
    values = np.full(int(pieces.sum()), max_shift_steps, dtype=np.int64)
    values[np.cumsum(pieces) - 1] = steps - (pieces - 1) * max_shift_steps
    return np.repeat(positions, pieces), values
