"""Weighted sums of rows of a table, for many bags of rows, on a CPU.

The mean value of attention with one query a head is one, and so are its products with keys that lie with the positions
last, and a band of a log-mel. PyTorch's code for that, `embedding_bag` with FBGEMM, is 1.1 to 4 times as fast as its
product of a row of weights with a matrix.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Bags:
    """The rows of all bags, int32, and where each bag begins among them. Bags at the end may be empty: sums of 0."""

    rows: Int[Tensor, " entries"]
    starts: Int[Tensor, " bags"]

    @classmethod
    def of(cls, count: int, length: int, capacity: int, start: int = 0, num_empty: int = 0) -> Bags:
        """`count` bags of the first `length` of every `capacity` rows, from the bag numbered `start` on."""
        numbers = functools.partial(torch.arange, dtype=torch.int32, device="cpu")
        rows = numbers(start * capacity, (start + count) * capacity, capacity)[:, None] + numbers(length)
        return cls(rows.flatten(), cls.starts_of(count, length, num_empty))

    @staticmethod
    def starts_of(count: int, length: int, num_empty: int = 0) -> Int[Tensor, " bags"]:
        """Of `count` bags of `length` rows each, and of empty ones."""
        starts = torch.arange(0, (count + num_empty) * length, length, dtype=torch.int32, device="cpu")
        return starts.clamp_(max=count * length)


def sums_of(
    values: Float[Tensor, "*rows width"], bags: Bags, weights: Float[Tensor, "*entries"]
) -> Float[Tensor, "bags width"]:
    """The sum of each bag. `values` lie in memory as a table; every row in a bag has its weight, in order."""
    return sums(values.view(-1, values.shape[-1]), bags.rows, bags.starts, weights)


def sums(table: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """As `sums_of`; so simple that TorchScript can compile it."""
    return torch.embedding_bag(table, rows, starts, False, 0, False, weights.flatten())[0]


@functools.cache
def are_bags_fast(device: torch.device) -> bool:
    """Whether there is FBGEMM's code for them, which is for x86; other code is slower than products."""
    return device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines
