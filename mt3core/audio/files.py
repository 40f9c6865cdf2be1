"""Audio files through libsndfile (WAV, FLAC, OGG, MP3, AIFF, ...), with checks for truncated files.

A missing end shows in different ways: FLAC fails while it is read; MP3 yields fewer samples than its Xing header
says; for WAV, AIFF, CAF, W64 and AU libsndfile silently shortens the length and says so only in its log; the last
page of an OGG is incomplete.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from mt3core.audio.ffmpeg import needs_ffmpeg, open_with_ffmpeg
from mt3core.audio.mp3 import count_mp3_samples, has_xing_header
from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, AudioStream, cut_off_error
from mt3core.errors import AudioError, reading

# libsndfile reports the largest integer if a header does not say how many samples follow.
_UNKNOWN_FRAMES = 1 << 62
# Streaming programs write these sizes into a WAV header before they know the real one.
_UNKNOWN_BYTES = 0x7FFF0000
# MP3 encoders may or may not count the frame (at most 1152 samples) of the Xing header; decoders drop their own delay.
_MP3_TOLERANCE_FRAMES = 2 * 1152
_MP3_FORMATS = ("MP3", "MPEG")
_LARGEST_OGG_PAGE_BYTES = 27 + 255 + 255 * 255


@contextlib.contextmanager
def open_audio(path: Path) -> Iterator[AudioStream]:
    """Opens an audio file; raises `AudioError` if it is missing, a folder, empty, truncated or not audio."""
    _check_path(path)
    try:
        # As bytes, since names need not be UTF-8; on Windows names are text.
        file = _SequentialFile(path if os.name == "nt" else os.fsencode(path))
    except (soundfile.SoundFileError, TypeError):  # TypeError: a name like x.raw, whose samples have no header
        file = None
    if file is None and not needs_ffmpeg(path):
        raise AudioError(
            f"{path} cannot be read as audio.",
            "Use a WAV, FLAC, OGG, MP3 or AIFF file, or another format that ffmpeg reads.",
        )
    if file is None:
        with open_with_ffmpeg(path) as stream:
            yield stream
        return
    with file:
        _check_whole(path, file)
        num_frames = _known_frames(path, file)
        if num_frames is not None and num_frames > file.frames + _MP3_TOLERANCE_FRAMES:
            file.close()
            with open_with_ffmpeg(path, "has a variable bit rate and no length in its header: it") as stream:
                yield stream
            return
        info = AudioInfo(
            duration_seconds=None if num_frames is None else num_frames / file.samplerate,
            sample_rate_hz=file.samplerate,
            channels=file.channels,
            format=f"{file.format} {file.subtype}",
        )
        yield AudioStream(str(path), info, _blocks(path, file, num_frames))


class _SequentialFile(soundfile.SoundFile):
    """Read from start to end. soundfile otherwise seeks after every read, which fails at the end of a FLAC of
    unknown length and loses its last block."""

    def seekable(self) -> bool:
        return False


def _check_path(path: Path) -> None:
    if not path.exists():
        raise AudioError(f"There is no file {path}.", "Check the name and the folder.")
    if path.is_dir():
        raise AudioError(f"{path} is a folder, not an audio file.", "Pass the files in it.")
    if not path.is_file():
        raise AudioError(f"{path} is not a regular file.", "Save the audio to a file first.")
    with reading(path, AudioError, "Check its permissions."), path.open("rb") as file:
        first = file.read(1)
    if not first:
        raise AudioError(f"{path} is empty (0 bytes).", "Copy or download it again.")


def _check_whole(path: Path, file: soundfile.SoundFile) -> None:
    """Raises if the header or the last page shows that something is missing; reads no samples."""
    # One size per format: of the samples in WAV, CAF, AIFF and AU, of the whole file (`riff`) in W64.
    for declared, there in re.findall(
        r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", file.extra_info, re.M
    ):
        if int(there) < int(declared) < _UNKNOWN_BYTES:
            raise cut_off_error(str(path), f"it has {there} of the {declared} bytes announced in its header")
    if file.format == "OGG" and not _last_ogg_page_is_whole(path):
        raise cut_off_error(str(path), "its last page is incomplete")


def _blocks(path: Path, file: soundfile.SoundFile, num_frames: int | None) -> Iterator[np.ndarray]:
    block_frames = max(1024, BLOCK_VALUES // file.channels)
    done = 0
    while True:
        try:
            block = file.read(block_frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise cut_off_error(str(path), f"it ends somewhere after {done / file.samplerate:.1f} s") from error
        if not len(block):
            break
        done += len(block)
        yield block
    tolerance = _MP3_TOLERANCE_FRAMES if file.format in _MP3_FORMATS else 0
    if num_frames is not None and done < num_frames - tolerance:
        raise cut_off_error(
            str(path), f"it ends at {done / file.samplerate:.1f} s of {num_frames / file.samplerate:.1f} s"
        )


def _known_frames(path: Path, file: soundfile.SoundFile) -> int | None:
    """How many samples the file should contain, if that is certain."""
    if file.frames >= _UNKNOWN_FRAMES:
        return None
    if file.format in _MP3_FORMATS and not has_xing_header(path):
        return count_mp3_samples(path)
    return file.frames


def _last_ogg_page_is_whole(path: Path) -> bool:
    """Whether the last page (RFC 3533: 27 bytes, segment table, body) is complete."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LARGEST_OGG_PAGE_BYTES))
        tail = file.read()
    start = tail.rfind(b"OggS\0")
    if start < 0 or len(tail) - start < 27:
        return False
    (num_segments,) = struct.unpack_from("B", tail, start + 26)
    table = tail[start + 27 : start + 27 + num_segments]
    return len(table) == num_segments and len(tail) >= start + 27 + num_segments + sum(table)
