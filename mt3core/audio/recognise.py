"""Whether a file has sound, quickly and by its content: for searching folders."""

from __future__ import annotations

import os

import soundfile

from mt3core.audio.containers import structure_of
from mt3core.audio.files import starts_like_soundfile
from mt3core.audio.frames import find_frames
from mt3core.audio.source import Ranges
from mt3core.audio.wav import is_wav

NO_AUDIO_STREAM = "has no audio stream"
_START_BYTES = 4096
_FRAMES_BYTES = 1 << 16
# What lies beside recordings, by its first bytes.
_OTHERS = {
    b"MThd": "is a MIDI file",
    b"%PDF": "is a PDF document",
    b"\x89PNG": "is a picture",
    b"\xff\xd8\xff": "is a picture",
    b"GIF8": "is a picture",
    b"II*\0": "is a picture",
    b"MM\0*": "is a picture",
    b"PK\x03\x04": "is an archive",
    b"PK\x05\x06": "is an archive",
    b"\x1f\x8b": "is an archive",
    b"7z\xbc\xaf": "is an archive",
    b"Rar!": "is an archive",
    b"BZh": "is an archive",
    b"\xfd7zXZ": "is an archive",
    b"\x28\xb5\x2f\xfd": "is an archive",
    b"\x93NUMPY": "is a NumPy array",
    b"\x89HDF": "is an HDF5 file",
    b"\x7fELF": "is a program",
    b"MZ": "is a program",
    b"SQLite format 3": "is a database",
    b"PAR1": "is a Parquet table",
}
_AUDIO_IN_OGG = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_TEXT_CONTROLS = set(b"\t\n\r\f\x1b")


def audio_problem(path: str | os.PathLike[str]) -> str | None:
    """None if the file has an audio stream, else why it is passed over, as words after its name: "is a text file".

    Looks at the beginning of the file, and asks the readers only where that does not tell. Never raises.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            return _problem(Ranges(file, [(0, size)]))
    except IsADirectoryError:
        return "is a folder"
    except FileNotFoundError:
        return "is not there"
    except Exception as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"


def _problem(file: Ranges) -> str | None:
    start = file.at(0, _START_BYTES)
    if not start:
        return "is empty"
    if is_wav(start) or start[:4] == b"fLaC":
        return None
    if start[:4] == b"OggS" and any(name in start for name in _AUDIO_IN_OGG):
        return None
    for first, words in _OTHERS.items():
        if start.startswith(first):
            return words
    if _is_text(start):
        return "is a text file"
    if structure_of(file, is_quick=True) is None and find_frames(file, _FRAMES_BYTES) is not None:
        return None
    if starts_like_soundfile(start):
        try:
            with soundfile.SoundFile(_at_start(file)):
                return None
        except (soundfile.SoundFileError, TypeError, ValueError):
            pass
    return _ask_ffmpeg(file)


def _ask_ffmpeg(file: Ranges) -> str | None:
    from mt3core.audio.av_reader import audio_streams  # FFmpeg is loaded only for files that need it

    streams = audio_streams(file)
    if streams is None:
        return "is no recording, or damaged"
    return None if streams else NO_AUDIO_STREAM


def _at_start(file: Ranges) -> Ranges:
    file.seek(0)
    return file


def _is_text(start: bytes) -> bool:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") and start[2:200].count(0) >= len(start[2:200]) // 3:
        return True  # UTF-16
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in start):
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(start) - 4 and len(start) == _START_BYTES  # cut within a character
    return True
