"""Attention of the decoder to the tokens of each segment, which are all at positions of their own.

Keys and values are apart, since PyTorch multiplies rows with gaps between them half as fast.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mt3core.config.model import NetworkConfig


class TokenCache(NamedTuple):
    """One layer's keys and values; there may be an axis of beams after that of lanes."""

    keys: Float[Tensor, "lanes *beams heads positions head_dim"]
    values: Float[Tensor, "lanes *beams heads positions head_dim"]


def by_layers(keys_and_values: Sequence[Tensor]) -> list[TokenCache]:
    """Of the keys and the values of the first layer, of the second, and so on."""
    return list(itertools.starmap(TokenCache, zip(keys_and_values[::2], keys_and_values[1::2], strict=True)))


@dataclass(frozen=True)
class Group:
    """Sequences that attend to equally many positions, `length`."""

    sequences: slice
    length: int
    mask: Float[Tensor, "rows queries length"]  # added to the weights' logarithms: hides later tokens


@dataclass(frozen=True)
class Places:
    """The positions of a step's tokens, the same for all layers."""

    cache_rows: Int[Tensor, " entries"]
    groups: list[Group]
    num_sequences: int

    @classmethod
    def of(
        cls,
        place: Int[Tensor, "sequences width"],
        network: NetworkConfig,
        capacity: int,
        alike: list[tuple[slice, int]],
    ) -> Places:
        """For tokens at `place` in their sequences; `alike` are slices of these, and how many tokens each has read."""
        heads, device = network.num_heads, place.device
        # In a cache viewed as a table of keys of single heads, or of values.
        first = torch.arange(len(place) * heads, device=device).view(len(place), 1, heads) * capacity
        groups = []
        for sequences, length in alike:
            mine = place[sequences]
            hidden = torch.arange(length, device=device) > mine[:, None, :, None]
            # In float32, whatever the caller's default is: zeros and minus infinities, (rows, width, positions).
            zeros = torch.zeros((len(mine), 1, mine.shape[1], length), dtype=torch.float32, device=device)
            mask = zeros.masked_fill_(hidden, -torch.inf).expand(-1, heads, -1, -1).flatten(0, 1)
            groups.append(Group(sequences, length, mask))
        return cls((first + place[:, :, None]).flatten(), groups, len(place))


def attend_to_tokens(
    joined: Float[Tensor, "rows heads_times_three_times_head_dim"],
    cache: TokenCache,
    places: Places,
    network: NetworkConfig,
) -> Float[Tensor, "rows joined"]:
    """Puts the new tokens' keys and values into the cache, and gives the mean values of all heads, joined.

    `joined` has the query, the key and the value of each head, one head after the other.
    """
    num_heads, head_dim, num_sequences = network.num_heads, network.head_dim, places.num_sequences
    capacity = cache.keys.shape[-2]
    by_heads = joined.view(-1, 3, head_dim)
    tables = [one.view(-1, head_dim) for one in cache]
    for which, table in enumerate(tables, 1):
        table.index_copy_(0, places.cache_rows, by_heads[:, which])
    keys, values = (one.view(-1, capacity, head_dim) for one in tables)
    query = by_heads[:, 0].view(num_sequences, -1, num_heads, head_dim).transpose(1, 2)
    query = query.reshape(num_sequences * num_heads, -1, head_dim)
    attended = []
    for group in places.groups:
        rows = slice(group.sequences.start * num_heads, group.sequences.stop * num_heads)
        read = keys[rows, : group.length]
        scores = torch.baddbmm(group.mask, query[rows], read.transpose(1, 2))
        attended.append(torch.bmm(scores.softmax(dim=-1), values[rows, : group.length]))
    both = attended[0] if len(attended) == 1 else torch.cat(attended)
    return both.view(num_sequences, num_heads, -1, head_dim).transpose(1, 2).reshape(-1, num_heads * head_dim)
