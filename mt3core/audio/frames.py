"""Audio that is a mere sequence of frames (MP3 and its older layers, AAC as ADTS, AC-3): which bytes are frames.

Nothing but habit says what such a file holds: tags in front, between and behind, several files one after the other,
rests of a download. So every frame is visited, which needs only its header. What is not a frame is left out, and
what a Xing or VBRI header says about the number of frames is compared with those that are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mt3core.audio.source import Ranges
from mt3core.audio.stream import seconds_text

# Layer III bit rates in kbit/s by the header's index, and those of the other layers (ISO/IEC 11172-3 and 13818-3).
_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG1_RATES_HZ = (44_100, 48_000, 32_000)
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # version bits: MPEG 1, MPEG 2, MPEG 2.5
# AAC (ISO/IEC 14496-3, table 1.18) and AC-3 (ATSC A/52, table 5.18: words of 16 bits at 48 kHz are twice the kbit/s).
_AAC_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES_HZ = (48_000, 44_100, 32_000)

HEADER_BYTES = 7
_BUFFER_BYTES = 1 << 20
_SEARCHED_BYTES = 1 << 20  # for the first frame
_CHAIN = 4  # frames in a row that are no chance
_SYNC = re.compile(rb"\xff[\xe0-\xff]|\x0b\x77")


class Frame(NamedTuple):
    """What a header says. `key` is the same for all frames of a recording; a Xing header would be at `count_at`."""

    size: int
    samples: int
    rate_hz: int
    key: tuple[int, ...]
    count_at: int = 0


Parser = Callable[[bytes], Frame | None]


def parse_mpeg(header: bytes) -> Frame | None:
    """MPEG audio of layer I, II or III, by its first four bytes; not of free bit rate."""
    second, third = header[1], header[2]
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    kbits_index, rate_index, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if header[0] != 0xFF or second & 0xE0 != 0xE0 or version == 1 or layer == 4:
        return None
    if kbits_index in (0, 15) or rate_index == 3:
        return None
    is_mpeg1, is_mono = version == 3, header[3] >> 6 == 3
    bits = _KBITS[is_mpeg1, layer][kbits_index] * 1000
    rate_hz = _MPEG1_RATES_HZ[rate_index] // _RATE_DIVISORS[version]
    samples = 384 if layer == 1 else 1152 if is_mpeg1 or layer == 2 else 576
    size = (12 * bits // rate_hz + padding) * 4 if layer == 1 else samples // 8 * bits // rate_hz + padding
    side_bytes = (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)
    return Frame(size, samples, rate_hz, (version, layer, rate_index), 4 + side_bytes if layer == 3 else 0)


def parse_adts(header: bytes) -> Frame | None:
    rate_index = header[2] >> 2 & 15
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or rate_index >= len(_AAC_RATES_HZ) or size <= HEADER_BYTES:
        return None
    key = (header[1] & 8, header[2] >> 6, rate_index)
    return Frame(size, 1024 * ((header[6] & 3) + 1), _AAC_RATES_HZ[rate_index], key)


def parse_ac3(header: bytes) -> Frame | None:
    """AC-3, or E-AC-3, whose frames may belong to one moment (their samples are then 0)."""
    if header[:2] != b"\x0b\x77":
        return None
    variant, rate_index = header[5] >> 3, header[4] >> 6
    if variant <= 10:
        code = header[4] & 63
        if rate_index == 3 or code >= 2 * len(_AC3_KBITS):
            return None
        kbits, rate_hz = _AC3_KBITS[code // 2], _AC3_RATES_HZ[rate_index]
        words = kbits * 96_000 // rate_hz + (code & 1 if rate_hz == 44_100 else 0)
        return Frame(words * 2, 1536, rate_hz >> max(0, variant - 8), (rate_index, 0))
    if variant > 16 or rate_index == 3:
        return None
    is_dependent = header[2] >> 6 == 1 or header[2] >> 3 & 7 != 0
    samples = 0 if is_dependent else 256 * (1, 2, 3, 6)[header[4] >> 4 & 3]
    return Frame(2 * ((header[2] & 7) << 8 | header[3]) + 2, samples, _AC3_RATES_HZ[rate_index], (rate_index, 1))


_PARSERS: dict[str, Parser] = {"mp3": parse_mpeg, "aac": parse_adts, "ac3": parse_ac3}


@dataclass
class _Recording:
    """One of the recordings that were joined: the frames that are there and those its own header counts."""

    first_frame: int
    start_seconds: float
    rate_hz: int
    frame_samples: int
    frames: int = 0
    frame_bytes: int = 0
    counted_frames: int = 0
    counted_bytes: int = 0
    # (number of the frame that follows, bytes left out before it, whether they stand where frames were)
    breaks: list[tuple[int, int]] = field(default_factory=list)

    def missing_frames(self) -> int:
        """How many of the counted frames are not there. Some encoders count the frame of the header itself."""
        missing = self.counted_frames - self.frames
        if missing == 1 and (not self.counted_bytes or self.counted_bytes <= self.frame_bytes):
            return 0
        return max(0, missing)


@dataclass
class FrameScan:
    """The frames of a file: `pieces` are the (start, length) of the bytes to decode, in order.

    `losses` gives by the number of a frame how many samples are missing before it; `missing_end` says why the file
    is not whole, "" if nothing shows that.
    """

    codec: str
    pieces: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0
    rate_hz: int = 0
    recordings: int = 0
    losses: dict[int, int] = field(default_factory=dict)
    missing_end: str = ""
    remarks: list[str] = field(default_factory=list)


def find_frames(file: Ranges, start_bytes: int = _SEARCHED_BYTES) -> tuple[str, int] | None:
    """The codec (mp3, aac or ac3) and the place of the first frame: behind tags and at most so many other bytes.

    None if this is no sequence of frames.
    """
    start = 0
    while (length := _tag_bytes(file.at(start, 32))) > 0:
        start += length
    data = file.at(start, start_bytes + 2)
    for match in _SYNC.finditer(data):
        header = file.at(start + match.start(), HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            break
        for codec, parse in _PARSERS.items():
            frame, place = parse(header), start + match.start()
            if frame is not None and (_has_count(file, place, frame) or _is_chain(file, place, parse)):
                return codec, place
    return None


def _has_count(file: Ranges, position: int, frame: Frame) -> bool:
    """Whether a frame holds the count of an encoder, by which it is known even if the next ones are damaged."""
    if not frame.count_at or position + frame.size > file.size:
        return False
    return file.at(position + frame.count_at, 4) in (b"Xing", b"Info") or file.at(position + 36, 4) == b"VBRI"


def _is_chain(file: Ranges, position: int, parse: Parser, wanted: int = _CHAIN) -> bool:
    """Whether frames of one kind follow one another from here, `wanted` of them or up to the end."""
    key, done = None, 0
    while done < wanted:
        header = file.at(position, 32)
        if not header or (done and _tag_bytes(header)):
            return done > 0
        frame = parse(header) if len(header) >= HEADER_BYTES else None
        if frame is None or key not in (None, frame.key):
            return False
        if position + frame.size > file.size:
            return done > 0  # cut off
        key, position, done = frame.key, position + frame.size, done + 1
    return True


def _tag_bytes(start: bytes) -> int:
    """The length of the tag that starts with these bytes (ID3v2, ID3v1, APEv2, Lyrics3), or 0."""
    if start[:3] == b"ID3" and len(start) >= 10 and max(start[6:10]) < 128:
        footer = 10 if start[5] & 0x10 else 0
        return (
            10 + footer + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
        )
    if start[:4] == b"TAG+":
        return 227
    if start[:3] == b"TAG":
        return 128
    if start[:8] == b"APETAGEX" and len(start) >= 24:
        is_header = start[23] & 0x20  # flags: the size counts the footer, not the header
        return int.from_bytes(start[12:16], "little") + 32 if is_header else 32
    return 0


def scan_frames(file: Ranges, codec: str, start: int) -> FrameScan:
    """Visits all frames from the first one, which `find_frames` found."""
    return _Scanner(file, codec).run(start)


class _Scanner:
    def __init__(self, file: Ranges, codec: str) -> None:
        self.file, self.parse = file, _PARSERS[codec]
        self.scan = FrameScan(codec)
        self.recordings: list[_Recording] = []
        self.number = 0  # of the next frame that the decoder will see
        self.seconds = 0.0
        self.junk: list[tuple[float, int]] = []
        self.after_count = 0  # where the frames go on after one that only holds a count
        self.last_size = 0  # of the last frame counted, 0 if there is none in this sequence

    def run(self, start: int) -> FrameScan:
        if start and not self._is_tags(0, start):
            self.junk.append((0.0, start))
        position: int | None = start
        while position is not None:
            self.after_count = 0
            end = self._frames_from(position)
            inside = None if self.after_count else self._start_inside_last(end)
            if inside is not None:
                end = self._drop_last(end)
            if end > position:
                self.scan.pieces.append((position, end - position))
            position = self.after_count or inside or self._next_start(end)
        self._conclude()
        return self.scan

    def _frames_from(self, position: int) -> int:
        """Counts the frames that follow one another; returns where the last of them ends."""
        parse, file_size = self.parse, self.file.size
        known: dict[bytes, Frame | None] = {}
        self.last_size = 0
        header_bytes = 4 if self.scan.codec == "mp3" else HEADER_BYTES
        buffer, offset, size = b"", 0, 0
        recording = self.recordings[-1] if self.recordings else None
        key = None
        while True:
            if offset + 64 > len(buffer):
                buffer, offset = self.file.at(position, _BUFFER_BYTES), 0
            header = buffer[offset : offset + header_bytes]
            frame = known.get(header)
            if frame is None:
                frame = parse(header) if len(header) == header_bytes else None
                known[header] = frame
            if frame is None:
                self.last_size = size if key is not None else 0
                return position
            last_size = size
            size, samples, rate_hz, frame_key, count_at = frame
            if position + size > file_size:
                if key in (None, frame_key) and self.number:
                    there = file_size - position
                    self.scan.missing_end = f"its last frame is incomplete ({there} of {size} bytes)"
                return position
            counted = buffer[offset + count_at : offset + count_at + 4] if count_at else b""
            is_count = counted in (b"Xing", b"Info") or (count_at and buffer[offset + 36 : offset + 40] == b"VBRI")
            if is_count or frame_key != key or recording is None:
                if key is not None and frame_key != key and not _is_chain(self.file, position, parse):
                    self.last_size = last_size
                    return position
                if recording is None or is_count or rate_hz != recording.rate_hz:
                    recording = _Recording(self.number, self.seconds, rate_hz, samples)
                    self.recordings.append(recording)
                key = frame_key
            if is_count:
                _read_count(self.file.at(position, min(size, 256)), count_at, recording)
                recording.frame_bytes += size
                if self.number:  # the demuxer leaves out the first one of all by itself
                    self.after_count = position + size
                    return position
            else:
                recording.frames += 1
                recording.frame_bytes += size
                self.number += 1
                self.seconds += samples / rate_hz
            position += size
            offset += size

    def _start_inside_last(self, end: int) -> int | None:
        """Where another recording starts within the last frame, of which the rest was then cut off."""
        if not self.last_size or end >= self.file.size:
            return None
        data = self.file.at(end - self.last_size, self.last_size + HEADER_BYTES - 1)
        place = data[: self.last_size + 2].find(b"ID3", 4)
        if place > 0 and _tag_bytes(self.file.at(end - self.last_size + place, 32)):
            return self._next_start(end - self.last_size + place)
        return self._search(data[4:], end - self.last_size + 4, _CHAIN)

    def _drop_last(self, end: int) -> int:
        recording = self.recordings[-1]
        recording.frames -= 1
        recording.frame_bytes -= self.last_size
        self.number -= 1
        self.seconds -= recording.frame_samples / recording.rate_hz
        if not recording.counted_frames:
            self.scan.missing_end = f"a recording in it is cut off within a frame at {seconds_text(self.seconds)}"
        return end - self.last_size

    def _next_start(self, end: int) -> int | None:
        """Where the frames go on after a tag or other bytes between; None at the end of the file."""
        position = end
        while position < self.file.size:
            data = self.file.at(position, _BUFFER_BYTES)
            if tag := _tag_bytes(data[:32]):
                position += tag
                continue
            zeros = len(data) - len(data.lstrip(b"\0"))
            if zeros and self._is_whole_stop(position, zeros, end):
                position += zeros
                continue
            found = self._search(data, position)
            if found is not None:
                self._note_break(found - end if position == end else found - position)
                return found
            if len(data) < _BUFFER_BYTES:
                if not self.scan.missing_end:
                    self.junk.append((self.seconds, len(data)))
                return None
            position += len(data) - HEADER_BYTES
        return None

    def _is_whole_stop(self, position: int, zeros: int, end: int) -> bool:
        """Whether zeros are padding: before a tag, after one, or at the end; not between two frames."""
        after = self.file.at(position + zeros, 32)
        return not after or bool(_tag_bytes(after)) or position > end

    def _search(self, data: bytes, position: int, chain: int = 2) -> int | None:
        for match in _SYNC.finditer(data):
            header = data[match.start() : match.start() + HEADER_BYTES]
            is_header = len(header) == HEADER_BYTES and self.parse(header) is not None
            if is_header and _is_chain(self.file, position + match.start(), self.parse, chain):
                return position + match.start()
        return None

    def _note_break(self, length: int) -> None:
        if length and self.recordings:
            self.recordings[-1].breaks.append((self.number, length))
            self.junk.append((self.seconds, length))

    def _is_tags(self, start: int, end: int) -> bool:
        position = start
        while position < end:
            data = self.file.at(position, min(end - position, _BUFFER_BYTES))
            length = _tag_bytes(data[:32]) or len(data) - len(data.lstrip(b"\0"))
            if not length:
                return False
            position += length
        return True

    def _conclude(self) -> None:
        """Compares counts with frames; what is not explained by lost frames is junk."""
        scan, lost_places = self.scan, set()
        for index, recording in enumerate(self.recordings):
            missing = recording.missing_frames()
            places = [(number, length) for number, length in recording.breaks if number > recording.first_frame]
            if not recording.counted_frames and scan.codec == "mp3":
                missing = sum(_frames_lost(length, recording) for _, length in places)
                places = [(number, length) for number, length in places if _frames_lost(length, recording)]
            if missing and places:
                total = sum(length for _, length in places)
                for number, length in places:
                    scan.losses[number] = max(1, round(missing * length / total)) * recording.frame_samples
                    lost_places.add(length)
            elif missing:
                seconds = recording.frames * recording.frame_samples / recording.rate_hz
                whole = recording.counted_frames * recording.frame_samples / recording.rate_hz
                which = f"part {index + 1} " if len(self.recordings) > 1 else ""
                scan.missing_end = f"{which or 'it '}ends at {seconds:.1f} s of {whole:.1f} s"
        scan.seconds, scan.recordings = self.seconds, len(self.recordings)
        scan.rate_hz = self.recordings[0].rate_hz if self.recordings else 0
        if scan.recordings > 1:
            rates = {recording.rate_hz for recording in self.recordings}
            changing = "" if len(rates) == 1 else " with different sample rates"
            scan.remarks.append(f"It is {scan.recordings} recordings joined{changing}; all were read.")
        junk = [(seconds, length) for seconds, length in self.junk if length not in lost_places]
        if junk:
            total = sum(length for _, length in junk)
            first = seconds_text(junk[0][0])
            scan.remarks.append(f"{total} bytes that are no audio were passed over, the first of them at {first}.")


def _frames_lost(length: int, recording: _Recording) -> int:
    """How many frames of a constant bit rate stood in so many bytes; 0 if they do not fit, so that it is junk."""
    mean = recording.frame_bytes / max(1, recording.frames)
    count = round(length / mean)
    return count if count and abs(length - count * mean) <= 1 + count / 2 else 0


def _read_count(frame: bytes, count_at: int, recording: _Recording) -> None:
    """The number of frames and bytes in a Xing (Info) or VBRI header."""
    if frame[36:40] == b"VBRI":
        recording.counted_bytes = int.from_bytes(frame[46:50], "big")
        recording.counted_frames = int.from_bytes(frame[50:54], "big")
        return
    flags = int.from_bytes(frame[count_at + 4 : count_at + 8], "big")
    place = count_at + 8
    if flags & 1:
        recording.counted_frames = int.from_bytes(frame[place : place + 4], "big")
        place += 4
    if flags & 2:
        recording.counted_bytes = int.from_bytes(frame[place : place + 4], "big")
