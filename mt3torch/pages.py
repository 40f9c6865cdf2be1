"""Memory for the tokens of lanes, which is taken as it is written to and given back when a long segment ends.

Few segments need many tokens, and which lane they are in changes: with ordinary memory, every lane has had one by the
end of an hour, 25 MB each for `mt3`. NumPy asks for pages of 2 MB, and then the beginning of a lane takes all of it.
"""

from __future__ import annotations

import contextlib
import math
import mmap

import torch
from torch import Tensor

_FLOAT_BYTES = 4
_CAN_GIVE_BACK = hasattr(mmap, "MADV_DONTNEED")  # not on Windows


class Pages:
    """A float32 `tensor` of zeros on the CPU, in pages that belong to it alone. Raises `MemoryError`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        num_bytes = math.prod(shape) * _FLOAT_BYTES
        options = {}
        if hasattr(mmap, "MAP_PRIVATE"):  # not on Windows
            options["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        try:
            self._memory = mmap.mmap(-1, num_bytes, **options)
        except OSError as error:
            raise MemoryError(f"The system has no {num_bytes} bytes for the tokens of lanes.") from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            with contextlib.suppress(OSError):  # a system without pages of 2 MB
                self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.tensor: Tensor = torch.frombuffer(self._memory, dtype=torch.float32).view(shape)

    def give_back(self, first: int, last: int) -> None:
        """Of the elements from `first` to before `last`, in the order in which they lie in memory, those that fill
        whole pages. On Linux they are zeros afterwards; elsewhere, and in locked memory, they may be what they were."""
        begin = -(-first * _FLOAT_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE
        end = last * _FLOAT_BYTES // mmap.PAGESIZE * mmap.PAGESIZE
        if _CAN_GIVE_BACK and begin < end:
            with contextlib.suppress(OSError):  # locked memory
                self._memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
