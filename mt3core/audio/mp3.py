"""The length of an MP3 whose header does not give it.

An MP3 is a sequence of frames, each with its own bit rate. Encoders put the number of frames into a Xing (or Info)
header in the first one. Without it, libsndfile guesses the length from the first frame's bit rate, and stops
reading there: with a variable bit rate that can be much too early. So the frames are counted here.
"""

from __future__ import annotations

from pathlib import Path

# Layer III bit rates in kbit/s by the header's index (ISO/IEC 11172-3 and 13818-3).
_MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_RATES_HZ = (44_100, 48_000, 32_000)
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}  # version bits: MPEG 1, MPEG 2, MPEG 2.5


def has_xing_header(path: Path) -> bool:
    """Whether the first frame contains the encoder's count of frames."""
    with path.open("rb") as file:
        file.seek(_tag_bytes(file.read(10)))
        frame = file.read(512)
    return b"Xing" in frame or b"Info" in frame


def count_mp3_samples(path: Path) -> int | None:
    """Samples (per channel) in all frames; None if they are not an unbroken sequence of Layer III frames."""
    data = path.read_bytes()
    position, samples = _tag_bytes(data[:10]), 0
    while position + 4 <= len(data):
        frame = _frame_size(data, position)
        if frame is None:
            is_tag = data[position : position + 3] in (b"TAG", b"APE", b"LYR", b"ID3", b"\0\0\0")
            return samples if samples and is_tag else None
        position, samples = position + frame[0], samples + frame[1]
    return samples


def _tag_bytes(start: bytes) -> int:
    """The length of an ID3v2 tag at the start: ten bytes and a size in four bytes of 7 bits."""
    if start[:3] != b"ID3" or len(start) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))


def _frame_size(data: bytes, position: int) -> tuple[int, int] | None:
    """(bytes, samples) of the frame whose header starts at `position`; None if there is none."""
    sync, second, third = data[position], data[position + 1], data[position + 2]
    version, layer = second >> 3 & 3, second >> 1 & 3
    kbits_index, rate_index, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
    if sync != 0xFF or second & 0xE0 != 0xE0 or version == 1 or layer != 1:
        return None
    if kbits_index in (0, 15) or rate_index == 3:
        return None
    is_mpeg1 = version == 3
    kbits = (_MPEG1_KBITS if is_mpeg1 else _MPEG2_KBITS)[kbits_index]
    rate_hz = _MPEG1_RATES_HZ[rate_index] // _RATE_DIVISORS[version]
    samples = 1152 if is_mpeg1 else 576
    return samples // 8 * kbits * 1000 // rate_hz + padding, samples
