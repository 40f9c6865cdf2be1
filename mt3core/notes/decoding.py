"""Tokens to notes: a state machine that reads one segment after another.

Any output of the network is accepted: an event that makes no sense is counted and ignored, exactly where
the original (`run_length_encoding.decode_events`, `note_sequences.decode_note_event` there) does so.

- invalid: not an event at all, an event earlier than the one before (even if it is a program or velocity), a
  note-off or tie of a note that does not sound, a tie event outside a tie section, a drum with velocity 0. If the
  model sets `shortest_repeat_seconds`, also an onset too soon after the previous onset of the same note.
- dropped: the events from a shift beyond the next segment's start to the segment's end.

Segments written under the grammar (`grammar.py`) break none of these rules by themselves, but each was written without
knowing how the one before ends. So for them a third count takes what is invalid only because of that:

- unmatched: a tie of a note that does not sound, and the end of such a note. They are ignored as well.

If the model sets `shortest_repeat_seconds`, such segments may also start a note again that soon, and end one that does
not sound: neither changes anything, and neither is invalid.

Where the log probabilities of tokens are known, every note has a confidence in three parts: the probabilities of the
shifts to its onset, of its pitch or drum, and of the program in force. Shifts and programs serve all notes after them;
a part that no token says is certain, as the program of drums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from mt3core.config.model import VocabularyConfig
from mt3core.notes.table import NOTE_DTYPE, Confidence, Note, NoteTable, to_notes
from mt3core.notes.vocabulary import EVENT_TYPES, Vocabulary, bin_to_velocity

INITIAL_VELOCITY = 100  # until a first velocity event, and of all notes if only onsets are written
MIN_NOTE_SECONDS = 0.01  # also the length of a drum note
_DRUMS = -1  # instead of a program
_Sureness = tuple[float, float, float]  # probabilities of onset, pitch and program
_Row = tuple[float, float, int, int, int, bool, _Sureness]

_SHIFT, _PITCH, _VELOCITY, _TIE, _PROGRAM, _DRUM = range(len(EVENT_TYPES))


class NoteDecoder:
    """The state that is kept from event to event and from segment to segment.

    Pass segments in order of time to `add_segment` or `add_events`, then get the notes from `finish`.
    """

    def __init__(self, config: VocabularyConfig, is_grammatical: bool = False) -> None:
        self.vocabulary = Vocabulary(config)
        self.unmatched_events = 0
        self._is_grammatical = is_grammatical
        self._table = _event_table(config)
        self._rows: list[_Row] = []
        self._time = 0.0
        self._velocity = INITIAL_VELOCITY
        self._program = 0
        # (program, pitch): (onset, velocity, ...)
        self._active: dict[tuple[int, int], tuple[float, int, _Sureness]] = {}
        self._tied: set[tuple[int, int]] = set()
        self._latest: dict[tuple[int, int], float] = {}  # (program, or -1 for drums, and pitch): onset
        self._in_tie_section = False
        # The probabilities of the present token, of the shifts to the present time, and of the program in force.
        self._probability = self._onset_probability = self._program_probability = 1.0
        self._is_sureness_known = True
        # Of the current segment: the notes that its tie section named although they do not sound, and those that it has
        # started or ended.
        self._claimed: set[tuple[int, int]] = set()
        self._touched: set[tuple[int, int]] = set()

    @property
    def sounding(self) -> list[tuple[int, int]]:
        """(program, pitch) of the notes that sound now, sorted: what the next segment's tie section may name."""
        return sorted(self._active)

    def forget(self) -> None:
        """Forgets program, velocity and onsets: the next segment was written without knowing of any before."""
        self._program, self._velocity = 0, INITIAL_VELOCITY
        self._latest.clear()

    def add_segment(
        self,
        start_seconds: float,
        tokens: Int[np.ndarray, " tokens"],
        end_seconds: float | None,
        log_probabilities: Float[np.ndarray, " tokens"] | None = None,
    ) -> tuple[int, int]:
        """Decodes one segment's tokens up to its end token; returns the numbers of invalid and dropped events.

        `end_seconds` is the next segment's start; None for the last segment, or if there is no limit.
        """
        events = self.vocabulary.events_before_end(tokens)
        return self.add_events(start_seconds, events, end_seconds, log_probabilities)

    def add_events(
        self,
        start_seconds: float,
        events: Int[np.ndarray, " events"],
        end_seconds: float | None,
        log_probabilities: Float[np.ndarray, " tokens"] | None = None,
    ) -> tuple[int, int]:
        """The same for event ids; those outside the vocabulary count as invalid."""
        config = self.vocabulary.config
        self._in_tie_section = config.ties and not config.onsets_only
        for names in (self._tied, self._claimed, self._touched):
            names.clear()
        handle = self._onset_event if config.onsets_only else self._note_event
        ids = np.asarray(events).reshape(-1).tolist()
        self._is_sureness_known &= log_probabilities is not None
        log_probs = [0.0] * len(ids) if log_probabilities is None else np.minimum(log_probabilities, 0.0).tolist()
        invalid, steps, time = 0, 0, start_seconds
        self._onset_probability, shifts_log_prob = 1.0, 0.0
        for position, (event_id, log_prob) in enumerate(zip(ids, log_probs, strict=False)):  # the end token is no event
            if not 0 <= event_id < len(self._table):
                invalid += 1
                continue
            kind, value = self._table[event_id]
            if kind != _SHIFT:
                steps, shifts_log_prob, self._probability = 0, 0.0, math.exp(log_prob)
                invalid += not handle(time, kind, value)
                continue
            steps += value
            shifts_log_prob += log_prob
            self._onset_probability = math.exp(shifts_log_prob)
            time = start_seconds + steps / config.steps_per_second
            # The original asks "max_time and ...": an end of 0.0 is no limit.
            if end_seconds and time > end_seconds:
                return invalid, len(ids) - position
        return invalid, 0

    def final_seconds(self, next_start_seconds: float) -> float:
        """The time before which no onset will be added or changed any more, if the next segment starts then."""
        # Until then the end of a note can be undone, see `_sound_on`.
        final = next_start_seconds - self.vocabulary.config.shortest_repeat_seconds
        return min([final, *(onset for onset, *_ in self._active.values())])

    def take(self, final_seconds: float, calibration: Sequence[tuple[float, float]] = ()) -> list[Note]:
        """Takes out the notes that start before a time up to `final_seconds`; `finish` does not return them again."""
        taken = [row for row in self._rows if row[0] < final_seconds]
        self._rows = [row for row in self._rows if row[0] >= final_seconds]
        return self._notes(taken, calibration)

    def finish(self, end_seconds: float = 0.0) -> NoteTable:
        """Ends the notes that still sound and returns all notes in the order in which they ended.

        They end at the last event, or at `end_seconds` if that is later: where it is known that the music goes on.
        """
        self._time = max(self._time, end_seconds)
        for onset, *_ in self._active.values():
            self._time = max(self._time, onset + MIN_NOTE_SECONDS)
        for key in list(self._active):
            self._end_note(key, self._time)
        return _table_of(self._rows)

    def finish_notes(self, end_seconds: float = 0.0, calibration: Sequence[tuple[float, float]] = ()) -> list[Note]:
        """The same as `Note` objects, with confidences if the log probabilities of all segments were given.

        `calibration` has pairs of a product of the parts and the confidence that it means (`ModelConfig.confidence`).
        """
        self.finish(end_seconds)
        return self._notes(self._rows, calibration)

    def _notes(self, rows: list[_Row], calibration: Sequence[tuple[float, float]]) -> list[Note]:
        notes = to_notes(_table_of(rows))
        if not self._is_sureness_known:
            return notes
        parts = [row[-1] for row in rows]
        whole = np.array(parts).reshape(-1, 3).prod(axis=1)
        if calibration:
            whole = np.interp(whole, *np.transpose(calibration))
        return [
            replace(note, confidence=Confidence(*three, one))
            for note, three, one in zip(notes, parts, whole.tolist(), strict=True)
        ]

    def _onset_event(self, time: float, kind: int, value: int) -> bool:
        """Handles an event if only onsets are written; False if it is invalid. Times may go back."""
        if kind != _PITCH:
            return False
        self._rows.append((time, time + MIN_NOTE_SECONDS, value, INITIAL_VELOCITY, 0, False, self._sureness(1.0)))
        return True

    def _note_event(self, time: float, kind: int, value: int) -> bool:
        """Handles any event but a shift; False if it is invalid."""
        if time < self._time:
            return False
        self._time = time
        if kind == _PITCH:
            return self._pitch_event(time, (self._program, value))
        if kind == _VELOCITY:
            self._velocity = value
        elif kind == _PROGRAM:
            self._program, self._program_probability = value, self._probability
        elif kind == _DRUM:
            if self._velocity == 0:
                return False
            if self._is_too_soon((_DRUMS, value), time):
                return self._is_grammatical
            self._rows.append((time, time + MIN_NOTE_SECONDS, value, self._velocity, 0, True, self._sureness(1.0)))
        else:
            return self._end_tie_section()
        return True

    def _pitch_event(self, time: float, key: tuple[int, int]) -> bool:
        """A tie, an offset or an onset, depending on its position and the velocity."""
        is_active = key in self._active
        if self._in_tie_section:
            if key in self._tied or key in self._claimed:
                return False
            (self._tied if is_active else self._claimed).add(key)
            return is_active or self._is_unmatched(True)
        config = self.vocabulary.config
        is_new, is_claimed = key not in self._touched, key in self._claimed
        self._touched.add(key)
        if self._velocity == 0:
            if not is_active:
                self._claimed.discard(key)
                if self._is_grammatical and config.shortest_repeat_seconds:
                    return True
                return self._is_unmatched(is_claimed or (is_new and not config.ties))
            self._end_note(key, time)
        elif self._is_too_soon(key, time):
            if not is_active:
                self._sound_on(key)
            return self._is_grammatical
        else:
            self._claimed.discard(key)
            if is_active:
                self._end_note(key, time)
            self._active[key] = (time, self._velocity, self._sureness(self._program_probability))
        return True

    def _sureness(self, program: float) -> _Sureness:
        return self._onset_probability, self._probability, program

    def _is_unmatched(self, is_because_of_the_segment_before: bool) -> bool:
        """Whether an event is ignored as `unmatched`, and counts it; if not, it is invalid."""
        counts = self._is_grammatical and is_because_of_the_segment_before
        self.unmatched_events += counts
        return counts

    def _is_too_soon(self, key: tuple[int, int], time: float) -> bool:
        """Whether an onset repeats the one before within `shortest_repeat_seconds`; if not, it is remembered."""
        config, latest = self.vocabulary.config, self._latest.get(key)
        # In steps: the times are multiples of a step, but not exactly.
        if latest is not None and config.shortest_repeat_seconds:
            steps = round((time - latest) * config.steps_per_second)
            if steps < config.shortest_repeat_seconds * config.steps_per_second - 1e-6:
                return True
        self._latest[key] = time
        return False

    def _sound_on(self, key: tuple[int, int]) -> None:
        """Undoes the end of the latest note of that program and pitch."""
        for number in reversed(range(len(self._rows))):
            onset, _, pitch, velocity, program, is_drum, sureness = self._rows[number]
            if (program, pitch) == key and not is_drum:
                del self._rows[number]
                self._active[key] = (onset, velocity, sureness)
                return

    def _end_tie_section(self) -> bool:
        """Ends notes that sound and were not tied. Without a tie event a section has no end, and nothing is ended."""
        if not self._in_tie_section:
            return False
        for key in [key for key in self._active if key not in self._tied]:
            self._end_note(key, self._time)
        self._in_tie_section = False
        return True

    def _end_note(self, key: tuple[int, int], offset: float) -> None:
        onset, velocity, sureness = self._active.pop(key)
        program, pitch = key
        self._rows.append((onset, max(offset, onset + MIN_NOTE_SECONDS), pitch, velocity, program, False, sureness))


def _table_of(rows: list[_Row]) -> NoteTable:
    return np.array([row[:-1] for row in rows], dtype=NOTE_DTYPE)


@lru_cache
def _event_table(config: VocabularyConfig) -> tuple[tuple[int, int], ...]:
    """For every event id its type's number and its value, bins already turned into velocities."""
    return tuple(
        (EVENT_TYPES.index(kind), bin_to_velocity(value, config.velocity_bins) if kind == "velocity" else value)
        for kind, value in Vocabulary(config).meanings
    )
