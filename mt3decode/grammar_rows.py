"""The grammar's masks for sequences decoded on the host, kept up to date from token to token.

`Grammar` computes all of a mask anew for every token, which suits a device. Beside a processor that takes a small
network's step in a few milliseconds, its many small operations would be a tenth of the time. Here every sequence has a
row that is added to the logits, 0 for tokens that may come next and minus infinity for others, and a token changes only
what depends on it: the shifts after most tokens, the rest of the row when program or velocity change, one pitch when a
note ends. What is written comes from `Grammar`, which is asked once for each situation; only what is known of single
notes is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from mt3core.decoding import Decoding
from mt3core.notes.vocabulary import EOS_ID, MAX_MIDI_VALUE, NUM_SPECIAL_TOKENS, Vocabulary
from mt3decode.grammar import INHERITED, UNKNOWN, Grammar

Row = Float[np.ndarray, " tokens"]


@dataclass
class _Sequence:
    """What is known of one sequence; names are those of `GrammarState`."""

    limit: int
    in_ties: bool
    program: int
    window: tuple[int, int]  # the least and the greatest shift that may follow
    is_ready: bool = True  # whether anything else may
    time: int = 0
    shifted: int = 0
    last: int = 0
    velocity: int = UNKNOWN
    # By program, the part of a row that stands for pitches: what a tie section may still name, what note-offs may name.
    may_be_tied: dict[int, Row] = field(default_factory=dict)
    may_end: dict[int, Row] = field(default_factory=dict)

    def copy(self) -> _Sequence:
        rows = [{program: row.copy() for program, row in part.items()} for part in (self.may_be_tied, self.may_end)]
        return replace(self, may_be_tied=rows[0], may_end=rows[1])


class GrammarRows:
    """The rows of all sequences that are being decoded, in the order in which they were added."""

    def __init__(self, grammar: Grammar, decoding: Decoding) -> None:
        self._grammar = grammar
        self._start = grammar.start_all([0], decoding)
        self._counted_as = self._start.programs[0].tolist()
        config, vocabulary = grammar.config, Vocabulary(grammar.config)
        self._has_notes = not config.onsets_only
        self._may_end_anything = config.shortest_repeat_seconds > 0
        nothing = ("", 0)  # the type and value of a token that is no event
        surplus = [nothing] * (grammar.vocab_size - vocabulary.base_vocab_size)
        self._meanings = [*[nothing] * NUM_SPECIAL_TOKENS, *vocabulary.meanings, *surplus]
        self._shifts, self._pitches = (
            slice(first + NUM_SPECIAL_TOKENS, last + NUM_SPECIAL_TOKENS + 1)
            for first, last in (vocabulary.event_ranges[kind] for kind in ("shift", "pitch"))
        )
        self._rest = slice(self._shifts.stop, None)  # shifts come first
        # What `Grammar` said of shifts, by the window, and of the rest.
        self._known_shifts: dict[tuple[int, int], Row] = {}
        self._known_rests: dict[tuple[bool, bool, int, int], Row] = {}
        self.only_end = np.full(grammar.vocab_size, -np.inf, np.float32)
        self.only_end[EOS_ID] = 0.0
        self._sequences: list[_Sequence] = []
        self._rows = np.tile(self.only_end, (0, 1))

    @property
    def rows(self) -> Float[np.ndarray, "rows vocab"]:
        """To be added to the logits of the next token. `only_end` is to be added where that is the last one."""
        return self._rows[: len(self._sequences)]

    def add(self, limits: Sequence[int]) -> None:
        """Starts new sequences, one per limit: the last step that belongs to its segment."""
        first = len(self._sequences)
        in_ties, program = bool(self._start.in_ties[0]), int(self._start.program[0])
        self._sequences += [_Sequence(limit, in_ties, program, window=(0, limit)) for limit in limits]
        missing = len(self._sequences) - len(self._rows)
        if missing > 0:
            self._rows = np.concatenate([self._rows, np.tile(self.only_end, (missing, 1))])
        for number, sequence in enumerate(self._sequences[first:], first):
            self._write_shifts(number, sequence)
            self._write_rest(number, sequence)

    def keep(self, numbers: Int[np.ndarray, " rows"]) -> None:
        """Goes on with these sequences, in this order; some may be wanted more than once."""
        if np.array_equal(numbers, np.arange(len(self._sequences))):
            return  # as after most steps of a beam search
        self._rows[: len(numbers)] = self._rows[numbers]
        old, used = self._sequences, set[int]()
        self._sequences = []
        for number in numbers.tolist():
            self._sequences.append(old[number].copy() if number in used else old[number])
            used.add(number)

    def copy(self) -> GrammarRows:
        """A copy that goes its own way from here on."""
        new = GrammarRows.__new__(GrammarRows)
        new.__dict__.update(self.__dict__)
        new._sequences = [sequence.copy() for sequence in self._sequences]
        new._rows = self.rows.copy()
        return new

    def advance(self, tokens: Int[np.ndarray, " rows"]) -> None:
        """Follows a token in each sequence; one that is no event changes nothing."""
        for number, (sequence, token) in enumerate(zip(self._sequences, tokens.tolist(), strict=True)):
            kind, value = self._meanings[token]
            if not kind:
                continue
            changes_rest, was_ready = False, sequence.is_ready
            if kind == "shift":
                sequence.shifted += value
                sequence.time = sequence.shifted
            else:
                sequence.shifted, sequence.last = 0, sequence.time
                changes_rest = self._has_notes and self._follow(number, sequence, kind, value)
            sequence.is_ready = sequence.time >= sequence.last
            ahead = sequence.last - sequence.shifted
            window = ahead if ahead > 0 else 0, sequence.limit - sequence.shifted
            if window != sequence.window:
                sequence.window = window
                self._write_shifts(number, sequence)
            if changes_rest or sequence.is_ready != was_ready:
                self._write_rest(number, sequence)

    def _follow(self, number: int, sequence: _Sequence, kind: str, value: int) -> bool:
        """Follows an event that is no shift; whether the row has to be written again."""
        if kind == "velocity":
            changes, sequence.velocity = sequence.velocity != value, value
            return changes
        if kind == "program":
            counted_as = self._counted_as[value]
            changes, sequence.program = sequence.program != counted_as, counted_as
            return changes
        if kind == "tie":
            changes, sequence.in_ties = sequence.in_ties, False
            return changes
        if kind == "pitch":
            program = sequence.program
            if sequence.in_ties:
                self._part(sequence.may_be_tied, program, is_open=True)[value] = -np.inf
                self._rows[number, self._pitches.start + value] = -np.inf
            elif self._may_end_anything:
                return False
            is_on = sequence.in_ties or sequence.velocity > 0
            self._ends(sequence)[value] = 0.0 if is_on else -np.inf
            if not is_on:
                self._rows[number, self._pitches.start + value] = -np.inf
        return False

    def _write_rest(self, number: int, sequence: _Sequence) -> None:
        """Writes all of a row but the shifts."""
        is_ready, in_ties = sequence.is_ready, sequence.in_ties
        program = sequence.program if sequence.program in (UNKNOWN, INHERITED) else 0
        key = (is_ready, in_ties, program, min(sequence.velocity, 1))
        if key not in self._known_rests:
            fields = dict(zip(("time", "in_ties", "program", "velocity"), key, strict=True), last=1)
            changed = {name: np.full_like(getattr(self._start, name), value) for name, value in fields.items()}
            allowed = self._grammar.allowed(replace(self._start, **changed), np.zeros(1, bool))
            self._known_rests[key] = _row(allowed[:, self._rest])
        self._rows[number, self._rest] = self._known_rests[key]
        if not (self._has_notes and is_ready) or program == UNKNOWN:
            return
        if in_ties and program != INHERITED:
            self._rows[number, self._pitches] = self._part(sequence.may_be_tied, sequence.program, is_open=True)
        elif not in_ties and sequence.velocity == 0 and not self._may_end_anything:
            self._rows[number, self._pitches] = self._ends(sequence)

    def _write_shifts(self, number: int, sequence: _Sequence) -> None:
        window = sequence.window
        if window not in self._known_shifts:
            earliest, limit = window if self._has_notes else (0, window[1])  # as onsets alone may go back in time
            allowed = self._grammar.shifts(*(np.array([steps], np.int32) for steps in (0, limit, earliest)))
            self._known_shifts[window] = _row(allowed)
        self._rows[number, self._shifts] = self._known_shifts[window]

    def _ends(self, sequence: _Sequence) -> Row:
        """Where there is a tie section, what it has not named does not sound; without, anything may."""
        return self._part(sequence.may_end, sequence.program, is_open=not self._grammar.has_ties)

    def _part(self, parts: dict[int, Row], program: int, is_open: bool) -> Row:
        if program not in parts:
            parts[program] = np.full(MAX_MIDI_VALUE + 1, 0.0 if is_open else -np.inf, np.float32)
        return parts[program]


def _row(allowed: Bool[np.ndarray, "1 tokens"]) -> Row:
    return np.where(allowed[0], 0.0, -np.inf).astype(np.float32)
