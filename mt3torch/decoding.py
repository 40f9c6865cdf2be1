"""From log-mel segments to tokens, in lanes: a finished segment immediately makes room for the next.

Segments need very different numbers of tokens (tens to a thousand). Decoding them in fixed batches would
wait for the longest each time; here every lane has its own position, and the batch stays full until no
segment is left. Memory depends on the number of lanes only.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mt3core.decoding import Decoding, Generated
from mt3core.grammar import steps_of
from mt3torch.beam import BeamSearch
from mt3torch.legal import LegalTokens
from mt3torch.model import Transformer
from mt3torch.search import Search, SingleSearch
from mt3torch.stepper import Lanes, Stepper

# Segments encoded together: enough to keep the processor busy, few enough to be modest in memory.
ENCODER_BATCH = 8
# Default number of lanes, by kind of device.
DEFAULT_LANES = {"cpu": 32}
DEFAULT_LANES_ON_ACCELERATORS = 64


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
    log_mels: Iterable[Float[np.ndarray, "frames mel"]],
    decoding: Decoding = Decoding(),
    batch_size: int | None = None,
    last_steps: Sequence[int] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """Decodes a stream of segments, `batch_size` of them at a time.

    Args:
        model: the network, or a `Stepper` if several streams share its preparation.
        log_mels: all of one shape; read as late as possible.
        decoding: method and options. There are never more tokens than the network has positions.
        batch_size: segments decoded at the same time; by default chosen by device, with fewer lanes for more beams.
        last_steps: for the grammar, each segment's last step (`grammar.last_steps`); by default a whole segment's.

    Yields:
        (number of the segment in the stream, its tokens), in the order in which they finish.
    """
    stepper = model if isinstance(model, Stepper) else Stepper(model)
    decoding = replace(decoding, max_tokens=min(decoding.max_tokens, stepper.network.max_positions))
    num_lanes = batch_size or default_batch_size(stepper.device, decoding.num_beams)
    encoded = _encode(stepper, log_mels, min(num_lanes, ENCODER_BATCH))
    config = stepper.model.config
    legal = LegalTokens(config, decoding, stepper.device) if decoding.grammar else None
    search: Search = (BeamSearch if decoding.method == "beam" else SingleSearch)(decoding, num_lanes, legal)
    numbers: list[int] = []  # the segment in each lane
    next_number = itertools.count()
    lanes: Lanes | None = None
    while True:
        waiting = list(itertools.islice(encoded, num_lanes - search.count))
        if waiting:
            batch = torch.stack(waiting)
            if lanes is None:
                lanes = Lanes(stepper, num_lanes, decoding.num_beams, batch.shape[1], decoding.max_tokens)
            lanes.add(batch)
            new = list(itertools.islice(next_number, len(waiting)))
            search.start(steps_of(new, last_steps, config))
            numbers.extend(new)
        if lanes is None or search.count == 0:
            return
        done = search.step(lanes)
        for lane in np.flatnonzero(done):
            yield numbers[lane], search.result(int(lane))
        if done.any():
            kept = lanes.free(done)
            search.free(kept)
            numbers = [numbers[lane] for lane in kept]


def default_batch_size(device: torch.device, num_beams: int = 1) -> int:
    """The number of lanes that suits a device."""
    return max(1, DEFAULT_LANES.get(device.type, DEFAULT_LANES_ON_ACCELERATORS) // num_beams)


def _encode(
    stepper: Stepper, log_mels: Iterable[Float[np.ndarray, "frames mel"]], batch_size: int
) -> Iterator[Float[Tensor, "frames emb"]]:
    """Encodes in batches; the next batch only when the last one is used up."""
    segments = iter(log_mels)
    while batch := list(itertools.islice(segments, batch_size)):
        rows = deque(stepper.encode(np.stack(batch)))
        while rows:
            yield rows.popleft()
