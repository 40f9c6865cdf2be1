"""Multiplication by a weight matrix, prepared once for being done many times, in float32 or with 16 bits.

On a CPU the weights are stored in the order in which oneDNN reads them. PyTorch offers that through operators that it
uses itself but does not document; where they are missing or fail, `F.linear` does the same more slowly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# From a matrix of `in` columns to one of `out` columns, both of the dtype of the weights.
LinearMap = Callable[[Float[Tensor, "rows in"]], Float[Tensor, "rows out"]]
# oneDNN chooses the order for a number of rows, and reads it with any other as well.
EXPECTED_ROWS = 32
# Numbers of rows are rounded up to multiples of the step, unless they are few.
FEW_ROWS = 2
ROWS_STEP = 8


def linear_map(weight: Float[Tensor, "out in"], dtype: torch.dtype = torch.float32) -> LinearMap:
    """The map x -> x W^T. Call it, and what it returns, in inference mode."""
    weight = weight.to(dtype)
    if weight.device.type != "cpu" or not is_packing_possible(dtype):
        return functools.partial(F.linear, weight=weight)
    return PackedMap(_pack(weight))


class PackedMap:
    """A map with its `weight` in oneDNN's order."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self._multiply = _multiply()

    def __call__(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        rows = len(x)
        more = padding_for(rows)
        if more:
            return self._multiply(F.pad(x, (0, 0, 0, more)), self.weight, None, "none", [], "")[:rows]
        return self._multiply(x, self.weight, None, "none", [], "")


def padding_for(rows: int) -> int:
    """How many rows of padding are added on a CPU, so that few numbers of rows occur: oneDNN prepares and keeps a
    program for each, up to a megabyte large. A caller of many maps adds them once."""
    return 0 if rows <= FEW_ROWS else -rows % ROWS_STEP


@functools.cache
def is_packing_possible(dtype: torch.dtype) -> bool:
    """Whether this PyTorch, on this processor, has the operators, and they multiply as they should."""
    weight = torch.arange(-24.0, 24.0).view(6, 8).to(dtype)
    x = torch.eye(8, dtype=dtype)[:3]
    try:
        with torch.inference_mode():
            return torch.equal(_multiply()(x, _pack(weight), None, "none", [], ""), weight.t()[:3])
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _multiply() -> Callable[..., Tensor]:
    return torch.ops.mkldnn._linear_pointwise.default


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), EXPECTED_ROWS)
