"""Formats that libsndfile does not read (m4a, aac, wma, the sound of a video), through the program `ffmpeg`.

ffmpeg writes Sun AU with float32 samples to a pipe: the simplest header there is, at the file's own rate and with
its own channels, so that mixing and resampling stay the same for all formats.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, AudioStream, cut_off_error
from mt3core.errors import AudioError

_SUFFIXES = {
    *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".aac", ".ac3", ".wma", ".asf", ".wmv", ".amr", ".ape", ".wv"),
    *(".mka", ".mkv", ".webm", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".opus", ".tta", ".dsf"),
}
# What ffmpeg prints for truncated files; it exits with 0 anyway.
_SIGNS_OF_A_MISSING_END = ("ended prematurely", "partial file", "Truncat")


def needs_ffmpeg(path: Path) -> bool:
    """Whether a file looks like audio or video that only ffmpeg reads: by its suffix or first bytes."""
    with path.open("rb") as file:
        start = file.read(12)
    is_mp4, is_matroska, is_asf = start[4:8] == b"ftyp", start[:4] == b"\x1aE\xdf\xa3", start[:4] == b"0&\xb2u"
    return path.suffix.lower() in _SUFFIXES or is_mp4 or is_matroska or is_asf


@contextlib.contextmanager
def open_with_ffmpeg(path: Path, complaint: str = "is in a format that") -> Iterator[AudioStream]:
    """Starts ffmpeg on a file; raises `AudioError` if ffmpeg is not installed or cannot read the file;
    `complaint` says why ffmpeg is needed.

    A truncated file is noticed if ffmpeg notices it: for mp4, m4a, aac, webm and mkv, but not wma.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{path} {complaint} needs ffmpeg, which is not installed.",
            "Install ffmpeg, or convert the file to WAV, FLAC or MP3.",
        )
    # `file:` and the whitelist keep names like `http:...`, and playlists inside the file, from opening anything else.
    command = [program, "-nostdin", "-v", "error", "-xerror", "-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        assert process.stdout is not None
        try:
            info = _read_header(path, process, messages)
            yield AudioStream(str(path), info, _blocks(path, info, process, messages))
        finally:
            process.stdout.close()
            process.kill()


def _read_header(path: Path, process: subprocess.Popen[bytes], messages: IO[bytes]) -> AudioInfo:
    """Sun AU: magic, offset of the samples, size, encoding, rate, channels as big-endian 32-bit integers."""
    assert process.stdout is not None
    header = process.stdout.read(24)
    if len(header) < 24:
        process.wait()
        raise AudioError(
            f"ffmpeg cannot read {path} ({_messages(messages)[0]}).",
            "Convert it to WAV, FLAC or MP3.",
        )
    magic, offset, _, encoding, sample_rate_hz, channels = struct.unpack(">4s5I", header)
    if magic != b".snd" or encoding != 6 or not channels:
        raise AudioError(f"ffmpeg gave unexpected output for {path}.", "Convert it to WAV, FLAC or MP3.")
    process.stdout.read(offset - len(header))
    return AudioInfo(None, sample_rate_hz, channels, f"{path.suffix.lstrip('.').upper()} (ffmpeg)")


def _blocks(path: Path, info: AudioInfo, process: subprocess.Popen[bytes], messages: IO[bytes]) -> Iterator[np.ndarray]:
    assert process.stdout is not None
    frame_bytes = 4 * info.channels
    block_bytes = frame_bytes * max(1024, BLOCK_VALUES // info.channels)
    while data := process.stdout.read(block_bytes):
        values = np.frombuffer(data[: len(data) // frame_bytes * frame_bytes], ">f4")
        yield values.astype(np.float32).reshape(-1, info.channels)
    status = process.wait()
    said = _messages(messages)
    if status != 0 or any(sign in line for line in said for sign in _SIGNS_OF_A_MISSING_END):
        raise cut_off_error(str(path), f"ffmpeg says {said[0]!r}")


def _messages(messages: IO[bytes]) -> list[str]:
    """ffmpeg's complaints without the prefix that names its component and an address; at least one line."""
    messages.seek(0)
    lines = messages.read().decode(errors="replace").splitlines()
    return [re.sub(r"^(\[[^]]*\] )+", "", line.strip()) for line in lines if line.strip()] or ["no reason given"]
