"""Several targets in one decoder row: which example each block of tokens belongs to, and dropout that knows it.

`mt3jax/packing.py` is this file's twin. How targets are laid into rows is decided in `mt3core/packing.py`.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Packing:
    """The decoder rows of a batch; arrays as `mt3core.packing` describes them."""

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

    def for_blocks(self, x: Shaped[Tensor, "examples ..."]) -> Shaped[Tensor, "row_blocks ..."]:
        """Of every example what each of its blocks needs, for the blocks of all rows in order."""
        return self._take(x, self.block_examples)

    def for_tiles(self, x: Shaped[Tensor, "examples ..."]) -> Shaped[Tensor, "tiles ..."]:
        """Of every example what each of its tiles needs."""
        return self._take(x, self.tile_examples)

    def for_tokens(self, x: Shaped[Tensor, "examples heads tokens 1"]) -> Shaped[Tensor, "rows heads tokens 1"]:
        """Of every example's positions what the tokens at these positions need."""
        num_rows, num_blocks = self.block_examples.shape
        by_block = x.reshape(self.num_examples, x.shape[1], num_blocks, -1).transpose(1, 2)
        block_tokens = by_block.shape[-1]
        # A segment begins with a block, so that its blocks are the example's, too.
        numbers = self.block_examples * num_blocks + self.positions[:, ::block_tokens] // block_tokens
        taken = self._take(by_block.flatten(0, 1), numbers)
        return taken.unflatten(0, (num_rows, num_blocks)).transpose(1, 2).flatten(2)[..., None]

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


class Dropout:
    """Dropout for one forward pass; inactive without a generator. Draws are shared along one axis.

    With a packing, draws are made for the examples, as if each had a row of its own, and then laid into the rows. So
    what is shared over the length is shared over a segment, and it does not matter how targets are packed.
    """

    def __init__(self, rate: float, generator: torch.Generator | None, packing: Packing | None = None) -> None:
        self.rate = rate
        self.generator = generator
        self.packing = packing

    def __call__(self, x: Tensor, shared_axis: int | None) -> Tensor:
        """Drops from rows: packed (rows, tokens, width) along 1 or (rows, heads, tokens, head_dim) along 3."""
        packing = self.packing
        if packing is None or not self._is_active():
            return self.of_examples(x, shared_axis)
        keep = self._draw((packing.num_examples, *x.shape[1:]), shared_axis, x.device)
        if shared_axis == 1:
            return packing.to_rows(self._drop(packing.to_blocks(x), packing.for_blocks(keep)))
        return self._drop(x, packing.for_tokens(keep))

    def of_examples(self, x: Tensor, shared_axis: int | None) -> Tensor:
        """Drops from what is not packed."""
        return self._drop(x, self._draw(x.shape, shared_axis, x.device)) if self._is_active() else x

    def _is_active(self) -> bool:
        return self.generator is not None and self.rate > 0.0

    def _draw(self, shape: tuple[int, ...], shared_axis: int | None, device: torch.device) -> Tensor:
        shape = tuple(1 if axis == shared_axis else size for axis, size in enumerate(shape))
        return torch.rand(shape, generator=self.generator, device=device) >= self.rate

    def _drop(self, x: Tensor, keep: Tensor) -> Tensor:
        return torch.where(keep, x / (1.0 - self.rate), 0.0)
