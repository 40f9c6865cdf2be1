"""The caches of segments beside an accelerator, and a decoder step of a fixed shape on them.

As in `stepper.py` lanes are places for segments and the occupied ones come first. Here all tensors stay where they are,
positions are known to the device alone, and a step has one of few shapes, so that it can be captured (`graphs.py`):
numbers of lanes and lengths are rounded up, and what is beyond a lane's own length is hidden. Few segments become much
longer than the others; they come first, and the others read only as much as they need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mt3torch.stepper import Stepper, in_full_precision
from mt3torch.token_attention import Places, by_layers


@dataclass(frozen=True)
class Shape:
    """Of a step: the first `num_long` of `num_lanes` lanes attend to `long_length` positions, the others to fewer."""

    num_lanes: int
    num_long: int
    long_length: int
    short_length: int

    @property
    def groups(self) -> list[tuple[slice, int]]:
        both = [(slice(0, self.num_long), self.long_length), (slice(self.num_long, self.num_lanes), self.short_length)]
        return [(lanes, length) for lanes, length in both if lanes.start < lanes.stop]


@dataclass(frozen=True)
class Buckets:
    """The shapes that there are: `lanes` and `lengths`, both ascending."""

    lanes: tuple[int, ...]
    lengths: tuple[int, ...]
    long_parts: int = 8  # the number of long lanes is rounded up to so many equal parts of all

    def num_lanes(self, wanted: int) -> int:
        """The least number of at least so many, or the greatest."""
        return next((one for one in self.lanes if one >= wanted), self.lanes[-1])

    def length(self, wanted: int) -> int:
        return next((one for one in self.lengths if one >= wanted), self.lengths[-1])

    def is_long(self, lengths: Int[np.ndarray, " lanes"]) -> Bool[np.ndarray, " lanes"]:
        """Which lanes have more tokens than are short; none if there is only one length."""
        return (lengths > self.lengths[0]) & (len(self.lengths) > 1)

    def shape(self, num_lanes: int, num_long: int, longest: int) -> Shape:
        """For lanes of which the first `num_long` have up to `longest` tokens, and the others as many as are short."""
        lanes = self.num_lanes(num_lanes)
        part = max(1, lanes // self.long_parts)
        rounded = 0 if len(self.lengths) == 1 else min(lanes, -(-num_long // part) * part)
        return Shape(lanes, rounded, self.length(longest) if rounded else self.lengths[0], self.lengths[0])


class DeviceLanes:
    """Room for `num_lanes` segments of `num_frames` frames and up to `max_tokens` tokens."""

    def __init__(self, stepper: Stepper, num_lanes: int, num_frames: int, max_tokens: int) -> None:
        self.num_lanes, self.max_tokens = num_lanes, max_tokens
        self._stepper, self._num_frames = stepper, num_frames
        # Zeros, not uninitialised: masked values must still be finite.
        self._self = [self._empty(num_lanes) for _ in range(2 * len(stepper.layers))]  # keys and values of each
        self._cross = [one.zero_() for one in stepper.cross.empty(num_lanes, num_frames)]

    def grow(self, num_lanes: int) -> None:
        """Makes room for more lanes. One layer after the other, as both together may not fit."""
        for states, new in ((self._self, self._empty), (self._cross, None)):
            for index, old in enumerate(states):
                larger = old.new_zeros((num_lanes, *old.shape[1:])) if new is None else new(num_lanes)
                larger[: self.num_lanes] = old
                states[index] = larger
        self.num_lanes = num_lanes

    def fill(self, first_lane: int, encoded: Float[Tensor, "batch frames emb"]) -> None:
        with in_full_precision(self._stepper.device):
            self._stepper.cross.fill(self._cross, slice(first_lane, first_lane + len(encoded)), encoded)

    def move(self, sources: Int[Tensor, " moved"], targets: Int[Tensor, " moved"], length: int) -> None:
        """Moves lanes that have read up to `length` tokens, all at once."""
        for state in self._cross:
            state[targets] = state[sources]
        for cache in self._self:
            part = cache[..., :length, :]
            part[targets] = part[sources]

    def step(
        self, tokens: Int[Tensor, " lanes"], lengths: Int[Tensor, " lanes"], shape: Shape
    ) -> Float[Tensor, "lanes vocab"]:
        """Logits after one more token in each of the shape's lanes, of which each has read `lengths` tokens."""
        stepper = self._stepper
        places = Places.of(lengths[:, None], stepper.network, self.max_tokens, shape.groups)
        x = stepper.embed(tokens, lengths)
        caches = by_layers([one[: shape.num_lanes] for one in self._self])
        return stepper.decode(x, caches, self._cross, len(tokens), places)

    def _empty(self, num_lanes: int) -> Float[Tensor, "lanes heads positions head_dim"]:
        network = self._stepper.network
        shape = (num_lanes, network.num_heads, self.max_tokens, network.head_dim)
        return torch.zeros(shape, dtype=torch.float32, device=self._stepper.device)
