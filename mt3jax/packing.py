"""Several targets in one decoder row: which example each block of tokens belongs to, and dropout that respects it.

How targets are arranged in rows is decided in `mt3jax/row_packing.py`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Int, Key, Shaped

from mt3jax.products import rearrange, take_rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packing:
    """The decoder rows of a batch; arrays as `mt3jax.row_packing` describes them."""

    segments: Int[Array, "rows tokens"]
    positions: Int[Array, "rows tokens"]
    block_examples: Int[Array, "rows blocks"]
    tile_examples: Int[Array, " tiles"]
    tile_blocks: Int[Array, "tiles tile"]
    block_tiles: Int[Array, "rows blocks"]
    num_examples: int = dataclasses.field(metadata={"static": True})
    num_groups: int = dataclasses.field(default=1, metadata={"static": True})

    def self_mask(self) -> Bool[Array, "rows 1 tokens tokens"]:
        """Every token sees itself and the earlier ones of its segment; positions without a segment count as one too."""
        place = jnp.arange(self.segments.shape[1])
        is_same = self.segments[:, :, None] == self.segments[:, None, :]
        return (is_same & (place <= place[:, None]))[:, None]

    def for_blocks(self, x: Shaped[Array, "examples ..."]) -> Shaped[Array, "row_blocks ..."]:
        """For each block of all rows in order, the item of its example."""
        return self._take(x, self.block_examples)

    def for_tiles(self, x: Shaped[Array, "examples ..."]) -> Shaped[Array, "tiles ..."]:
        """For each tile, the item of its example."""
        return self._take(x, self.tile_examples)

    def for_tokens(self, x: Shaped[Array, "examples heads tokens 1"]) -> Shaped[Array, "rows heads tokens 1"]:
        """For each token, its example's item at the position of the token."""
        num_rows, num_blocks = self.block_examples.shape
        by_block = x.reshape(self.num_examples, x.shape[1], num_blocks, -1).swapaxes(1, 2)
        block_tokens = by_block.shape[-1]
        # A segment starts with a block, so that its blocks are also the example's.
        numbers = self.block_examples * num_blocks + self.positions[:, ::block_tokens] // block_tokens
        taken = self._take(by_block.reshape(-1, *by_block.shape[2:]), numbers)
        return taken.reshape(num_rows, num_blocks, -1, block_tokens).swapaxes(1, 2).reshape(num_rows, x.shape[1], -1, 1)

    def to_blocks(self, x: Shaped[Array, "rows tokens width"]) -> Shaped[Array, "row_blocks block_tokens width"]:
        return x.reshape(self.block_examples.size, -1, x.shape[-1])

    def to_rows(self, x: Shaped[Array, "row_blocks block_tokens width"]) -> Shaped[Array, "rows tokens width"]:
        return x.reshape(*self.segments.shape, x.shape[-1])

    def to_tiles(self, x: Shaped[Array, "rows tokens width"]) -> Shaped[Array, "tiles tile_tokens width"]:
        """Each example's blocks together in tiles; 0 if a tile has no more."""
        taken = self._rearrange(self.to_blocks(x), self.tile_blocks, self.block_tiles)
        return taken.reshape(self.tile_examples.size, -1, x.shape[-1])

    def from_tiles(self, x: Shaped[Array, "tiles tile_tokens width"]) -> Shaped[Array, "rows tokens width"]:
        """The inverse; 0 in blocks that belong to no example."""
        blocks = x.reshape(self.tile_blocks.size, -1, x.shape[-1])
        return self.to_rows(self._rearrange(blocks, self.block_tiles, self.tile_blocks))

    def _rearrange(self, x: Shaped[Array, "items ..."], *ways: Int[Array, "_ _"]) -> Array:
        """Both directions for the gradient; by group, as below."""
        by_group = x.reshape(self.num_groups, -1, *x.shape[1:])
        moved = jax.vmap(rearrange)(by_group, *(jnp.asarray(way).reshape(self.num_groups, -1) for way in ways))
        return moved.reshape(-1, *x.shape[1:])

    def _take(self, x: Shaped[Array, "items ..."], numbers: Int[Array, "*shape"]) -> Array:
        """By group, so that a device with some groups needs nothing from others."""
        by_group = x.reshape(self.num_groups, -1, *x.shape[1:])
        taken = jax.vmap(take_rows)(by_group, jnp.asarray(numbers).reshape(self.num_groups, -1))
        return taken.reshape(-1, *x.shape[1:])


class Dropout:
    """Dropout for one forward pass; inactive without a key. Draws are shared along one axis.

    With a packing, draws are made per example, as if each had a row of its own, and then arranged in the rows. So
    draws shared along the length are shared along a segment, and the packing of the targets makes no difference.
    """

    def __init__(self, rate: float, key: Key[Array, ""] | None, packing: Packing | None = None) -> None:
        self.rate = rate
        self.key = key
        self.packing = packing
        self.draws = 0

    def __call__(self, x: Array, shared_axis: int | None) -> Array:
        """Drops from rows: packed (rows, tokens, width) along 1 or (rows, heads, tokens, head_dim) along 3."""
        packing = self.packing
        if packing is None or not self._is_active():
            return self.of_examples(x, shared_axis)
        keep = self._draw((packing.num_examples, *x.shape[1:]), shared_axis)
        if shared_axis == 1:
            return packing.to_rows(self._drop(packing.to_blocks(x), packing.for_blocks(keep)))
        return self._drop(x, packing.for_tokens(keep))

    def of_examples(self, x: Array, shared_axis: int | None) -> Array:
        """Drops from arrays that are not packed."""
        return self._drop(x, self._draw(x.shape, shared_axis)) if self._is_active() else x

    def _is_active(self) -> bool:
        return self.key is not None and self.rate > 0.0

    def _draw(self, shape: tuple[int, ...], shared_axis: int | None) -> Array:
        assert self.key is not None
        self.draws += 1
        shape = tuple(1 if axis == shared_axis else size for axis, size in enumerate(shape))
        return jax.random.bernoulli(jax.random.fold_in(self.key, self.draws), 1.0 - self.rate, shape)

    def _drop(self, x: Array, keep: Array) -> Array:
        # Divided in float32: in bfloat16 one divisor of 0.9 would be 0.8984.
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return jnp.where(keep, (wide / (1.0 - self.rate)).astype(x.dtype), 0.0)
