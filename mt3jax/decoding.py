"""From log-mel segments to tokens: the host's side, which keeps the lanes on the device busy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from mt3core.decoding import END_TOKEN, Decoding, Generated, brevity_penalty
from mt3jax import lanes as device
from mt3jax.beam import beam_search_stream
from mt3jax.model import Transformer

DEFAULT_BATCH_SIZE = 16
# Lanes are filled in groups of a quarter of the batch: the encoder runs for a whole group at once, and the
# loop on the device is left only when a group has come free.
GROUPS = 4


def generate(
    model: Transformer, log_mel: Float[np.ndarray, "batch frames mel"], decoding: Decoding | None = None
) -> list[Generated]:
    """The tokens of each segment, in order."""
    decoding = decoding or Decoding()
    by_index = dict(generate_stream(model, np.asarray(log_mel), decoding, DEFAULT_BATCH_SIZE))
    return [by_index[index] for index in range(len(by_index))]


def generate_stream(
    model: Transformer,
    log_mels: Iterable[Float[np.ndarray, "frames mel"]],
    decoding: Decoding,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> Iterator[tuple[int, Generated]]:
    """Yields (number of the segment, its tokens) in any order, reading `log_mels` only as fast as needed.

    What comes from a segment does not depend on the others. Memory depends on `batch_size`, not on the number
    of segments; nor do compiled shapes, for lanes without a segment are there and idle.
    """
    if decoding.method == "beam" and decoding.num_beams > 1:
        return beam_search_stream(model, log_mels, decoding, batch_size)
    return _Lanes(model, decoding, batch_size).stream(log_mels)


class _Lanes:
    """The lanes on the device and the numbers of the segments in them."""

    def __init__(self, model: Transformer, decoding: Decoding, batch_size: int) -> None:
        self.params = nnx.state(model)
        self.device = jax.tree.leaves(self.params)[0].device
        self.config = model.config
        self.decoding = decoding
        self.group = max(1, batch_size // GROUPS)
        self.segments: list[int | None] = [None] * batch_size
        self.lanes = device.new_lanes((self.config, batch_size, device.MIN_POSITIONS), self.params)
        self.limits = self._put(device.limits_of(decoding, self.config))

    def stream(self, log_mels: Iterable[np.ndarray]) -> Iterator[tuple[int, Generated]]:
        waiting = enumerate(log_mels)
        group = self._next_group(waiting)
        while group or self._occupied():
            while group and len(self._free()) >= len(group):
                self._admit(group)
                group = self._next_group(waiting)
            # With none waiting there is no reason to stop before all are done.
            self._run(enough_done=len(group) or len(self.segments))
            yield from self._collect()

    def _next_group(self, waiting: Iterator[tuple[int, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
        return list(itertools.islice(waiting, self.group))

    def _free(self) -> list[int]:
        return [lane for lane, segment in enumerate(self.segments) if segment is None]

    def _occupied(self) -> list[int]:
        return [lane for lane, segment in enumerate(self.segments) if segment is not None]

    def _admit(self, group: list[tuple[int, np.ndarray]]) -> None:
        network = self.config.network
        log_mel = np.zeros((self.group, network.input_frames, network.input_bands), np.float32)
        places = np.full(self.group, len(self.segments), np.int32)
        for row, (lane, (index, segment)) in enumerate(zip(self._free(), group, strict=False)):
            log_mel[row], places[row] = segment, lane
            self.segments[lane] = index
        self.lanes = device.admit(self.config, self.params, self.lanes, self._put(log_mel), self._put(places))

    def _run(self, enough_done: int) -> None:
        used = int(np.max(np.asarray(self.lanes.lengths)[self._occupied()]))
        wanted = device.positions_for(used)
        if wanted != self.lanes.num_positions:
            self.lanes = device.resize(wanted, self.lanes)
        static = (self.config, self.decoding.method == "greedy")
        self.lanes = device.run(static, self.params, self.lanes, self.limits, self._put(np.int32(enough_done)))

    def _collect(self) -> Iterator[tuple[int, Generated]]:
        """The results of the lanes that are done, which are free from then on."""
        lanes = self.lanes
        is_done = np.asarray(lanes.is_done)
        done = [lane for lane in self._occupied() if is_done[lane]]
        if not done:
            return
        small = (lanes.tokens, lanes.lengths, lanes.log_probability, lanes.best_score, lanes.best_length)
        for row in zip(
            *(np.asarray(array)[done] for array in small), [self.segments[lane] for lane in done], strict=True
        ):
            *values, index = row
            yield index, self._generated(*values)
        for lane in done:
            self.segments[lane] = None

    def _generated(
        self, tokens: np.ndarray, length: int, log_probability: float, best_score: float, best_length: int
    ) -> Generated:
        if best_length > 0:
            return Generated(np.append(tokens[: best_length - 1], END_TOKEN).astype(np.int32), float(best_score))
        penalty = brevity_penalty(self.decoding.length_penalty, int(length))
        return Generated(tokens[:length].astype(np.int32), float(log_probability / penalty))

    def _put(self, values: Any) -> Any:
        return jax.tree.map(lambda value: jax.device_put(jnp.asarray(value), self.device), values)
