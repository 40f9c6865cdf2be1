"""Memory for the tokens of lanes, which is taken as it is written to and given back when a long segment ends.

Few segments need many tokens, and which lane they are in changes: with ordinary memory, every lane has had one by the
end of an hour, 25 MB each for `mt3`. NumPy asks for pages of 2 MB, and then the beginning of a lane takes all of it.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

_FLOAT_BYTES = 4
_CAN_GIVE_BACK = hasattr(mmap, "MADV_DONTNEED")  # not on Windows


class Pages:
    """A float32 `tensor` of zeros on the CPU, in pages that belong to it alone."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        num_bytes = math.prod(shape) * _FLOAT_BYTES
        if hasattr(mmap, "MAP_PRIVATE"):
            self._memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self._memory = mmap.mmap(-1, num_bytes)
        self.tensor: Tensor = torch.frombuffer(self._memory, dtype=torch.float32).view(shape)

    def give_back(self, first: int, last: int) -> None:
        """Of the elements from `first` to before `last`, in the order in which they lie in memory, those that fill
        whole pages. On Linux they are zeros afterwards; elsewhere they may also be what they were."""
        begin = -(-first * _FLOAT_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
        end = last * _FLOAT_BYTES // mmap.PAGESIZE * mmap.PAGESIZE
        if _CAN_GIVE_BACK and begin < end:
            self._memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
