"""From log-mel segments to tokens: the host's side, which keeps the lanes on the device busy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from mt3core.decoding import END_TOKEN, Decoding, Generated, brevity_penalty
from mt3decode.ahead import ReadAhead
from mt3decode.grammar import Grammar, GrammarState, steps_of
from mt3decode.stretches import LogMels, Start, Stretches
from mt3jax import lanes
from mt3jax.beam import beam_search_stream
from mt3jax.inputs import network_inputs
from mt3jax.model import Transformer

DEFAULT_BATCH_SIZE = 16
# Lanes are filled in groups of a quarter of the batch: the encoder runs for a whole group together, and the
# loop on the device stops only when a group has become free.
GROUPS = 4
# A segment that outgrows its lane waits for others like it, but not until more than so many batches are ahead of it.
AHEAD = 2


def generate(
    model: Transformer, log_mel: Float[np.ndarray, "batch frames mel"], decoding: Decoding | None = None
) -> list[Generated]:
    """The tokens of each segment, in order."""
    decoding = decoding or Decoding()
    by_index = dict(generate_stream(model, np.asarray(log_mel), decoding, DEFAULT_BATCH_SIZE))
    return [by_index[index] for index in range(len(by_index))]


def generate_stream(
    model: Transformer,
    log_mels: LogMels,
    decoding: Decoding,
    batch_size: int = DEFAULT_BATCH_SIZE,
    last_steps: Sequence[int] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """Yields (number of the segment, its tokens) in any order, reading `log_mels` only as fast as needed.

    They are `Stretches` if segments need those before them. What reading them raises comes after the segments before.
    For the grammar, `last_steps` are the segments' last steps (`grammar.last_steps`), by default that of a whole one.
    The result of a segment does not depend on the others. Memory depends on `batch_size`, not on the number
    of segments; nor do compiled shapes, since lanes without a segment exist but are idle.
    """
    given = log_mels if isinstance(log_mels, Stretches) else _Waiting(log_mels)
    if decoding.method == "beam" and decoding.num_beams > 1:
        yield from beam_search_stream(model, given, decoding, batch_size, last_steps)
    else:
        yield from _Stream(model, decoding, batch_size, last_steps).run(given)
    if isinstance(given, _Waiting) and given.error is not None:
        raise given.error


class _Stream:
    """Keeps many short lanes busy, and a few longer ones for the segments that outgrow them."""

    def __init__(
        self, model: Transformer, decoding: Decoding, batch_size: int, last_steps: Sequence[int] | None
    ) -> None:
        self.model = model
        self.decoding = decoding
        self.last_steps = last_steps
        self.group = max(1, batch_size // GROUPS)
        # Each batch has twice the positions of the previous one; the longer ones are made when they are needed.
        self.batches = [_Batch(model, decoding, batch_size, lanes.MIN_POSITIONS)]

    def run(self, waiting: _Waiting | Stretches) -> Iterator[tuple[int, Generated]]:
        if isinstance(waiting, Stretches):
            yield from self._run_stretches(waiting)
            return
        group = waiting.take(self.group)
        first = self.batches[0]
        while group or first.occupied():
            while group and len(first.free()) >= len(group):
                first.admit(group, self.group, self.last_steps)
                group = waiting.take(self.group, waits=False)
            # If none will come, there is no reason to stop before all are done.
            late = first.size if waiting.is_done else self._some_done(first)
            yield from self._run(0, enough_done=len(group) or late)
            is_idle = not group and not first.occupied()
            yield from self._catch_up(waiting.count - (0 if is_idle else len(group) + AHEAD * first.size))
            group = group or waiting.take(self.group, waits=not first.occupied())

    def _catch_up(self, least: int) -> Iterator[tuple[int, Generated]]:
        """Decodes the segments in the longer lanes as long as one of them is before the segment `least`."""
        for number, batch in enumerate(self.batches):  # which grows during the loop
            while number and min(batch.numbers(), default=least) < least:
                yield from self._run(number, enough_done=batch.size)

    def _run_stretches(self, stretches: Stretches) -> Iterator[tuple[int, Generated]]:
        """Stops whenever a quarter of the lanes in use are done, since others may wait for just these."""
        first = self.batches[0]
        while True:
            while group := stretches.take(min(self.group, len(first.free()))):
                first.admit(group, self.group, self.last_steps)
            number = next((number for number, batch in enumerate(self.batches) if batch.occupied()), None)
            if number is None:
                return
            for index, generated in self._run(number, self._some_done(self.batches[number])):
                stretches.give(index, generated.tokens)
                yield index, generated

    @staticmethod
    def _some_done(batch: _Batch) -> int:
        """So many lanes are done when a quarter of those in use are."""
        return len(batch.free()) + max(1, len(batch.occupied()) // GROUPS)

    def _run(self, number: int, enough_done: int) -> Iterator[tuple[int, Generated]]:
        """Runs one batch, and moves segments that have filled their lanes to the next batch.

        The next one runs only when it has no free lane, since a step with few lanes in use costs little less.
        """
        batch = self.batches[number]
        yield from batch.run(enough_done)
        for lane in batch.full():
            if number + 1 == len(self.batches):
                longer = _Batch(self.model, self.decoding, self.group, 2 * batch.lanes.num_positions)
                self.batches.append(longer)
            while not self.batches[number + 1].free():
                yield from self._run(number + 1, enough_done=1)
            self.batches[number + 1].take(batch, lane)


class _Waiting:
    """Segments that are still to be started; those of a `ReadAhead` are not waited for while there is other work.

    After an `error` in reading there are no more: it must not take away those that are being decoded.
    """

    def __init__(self, log_mels: Iterable[np.ndarray]) -> None:
        self._ahead = log_mels if isinstance(log_mels, ReadAhead) else None
        self._items = iter(log_mels)
        self._is_empty = False
        self.count = 0  # taken so far
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        while starts := self.take(1):
            yield starts[0].log_mel

    @property
    def is_done(self) -> bool:
        return self._is_empty or (self._ahead is not None and self._ahead.is_done)

    def take(self, most: int, waits: bool = True) -> list[Start]:
        items: list[np.ndarray] = []
        if self._is_empty:
            return []
        try:
            if self._ahead is not None:
                items = self._ahead.take(most, waits)
            while self._ahead is None and len(items) < most:
                items.append(next(self._items))
        except StopIteration:
            self._is_empty = True
        except Exception as error:
            self.error, self._is_empty = error, True
        starts = [Start(number, item) for number, item in enumerate(items, self.count)]
        self.count += len(starts)
        return starts


class _Batch:
    """Lanes on the device, and the numbers of the segments in them."""

    def __init__(self, model: Transformer, decoding: Decoding, size: int, num_positions: int) -> None:
        self.config, self.params = model.config, nnx.to_pure_dict(nnx.state(model))
        self.device = jax.tree.leaves(self.params)[0].device
        self.decoding = decoding
        self.rules = Grammar.of(self.config)
        self.size = size
        self.limits = self._put(lanes.limits_of(decoding, self.config))
        self.lanes = lanes.new_lanes(self.config, size, num_positions, self.params, self._grammar([], size))
        self.segments: list[int | None] = [None] * size

    def free(self) -> list[int]:
        return [lane for lane, segment in enumerate(self.segments) if segment is None]

    def occupied(self) -> list[int]:
        return [lane for lane, segment in enumerate(self.segments) if segment is not None]

    def numbers(self) -> list[int]:
        """Of the segments in the lanes."""
        return [segment for segment in self.segments if segment is not None]

    def full(self) -> list[int]:
        """Lanes that have more to write, but no position left."""
        lengths = np.asarray(self.lanes.lengths)
        return [lane for lane in self.occupied() if lengths[lane] >= self.lanes.num_positions]

    def admit(self, group: list[Start], group_size: int, last_steps: Sequence[int] | None) -> None:
        """Starts up to `group_size` segments in free lanes."""
        places = np.full(group_size, self.size, np.int32)
        tokens, counts = np.zeros((group_size, self.lanes.num_positions), np.int32), np.zeros(group_size, np.int32)
        for row, (lane, start) in enumerate(zip(self.free(), group, strict=False)):
            places[row] = lane
            tokens[row, : len(start.given)], counts[row] = start.given, len(start.given)
            self.segments[lane] = start.number
        steps = steps_of([start.number for start in group], last_steps, self.config)
        self.lanes = lanes.admit(
            self.config,
            self.params,
            self.lanes,
            network_inputs(group, group_size, self.config, self.device),
            self._put(places),
            self._grammar(steps, group_size),
            self._put((tokens, counts)) if self.decoding.continuous else None,
        )

    def take(self, other: _Batch, lane: int) -> None:
        """Continues the segment in a lane of another batch, which is free from then on."""
        place = self.free()[0]
        self.segments[place], other.segments[lane] = other.segments[lane], None
        places = self._put((np.int32(lane), np.int32(place)))
        self.lanes = lanes.move(other.lanes, self.lanes, *places)
        is_done = np.array(other.lanes.is_done)
        is_done[lane] = True
        other.lanes = dataclasses.replace(other.lanes, is_done=self._put(is_done))

    def run(self, enough_done: int) -> Iterator[tuple[int, Generated]]:
        """Runs until that many lanes are done or one is full; returns the results, whose lanes are then free."""
        is_greedy, enough = self.decoding.method == "greedy", self._put(np.int32(enough_done))
        self.lanes = now = lanes.run(self.config, is_greedy, self.params, self.lanes, self.limits, enough)
        is_done = np.asarray(now.is_done)
        done = [lane for lane in self.occupied() if is_done[lane]]
        columns = (now.tokens, now.log_probabilities, now.lengths, now.log_probability)
        best = (now.best_score, now.best_length, now.best_end_log_probability)
        rows = zip(*(np.asarray(column)[done] for column in (*columns, *best)), strict=True)
        for lane, row in zip(done, rows, strict=True):
            index, self.segments[lane] = self.segments[lane], None
            assert index is not None
            yield index, self.rules.as_chosen(self.decoding, self._generated(*row))

    def _generated(
        self,
        tokens: np.ndarray,
        log_probabilities: np.ndarray,
        length: int,
        log_probability: float,
        best_score: float,
        best_length: int,
        best_end_log_probability: float,
    ) -> Generated:
        if best_length > 0:
            kept = tokens[:best_length].astype(np.int32), log_probabilities[:best_length].copy()
            kept[0][-1], kept[1][-1] = END_TOKEN, best_end_log_probability
            return Generated(kept[0], float(best_score), kept[1])
        penalty = brevity_penalty(self.decoding.length_penalty, int(length))
        return Generated(
            tokens[:length].astype(np.int32), float(log_probability / penalty), log_probabilities[:length].copy()
        )

    def _grammar(self, steps: list[int], rows: int) -> GrammarState | None:
        """The grammar's state before the first token of segments with these last steps, and of rows without one."""
        if not self.decoding.grammar:
            return None
        limits = [*steps, *[0] * (rows - len(steps))]
        return self._put(self.rules.start_all(limits, self.decoding))

    def _put(self, values: Any) -> Any:
        return jax.tree.map(lambda value: jax.device_put(jnp.asarray(value), self.device), values)
