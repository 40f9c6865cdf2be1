"""Formats that need ffmpeg: what is asked of the program, and what its failures become."""

import sys

import numpy as np
import pytest
from refused import assert_refused

from mt3core.audio.load import load_audio, probe_audio

pytestmark = pytest.mark.unit


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """Puts a stand-in for ffmpeg on PATH: it runs the given Python lines, with `out` as its binary output."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(lines):
        program = folder / "ffmpeg"
        program.write_text(f"#!{sys.executable}\nimport array, struct, sys\nout = sys.stdout.buffer\n{lines}\n")
        program.chmod(0o755)

    return install


HEADER = "out.write(struct.pack('>4s5I', b'.snd', 32, 0xFFFFFFFF, 6, 48000, 2) + bytes(8))\n"
SECOND = "values = array.array('f', [0.25, 0.75] * 48000); values.byteswap(); out.write(values.tobytes())\n"


@pytest.fixture
def m4a(tmp_path):
    path = tmp_path / "song.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    return path


def test_without_ffmpeg_the_sentence_says_so(tmp_path, m4a, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(m4a, "format that needs ffmpeg, which is not installed.*Install ffmpeg, or convert")
    (tmp_path / "nameless").write_bytes(m4a.read_bytes())
    assert_refused(tmp_path / "nameless", "needs ffmpeg")


def test_ffmpeg_is_read_through_its_pipe(m4a, ffmpeg):
    ffmpeg(HEADER + SECOND * 3 + "assert sys.argv[sys.argv.index('-i') + 1] == 'file:' + " + repr(str(m4a)))
    loaded = load_audio(m4a)
    assert len(loaded) == 48000
    np.testing.assert_allclose(loaded[1000:-1000], 0.5, atol=1e-3)
    info = probe_audio(m4a)
    assert (info.duration_seconds, info.sample_rate_hz, info.channels) == (None, 48000, 2)


def test_ffmpeg_that_fails_at_once(m4a, ffmpeg):
    ffmpeg("sys.exit('[mov @ 0x1] moov atom not found')")
    assert_refused(m4a, r"ffmpeg cannot read .* \(moov atom not found\)")


@pytest.mark.parametrize(
    "end", ["sys.exit('[aac @ 0x1] [x @ 0x2] corrupt packet')", "sys.stderr.write('[in @ 0x1] File ended prematurely')"]
)
def test_ffmpeg_that_stops_early(m4a, ffmpeg, end):
    ffmpeg(HEADER + SECOND + end)
    assert_refused(m4a, "truncated or damaged: ffmpeg says '(corrupt packet|File ended prematurely)'")


def test_ffmpeg_that_sends_something_else(m4a, ffmpeg):
    ffmpeg("out.write(b'RIFF' + bytes(100))")
    assert_refused(m4a, "unexpected output")


def test_ffmpeg_that_finds_no_sound(m4a, ffmpeg):
    ffmpeg(HEADER)
    assert_refused(m4a, "0 samples")


def test_a_broken_wav_does_not_start_ffmpeg(tmp_path, ffmpeg):
    ffmpeg("raise SystemExit('must not run')")
    path = tmp_path / "a.wav"
    path.write_bytes(b"no sound")
    assert_refused(path, "cannot be read as audio")
