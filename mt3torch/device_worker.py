"""Lanes beside an accelerator: `LaneWorker`'s work with few looks from the host.

The host starts several steps at a time, then looks which segments are done, closes the gaps that they leave, and starts
others. It knows how many tokens every lane has read, because all read one a step, so it can choose a step's shape
without asking. Segments are encoded in a stream of their own while the lanes are stepped, and the host prepares them
while the device is busy with the steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mt3core.decoding import Decoding, Generated
from mt3decode.grammar import Grammar
from mt3decode.stretches import Start
from mt3torch.device_lanes import DeviceLanes, Shape
from mt3torch.device_loop import DeviceLoop, device_batch
from mt3torch.device_search import DeviceSearch
from mt3torch.graphs import Graphs
from mt3torch.log_mel import LogMel
from mt3torch.side_stream import Mark, SideStream
from mt3torch.stepper import Stepper

_NOTHING = np.zeros((0, 0), np.float32)


class _Encoded(NamedTuple):
    tag: Hashable
    start: Start
    last_step: int
    row: Float[Tensor, "frames emb"]
    mark: Mark  # after which `row` is there


class DeviceWorker:
    """For greedy and `t5x`. Lanes are made when they are needed, up to `num_lanes`, and then kept."""

    def __init__(self, stepper: Stepper, decoding: Decoding, num_lanes: int, loop: DeviceLoop) -> None:
        max_tokens = min(decoding.max_tokens, stepper.network.max_positions)
        self.stepper, self.num_lanes, self.loop = stepper, num_lanes, loop
        self.decoding = replace(decoding, max_tokens=max_tokens)
        self._buckets = loop.buckets(num_lanes, max_tokens)
        self._batch = device_batch(num_lanes)
        self._grammar = Grammar.of(stepper.model.config)
        self._side = SideStream(stepper.device)
        self._log_mel = LogMel(stepper.model.config, stepper.device)
        self._graphs = Graphs.on(stepper.device, loop.has_graphs)
        self._given: list[tuple[Hashable, Start, int]] = []  # to be encoded
        self._encoded: deque[_Encoded] = deque()
        # Of each occupied lane: the tag and the number of its segment, and how many tokens it has read if not done.
        self._tags: list[tuple[Hashable, int]] = []
        self._lengths = np.zeros(0, np.int64)
        self._lanes: DeviceLanes | None = None
        self._search: DeviceSearch | None = None

    @property
    def num_wanted(self) -> int:
        """How many segments are encoded together now: a batch, unless one is ahead and enough for the lanes are."""
        num_ahead = len(self._given) + len(self._encoded)
        return self._batch if num_ahead < max(self._batch, self.num_lanes - len(self._tags)) else 0

    @property
    def is_idle(self) -> bool:
        return not (self._tags or self._given or self._encoded)

    def encode(self, starts: Sequence[tuple[Hashable, Start]], last_steps: Sequence[int]) -> None:
        """Takes segments. They are encoded, all together, with the next step, and started when there are lanes."""
        self._given += [(tag, start, last_step) for (tag, start), last_step in zip(starts, last_steps, strict=True)]

    def step(self) -> list[tuple[Any, int, Generated]]:
        """Some more tokens in every lane; the segments that are finished with them."""
        if not self._tags and not self._encoded:
            self._encode_given()
        self._fill()
        count, search = len(self._tags), self._search
        if not count or search is None:
            return []
        num_steps = self.loop.look_every
        num_long = int(np.flatnonzero(self._is_long()).max(initial=-1)) + 1
        shape = self._buckets.shape(count, num_long, int(self._lengths.max()) + num_steps)
        for _ in range(num_steps):
            self._graphs.run(shape, lambda: self._one_step(shape))
        self._lengths += num_steps
        self._encode_given()
        is_active = search.is_active(count)
        done = np.flatnonzero(~is_active)
        finished = [
            (*self._tags[lane], self._grammar.as_chosen(self.decoding, one))
            for lane, one in zip(done.tolist(), search.results(done) if len(done) else [], strict=True)
        ]
        self._keep(is_active)
        return finished

    def drop(self, tag: Hashable) -> None:
        """Forgets all segments of a tag."""
        self._given = [one for one in self._given if one[0] != tag]
        self._encoded = deque(one for one in self._encoded if one.tag != tag)
        self._keep(np.array([one != tag for one, _ in self._tags], bool))

    def _encode_given(self) -> None:
        if not self._given:
            return
        given, self._given = self._given, []
        with self._side.entered():
            rows = self.stepper.encode(self._log_mel([start.log_mel for _, start, _ in given]))
            mark = self._side.mark()
        for (tag, start, last_step), row in zip(given, rows, strict=True):
            self._encoded.append(_Encoded(tag, replace(start, log_mel=_NOTHING), last_step, row, mark))

    def _one_step(self, shape: Shape) -> None:
        lanes, search = self._lanes, self._search
        assert lanes is not None
        assert search is not None
        tokens, positions = search.next(shape.num_lanes)
        search.advance(lanes.step(tokens, positions, shape))

    def _is_long(self) -> Bool[np.ndarray, " lanes"]:
        """Which lanes will be long after the next steps."""
        return self._buckets.is_long(self._lengths + self.loop.look_every)

    def _fill(self) -> None:
        """Starts encoded segments, and waits for the encoder only if there is nothing else to do."""
        new: list[_Encoded] = []
        first = len(self._tags)
        while self._encoded and first + len(new) < self.num_lanes:
            mark = self._encoded[0].mark
            if not mark.is_reached and (first or (new and mark is not new[-1].mark)):
                break
            new.append(self._encoded.popleft())
        if not new:
            return
        self._reserve(first + len(new), len(new[0].row))
        assert self._lanes is not None
        assert self._search is not None
        for mark in {id(one.mark): one.mark for one in new}.values():
            mark.wait([one.row for one in new if one.mark is mark])
        self._lanes.fill(first, torch.stack([one.row for one in new]))
        self._search.start(first, [one.last_step for one in new], [one.start for one in new])
        self._tags += [(one.tag, one.start.number) for one in new]
        self._lengths = np.concatenate([self._lengths, np.zeros(len(new), np.int64)])

    def _reserve(self, count: int, num_frames: int) -> None:
        wanted = self._buckets.num_lanes(count)
        if self._lanes is None or self._search is None:
            self._lanes = DeviceLanes(self.stepper, wanted, num_frames, self.decoding.max_tokens)
            self._search = DeviceSearch(self.decoding, self._grammar, wanted, self.stepper.device)
        elif wanted > self._lanes.num_lanes:
            self._graphs.forget()
            self._lanes.grow(wanted)
            self._search.grow(wanted)

    def _keep(self, is_kept: Bool[np.ndarray, " lanes"]) -> None:
        """Frees the other lanes, and closes the gaps, the long ones first."""
        if self._lanes is None or self._search is None:
            return
        is_long = self._is_long()
        order = closed(is_kept, is_long)
        targets = np.flatnonzero(order != np.arange(len(order)))
        if len(targets):
            sources, length = order[targets], int(self._lengths[order[targets]].max())
            places = torch.from_numpy(np.stack([sources, targets])).to(self.stepper.device)
            self._lanes.move(places[0], places[1], self._buckets.length(length))
            self._search.move(places[0], places[1])
        if not is_kept.all():
            self._search.end(len(order))
        self._tags = [self._tags[lane] for lane in order]
        self._lengths = self._lengths[order]


def closed(is_kept: Bool[np.ndarray, " lanes"], is_long: Bool[np.ndarray, " lanes"]) -> Int[np.ndarray, " kept"]:
    """Which lane comes to each place if only some are kept, the long ones first. As many as can stay where they are."""
    kept = np.flatnonzero(is_kept)
    num_long = int(is_long[kept].sum())
    order = np.full(len(kept), -1)
    for start, stop, wanted in ((0, num_long, True), (num_long, len(kept), False)):
        mine = kept[is_long[kept] == wanted]
        stays = mine[(mine >= start) & (mine < stop)]
        order[stays] = stays
        order[start + np.flatnonzero(order[start:stop] < 0)] = np.setdiff1d(mine, stays)
    return order
