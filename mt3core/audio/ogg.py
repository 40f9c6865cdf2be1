"""The pages of an Ogg file (RFC 3533): its links, whether each has its end, and which pages are damaged or lost.

Ogg files may be joined without further ado ("chained"), as radio recordings are; each link is then a file of its own,
perhaps with another sample rate, and starts its time at zero again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mt3core.audio.source import Ranges
from mt3core.audio.stream import seconds_text

_HEADER_BYTES = 27
_LARGEST_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255
_BUFFER_BYTES = 1 << 20
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_NO_POSITION = (1 << 64) - 1
# Ogg computes its checksum from the highest bit down; zlib, from the lowest up.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OPUS_RATE_HZ = 48_000


class _Page(NamedTuple):
    start: int
    size: int
    flags: int
    position: int  # granule position: samples up to the end of the page, or _NO_POSITION
    serial: int
    number: int
    is_right: bool
    first_bytes: bytes


@dataclass
class _Stream:
    codec: str
    rate_hz: int
    pre_skip: int
    next_number: int = 1
    first_position: int = -1  # of the first page with audio
    position: int = 0
    has_end: bool = False

    @property
    def seconds(self) -> float:
        return max(0, self.position - self.pre_skip) / self.rate_hz if self.rate_hz else 0.0


@dataclass
class OggLink:
    """One chained file: the (start, length) of its pages, its audio streams, and what is wrong with them."""

    pieces: list[tuple[int, int]] = field(default_factory=list)
    streams: dict[int, _Stream] = field(default_factory=dict)
    num_streams: int = 0
    damage: list[str] = field(default_factory=list)
    missing_end: str = ""

    @property
    def seconds(self) -> float:
        return max((stream.seconds for stream in self.streams.values()), default=0.0)

    @property
    def is_simple(self) -> bool:
        """One stream of a kind that libsndfile reads, from its beginning, without damage."""
        if self.num_streams != 1 or len(self.streams) != 1 or self.damage or self.missing_end:
            return False
        (stream,) = self.streams.values()
        return stream.codec in ("Vorbis", "Opus")


@dataclass
class OggScan:
    links: list[OggLink] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def scan_ogg(file: Ranges, start: int = 0) -> OggScan:
    """Reads all pages once, with their checksums."""
    scan = OggScan()
    position, junk, first_junk, in_headers = start, start, 0.0, False
    seconds_before = 0.0
    for page in _pages(file, start):
        if page.start > position:
            first_junk = first_junk if junk else seconds_before + (scan.links[-1].seconds if scan.links else 0.0)
            junk += page.start - position
        if page.flags & _FIRST and page.is_right and not in_headers:
            if scan.links:
                seconds_before += _close(scan.links[-1])
            scan.links.append(OggLink())
        in_headers = bool(page.flags & _FIRST and page.is_right)
        position = page.start + page.size
        if scan.links:
            _add(scan.links[-1], page)
        else:
            junk += page.size
    if scan.links:
        _close(scan.links[-1])
        tail = file.size - position
        if tail and file.at(position, 4) == b"OggS" and tail < _LARGEST_PAGE_BYTES:
            scan.links[-1].missing_end = "its last page is incomplete"
        elif tail:
            first_junk = first_junk if junk else seconds_before + scan.links[-1].seconds
            junk += tail
    if len(scan.links) > 1:
        scan.remarks.append(f"It is {len(scan.links)} recordings joined (chained Ogg); all were read.")
    if junk:
        scan.remarks.append(
            f"{junk} bytes that are no audio were passed over, the first of them at {seconds_text(first_junk)}."
        )
    return scan


def _add(link: OggLink, page: _Page) -> None:
    if link.pieces and sum(link.pieces[-1]) == page.start:
        link.pieces[-1] = (link.pieces[-1][0], link.pieces[-1][1] + page.size)
    else:
        link.pieces.append((page.start, page.size))
    if page.flags & _FIRST and page.is_right:
        link.num_streams += 1
        stream = _describe(page.first_bytes)
        if stream is not None:
            link.streams[page.serial] = stream
        return
    stream = link.streams.get(page.serial)
    if not page.is_right:
        link.damage.append(f"a page after {seconds_text(link.seconds)} has a wrong checksum")
        return
    if stream is None:
        return
    if page.number > stream.next_number and not link.damage:
        lost = page.number - stream.next_number
        link.damage.append(f"{lost} page{'s are' if lost > 1 else ' is'} missing after {seconds_text(stream.seconds)}")
    stream.next_number = page.number + 1
    if page.position != _NO_POSITION:
        if page.position > 0 and stream.first_position < 0:
            stream.first_position = page.position
        stream.position = max(stream.position, page.position)
    stream.has_end = stream.has_end or bool(page.flags & _LAST)


def _close(link: OggLink) -> float:
    """Notes a missing end; returns the link's length in seconds."""
    if link.streams and not any(stream.has_end for stream in link.streams.values()):
        link.missing_end = f"its last page is not there: nothing marks the end after {seconds_text(link.seconds)}"
    return link.seconds


def _describe(data: bytes) -> _Stream | None:
    """The audio stream that starts with this page; None for video, subtitles and the skeleton."""
    if data[:7] == b"\x01vorbis":
        return _Stream("Vorbis", int.from_bytes(data[12:16], "little"), 0)
    if data[:8] == b"OpusHead":
        return _Stream("Opus", _OPUS_RATE_HZ, int.from_bytes(data[10:12], "little"))
    if data[:5] == b"\x7fFLAC":
        return _Stream("FLAC", int.from_bytes(data[27:30], "big") >> 4, 0)
    if data[:8] == b"Speex   ":
        return _Stream("Speex", int.from_bytes(data[36:40], "little"), 0)
    return None


def _pages(file: Ranges, start: int) -> Iterator[_Page]:
    """All pages; bytes between them are skipped, and so is an incomplete one at the end."""
    buffer, base, offset = b"", start, 0
    while True:
        if len(buffer) - offset < _LARGEST_PAGE_BYTES:
            base += offset
            buffer, offset = file.at(base, _BUFFER_BYTES), 0
        found = buffer.find(b"OggS\0", offset)
        if found < 0:
            if len(buffer) < _BUFFER_BYTES:
                return
            offset = len(buffer) - 4
            continue
        if len(buffer) - found < _LARGEST_PAGE_BYTES and len(buffer) == _BUFFER_BYTES and found > offset:
            offset = found
            continue
        offset = found
        segments = buffer[offset + 26] if len(buffer) > offset + 26 else 0
        head = _HEADER_BYTES + segments
        size = head + sum(buffer[offset + _HEADER_BYTES : offset + head])
        if len(buffer) < offset + max(size, _HEADER_BYTES):
            if buffer.find(b"OggS\0", offset + 4) < 0:
                return
            offset += 4  # a damaged header claims too much; the next page is there
            continue
        page = buffer[offset : offset + size]
        is_right = _checksum(page) == int.from_bytes(page[22:26], "little")
        if not is_right and (again := page.find(b"OggS\0", 4)) > 0:  # its size is wrong, or bytes of it are missing
            size = again
        yield _Page(
            start=base + offset,
            size=size,
            flags=page[5],
            position=int.from_bytes(page[6:14], "little"),
            serial=int.from_bytes(page[14:18], "little"),
            number=int.from_bytes(page[18:22], "little"),
            is_right=is_right,
            first_bytes=page[head : head + 64],
        )
        offset += size


def _checksum(page: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, from the highest bit, start and end value 0, its own field taken as 0."""
    data = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    reverse = zlib.crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reverse:032b}"[::-1], 2)
