"""The chunks of WAV files (RIFF, RIFX, RF64, BW64): whether the size of the samples can be believed.

Recorders write the size when they stop; one that crashed leaves 0 or a number that means "not yet known", and sizes
beyond 4 GiB wrap around. What is there is then read, with a header that says so. A size that is larger than the file
and could be meant is another matter: the end was lost.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from mt3core.audio.source import Ranges

# Formats that libsndfile reads without guessing: PCM, Microsoft and IMA ADPCM, float, A-law, µ-law, GSM 6.10.
_PLAIN_TAGS = {1, 2, 3, 6, 7, 0x11, 0x31}
_EXTENSIBLE = 0xFFFE
# Sizes that programs write while they do not know the real one lie this far below 2^31 and 2^32, or at 2^31.
_UNSET_MARGIN_BYTES = 1 << 16
# Less than this behind the end that both sizes agree on is no lost sound.
_SMALL_REST_BYTES = 1 << 16
_COMPRESSED_SEARCH_BYTES = 1 << 17
# How compressed sound disguised as 16-bit stereo starts (IEC 61937, and DTS in its four packings).
_COMPRESSED_SYNCS = (
    b"\x72\xf8\x1f\x4e",
    b"\xfe\x7f\x01\x80",
    b"\x7f\xfe\x80\x01",
    b"\x1f\xff\xe8\x00",
    b"\xff\x1f\x00\xe8",
)


@dataclass
class WavPart:
    """One WAV of those in a file: as a file with a right header, and whether libsndfile may read it."""

    content: Ranges
    is_changed: bool
    is_plain: bool
    seconds: float
    missing_end: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass
class _Chunks:
    order: str  # of bytes, for struct
    format: bytes = b""
    data_start: int = -1
    data_size: int = 0
    riff_size: int = 0

    def number(self, data: bytes) -> int:
        return int(struct.unpack(self.order + "I", data)[0])


def is_wav(start: bytes) -> bool:
    return start[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and start[8:12] == b"WAVE"


def wav_parts(file: Ranges) -> list[WavPart]:
    """The WAV files that stand one after the other in a file; empty if the chunks make no sense."""
    parts: list[WavPart] = []
    start = 0
    while start < file.size and is_wav(file.at(start, 12)):
        chunks = _read_chunks(file, start)
        if chunks.data_start < 0 or len(chunks.format) < 14:
            break
        part, start = _examine(file, start, chunks)
        parts.append(part)
    if len(parts) > 1:
        parts[0].remarks.append(f"It is {len(parts)} recordings joined; all were read.")
    return parts


def _read_chunks(file: Ranges, start: int) -> _Chunks:
    """The chunks up to the samples."""
    head = file.at(start, 12)
    chunks = _Chunks(">" if head[:4] == b"RIFX" else "<")
    chunks.riff_size = chunks.number(head[4:8])
    long_size: int | None = None
    position = start + 12
    while len(head := file.at(position, 8)) == 8:
        name, size = head[:4], chunks.number(head[4:])
        if name == b"data":
            chunks.data_start, chunks.data_size = position + 8, size
            if size == 0xFFFFFFFF and long_size:
                chunks.data_size = long_size
            break
        if not _is_name(name):
            break
        if name == b"fmt ":
            chunks.format = file.at(position + 8, min(size, 1 << 12))
        if name == b"ds64":
            chunks.riff_size, long_size = struct.unpack("<QQ", file.at(position + 8, 16).ljust(16, b"\0"))
        position += 8 + size + size % 2
    return chunks


def _examine(file: Ranges, start: int, chunks: _Chunks) -> tuple[WavPart, int]:
    """One WAV, and where the next one would start."""
    tag, _, rate_hz, _, block = struct.unpack(chunks.order + "HHIIH", chunks.format[:14])
    if tag == _EXTENSIBLE and len(chunks.format) >= 26:
        (tag,) = struct.unpack(chunks.order + "H", chunks.format[24:26])
    bytes_a_second = struct.unpack(chunks.order + "I", chunks.format[8:12])[0] or rate_hz * block
    there = file.size - chunks.data_start
    size, missing_end, remarks = chunks.data_size, "", []
    next_start = file.size

    def seconds(length: int) -> float:
        return length / bytes_a_second if bytes_a_second else 0.0

    if size == 0 and there and not _is_chunk(file, chunks.data_start, chunks):
        size = there
        remarks.append(
            f"Its header says that there are 0 bytes of sound, as if the recorder had crashed; the {there} bytes that"
            f" are there were read ({seconds(there):.2f} s)."
        )
    elif size > there and _is_unset(size):
        size = there
        remarks.append(
            "Its header does not say how long it is, as if it came through a pipe or the recorder had crashed; all"
            f" that is there was read ({seconds(there):.2f} s)."
        )
    elif size > there:
        missing_end = f"it has {there} of the {size} bytes announced in its header"
        size = there
    else:
        end = chunks.data_start + size
        rest_start, next_start = _after(file, end, chunks)
        if rest_start == end and _goes_on(file, end, start, chunks):
            size, next_start = there, file.size
            remarks.append(
                f"Its header announces {chunks.data_size} bytes of sound, but {there} are there; all were read"
                f" ({seconds(there):.2f} s)."
            )
        elif rest_start < next_start and not _is_tag_or_padding(file.at(rest_start, 1 << 16)):
            remarks.append(f"{next_start - rest_start} bytes behind its end were passed over.")
    is_changed = size != chunks.data_size
    if is_changed and not missing_end:
        content = Ranges(file, [_header(chunks, size), (chunks.data_start, size)])
    else:
        content = file.cut(start, next_start - start)
    is_plain = tag in _PLAIN_TAGS and not _is_disguised(file, chunks.data_start, tag, block)
    return WavPart(content, is_changed, is_plain, seconds(size), missing_end, remarks), next_start


def _after(file: Ranges, end: int, chunks: _Chunks) -> tuple[int, int]:
    """(where something that is no chunk starts, where the next WAV starts), both after the samples' `end`."""
    position = end
    while position + 8 <= file.size:
        for place in (position, position + 1, position - 1):
            if is_wav(file.at(place, 12)):
                return place, place
            if _is_chunk(file, place, chunks):
                size = chunks.number(file.at(place + 4, 4))
                position = min(file.size, place + 8 + size)
                break
        else:
            return position, _next_wav(file, position)
    return file.size, file.size


def _next_wav(file: Ranges, position: int) -> int:
    data = file.at(position, 1 << 16)
    for name in (b"RIFF", b"RF64"):
        place = data.find(name)
        if place >= 0 and is_wav(data[place : place + 12]):
            return position + place
    return file.size


def _goes_on(file: Ranges, end: int, start: int, chunks: _Chunks) -> bool:
    """Whether what follows the samples is more of them: the size of the samples is then too small."""
    rest = file.size - end
    tail = file.at(end, _SMALL_REST_BYTES)
    if rest < 16 or _is_tag(tail) or _next_wav(file, end) < file.size:
        return False
    is_behind_all = start + 8 + chunks.riff_size in (end, end + 1)
    return rest > _SMALL_REST_BYTES or not (_is_tag_or_padding(tail) or is_behind_all)


def _is_tag(data: bytes) -> bool:
    return data[:3] in (b"TAG", b"ID3") or data[:8] == b"APETAGEX"


def _is_tag_or_padding(data: bytes) -> bool:
    return _is_tag(data) or not data.strip(b"\0")


def _is_chunk(file: Ranges, position: int, chunks: _Chunks) -> bool:
    head = file.at(position, 8)
    return len(head) == 8 and _is_name(head[:4]) and position + 8 + chunks.number(head[4:]) <= file.size + 1


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _is_unset(size: int) -> bool:
    return any(end - _UNSET_MARGIN_BYTES <= size <= end for end in (1 << 31, 1 << 32, (1 << 63) - 1, 1 << 64))


def _is_disguised(file: Ranges, data_start: int, tag: int, block: int) -> bool:
    if tag != 1 or block != 4:
        return False
    data = file.at(data_start, _COMPRESSED_SEARCH_BYTES).lstrip(b"\0")[: 1 << 14]
    return any(sync in data for sync in _COMPRESSED_SYNCS)


def _header(chunks: _Chunks, size: int) -> bytes:
    """A WAV header for so many bytes of sound, with 64-bit sizes if they are needed."""
    order, name = chunks.order, b"RIFX" if chunks.order == ">" else b"RIFF"
    layout = chunks.format + bytes(len(chunks.format) % 2)
    layout = b"fmt " + struct.pack(order + "I", len(chunks.format)) + layout
    if size < (1 << 32) - (1 << 16):
        return (
            name
            + struct.pack(order + "I", 4 + len(layout) + 8 + size)
            + b"WAVE"
            + layout
            + b"data"
            + struct.pack(order + "I", size)
        )
    sizes = struct.pack("<QQQI", 4 + 36 + len(layout) + 8 + size, size, 0, 0)
    unknown = b"\xff" * 4
    return b"RF64" + unknown + b"WAVE" + b"ds64" + struct.pack("<I", 28) + sizes + layout + b"data" + unknown
