"""Which token may come next: the rules of `notes/decoding.py` as masks, for NumPy, jax.numpy and torch alike.

A sequence written under these masks contains no event that the decoder of notes would ignore: time never goes back
nor beyond the segment, the tie section and note-offs name only notes that (may) sound, and every sequence ends with
the end token, the last one at the limit of tokens. The masks are computed from a small state per sequence, which
follows the tokens one at a time (`start`, `allowed`, `advance`); so they run inside both networks' decoding loops,
on the host or on the device.

What sounds at the start of a segment is unknown as long as the segment before is not decoded. Every note may then
sound: a tie section names what it likes, and the decoder of notes drops what turns out not to sound. Program and
velocity are unknown too. A segment must name a velocity before its first note; and a program, unless all programs may
be written: then notes may start, and end again, with the program of the segment before, whichever it is.

Of instruments that were not chosen, those of the same class as a chosen one may be written too, and count as the
nearest chosen one, by whose number they are then replaced (`Grammar.as_chosen`). A network that hears a clean guitar,
and may name only a steel one, would name none, and run on with notes of nothing. Models that know classes only are
given classes, and have no others to write.

A model with `shortest_repeat_seconds` writes the start or the end of a note twice when it is unsure. It may, and so may
end any note: what changes nothing does no harm, but masked it would become another note (docs/small_model.md).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from jaxtyping import Bool, Int

from mt3core.config.model import ModelConfig, VocabularyConfig
from mt3core.decoding import Decoding, Generated
from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.vocabulary import MAX_MIDI_VALUE, NUM_SPECIAL_TOKENS, Vocabulary
from mt3core.segments import AudioSegment

Array = Any  # a NumPy array, a jax.Array or a torch.Tensor

UNKNOWN = -1  # a program or velocity that no token has named yet
_VALUES = MAX_MIDI_VALUE + 1
INHERITED = _VALUES  # the program in force in the segment before
# What a table says of a program and pitch. In the tie section notes change from HELD to ON, and at its end only those
# that are ON go on sounding; so that the whole table need not be rewritten then, `sounds_from` rises instead.
_OFF, _HELD, _ON = 0, 1, 2


@dataclass(frozen=True)
class GrammarState:
    """The state of each sequence (row). Times are steps from the segment's start."""

    limit: Int[Array, " rows"]  # the last step that belongs to the segment
    time: Int[Array, " rows"]  # of the next event that is not a shift
    shifted: Int[Array, " rows"]  # the shifts since the last such event, added up
    last: Int[Array, " rows"]  # the time of the last such event
    in_ties: Bool[Array, " rows"]
    program: Int[Array, " rows"]
    velocity: Int[Array, " rows"]  # its bin; 0 ends notes
    sounds_from: Int[Array, " rows"]  # the least value in `notes` that means sounding
    notes: Int[Array, "rows programs pitches"]
    programs: Int[Array, "rows programs"]  # what each counts as, UNKNOWN if it may not be written
    drums: Bool[Array, " rows"]


@dataclass(frozen=True)
class Grammar:
    """The masks of one vocabulary, for a network that writes `vocab_size` tokens."""

    config: VocabularyConfig
    vocab_size: int

    @classmethod
    def of(cls, config: ModelConfig) -> Grammar:
        return cls(config.vocabulary, config.network.vocab_size)

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.config)

    @property
    def has_ties(self) -> bool:
        return self.config.ties and not self.config.onsets_only

    @property
    def _has_programs(self) -> bool:
        return self.config.program_granularity != "flat"

    def start(
        self, limit: Int[Array, " rows"], programs: Int[Array, "rows programs"], drums: Bool[Array, " rows"]
    ) -> GrammarState:
        """The state before the first token.

        `limit` is each segment's last step (see `last_steps`), int32; `programs` and `drums` say what may be written.
        """
        xp, rows = array_api_compat.array_namespace(limit), limit.shape[0]
        zeros = xp.zeros_like(limit)
        device = array_api_compat.device(limit)
        program = zeros  # of all notes of a model without instruments
        if self._has_programs:
            everything = xp.arange(_VALUES, dtype=programs.dtype, device=device)
            inherits = xp.all(programs == everything, axis=1) & self.has_ties
            program = xp.where(inherits, zeros + INHERITED, zeros + UNKNOWN)
        return GrammarState(
            limit=limit,
            time=zeros,
            shifted=zeros,
            last=zeros,
            in_ties=zeros == (0 if self.has_ties else 1),
            program=program,
            velocity=zeros + UNKNOWN,
            sounds_from=zeros + _HELD,
            notes=xp.full((rows, INHERITED + 1, _VALUES), _HELD, dtype=xp.int8, device=device),
            programs=programs if self._has_programs else xp.full_like(programs, UNKNOWN),
            drums=drums,
        )

    def start_all(self, limits: Sequence[int], decoding: Decoding) -> GrammarState:
        """The state of new sequences in NumPy, one per limit, with the instruments of a `Decoding`."""
        rows, programs = len(limits), self._counted_as(decoding)
        return self.start(np.array(limits, np.int32), np.tile(programs, (rows, 1)), np.full(rows, decoding.drums))

    def as_chosen(self, decoding: Decoding, generated: Generated) -> Generated:
        """What a network has written, with the chosen program in place of each that counts as it."""
        if decoding.programs is None or not self._has_programs:
            return generated
        tokens = generated.tokens.copy()
        first, last = (event + NUM_SPECIAL_TOKENS for event in self._vocabulary.event_ranges["program"])
        is_program = (tokens >= first) & (tokens <= last)
        tokens[is_program] = first + self._counted_as(decoding)[tokens[is_program] - first]
        return dataclasses.replace(generated, tokens=tokens)

    def _counted_as(self, decoding: Decoding) -> Int[np.ndarray, " programs"]:
        """What each program counts as: itself if chosen, else the nearest chosen one of its class, or UNKNOWN."""
        everything = np.arange(_VALUES, dtype=np.int32)
        if decoding.programs is None:
            return everything
        counted_as = np.full(_VALUES, UNKNOWN, np.int32)
        for program in range(_VALUES) if self.config.program_granularity == "full" else decoding.programs:
            of_class = [one for one in decoding.programs if one // PROGRAMS_PER_CLASS == program // PROGRAMS_PER_CLASS]
            if of_class:
                counted_as[program] = min(of_class, key=lambda one: (abs(one - program), one))
        return counted_as

    def allowed(self, state: GrammarState, is_last: Bool[Array, " rows"]) -> Bool[Array, "rows vocab"]:
        """Which tokens may come next; only the end where `is_last`, the last token that there is room for."""
        xp = array_api_compat.array_namespace(state.time)
        rows = state.time.shape[0]
        parts = self._onset_parts(state) if self.config.onsets_only else self._parts(state)
        goes_on = ~is_last[:, None]
        no = xp.zeros_like(goes_on)
        surplus = xp.broadcast_to(no, (rows, self.vocab_size - self._vocabulary.base_vocab_size))
        special = [no, ~no, no]  # of which the second is the end
        return xp.concat([*special, *(part & goes_on for part in parts), surplus], axis=1)

    def advance(self, state: GrammarState, tokens: Int[Array, " rows"]) -> GrammarState:
        """The state after a token in each row; one that is no event changes nothing.

        Arrays of NumPy and torch are changed in place: use the result only.
        """
        xp = array_api_compat.array_namespace(state.time)
        event = xp.astype(tokens, state.time.dtype) - NUM_SPECIAL_TOKENS
        value = {}
        for kind, (first, last) in self._vocabulary.event_ranges.items():
            value[kind] = xp.where((event >= first) & (event <= last), event - first, UNKNOWN)
        is_shift, is_pitch = (value[kind] >= 0 for kind in ("shift", "pitch"))
        is_other = (event >= 0) & ~is_shift
        shifted = xp.where(is_shift, state.shifted + value["shift"], xp.where(is_other, 0, state.shifted))
        changed = dataclasses.replace(
            state,
            shifted=shifted,
            time=xp.where(is_shift, shifted, state.time),
            last=xp.where(is_other, state.time, state.last),
        )
        if self.config.onsets_only:
            return changed
        is_tie = value["tie"] >= 0
        counted_as = _at(state.programs, value["program"])
        program = xp.where(value["program"] >= 0, counted_as, state.program)
        is_on = is_pitch & (state.velocity > 0) & ~state.in_ties
        return dataclasses.replace(
            changed,
            in_ties=state.in_ties & ~is_tie,
            program=program,
            velocity=xp.where(value["velocity"] >= 0, value["velocity"], state.velocity),
            sounds_from=xp.where(is_tie, xp.full_like(state.sounds_from, _ON), state.sounds_from),
            notes=_put(
                state.notes,
                is_pitch,
                state.program,
                value["pitch"],
                xp.where(is_on | state.in_ties, _ON, _OFF),
            ),
        )

    def _parts(self, state: GrammarState) -> list[Array]:
        """Whether each event may come next, by type in the order of the vocabulary."""
        xp = array_api_compat.array_namespace(state.time)
        is_ready = state.time >= state.last
        is_ending, is_starting = state.velocity == 0, state.velocity > 0
        marks = _at(state.notes, state.program)
        named = is_ready & (state.program >= 0)
        ends_from = xp.full_like(state.sounds_from, _OFF) if self.config.shortest_repeat_seconds else state.sounds_from
        pitches = xp.where(
            state.in_ties[:, None],
            (marks == _HELD) & (state.program != INHERITED)[:, None],
            xp.where(is_ending[:, None], marks >= ends_from[:, None], is_starting[:, None]),
        )
        drums = _columns(is_ready & is_starting & state.drums, _VALUES)
        return [
            self.shifts(state.shifted, state.limit, state.last),
            named[:, None] & pitches,
            _columns(is_ready, self.config.velocity_bins + 1),
            (is_ready & state.in_ties)[:, None],
            is_ready[:, None] & (state.programs >= 0),
            drums,
        ]

    def _onset_parts(self, state: GrammarState) -> list[Array]:
        """The same if only onsets are written: their times may go back, and nothing else is an event."""
        xp = array_api_compat.array_namespace(state.time)
        others = [
            _columns(state.time >= 0 if kind == "pitch" else state.time < 0, last - first + 1)
            for kind, (first, last) in self._vocabulary.event_ranges.items()
            if kind != "shift"
        ]
        return [self.shifts(state.shifted, state.limit, xp.zeros_like(state.limit)), *others]

    def shifts(
        self, shifted: Int[Array, " rows"], limit: Int[Array, " rows"], earliest: Int[Array, " rows"]
    ) -> Bool[Array, "rows shifts"]:
        """Shifts to a time that is neither before `earliest` nor beyond the limit, in steps after those `shifted`.

        The longest shift is allowed too if it does not reach `earliest`, since another may follow and be added.
        """
        xp = array_api_compat.array_namespace(shifted)
        longest = self._vocabulary.max_shift_steps
        shifts = xp.arange(longest + 1, dtype=shifted.dtype, device=array_api_compat.device(shifted))[None, :]
        reached = shifted[:, None] + shifts
        return (reached <= limit[:, None]) & ((reached >= earliest[:, None]) | (shifts == longest))


def last_step(config: ModelConfig) -> int:
    """The last step of a segment after which no other follows."""
    seconds = config.segment_samples / config.spectrogram.sample_rate_hz
    return math.ceil(seconds * config.vocabulary.steps_per_second)


def steps_of(numbers: Iterable[int], steps: Sequence[int] | None, config: ModelConfig) -> list[int]:
    """The last steps of some segments, from those of all; without them every segment is a whole one."""
    return [last_step(config) if steps is None else steps[number] for number in numbers]


def last_steps(pieces: list[AudioSegment], config: ModelConfig) -> list[int]:
    """For each segment of a recording the last step that still belongs to it: an event after it would be dropped."""
    per_second = config.vocabulary.steps_per_second
    limits = [last_step(config)] * len(pieces)
    for number, (piece, following) in enumerate(itertools.pairwise(pieces)):
        while piece.start_seconds + limits[number] / per_second > following.start_seconds:
            limits[number] -= 1
    return limits


def _at(table: Array, key: Int[Array, " rows"]) -> Int[Array, rows * more]:
    """Each sequence's entry of one key; any one if the key is unknown."""
    xp = array_api_compat.array_namespace(table)
    rows = xp.arange(table.shape[0], device=array_api_compat.device(table))
    return table[rows, xp.where(key < 0, 0, key)]


def _put(
    table: Array, is_written: Bool[Array, " rows"], key: Int[Array, " rows"], pitch: Int[Array, " rows"], value: Array
) -> Array:
    """The table with a value at one key and pitch of each row that `is_written`, in place where arrays can change."""
    xp = array_api_compat.array_namespace(table)
    rows = xp.arange(table.shape[0], device=array_api_compat.device(table))
    place = (rows, xp.where(is_written, key, 0), xp.where(is_written, pitch, 0))
    value = xp.where(is_written, xp.astype(value, table.dtype), table[place])
    if array_api_compat.is_jax_array(table):
        return table.at[place].set(value)
    table[place] = value
    return table


def _columns(values: Bool[Array, " rows"], number: int) -> Bool[Array, "rows number"]:
    """The same value in so many columns."""
    xp = array_api_compat.array_namespace(values)
    return xp.broadcast_to(values[:, None], (values.shape[0], number))
