"""Recordings as browsers can play them."""

from __future__ import annotations

import io
from pathlib import Path

from mt3core.errors import AudioError
from mt3page.assembly import audio_data

# What every current browser plays, by its first bytes; a WAV file may hold anything, but mostly plain samples.
_KINDS = ((b"RIFF", "audio/wav"), (b"fLaC", "audio/flac"), (b"ID3", "audio/mpeg"), (b"OggS", "audio/ogg"))
_MP4_AUDIO = (b"M4A ", b"M4B ")  # brands of files without pictures
_RATE_HZ = 44_100


def playable_type(start: bytes) -> str | None:
    """The media type of a file that starts like this, or None if browsers may not play it."""
    for sign, kind in _KINDS:
        if start.startswith(sign):
            return kind
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xE6 == 0xE2:  # a frame of MPEG audio, layer 3
        return "audio/mpeg"
    if start[4:8] == b"ftyp" and start[8:12] in _MP4_AUDIO:
        return "audio/mp4"
    return None


def embedded_recording(path: Path) -> str:
    """The recording as an address: as it is if browsers play it, or else as FLAC. Raises `AudioError`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror or error}.", "Check the name.") from error
    kind = playable_type(content[:16])
    return audio_data(content, kind) if kind else audio_data(as_flac(path), "audio/flac")


def as_flac(path: Path) -> bytes:
    """The recording as FLAC of one channel, 16 bits, 44.1 kHz. Raises `AudioError`."""
    import soundfile

    from mt3core.audio.load import load_audio

    samples = load_audio(path, _RATE_HZ, damaged="keep")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), _RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
