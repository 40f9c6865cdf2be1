"""Chunks, the units of a prepared data set: up to 8.192 s of one recording, and the notes that sound in it.

The chunks of a recording follow each other without overlap; the last may be shorter. A record is

    header   32 bytes, little-endian: "MT3C", version, encoding, samples, notes, bytes of audio, CRC-32 of the audio,
             CRC-32 of header and notes, first sample within the piece
    audio    mono int16 at 16 kHz, as it is or as a FLAC file
    notes    rows of NOTE_DTYPE (packed, little-endian)

The notes keep their times within the piece, to the bit: the codec rounds times to 10 ms steps counted from the start
of the piece, and 8.192 s is not a whole number of them, so times counted from the chunk would sometimes fall on
another step. `Chunk.notes` has times counted from the chunk.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int16

from mt3core.config.data import SAMPLE_RATE_HZ
from mt3core.errors import DatasetError
from mt3core.notes.table import NOTE_DTYPE, NoteTable

CHUNK_SAMPLES = 131_072  # 8.192 s: four segments of 256 frames of 128 samples
# A chunk also has the notes this close to it: rounded to a step of 10 ms they may reach it.
MARGIN_SECONDS = 0.02
FULL_SCALE = 1 << 15  # int16 samples are multiples of 1 / FULL_SCALE, as in `load_audio`

_MAGIC = b"MT3C"
_VERSION = 1
_RAW, _FLAC = 0, 1
_HEADER = struct.Struct("<4sHHIIIIII")
_CHECKED_BEFORE_CRC = 24  # the CRC of header and notes covers these bytes, the first sample and the notes


@dataclass(frozen=True)
class Chunk:
    """A stretch of a recording. Arrays may be read-only views of the record."""

    audio: Int16[np.ndarray, " samples"]
    piece_notes: NoteTable  # times in seconds from the start of the piece
    start_sample: int = 0  # of `audio` within the piece

    @property
    def start_seconds(self) -> float:
        return self.start_sample / SAMPLE_RATE_HZ


def to_int16(audio: Float[np.ndarray, " samples"]) -> tuple[Int16[np.ndarray, " samples"], int]:
    """Audio rounded to int16, and how many samples were outside its range by more than rounding and were clipped."""
    result = np.empty(len(audio), np.int16)
    num_clipped = 0
    for start in range(0, len(audio), CHUNK_SAMPLES):  # in parts: an hour's intermediate results would be 500 MB
        scaled = np.rint(audio[start : start + CHUNK_SAMPLES] * np.float32(FULL_SCALE))
        # +1.0 itself has no int16; one step less than full scale is not audible as clipping.
        num_clipped += int(np.count_nonzero((scaled > FULL_SCALE) | (scaled < -FULL_SCALE)))
        result[start : start + CHUNK_SAMPLES] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1)
    return result, num_clipped


def notes_between(notes: NoteTable, start_seconds: float, end_seconds: float) -> NoteTable:
    """The notes that sound between two times of the piece, in their order."""
    return notes[_sounds_between(notes, start_seconds, end_seconds)]


def cut_chunks(audio: Int16[np.ndarray, " samples"], notes: NoteTable) -> list[Chunk]:
    """All chunks of a recording in order, each with its notes and those within MARGIN_SECONDS of it.

    A note that continues from before a chunk comes with all notes of its pitch, program and drum flag that
    overlapped it, even if they have ended: for the codec the first offset of a pitch ends it, so without them a note
    that is over would be tied.
    """
    chunks = []
    for start in range(0, len(audio), CHUNK_SAMPLES):
        part = audio[start : start + CHUNK_SAMPLES]
        first, last = start / SAMPLE_RATE_HZ, (start + len(part)) / SAMPLE_RATE_HZ
        is_wanted = _sounds_between(notes, first - MARGIN_SECONDS, last + MARGIN_SECONDS)
        begun = notes["onset"] < first + MARGIN_SECONDS
        is_wanted |= begun & _met(notes, is_wanted & begun)
        chunks.append(Chunk(part, notes[is_wanted], start))
    return chunks


def encode_chunk(
    audio_int16: Int16[np.ndarray, " samples"], notes: NoteTable, flac: bool = False, start_sample: int = 0
) -> bytes:
    """A record of at most CHUNK_SAMPLES samples. The same chunk gives the same bytes.

    Args:
        notes: with times from the start of the piece.
        flac: compress the audio losslessly.
        start_sample: of this audio within the piece.
    """
    if not 0 < len(audio_int16) <= CHUNK_SAMPLES:
        raise ValueError(f"a chunk has 1 to {CHUNK_SAMPLES} samples, not {len(audio_int16)}")
    audio = _pack_flac(audio_int16) if flac else audio_int16.astype("<i2").tobytes()
    table = notes.astype(NOTE_DTYPE.newbyteorder("<")).tobytes()
    fields = (len(audio_int16), len(notes), len(audio), zlib.crc32(audio))
    header = _HEADER.pack(_MAGIC, _VERSION, _FLAC if flac else _RAW, *fields, 0, start_sample)
    return b"".join([header[:_CHECKED_BEFORE_CRC], _header_crc(header, table), header[28:], audio, table])


def decode_chunk(data: bytes) -> Chunk:
    """The whole chunk, with every checksum compared. Raises `DatasetError` for a damaged or newer record."""
    header = _read_header(data)
    packed = memoryview(data)[header.audio_start : header.audio_end]
    if zlib.crc32(packed) != header.audio_crc:
        raise _damaged("its audio does not have the checksum stored with it")
    return Chunk(_unpack(header, data, 0, header.num_samples), _notes(header, data), header.start_sample)


def decode_segment(data: bytes, start_sample: int, num_samples: int) -> Chunk:
    """A section of a chunk: `num_samples` from `start_sample` (within the chunk), zeros after its end.

    Its notes are those of the whole chunk: if notes of the same pitch overlap, the codec also needs those that have
    ended. Uncompressed audio is not copied unless it has to be padded, and its checksum is not compared (ArrayRecord
    has compared its own); header and notes are checked. Raises `DatasetError` for a damaged or newer record.
    """
    header = _read_header(data)
    if start_sample < 0 or num_samples < 1:
        raise ValueError(f"no segment of {num_samples} samples starts at {start_sample}")
    audio = _unpack(header, data, start_sample, min(start_sample + num_samples, header.num_samples))
    if len(audio) < num_samples:
        audio = np.concatenate([audio, np.zeros(num_samples - len(audio), np.int16)])
    return Chunk(audio, _notes(header, data), header.start_sample + start_sample)


def _sounds_between(notes: NoteTable, start: float, end: float) -> Bool[np.ndarray, " notes"]:
    # A note without length sounds where it starts.
    return (notes["onset"] < end) & ((notes["offset"] > start) | (notes["onset"] >= start))


def _met(notes: NoteTable, is_held: Bool[np.ndarray, " notes"]) -> Bool[np.ndarray, " notes"]:
    """The notes that end after a held one of the same key has started."""
    keys = notes["pitch"] + 128 * (notes["program"] + 256 * notes["is_drum"])
    since = np.full(int(keys.max(initial=0)) + 1, np.inf)
    np.minimum.at(since, keys[is_held], notes["onset"][is_held])
    return notes["offset"] >= since[keys] - MARGIN_SECONDS


@dataclass(frozen=True)
class _Header:
    encoding: int
    num_samples: int
    num_notes: int
    audio_bytes: int
    audio_crc: int
    start_sample: int

    audio_start = _HEADER.size

    @property
    def audio_end(self) -> int:
        return self.audio_start + self.audio_bytes


def _read_header(data: bytes) -> _Header:
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise _damaged("it does not start like a chunk")
    _, version, encoding, num_samples, num_notes, audio_bytes, audio_crc, crc, start_sample = _HEADER.unpack_from(data)
    if version > _VERSION or encoding not in (_RAW, _FLAC):
        raise DatasetError(
            f"A record has version {version}, encoding {encoding}, unknown to this release.",
            "Install the release of mt3kit that prepared it, or a newer one.",
        )
    header = _Header(encoding, num_samples, num_notes, audio_bytes, audio_crc, start_sample)
    if len(data) != header.audio_end + num_notes * NOTE_DTYPE.itemsize:
        raise _damaged(f"it has {len(data)} bytes, a different number than its header says")
    if encoding == _RAW and audio_bytes != 2 * num_samples:
        raise _damaged("its header contradicts itself")
    if _header_crc(data, memoryview(data)[header.audio_end :]) != struct.pack("<I", crc):
        raise _damaged("its notes do not have the checksum stored with them")
    return header


def _header_crc(header: bytes, table: bytes | memoryview) -> bytes:
    covered = header[:_CHECKED_BEFORE_CRC] + header[28 : _HEADER.size]
    return struct.pack("<I", zlib.crc32(table, zlib.crc32(covered)))


def _notes(header: _Header, data: bytes) -> NoteTable:
    return np.frombuffer(data, NOTE_DTYPE, header.num_notes, header.audio_end)


def _unpack(header: _Header, data: bytes, start: int, end: int) -> Int16[np.ndarray, " samples"]:
    count = max(0, end - start)
    if not count:
        return np.empty(0, np.int16)
    if header.encoding == _RAW:
        return np.frombuffer(data, np.int16, count, header.audio_start + 2 * start)
    return _unpack_flac(data[header.audio_start : header.audio_end], start, count)


def _pack_flac(audio: Int16[np.ndarray, " samples"]) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _unpack_flac(data: bytes, start: int, count: int) -> Int16[np.ndarray, " samples"]:
    import soundfile

    try:
        audio, _ = soundfile.read(io.BytesIO(data), frames=count, start=start, dtype="int16")
    except soundfile.SoundFileError as error:
        raise _damaged(f"its FLAC cannot be read ({str(error).rstrip('.')})") from error
    if len(audio) != count:
        raise _damaged("its FLAC is shorter than its header says")
    return audio


def _damaged(reason: str) -> DatasetError:
    return DatasetError(
        f"A record of a prepared data set is damaged: {reason}.",
        "Delete its shard and run mt3 prepare again; finished shards are kept.",
    )
