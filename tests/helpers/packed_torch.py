"""The PyTorch network over packed rows, as training in JAX reads them, so that gradients can be compared.

PyTorch's own users need no packing: this is `mt3jax/packing.py` and `decode_packed` once more, without dropout.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mt3torch.model import Dropout, MultiHeadAttention, Transformer


@dataclasses.dataclass(frozen=True)
class Packing:
    """The decoder rows of a batch; arrays as `mt3jax.row_packing` describes them."""

    segments: Int[Tensor, "rows tokens"]
    positions: Int[Tensor, "rows tokens"]
    block_examples: Int[Tensor, "rows blocks"]
    tile_examples: Int[Tensor, " tiles"]
    tile_blocks: Int[Tensor, "tiles tile"]
    block_tiles: Int[Tensor, "rows blocks"]
    num_examples: int
    num_groups: int = 1

    def self_mask(self) -> Bool[Tensor, "rows 1 tokens tokens"]:
        """Every token sees itself and the earlier ones of its segment; places without one count as a segment too."""
        place = torch.arange(self.segments.shape[1], device=self.segments.device)
        is_same = self.segments[:, :, None] == self.segments[:, None, :]
        return (is_same & (place <= place[:, None]))[:, None]

    def for_tiles(self, x: Shaped[Tensor, "examples ..."]) -> Shaped[Tensor, "tiles ..."]:
        """Of every example what each of its tiles needs."""
        return self._take(x, self.tile_examples)

    def to_blocks(self, x: Shaped[Tensor, "rows tokens width"]) -> Shaped[Tensor, "row_blocks block_tokens width"]:
        return x.reshape(self.block_examples.numel(), -1, x.shape[-1])

    def to_rows(self, x: Shaped[Tensor, "row_blocks block_tokens width"]) -> Shaped[Tensor, "rows tokens width"]:
        return x.reshape(*self.segments.shape, x.shape[-1])

    def to_tiles(self, x: Shaped[Tensor, "rows tokens width"]) -> Shaped[Tensor, "tiles tile_tokens width"]:
        """Each example's blocks side by side; 0 where a tile has no more."""
        taken = self._rearrange(self.to_blocks(x), self.tile_blocks, self.block_tiles)
        return taken.reshape(self.tile_examples.numel(), -1, x.shape[-1])

    def from_tiles(self, x: Shaped[Tensor, "tiles tile_tokens width"]) -> Shaped[Tensor, "rows tokens width"]:
        """The way back; 0 in blocks that belong to no example."""
        blocks = x.reshape(self.tile_blocks.numel(), -1, x.shape[-1])
        return self.to_rows(self._rearrange(blocks, self.block_tiles, self.tile_blocks))

    def _rearrange(self, x: Shaped[Tensor, "items ..."], *ways: Int[Tensor, "_ _"]) -> Tensor:
        """By group, as below; a number that is one too many stands for zeros. Only the way there is needed."""
        nothing = x.new_zeros((self.num_groups, 1, *x.shape[1:]))
        by_group = torch.cat([x.reshape(self.num_groups, -1, *x.shape[1:]), nothing], dim=1)
        group = torch.arange(self.num_groups, device=x.device)[:, None]
        return by_group[group, ways[0].reshape(self.num_groups, -1)].flatten(0, 1)

    def _take(self, x: Shaped[Tensor, "items ..."], numbers: Int[Tensor, "*shape"]) -> Tensor:
        """By group, so that a device holding some groups needs nothing from others."""
        by_group = x.reshape(self.num_groups, -1, *x.shape[1:])
        group = torch.arange(self.num_groups, device=x.device)[:, None]
        return by_group[group, numbers.reshape(self.num_groups, -1)].flatten(0, 1)


class PackedTransformer(Transformer):
    def decode_packed(
        self,
        encoded: Float[Tensor, "examples frames emb"],
        decoder_input_ids: Int[Tensor, "rows tokens"],
        packing: Packing,
    ) -> Float[Tensor, "rows tokens emb"]:
        """As `decode` for rows of several examples' tokens, each of which sees its own example; without the logits."""
        off = Dropout(0.0, None)
        x = self.decoder.embed(decoder_input_ids, packing.positions)
        for layer in self.decoder.layers:
            y = layer.pre_self_attention_layer_norm(x)
            x = x + layer.self_attention(y, y, packing.self_mask(), off)
            y = layer.pre_cross_attention_layer_norm(x)
            x = x + attend_in_tiles(layer.encoder_decoder_attention, y, encoded, packing)
            x = x + layer.mlp(layer.pre_mlp_layer_norm(x), off)
        return self.decoder.decoder_norm(x)


def attend_in_tiles(
    attention: MultiHeadAttention,
    queries: Float[Tensor, "rows queries emb"],
    memory: Float[Tensor, "examples keys emb"],
    packing: Packing,
) -> Float[Tensor, "rows queries emb"]:
    """Each tile's queries and the memory of its example, whose keys and values are computed once."""
    key, value = map(packing.for_tiles, attention.keys_and_values(memory))
    query = packing.to_tiles(attention.query(queries))
    return attention.out(packing.from_tiles(attention.weigh(query, key, value, None)))
