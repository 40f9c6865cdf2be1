"""The container of a MIDI file: its header, and the chunks that hold its tracks, whatever is odd about them.

Standard MIDI Files 1.0: a header chunk (MThd), then chunks of a four-letter kind, a length and their content. Found
in practice, and handled here: a RIFF file around it (RMID), other bytes in front, headers longer than they say.
"""

from __future__ import annotations

from dataclasses import dataclass

from mt3core.errors import MidiError

HEADER, TRACK = b"MThd", b"MTrk"
CHUNK_HEADER_BYTES = 8  # four letters and a length
FRAMES_PER_SECOND = {24: 24.0, 25: 25.0, 29: 30000 / 1001, 30: 30.0}  # SMPTE; 29 stands for 29.97
_MOST_BYTES_IN_FRONT = 1 << 16  # a Macintosh or mail header
_LEAST_HEADER_BYTES = 6  # type, number of tracks, division
_EXPORT_AGAIN = "Export it again, as a Standard MIDI File."
_COPY_AGAIN = "Copy or download it again."
# How other files start that end up under a name of MIDI files.
_OTHERS = (
    (b"ID3", "an MP3 recording"),
    (b"fLaC", "a FLAC recording"),
    (b"OggS", "an Ogg recording"),
    (b"PK\x03\x04", "a ZIP archive or compressed score"),
    (b"\x1f\x8b", "compressed by gzip"),
    (b"<", "a web page or XML"),
    (b"%PDF", "a PDF"),
    (b"{", "JSON"),
)
_OTHERS_IN_RIFF = ((b"WAVE", "a WAV recording"), (b"sfbk", "a sound font"), (b"AVI ", "a video"))


class UnreadableMidiError(Exception):
    """Why bytes cannot be read as MIDI, as the end of a sentence, and what to do."""

    def __init__(self, reason: str, next_step: str = _EXPORT_AGAIN) -> None:
        super().__init__(reason)
        self.reason, self.next_step = reason, next_step

    def named(self, name: str) -> MidiError:
        return MidiError(f"{name} cannot be read as a MIDI file: {self.reason}.", self.next_step)


def cut_short(reason: str) -> UnreadableMidiError:
    """The error for a file that ends before it should."""
    return UnreadableMidiError(reason, _COPY_AGAIN)


@dataclass(frozen=True)
class Container:
    """The bytes of a file from its header on. `remarks` are clauses on what is odd about it.

    `division` is the header's: ticks per quarter, or with the highest bit set film frames per second (SMPTE, negative)
    and ticks per frame. `num_tracks` is what the header says, `first_chunk` the position after it.
    """

    data: bytes
    format: int
    num_tracks: int
    division: int
    first_chunk: int
    remarks: tuple[str, ...]


def open_container(source: bytes) -> Container:
    """The header of a MIDI file. Raises `UnreadableMidiError`."""
    if not source:
        raise UnreadableMidiError("it is empty", _COPY_AGAIN)
    data, remarks = _unwrapped(source)
    begin = data.find(HEADER, 0, _MOST_BYTES_IN_FRONT)
    if begin < 0:
        raise UnreadableMidiError(_what_it_is(source))
    if begin:
        remarks.append(f"{begin} bytes before its header are passed over")
        data = data[begin:]
    length = int.from_bytes(data[4:8], "big")
    if len(data) < CHUNK_HEADER_BYTES + _LEAST_HEADER_BYTES:
        raise cut_short("it ends within its header")
    first_chunk = CHUNK_HEADER_BYTES + length
    if data[first_chunk : first_chunk + 4] != TRACK:
        usual = CHUNK_HEADER_BYTES + _LEAST_HEADER_BYTES
        if length < _LEAST_HEADER_BYTES or first_chunk > len(data) or data[usual : usual + 4] == TRACK:
            remarks.append(f"its header says that it has {length} bytes instead of {_LEAST_HEADER_BYTES}")
            first_chunk = usual
    division = int.from_bytes(data[12:14], "big")
    _check_division(division)
    kind, num_tracks = int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")
    return Container(data, kind, num_tracks, division, first_chunk, tuple(remarks))


def is_chunk(data: bytes, position: int) -> bool:
    """Whether a chunk of any kind, complete, may start here."""
    kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "big")
    return (
        len(data) - position >= CHUNK_HEADER_BYTES
        and all(0x20 <= byte < 0x7F for byte in kind)
        and position + CHUNK_HEADER_BYTES + length <= len(data)
    )


def _unwrapped(data: bytes) -> tuple[bytes, list[str]]:
    """The content of the `data` chunk of a RIFF file of the kind RMID, and remarks; other bytes as they are."""
    for first in (b"M", b"\0M"):  # text of two bytes a letter, in either order
        begin = data.find(first + b"\0T\0h\0d", 0, _MOST_BYTES_IN_FRONT) + len(first) - 1
        if begin >= 0 and not any(data[begin + 1 :: 2]):
            return data[begin::2], ["it was saved as UTF-16 text; every other byte is passed over"]
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data, []
    position = 12
    while position + CHUNK_HEADER_BYTES <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        position += CHUNK_HEADER_BYTES
        if kind == b"data":
            remarks = []
            if length == 0 or position + length > len(data):
                remarks.append(f"its RIFF chunk says that it has {length} bytes; {len(data) - position} are there")
                length = len(data) - position
            return data[position : position + length], remarks
        position += length + length % 2
    return data, []


def _check_division(division: int) -> None:
    if division == 0:
        raise UnreadableMidiError("its header says 0 ticks per quarter note, so that its notes have no times")
    if not division & 0x8000:
        return
    rate = 256 - (division >> 8)
    if division & 0xFF == 0:
        raise UnreadableMidiError("its header says 0 ticks per film frame, so that its notes have no times")
    if rate not in FRAMES_PER_SECOND:
        raise UnreadableMidiError(f"its times are in film frames at {rate} per second, which is not a valid rate")


def _what_it_is(data: bytes) -> str:
    if data[:4] == b"RIFF":
        return next((f"it is {what}" for kind, what in _OTHERS_IN_RIFF if data[8:12] == kind), "it has no MIDI header")
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((f"it is {what}" for kind, what in _OTHERS if start.startswith(kind)), "it has no MIDI header")
