"""Notes to events: what the network is taught to write for each segment.

A piece is indexed once (`IndexedNotes`); any stretch of frames is then encoded by two binary searches.
The result is that of the original's `encode_and_index_events`, `extract_target_sequence_with_indices`,
`map_midi_programs`, `run_length_encode_shifts` and `remove_redundant_state_changes`, applied in this order.
Three of its habits are worth knowing:

- Shifts are absolute: each counts steps from the segment's start, not from the event before.
- Events are sorted by their exact times and only then rounded to steps, half to even.
- The tie section of a segment beginning after the last event of a piece shows the notes that sounded *before*
  that event, so it may list notes that have ended ("stale ties").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mt3core.config.model import VocabularyConfig
from mt3core.errors import MT3Error
from mt3core.notes.table import NoteTable
from mt3core.notes.vocabulary import MAX_MIDI_VALUE, Vocabulary, segment_start_seconds, velocity_to_bin

_NO_KEY = -1  # of events that leave no note sounding: drums, and all where only onsets are written


@dataclass(frozen=True, eq=False)
class EncodedSegment:
    """One segment's target.

    `start_seconds` is the rounded-down start that decoding needs; `events` has shifts merged and programs mapped
    but repeated program and velocity events still in it; `tokens` is the target itself with its end token.
    """

    first_frame: int
    num_frames: int
    start_seconds: float
    events: Int[np.ndarray, " events"]
    tokens: Int[np.ndarray, " tokens"]

    def fits(self, max_target_tokens: int) -> bool:
        """Whether the tokens, the end token included, are at most so many. A longer target is never cut."""
        return len(self.tokens) <= max_target_tokens


def encode_segments(
    notes: NoteTable,
    num_frames: int,
    config: VocabularyConfig,
    frames_per_second: float,
    segment_frames: int,
    max_target_tokens: int | None = None,
) -> list[EncodedSegment]:
    """Encodes a whole piece of `num_frames` frames in segments of `segment_frames`, the last perhaps shorter.

    The notes are taken as they are: apply the pedal, trim overlaps and validate before. Raises `MT3Error` where a
    segment has more than `max_target_tokens` tokens (None: no limit).
    """
    indexed = IndexedNotes.build(notes, num_frames, config, frames_per_second)
    segments = [indexed.segment(first, segment_frames) for first in range(0, num_frames, segment_frames)]
    for segment in segments:
        if max_target_tokens is not None and not segment.fits(max_target_tokens):
            raise MT3Error(
                f"The segment at {segment.start_seconds:.2f} s needs {len(segment.tokens)} tokens; "
                f"{max_target_tokens} are allowed.",
                "Use shorter segments, fewer instruments or a network with more target tokens.",
            )
    return segments


@dataclass(frozen=True, eq=False)
class IndexedNotes:
    """A piece as one sorted stream of note events (onsets and offsets), ready to be cut anywhere.

    A note event is one to three event ids: program, velocity, pitch; for a drum velocity, drum; with
    `onsets_only` the pitch alone.
    """

    vocabulary: Vocabulary
    frames_per_second: float
    frame_steps: Int[np.ndarray, " frames"]  # the step in which a frame begins
    steps: Int[np.ndarray, " note_events"]  # in ascending order
    event_ids: Int[np.ndarray, " ids"]  # programs as they are, not mapped
    id_offsets: Int[np.ndarray, " note_events+1"]  # where each note event begins in `event_ids`
    keys: Int[np.ndarray, " note_events"]  # program * 128 + pitch, or _NO_KEY
    is_sounding: Bool[np.ndarray, " note_events"]  # whether a note of that key sounds after the event
    next_same_key: Int[np.ndarray, " note_events"]  # index of the next event of that key, or the number of events

    @classmethod
    def build(
        cls, notes: NoteTable, num_frames: int, config: VocabularyConfig, frames_per_second: float
    ) -> IndexedNotes:
        """Sorts and numbers the note events of a piece of `num_frames` frames."""
        vocabulary = Vocabulary(config)
        rows, is_onset, times = _sorted_note_events(notes, config.onsets_only)
        # Rounding half to even in float64, as Python's round does. Nothing is placed before the first frame.
        steps = np.maximum(np.rint(times * config.steps_per_second).astype(np.int64), 0)
        event_ids, id_offsets = _note_event_ids(rows, is_onset, vocabulary)
        has_key = ~rows["is_drum"] & (not config.onsets_only)
        keys = np.where(has_key, rows["program"] * (MAX_MIDI_VALUE + 1) + rows["pitch"], _NO_KEY).astype(np.int64)
        return cls(
            vocabulary=vocabulary,
            frames_per_second=frames_per_second,
            frame_steps=_frame_steps(num_frames, frames_per_second, config.steps_per_second),
            steps=steps,
            event_ids=event_ids,
            id_offsets=id_offsets,
            keys=keys,
            is_sounding=has_key & is_onset & (rows["velocity"] > 0),
            next_same_key=_next_same(keys),
        )

    @property
    def num_frames(self) -> int:
        return len(self.frame_steps)

    def segment(self, first_frame: int, num_frames: int) -> EncodedSegment:
        """Encodes `num_frames` frames from `first_frame` on, fewer where the piece ends before.

        A segment that reaches the last frame contains everything after it, too. Raises `IndexError` for a
        `first_frame` outside the piece.
        """
        if not 0 <= first_frame < self.num_frames or num_frames < 1:
            raise IndexError(f"No {num_frames} frames from {first_frame} on in a piece of {self.num_frames}.")
        end_frame = min(first_frame + num_frames, self.num_frames)
        first_step = int(self.frame_steps[first_frame])
        start = int(np.searchsorted(self.steps, first_step))
        end = len(self.steps)
        if end_frame < self.num_frames:
            end = int(np.searchsorted(self.steps, self.frame_steps[end_frame]))
        events = self._with_shifts(start, end, first_step)
        if self.vocabulary.config.ties:
            events = np.concatenate([self.tie_section(first_frame), events])
        events = self.vocabulary.map_programs(events)
        steps_per_second = self.vocabulary.config.steps_per_second
        return EncodedSegment(
            first_frame=first_frame,
            num_frames=end_frame - first_frame,
            start_seconds=float(segment_start_seconds(first_frame, self.frames_per_second, steps_per_second)),
            events=events,
            tokens=self.vocabulary.events_to_tokens(remove_redundant_changes(events, self.vocabulary)),
        )

    def tie_section(self, first_frame: int) -> Int[np.ndarray, " events"]:
        """Program and pitch of each note sounding where the frame's step begins, by program and pitch; then `tie`."""
        return self.state_before(self.state_event(first_frame))

    def state_event(self, frame: int) -> int:
        """Index of the note event before which the state is taken: the first of the frame's step.

        After the last event's step it stays the first event of that step (the original's stale ties).
        """
        last_step = self.steps[-1] if len(self.steps) else 0
        return int(np.searchsorted(self.steps, min(self.frame_steps[frame], last_step)))

    def state_before(self, index: int) -> Int[np.ndarray, " events"]:
        """The tie section made of the note events before `index`."""
        is_last = self.next_same_key[:index] >= index
        keys = np.sort(self.keys[:index][is_last & self.is_sounding[:index]])
        section = np.empty(2 * len(keys) + 1, dtype=np.int32)
        section[0:-1:2] = self.vocabulary.first_id("program") + keys // (MAX_MIDI_VALUE + 1)
        section[1::2] = self.vocabulary.first_id("pitch") + keys % (MAX_MIDI_VALUE + 1)
        section[-1] = self.vocabulary.first_id("tie")
        return section

    def _with_shifts(self, start: int, end: int, first_step: int) -> Int[np.ndarray, " events"]:
        """The ids of note events `start` to `end`, a shift before each that is not in the step of the one before."""
        ids = self.event_ids[self.id_offsets[start] : self.id_offsets[end]]
        steps = self.steps[start:end] - first_step
        is_new = np.diff(steps, prepend=0) > 0
        positions = (self.id_offsets[start:end] - self.id_offsets[start])[is_new]
        positions, shifts = split_shifts(positions, steps[is_new], self.vocabulary.max_shift_steps)
        return np.insert(ids, positions, shifts).astype(np.int32)


def split_shifts(
    positions: Int[np.ndarray, " shifts"], steps: Int[np.ndarray, " shifts"], max_shift_steps: int
) -> tuple[Int[np.ndarray, " pieces"], Int[np.ndarray, " pieces"]]:
    """Positions and values with each shift longer than the vocabulary allows written as several that add up."""
    pieces = -(-steps // max_shift_steps)
    values = np.full(int(pieces.sum()), max_shift_steps, dtype=np.int64)
    values[np.cumsum(pieces) - 1] = steps - (pieces - 1) * max_shift_steps
    return np.repeat(positions, pieces), values


def remove_redundant_changes(
    events: Int[np.ndarray, " events"], vocabulary: Vocabulary
) -> Int[np.ndarray, " remaining"]:
    """Leaves out program and velocity events that repeat the last of their type, the tie section counting."""
    keep = np.ones(len(events), dtype=bool)
    for kind in ("velocity", "program"):
        positions = np.flatnonzero(vocabulary.is_type(kind, events))
        values = events[positions]
        keep[positions[1:][values[1:] == values[:-1]]] = False
    return events[keep]


def _sorted_note_events(notes: NoteTable, onsets_only: bool) -> tuple[NoteTable, np.ndarray, np.ndarray]:
    """The note of each note event, whether it is an onset, and its time; in the original's order.

    At equal times: offsets first, then by drum flag, program and pitch. Drums have no offset.
    """
    if onsets_only:
        ordered = notes[np.argsort(notes["pitch"], kind="stable")]
        rows, is_onset = ordered, np.ones(len(ordered), dtype=bool)
    else:
        ordered = notes[np.lexsort((notes["pitch"], notes["program"], notes["is_drum"]))]
        pitched = ordered[~ordered["is_drum"]]
        rows = np.concatenate([pitched, ordered])
        is_onset = np.arange(len(rows)) >= len(pitched)
    times = np.where(is_onset, rows["onset"], rows["offset"])
    order = np.argsort(times, kind="stable")
    return rows[order], is_onset[order], times[order]


def _note_event_ids(
    rows: NoteTable, is_onset: Bool[np.ndarray, " note_events"], vocabulary: Vocabulary
) -> tuple[Int[np.ndarray, " ids"], Int[np.ndarray, " note_events+1"]]:
    """The ids of all note events in one array, and where each note event begins in it."""
    config = vocabulary.config
    is_drum = rows["is_drum"] & (not config.onsets_only)
    bins = np.where(is_onset, velocity_to_bin(rows["velocity"], config.velocity_bins), 0)
    first_pitch = np.where(is_drum, vocabulary.first_id("drum"), vocabulary.first_id("pitch"))
    triples = np.stack(
        [
            vocabulary.first_id("program") + rows["program"],
            vocabulary.first_id("velocity") + bins,
            first_pitch + rows["pitch"],
        ],
        axis=1,
    )
    is_written = np.ones(triples.shape, dtype=bool)
    is_written[:, 0] = ~is_drum
    if config.onsets_only:
        is_written[:, :2] = False
    id_offsets = np.concatenate([[0], np.cumsum(is_written.sum(axis=1))])
    return triples[is_written].astype(np.int32), id_offsets


def _frame_steps(num_frames: int, frames_per_second: float, steps_per_second: int) -> Int[np.ndarray, " frames"]:
    """The last step at or before each frame's time, compared as float64 quotients like the original's loop."""
    frame_seconds = np.arange(num_frames) / frames_per_second
    num_steps = int(num_frames / frames_per_second * steps_per_second) + 2
    step_seconds = np.arange(num_steps) / steps_per_second
    return np.searchsorted(step_seconds, frame_seconds, side="right") - 1


def _next_same(keys: Int[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """Index of the next item of equal key, or the number of items where there is none."""
    following = np.full(len(keys), len(keys), dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    is_same = keys[order][1:] == keys[order][:-1]
    following[order[:-1][is_same]] = order[1:][is_same]
    return following
