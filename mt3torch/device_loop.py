"""How segments are decoded beside an accelerator: how often the host looks, and how many segments at a time.

None of it changes a token. The same loop runs on a CPU, slower than the one made for it, so that tests can run it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mt3core.config.model import NetworkConfig
from mt3decode.grammar import INHERITED
from mt3decode.stretches import MOST_GIVEN
from mt3torch.device_lanes import Buckets

# Segments encoded together, at least, and as a part of the lanes: so many become free between two looks if segments
# have 64 tokens, which is less than most have.
LEAST_BATCH = 64
LANES_PER_BATCH = 8
# Numbers of lanes to choose from, and the share of the memory that is free which they may take.
LANES = (1024, 512, 256, 128, 64, 32, 16, 8)
MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class DeviceLoop:
    """Settings of `DeviceWorker`.

    The host looks at what is done after every `look_every` steps; a segment that ends in between waits, one step in
    `look_every` of them on average half. With `has_graphs` steps are captured on CUDA, with `makes_log_mels` the
    log-mel is made on the device. `lane_buckets` and `length_buckets` are rounded up to, besides the greatest.
    """

    look_every: int = 8
    has_graphs: bool = True
    makes_log_mels: bool = True
    lane_buckets: tuple[int, ...] = (64, 128, 256, 512, 1024)
    length_buckets: tuple[int, ...] = (128, 256, 512)

    @classmethod
    def of(cls, device: torch.device) -> DeviceLoop | None:
        """The default of a device; none on a CPU. Without a Mac to try it on, log-mels are not made on MPS."""
        if device.type == "cpu":
            return None
        return cls() if device.type == "cuda" else cls(has_graphs=False, makes_log_mels=False)

    def buckets(self, num_lanes: int, max_tokens: int) -> Buckets:
        lanes, lengths = (
            (*(one for one in ones if one < greatest), greatest)
            for ones, greatest in ((self.lane_buckets, num_lanes), (self.length_buckets, max_tokens))
        )
        return Buckets(lanes, lengths)


def device_batch(num_lanes: int) -> int:
    """How many segments are encoded together beside an accelerator."""
    return min(num_lanes, max(LEAST_BATCH, num_lanes // LANES_PER_BATCH))


def lanes_that_fit(network: NetworkConfig, max_tokens: int, free_bytes: int, is_folded: bool = True) -> int:
    """As many lanes as fit into half of the memory that is free, of `LANES`; the least if none do."""
    most = MEMORY_SHARE * free_bytes
    return next((lanes for lanes in LANES if lanes * bytes_of_lane(network, max_tokens, is_folded) <= most), LANES[-1])


def bytes_of_lane(network: NetworkConfig, max_tokens: int, is_folded: bool = True) -> int:
    """Memory of a lane: keys and values of tokens and frames in float32, what the search and the grammar keep of it,
    and its share of a step and of a batch in the encoder."""
    joined = network.num_heads * network.head_dim
    tokens = network.num_decoder_layers * max_tokens * 2 * joined * 4
    frames = network.emb_dim if is_folded else network.num_decoder_layers * 2 * joined
    search = 12 * (max_tokens + 1) + 8 * MOST_GIVEN + (INHERITED + 1) * INHERITED
    step = 4 * (4 * network.vocab_size + network.num_heads * (max_tokens + network.input_frames))
    widest = max(3 * joined, 2 * len(network.mlp_activations) * network.mlp_dim)
    encoder = 4 * network.input_frames * (widest + 4 * network.emb_dim) // LANES_PER_BATCH
    return tokens + 4 * network.input_frames * frames + search + step + encoder


def free_memory(device: torch.device) -> int:
    """Bytes that a CUDA device has left, with those that PyTorch holds without using them."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
