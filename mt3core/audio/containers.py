"""The outermost structure of containers: what their sizes say about a missing end, and where a second file begins.

FFmpeg reads as far as there is something to read. Whether that is the whole is seen here: every element states its
size, and a file whose last element reaches beyond its end was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mt3core.audio.source import Ranges

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_IS_BROADCAST = 1
_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_MP4_TOP = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"moof", b"styp", b"sidx", b"mfra"}
_TS_BYTES = 188
_TAIL_BYTES = 1 << 19  # of broadcast streams, in which the last sound must begin
_PES_SOUND = {0xBD, *range(0xC0, 0xE0)}  # private stream 1 (AC-3, DTS) and MPEG audio


@dataclass
class Structure:
    """The (start, length) of each file that was joined, and why the last one is not whole ("" if it is)."""

    parts: list[tuple[int, int]] = field(default_factory=list)
    missing_end: str = ""


def structure_of(file: Ranges, is_quick: bool = False) -> Structure | None:
    """None for formats whose structure is not read here; with `is_quick` true that is all that is found out."""
    start = file.at(0, 64)
    if is_quick:
        is_matroska = int.from_bytes(start[:4], "big") == _EBML
        is_known = start[4:8] in _MP4_TOP or is_matroska or start[:16] == _ASF_HEADER or _is_transport_stream(file)
        return Structure() if is_known else None
    if start[4:8] in _MP4_TOP:
        return _mp4(file)
    if int.from_bytes(start[:4], "big") == _EBML:
        return _matroska(file)
    if start[:16] == _ASF_HEADER:
        return Structure([(0, file.size)], _asf(file))
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return Structure([(0, file.size)], _avi(file))
    if start[:4] == b"caff":
        return Structure([(0, file.size)], _caf(file))
    if start[:3] == b"FLV":
        return Structure([(0, file.size)], _flv(file))
    if _is_transport_stream(file):
        return Structure([(0, file.size)], _transport_stream(file))
    if start[:4] == b"\0\0\1\xba":
        return Structure([(0, file.size)], _program_stream(file))
    return None


def _announced(there: int, size: int) -> str:
    return f"it has {there} of the {size} bytes announced in its header"


def _mp4(file: Ranges) -> Structure:
    """Boxes: size in 4 bytes, name in 4, perhaps a size in 8. A second `ftyp` starts another file."""
    found, position, start, names = Structure(), 0, 0, set[bytes]()
    while position + 8 <= file.size:
        head = file.at(position, 16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size == 0:
            size = file.size - position
        if size < 8 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name):
            break  # junk behind the last box
        if name == b"ftyp" and b"moov" in names and b"mdat" in names:
            found.parts.append((start, position - start))
            start, names = position, set()
        if position + size > file.size:
            if name in _MP4_TOP:
                found.missing_end = _announced(file.size - position, size).replace("header", f"{name.decode()} box")
            break
        names.add(name)
        position += size
    found.parts.append((start, file.size - start))
    if not found.missing_end and b"moov" not in names:
        found.missing_end = "its index (the moov box) is not there"
    return found


def _matroska(file: Ranges) -> Structure:
    """EBML elements. Segments and clusters of unknown size, as live recordings have them, are entered."""
    found, position, start = Structure(), 0, 0
    while position < file.size:
        element = _ebml_element(file, position)
        if element is None:
            break
        name, size, head_bytes = element
        if name == _EBML and position:
            found.parts.append((start, position - start))
            start = position
        if name in (_SEGMENT, _CLUSTER) and size is None:
            position += head_bytes
            continue
        if size is None:
            break
        if position + head_bytes + size > file.size:
            found.missing_end = _announced(file.size - position - head_bytes, size)
            break
        position += head_bytes + size
    found.parts.append((start, file.size - start))
    return found


def _ebml_element(file: Ranges, position: int) -> tuple[int, int | None, int] | None:
    """(identity, size or None if unknown, bytes of both); None where there is no element."""
    head = file.at(position, 12)
    if not head or not head[0]:
        return None
    name_bytes = 9 - head[0].bit_length()
    if name_bytes > 4 or len(head) <= name_bytes or not head[name_bytes]:
        return None
    size_bytes = 9 - head[name_bytes].bit_length()
    value = int.from_bytes(head[name_bytes : name_bytes + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
    size = None if value == (1 << 7 * size_bytes) - 1 else value
    return int.from_bytes(head[:name_bytes], "big"), size, name_bytes + size_bytes


def _asf(file: Ranges) -> str:
    """The header object states the size of the file, unless it was written while broadcasting."""
    header = file.at(0, min(file.size, 1 << 20))
    place = header.find(_ASF_FILE_PROPERTIES)
    if place < 0 or len(header) < place + 104:
        return "" if place < 0 else "its header is incomplete"
    size = int.from_bytes(header[place + 40 : place + 48], "little")
    is_broadcast = int.from_bytes(header[place + 88 : place + 92], "little") & _ASF_IS_BROADCAST
    return _announced(file.size, size) if size > file.size and not is_broadcast else ""


def _avi(file: Ranges) -> str:
    position = 0
    while len(head := file.at(position, 8)) == 8 and head[:4] == b"RIFF":
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):
            return ""
        if position + 8 + size > file.size + 1:
            return _announced(file.size - position - 8, size)
        position += 8 + size + size % 2
    return ""


def _caf(file: Ranges) -> str:
    position = 8
    while len(head := file.at(position, 12)) == 12:
        size = int.from_bytes(head[4:], "big", signed=True)
        if size < 0:
            return ""  # the samples, up to the end of the file
        if position + 12 + size > file.size:
            return _announced(file.size - position - 12, size)
        position += 12 + size
    return ""


def _flv(file: Ranges) -> str:
    """Each tag is followed by its size, 11 bytes of header included; the last one shows whether all is there."""
    tail = file.at(file.size - 4, 4)
    size = int.from_bytes(tail, "big")
    place = file.size - 4 - size
    head = file.at(place, 4) if place >= 9 else b""
    return "" if head and int.from_bytes(head[1:], "big") + 11 == size else "its last tag is incomplete"


def _is_transport_stream(file: Ranges) -> bool:
    return file.size > 2 * _TS_BYTES and all(file.at(place, 1) == b"G" for place in (0, _TS_BYTES, 2 * _TS_BYTES))


def _transport_stream(file: Ranges) -> str:
    """Packets of 188 bytes; what they carry states its size (PES), which the last of every stream must have."""
    there = file.size % _TS_BYTES
    if there and file.at(file.size - there, 1) == b"G":
        return f"its last packet is incomplete ({there} of {_TS_BYTES} bytes)"
    end = file.size - there
    missing: dict[int, int] = {}
    data = file.at(max(0, end - _TAIL_BYTES // _TS_BYTES * _TS_BYTES), _TAIL_BYTES)
    for place in range(0, len(data) - _TS_BYTES + 1, _TS_BYTES):
        packet = data[place : place + _TS_BYTES]
        if packet[0] != 0x47 or not packet[3] & 0x10:
            continue
        identity = (packet[1] & 0x1F) << 8 | packet[2]
        payload = packet[4 + (1 + packet[4] if packet[3] & 0x20 else 0) :]
        if packet[1] & 0x40:
            missing.pop(identity, None)
            length = int.from_bytes(payload[4:6], "big")
            if payload[:3] == b"\0\0\1" and len(payload) > 6 and payload[3] in _PES_SOUND and length:
                missing[identity] = length + 6
        if identity in missing:
            missing[identity] -= len(payload)
    if any(bytes_missing > 0 for bytes_missing in missing.values()):
        return f"the last {max(missing.values())} bytes of its sound are not there"
    return ""


def _program_stream(file: Ranges) -> str:
    """Packets that state their size, from some place in the last bytes on."""
    start = max(0, file.size - _TAIL_BYTES)
    data = file.at(start, _TAIL_BYTES)
    position = data.find(b"\0\0\1\xba")
    while position >= 0 and position + 6 <= len(data):
        if data[position : position + 3] != b"\0\0\1":
            return ""
        code = data[position + 3]
        if code == 0xB9:  # the end code
            return ""
        if code == 0xBA:
            is_mpeg2 = data[position + 4] >> 6 == 1
            stuffing = data[position + 13] & 7 if is_mpeg2 and position + 13 < len(data) else 0
            position += 14 + stuffing if is_mpeg2 else 12
            continue
        size = 6 + int.from_bytes(data[position + 4 : position + 6], "big")
        if position + size > len(data):
            return f"its last packet is incomplete ({len(data) - position} of {size} bytes)"
        position += size
    return "its last packet is incomplete" if 0 <= position < len(data) else ""
