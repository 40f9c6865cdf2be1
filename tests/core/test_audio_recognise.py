"""Whether a file in a folder is a recording: by its content, with a reason where it is not."""

import numpy as np
import pytest
import soundfile
from audio_files import encode, tone

from mt3core.audio.load import audio_problem

pytestmark = pytest.mark.unit

OTHERS = {
    "a.mid": (b"MThd\0\0\0\6\0\1\0\1\1\xe0", "is a MIDI file"),
    "a.png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture"),
    "cover.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 8, "is a picture"),
    "a.pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document"),
    "a.zip": (b"PK\3\4" + bytes(100), "is an archive"),
    "a.tar.gz": (b"\x1f\x8b\x08" + bytes(100), "is an archive"),
    "a.npy": (b"\x93NUMPY\1\0v\0" + bytes(100), "is a NumPy array"),
    "a.txt": (b"Notes about the recordings\n" * 300, "is a text file"),
    "a.json": (b'{"onset": 1.0}', "is a text file"),
    "a.csv": ("Müller;Größe;" * 1000).encode(),
    "utf16.txt": ("notes".encode("utf-16"), "is a text file"),
    "named.mp3": (b"<html><body>404 not found</body></html>", "is a text file"),
    "empty.wav": (b"", "is empty"),
    "noise.bin": (np.random.default_rng(0).bytes(300_000), "is no recording, or damaged"),
    "weights.safetensors": (b'\x40\0\0\0\0\0\0\0{"a":{}}' + bytes(100_000), "is no recording, or damaged"),
}
OTHERS["a.csv"] = (OTHERS["a.csv"], "is a text file")


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_recording(tmp_path, name):
    content, reason = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    assert audio_problem(tmp_path / name) == reason
    assert audio_problem(str(tmp_path / name)) == reason


def test_recordings_without_a_telling_name(tmp_path):
    soundfile.write(tmp_path / "a.ogg", tone(1.0), 48000)
    soundfile.write(tmp_path / "a.mp3", tone(1.0), 48000)
    encode(tmp_path / "a.mp4", tone(1.0), 48000, "aac", "mp4", video_seconds=1.0)
    encode(tmp_path / "a.webm", tone(1.0), 48000, "libopus", "webm")
    encode(tmp_path / "a.ts", tone(1.0), 48000, "ac3", "mpegts")
    for path in list(tmp_path.iterdir()):
        assert audio_problem(path.rename(tmp_path / f"without-suffix{path.suffix[1:]}")) is None


def test_what_cannot_be_read_never_raises(tmp_path):
    assert audio_problem(tmp_path) == "is a folder"
    assert audio_problem(tmp_path / "none.wav") == "is not there"
    assert audio_problem("a\0b").startswith("cannot be read")
    assert audio_problem(3.5).startswith("cannot be read")


def test_truncated_beginnings_never_raise(tmp_path):
    path = encode(tmp_path / "a.mp4", tone(1.0), 48000, "aac", "mp4")
    data = path.read_bytes()
    for length in range(1, 200, 3):
        path.write_bytes(data[:length])
        assert isinstance(audio_problem(path), str)
    for start in (b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\x1aE\xdf\xa3", b"FORM", b"G", b"\0\0\1\xba"):
        path.write_bytes(start)
        audio_problem(path)
        path.write_bytes(start + bytes(5000))
        audio_problem(path)
