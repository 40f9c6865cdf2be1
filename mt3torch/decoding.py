"""From log-mel segments to tokens, in lanes: a finished segment immediately makes room for the next.

Segments need very different numbers of tokens (tens to a thousand). Decoding them in fixed batches would
wait for the longest each time; here every lane has its own position, and the batch stays full until no
segment is left. Memory depends on the number of lanes only.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mt3core.config.model import NetworkConfig
from mt3core.decoding import Decoding, Generated
from mt3decode.grammar import steps_of
from mt3decode.stretches import LogMels, Start, Stretches
from mt3torch.beam import BeamSearch
from mt3torch.legal import LegalTokens
from mt3torch.model import Transformer
from mt3torch.search import Search, SingleSearch
from mt3torch.stepper import Lanes, Stepper

# Segments encoded together: enough to keep the processor busy, few enough to be modest in memory.
ENCODER_BATCH = 8
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
) -> Iterator[tuple[int, Generated]]:
    """Decodes a stream of segments, `batch_size` of them at a time.

    Args:
        model: the network, or a `Stepper` if several streams share its preparation.
        log_mels: all of one shape; read as late as possible. `Stretches` for segments that need those before them.
        decoding: method and options. There are never more tokens than the network has positions.
        batch_size: segments decoded at the same time; by default chosen by device, with fewer lanes for more beams.
        last_steps: for the grammar, each segment's last step (`grammar.last_steps`); by default a whole segment's.

    Yields:
        (number of the segment in the stream, its tokens), in the order in which they finish.
    """
    stepper = model if isinstance(model, Stepper) else Stepper(model)
    decoding = replace(decoding, max_tokens=min(decoding.max_tokens, stepper.network.max_positions))
    num_lanes = batch_size or default_batch_size(stepper.device, decoding.num_beams, stepper.network)
    take = _source(stepper, log_mels, min(num_lanes, ENCODER_BATCH))
    config = stepper.model.config
    legal = LegalTokens(config, decoding, stepper.device) if decoding.grammar else None
    search: Search = (BeamSearch if decoding.method == "beam" else SingleSearch)(decoding, num_lanes, legal)
    numbers: list[int] = []  # the segment in each lane
    lanes: Lanes | None = None
    while True:
        starts, waiting = take(num_lanes - search.count)
        if waiting:
            batch = torch.stack(waiting)
            if lanes is None:
                lanes = Lanes(stepper, num_lanes, decoding.num_beams, batch.shape[1], decoding.max_tokens)
            lanes.add(batch)
            new = [start.number for start in starts]
            search.start(steps_of(new, last_steps, config), starts)
            numbers.extend(new)
        if lanes is None or search.count == 0:
            return
        done = search.step(lanes)
        for lane in np.flatnonzero(done):
            generated = search.result(int(lane))
            if isinstance(log_mels, Stretches):
                log_mels.give(numbers[lane], generated.tokens)
            yield numbers[lane], generated
        if done.any():
            kept = lanes.free(done)
            search.free(kept)
            numbers = [numbers[lane] for lane in kept]


def default_batch_size(device: torch.device, num_beams: int, network: NetworkConfig) -> int:
    """The number of lanes that suits a device and a network."""
    lanes = LANES_ON_CPU if device.type == "cpu" else LANES_ON_ACCELERATORS
    if network.emb_dim <= NARROW_WIDTH:
        lanes = max(lanes, LANES_OF_NARROW_NETWORKS)
    return max(1, lanes // num_beams)


def _source(
    stepper: Stepper, log_mels: LogMels, batch_size: int
) -> Callable[[int], tuple[list[Start], list[Float[Tensor, "frames emb"]]]]:
    """What gives up to a number of segments that can be started, encoded."""
    if isinstance(log_mels, Stretches):
        stretches = log_mels
        return lambda most: _apart(_encode(stepper, stretches.take(most), batch_size))
    segments = _encode(stepper, itertools.starmap(Start, enumerate(log_mels)), batch_size)
    return lambda most: _apart(itertools.islice(segments, most))


def _apart(pairs: Iterable[tuple[Start, Tensor]]) -> tuple[list[Start], list[Tensor]]:
    both = list(pairs)
    return [start for start, _ in both], [encoded for _, encoded in both]


def _encode(stepper: Stepper, starts: Iterable[Start], batch_size: int) -> Iterator[tuple[Start, Tensor]]:
    """Encodes in batches; the next batch only when the last one is used up."""
    segments = iter(starts)
    while batch := list(itertools.islice(segments, batch_size)):
        rows = deque(stepper.encode(np.stack([start.log_mel for start in batch])))
        for start in batch:
            yield start, rows.popleft()
