"""The mean value of attention with one query a head, on a CPU.

It is what `embedding_bag` calculates: the weighted sum of some rows of a table, for each of many bags of rows. The code
that PyTorch has for that, FBGEMM's, is 1.1 to 4 times as fast as its product of a row of weights with a matrix.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Bags:
    """`count` bags of `length` rows of a table each: the rows of all, and where each bag begins."""

    rows: Int[Tensor, " entries"]
    starts: Int[Tensor, " count"]
    length: int

    @property
    def count(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, count: int, length: int, capacity: int, device: torch.device, start: int = 0) -> Bags:
        """The first `length` of every `capacity` rows, from the bag numbered `start` on."""
        numbers = functools.partial(torch.arange, dtype=torch.int32, device=device)
        rows = numbers(start * capacity, (start + count) * capacity, capacity)[:, None] + numbers(length)
        return cls(rows.flatten(), numbers(0, count * length, length), length)

    def first(self, count: int) -> Bags:
        return Bags(self.rows[: count * self.length], self.starts[:count], self.length)


def sums_of(
    values: Float[Tensor, "*rows head_dim"], bags: Bags, weights: Float[Tensor, "bags length"]
) -> Float[Tensor, "bags head_dim"]:
    """The weighted sum of the rows in each bag; `values` lie in memory as a table."""
    table = values.view(-1, values.shape[-1])
    return torch.embedding_bag(table, bags.rows, bags.starts, False, 0, False, weights.flatten())[0]


@functools.cache
def are_bags_fast(device: torch.device) -> bool:
    """Whether there is FBGEMM's code for them, which is for x86; other code is slower than products."""
    return device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
