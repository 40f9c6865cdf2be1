"""From log-mel segments to tokens, in lanes: a finished segment immediately makes room for the next.

Segments need very different numbers of tokens (tens to a thousand). Decoding them in fixed batches would
wait for the longest each time; here every lane has its own position, and the batch stays full until no
segment is left. Memory depends on the number of lanes only.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mt3core.config.model import NetworkConfig
from mt3core.decoding import Decoding, Generated
from mt3decode.grammar import Grammar, steps_of
from mt3decode.stretches import LogMels, Start, Stretches
from mt3torch.beam import BeamSearch
from mt3torch.device_loop import DeviceLoop, device_batch, free_memory, lanes_that_fit
from mt3torch.device_worker import DeviceWorker
from mt3torch.legal import LegalTokens
from mt3torch.log_mel import LogMel
from mt3torch.model import Transformer
from mt3torch.search import Search, SingleSearch
from mt3torch.stepper import Lanes, Stepper

# Segments encoded together: enough to keep the processor busy, few enough to be modest in memory.
ENCODER_BATCH = 8
ENCODER_FRAMES = 1024
_NOTHING = np.zeros((0, 0), np.float32)
# Default number of lanes. A step of a narrow network is so short that it takes many to fill a processor.
LANES_ON_CPU = 32
LANES_OF_NARROW_NETWORKS = 128
NARROW_WIDTH = 256
LANES_ON_ACCELERATORS = 64


def generate(
    model: Transformer, log_mel: Float[np.ndarray | Tensor, "batch frames mel"], decoding: Decoding = Decoding()
) -> list[Generated]:
    """The tokens of each segment, in order."""
    segments = log_mel.numpy(force=True) if isinstance(log_mel, Tensor) else np.asarray(log_mel)
    results = dict(generate_stream(model, segments, decoding))
    return [results[index] for index in range(len(results))]


@torch.inference_mode()
def generate_stream(
    model: Transformer | Stepper,
    log_mels: LogMels,
    decoding: Decoding = Decoding(),
    batch_size: int | None = None,
    last_steps: Sequence[int] | None = None,
    loop: DeviceLoop | None = None,
) -> Iterator[tuple[int, Generated]]:
    """Decodes a stream of segments, `batch_size` of them at a time.

    Args:
        model: the network, or a `Stepper` if several streams share its preparation.
        log_mels: all of one shape, or samples (`log_mel.LogMel`); read as late as possible. `Stretches` for segments
            that need those before them.
        decoding: method and options. There are never more tokens than the network has positions.
        batch_size: segments decoded at the same time; by default chosen by device, with fewer lanes for more beams.
        last_steps: for the grammar, each segment's last step (`grammar.last_steps`); by default a whole segment's.
        loop: how an accelerator is used (`device_loop.py`); by default what suits the device.

    Yields:
        (number of the segment in the stream, its tokens), in the order in which they finish.
    """
    stepper = model if isinstance(model, Stepper) else Stepper(model)
    num_lanes = batch_size or default_batch_size(stepper, decoding)
    worker = lane_worker(stepper, decoding, num_lanes, loop or DeviceLoop.of(stepper.device))
    waiting = log_mels if isinstance(log_mels, Stretches) else _InOrder(log_mels)
    while True:
        if worker.num_wanted:
            starts = waiting.take(worker.num_wanted)
            worker.encode(
                [(None, start) for start in starts],
                steps_of([one.number for one in starts], last_steps, stepper.model.config),
            )
        if worker.is_idle:
            return
        for _, number, generated in worker.step():
            if isinstance(waiting, Stretches):
                waiting.give(number, generated.tokens)
            yield number, generated


class LaneWorker:
    """Lanes that are filled, stepped and emptied: encoded segments wait, a free lane takes the next of them.

    Every segment has a `tag`, which comes back with its result. At most one batch is encoded between two steps.
    """

    def __init__(self, stepper: Stepper, decoding: Decoding, num_lanes: int) -> None:
        decoding = replace(decoding, max_tokens=min(decoding.max_tokens, stepper.network.max_positions))
        self.stepper, self.decoding, self.num_lanes = stepper, decoding, num_lanes
        self._batch = min(num_lanes, encoder_batch(stepper.network))
        self._grammar = Grammar.of(stepper.model.config)
        legal = LegalTokens.of(self._grammar, decoding, stepper.device) if decoding.grammar else None
        self._search: Search = (BeamSearch if decoding.method == "beam" else SingleSearch)(decoding, num_lanes, legal)
        self._log_mel = LogMel(stepper.model.config, stepper.device)
        self._tags: list[tuple[Hashable, int]] = []  # in each lane, the tag and the number of its segment
        self._encoded: deque[tuple[Hashable, Start, int, Tensor]] = deque()
        self._lanes: Lanes | None = None

    @property
    def num_free(self) -> int:
        return self.num_lanes - self._search.count

    @property
    def num_wanted(self) -> int:
        """How many segments are encoded together now; none as long as there are encoded ones, or no free lanes."""
        return self._batch if self.num_free and not self._encoded else 0

    @property
    def is_idle(self) -> bool:
        return self._search.count == 0 and not self._encoded

    def encode(self, starts: Sequence[tuple[Hashable, Start]], last_steps: Sequence[int]) -> None:
        """Encodes segments, all together; they are started when there are lanes for them."""
        if starts:
            rows = self.stepper.encode(self._log_mel([start.log_mel for _, start in starts]))
            for (tag, start), last_step, row in zip(starts, last_steps, rows, strict=True):
                self._encoded.append((tag, replace(start, log_mel=_NOTHING), last_step, row))

    def step(self) -> list[tuple[Any, int, Generated]]:
        """One more token in every lane, or several; the segments that are finished with it."""
        self._fill()
        if self._lanes is None or self._search.count == 0:
            return []
        done = self._search.step(self._lanes)
        finished = [
            (*self._tags[lane], self._grammar.as_chosen(self.decoding, self._search.result(int(lane))))
            for lane in np.flatnonzero(done)
        ]
        self._free(done)
        return finished

    def drop(self, tag: Hashable) -> None:
        """Forgets all segments of a tag."""
        self._encoded = deque(one for one in self._encoded if one[0] != tag)
        self._free(np.array([one == tag for one, _ in self._tags], bool))

    def _fill(self) -> None:
        count = min(self.num_free, len(self._encoded))
        if count == 0:
            return
        new = [self._encoded.popleft() for _ in range(count)]
        rows = torch.stack([row for *_, row in new])
        if self._lanes is None:
            self._lanes = Lanes(
                self.stepper, self.num_lanes, self.decoding.num_beams, rows.shape[1], self.decoding.max_tokens
            )
        self._lanes.add(rows)
        self._search.start([last_step for _, _, last_step, _ in new], [start for _, start, _, _ in new])
        self._tags += [(tag, start.number) for tag, start, _, _ in new]

    def _free(self, done: Bool[np.ndarray, " lanes"]) -> None:
        if self._lanes is not None and done.any():
            kept = self._lanes.free(done)
            self._search.free(kept)
            self._tags = [self._tags[lane] for lane in kept]


Worker = LaneWorker | DeviceWorker


def lane_worker(stepper: Stepper, decoding: Decoding, num_lanes: int, loop: DeviceLoop | None) -> Worker:
    """The kind of worker that suits a method and a device. Beams are sorted on the host."""
    if loop is None or decoding.method == "beam":
        return LaneWorker(stepper, decoding, num_lanes)
    return DeviceWorker(stepper, decoding, num_lanes, loop)


def default_batch_size(stepper: Stepper, decoding: Decoding, num_workers: int = 1) -> int:
    """The number of lanes of each worker that suits a device and a network; on CUDA also the memory that is left."""
    device, network = stepper.device, stepper.network
    if device.type == "cuda" and decoding.method != "beam":
        free_bytes = free_memory(device) // num_workers
        max_tokens = min(decoding.max_tokens, network.max_positions)
        return lanes_that_fit(network, max_tokens, free_bytes, stepper.is_folded)
    lanes = LANES_ON_CPU if device.type == "cpu" else LANES_ON_ACCELERATORS
    if network.emb_dim <= NARROW_WIDTH:
        lanes = max(lanes, LANES_OF_NARROW_NETWORKS)
    return max(1, lanes // decoding.num_beams)


def encoder_batch(network: NetworkConfig, num_lanes: int = 0, loop: DeviceLoop | None = None) -> int:
    """How many segments are encoded together: `ENCODER_BATCH`, or more if they have few frames or there is a `loop`."""
    if loop is not None:
        return device_batch(num_lanes)
    return max(ENCODER_BATCH, ENCODER_FRAMES // network.input_frames)


class _InOrder:
    """Segments that need no others, with the methods of `Stretches`."""

    def __init__(self, log_mels: Iterable[np.ndarray]) -> None:
        self._starts = itertools.starmap(Start, enumerate(log_mels))

    def take(self, most: int) -> list[Start]:
        return list(itertools.islice(self._starts, most))
