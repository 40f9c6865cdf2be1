"""The event vocabulary: which number means which event, and vice versa.

Event ids run from 0 through consecutive ranges, one per type; a token id is the event id + 3, after padding,
end and unknown. Numbers and order are those of the original MT3 (`event_codec.py`, `vocabularies.py` there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int

from mt3core.config.model import VocabularyConfig

EventType = Literal["shift", "pitch", "velocity", "tie", "program", "drum"]
EVENT_TYPES: tuple[EventType, ...] = ("shift", "pitch", "velocity", "tie", "program", "drum")

PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2
NUM_SPECIAL_TOKENS = 3

# Written by `tokens_to_events` for the end token (and everything after it), and for tokens that are not events.
END_EVENT, INVALID_EVENT = -1, -2

MAX_MIDI_VALUE = 127


@dataclass(frozen=True)
class Vocabulary:
    """Ids of events and tokens for one `VocabularyConfig`."""

    config: VocabularyConfig = field(default_factory=VocabularyConfig)

    @cached_property
    def max_shift_steps(self) -> int:
        return self.config.max_shift_seconds * self.config.steps_per_second

    @cached_property
    def event_ranges(self) -> dict[EventType, tuple[int, int]]:
        """First and last event id (inclusive) of each type, in order of ids. Every type's values start at 0."""
        max_values = {"shift": self.max_shift_steps, "velocity": self.config.velocity_bins, "tie": 0}
        ranges: dict[EventType, tuple[int, int]] = {}
        first = 0
        for kind in EVENT_TYPES:
            last = first + max_values.get(kind, MAX_MIDI_VALUE)
            ranges[kind] = (first, last)
            first = last + 1
        return ranges

    @cached_property
    def meanings(self) -> tuple[tuple[EventType, int], ...]:
        """Type and value of every event id."""
        return tuple(
            (kind, value) for kind, (low, high) in self.event_ranges.items() for value in range(high - low + 1)
        )

    @cached_property
    def num_classes(self) -> int:
        """Number of event ids."""
        return self.event_ranges[EVENT_TYPES[-1]][1] + 1

    @cached_property
    def base_vocab_size(self) -> int:
        """Number of token ids that mean something."""
        return self.num_classes + NUM_SPECIAL_TOKENS

    def first_id(self, kind: EventType) -> int:
        """The event id of this type's value 0."""
        return self.event_ranges[kind][0]

    def event_id(self, kind: EventType, value: int) -> int:
        """The id of an event. Raises `ValueError` for a value out of its range."""
        first, last = self.event_ranges[kind]
        if not 0 <= value <= last - first:
            raise ValueError(f"A {kind} event must have a value from 0 to {last - first}, not {value}.")
        return first + value

    def is_type(self, kind: EventType, events: Int[np.ndarray, "*shape"]) -> np.ndarray:
        """Boolean array: which event ids are of this type."""
        first, last = self.event_ranges[kind]
        return (events >= first) & (events <= last)

    def tokens_to_events(self, tokens: Int[np.ndarray, "*batch tokens"]) -> Int[np.ndarray, "*batch tokens"]:
        """Event ids of token ids: -1 for the end token and all after it, -2 for tokens that are not events."""
        tokens = np.asarray(tokens)
        is_event = (tokens >= NUM_SPECIAL_TOKENS) & (tokens < self.base_vocab_size)
        events = np.where(is_event, tokens - NUM_SPECIAL_TOKENS, INVALID_EVENT)
        is_ended = np.cumsum(tokens == EOS_ID, axis=-1) > 0
        return np.where(is_ended, END_EVENT, events).astype(np.int32)

    def events_before_end(self, tokens: Int[np.ndarray, " tokens"]) -> Int[np.ndarray, " events"]:
        """Event ids of one row of tokens up to its end token, which is left out; -2 for tokens that are not events."""
        events = self.tokens_to_events(np.asarray(tokens, dtype=np.int64).reshape(-1))
        return events[events != END_EVENT]

    def events_to_tokens(self, events: Int[np.ndarray, " events"]) -> Int[np.ndarray, " tokens"]:
        """Token ids of event ids, with the end token appended."""
        return np.append(np.asarray(events, dtype=np.int32) + NUM_SPECIAL_TOKENS, EOS_ID).astype(np.int32)


def velocity_to_bin(velocity: Int[np.ndarray, "*shape"] | int, num_bins: int) -> Int[np.ndarray, "*shape"]:
    """Velocity 0 to 127 as a bin 0 to `num_bins`; only velocity 0 (note off) is bin 0."""
    # The division comes last, as in the original: ceil then sees the same float64 numbers.
    return np.asarray(np.ceil(num_bins * np.asarray(velocity) / MAX_MIDI_VALUE), dtype=np.int32)


def bin_to_velocity(velocity_bin: int, num_bins: int) -> int:
    """The largest velocity of a bin: 0 for bin 0, 127 for bin `num_bins`."""
    return 0 if velocity_bin == 0 else int(MAX_MIDI_VALUE * velocity_bin / num_bins)


def segment_start_seconds(first_frame: int, frames_per_second: float, steps_per_second: int) -> float:
    """Time of a segment's first frame, rounded down to the step grid as the original does it.

    `t - t % (1 / steps_per_second)` in float64 is one step too early for many times that are on the grid
    already (30.72 becomes 30.71); notes decoded in such a segment come 10 ms early. This is kept because the published
    results were made this way.
    """
    start = first_frame / frames_per_second
    return start - start % (1 / steps_per_second)
