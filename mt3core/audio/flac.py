"""The header of FLAC files: how many samples there are, their checksum, and where a second file begins."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from mt3core.audio.source import Ranges

_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_SEARCH_BYTES = 1 << 22
_UNSET = bytes(16)


@dataclass(frozen=True)
class FlacHeader:
    """The first block (STREAMINFO); `samples` is 0 and `checksum` None where the encoder did not know them."""

    rate_hz: int
    bits: int
    samples: int
    checksum: bytes | None
    missing_end: str

    @property
    def seconds(self) -> float | None:
        return self.samples / self.rate_hz if self.rate_hz and self.samples else None

    def checker(self) -> FlacChecker | None:
        return None if self.checksum is None else FlacChecker(self.bits, self.checksum)


def flac_header(file: Ranges) -> FlacHeader:
    return stream_info(file.at(8, 34), _missing_end(file))


def stream_info(block: bytes, missing_end: str = "") -> FlacHeader:
    """The header from the 34 bytes of STREAMINFO, which containers keep too."""
    counts = int.from_bytes(block[10:18], "big")  # rate (20 bits), channels (3), bits (5), samples (36)
    checksum = block[18:34]
    return FlacHeader(
        rate_hz=counts >> 44,
        bits=(counts >> 36 & 31) + 1,
        samples=counts & ((1 << 36) - 1),
        checksum=None if checksum == _UNSET or len(checksum) < 16 else checksum,
        missing_end=missing_end,
    )


def flac_parts(file: Ranges) -> list[tuple[int, int]]:
    """The (start, length) of every FLAC file in a file that begins with one."""
    starts, position = [0], 4
    while position < file.size:
        data = file.at(position, _SEARCH_BYTES)
        starts += [position + match.start() for match in _START.finditer(data)]
        position += max(1, len(data) - 7) if position + len(data) < file.size else len(data)
    starts = list(dict.fromkeys(starts))
    return [(start, end - start) for start, end in zip(starts, [*starts[1:], file.size], strict=True)]


def _missing_end(file: Ranges) -> str:
    """Whether the blocks in front of the frames are all there."""
    position, is_last = 4, False
    while not is_last:
        head = file.at(position, 4)
        length = int.from_bytes(head[1:], "big")
        if len(head) < 4 or position + 4 + length >= file.size:
            return "it ends within its header"
        is_last = bool(head[0] & 0x80)
        position += 4 + length
    return ""


class FlacChecker:
    """Compares the samples with the MD5 sum in the header: of interleaved integers, in as many bytes as they need."""

    problem = "its samples do not match the checksum in its header"

    def __init__(self, bits: int, checksum: bytes) -> None:
        self._bytes = (bits + 7) // 8
        self._expected = checksum
        self._sum = hashlib.md5(usedforsecurity=False)

    def add(self, samples: np.ndarray) -> None:
        """Integers of shape (samples, channels) whose full scale is that of their type."""
        shift = 8 * (samples.dtype.itemsize - self._bytes)
        if not shift:
            self._sum.update(np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).data)
            return
        values = np.ascontiguousarray(samples >> shift, samples.dtype.newbyteorder("<"))
        self._sum.update(values.view(np.uint8).reshape(-1, values.itemsize)[:, : self._bytes].tobytes())

    @property
    def matches(self) -> bool:
        return self._sum.digest() == self._expected
