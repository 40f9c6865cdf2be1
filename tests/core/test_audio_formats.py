"""What people have: compressed audio and videos, read whole, by content, without any program installed."""

import io
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import soundfile
from audio_files import encode, lag_seconds, tone
from refused import assert_refused

from mt3core.audio.load import audio_problem, load_audio, probe_audio, read_audio
from mt3core.errors import AudioError

pytestmark = pytest.mark.unit

SECONDS = 3.0
# name, codec, container, rate, channels, options
KINDS = [
    ("a.mp3", "libmp3lame", None, 48000, 2, {}),
    ("a.mp2", "mp2", "mp2", 44100, 2, {}),
    ("a.m4a", "aac", "ipod", 44100, 2, {}),
    ("a.mp4", "aac", "mp4", 48000, 1, {"movflags": "faststart"}),
    ("fragmented.mp4", "aac", "mp4", 44100, 2, {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    ("alac.mov", "alac", "mov", 44100, 2, {}),
    ("pcm.mov", "pcm_s24le", "mov", 48000, 2, {}),
    ("amr.3gp", "libopencore_amrnb", "3gp", 8000, 1, {}),
    ("a.amr", "libopencore_amrnb", "amr", 8000, 1, {}),
    ("a.opus", "libopus", "ogg", 48000, 2, {}),
    ("flac.oga", "flac", "oga", 44100, 2, {}),
    ("a.webm", "libopus", "webm", 48000, 2, {}),
    ("a.mkv", "flac", "matroska", 44100, 2, {}),
    ("live.mkv", "aac", "matroska", 44100, 2, {"live": "1"}),
    ("a.mka", "ac3", "matroska", 48000, 6, {}),
    ("a.ac3", "ac3", "ac3", 48000, 2, {}),
    ("a.eac3", "eac3", "eac3", 48000, 6, {}),
    ("a.aac", "aac", "adts", 44100, 2, {}),
    ("latm.aac", "aac", "latm", 44100, 2, {}),
    ("aac.ts", "aac", "mpegts", 48000, 2, {}),
    ("mp2.ts", "mp2", "mpegts", 48000, 2, {}),
    ("ac3.ts", "ac3", "mpegts", 48000, 2, {}),
    ("mp2.mpg", "mp2", "mpeg", 48000, 2, {}),
    ("a.wma", "wmav2", "asf", 44100, 2, {}),
    ("aac.flv", "aac", "flv", 44100, 2, {}),
    ("mp3.flv", "libmp3lame", "flv", 44100, 2, {}),
    ("mp3.avi", "libmp3lame", "avi", 44100, 2, {}),
    ("pcm.avi", "pcm_s16le", "avi", 44100, 2, {}),
    ("alac.caf", "alac", "caf", 44100, 2, {}),
    ("pcm.caf", "pcm_s16be", "caf", 44100, 2, {}),
    ("a.wv", "wavpack", "wv", 44100, 2, {}),
    ("a.tta", "tta", "tta", 44100, 2, {}),
    ("a.flac", "flac", "flac", 44100, 2, {}),
    ("a.w64", "pcm_s16le", "w64", 44100, 2, {}),
    ("a.aiff", "pcm_s16be", "aiff", 44100, 2, {}),
    ("a.au", "pcm_s16be", "au", 44100, 2, {}),
    ("mp3.wav", "libmp3lame", "wav", 44100, 2, {}),
    ("wma.wav", "wmav2", "wav", 44100, 2, {}),
    ("ac3.wav", "ac3", "wav", 48000, 2, {}),
    ("g722.wav", "g722", "wav", 16000, 1, {}),
    ("alaw.wav", "pcm_alaw", "wav", 8000, 1, {}),
    ("mulaw.wav", "pcm_mulaw", "wav", 8000, 1, {}),
    ("float64.wav", "pcm_f64le", "wav", 48000, 8, {}),
    ("int32.wav", "pcm_s32le", "wav", 48000, 2, {}),
    ("ima.wav", "adpcm_ima_wav", "wav", 44100, 2, {}),
    ("ms.wav", "adpcm_ms", "wav", 44100, 2, {}),
    ("rf64.wav", "pcm_s16le", "wav", 44100, 2, {"rf64": "always"}),
]
NAMES = [kind[0] for kind in KINDS]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of `KINDS`, made when first asked for."""
    folder = tmp_path_factory.mktemp("kinds")

    def make(wanted):
        path = folder / wanted
        if not path.exists():
            _, codec, container, rate_hz, channels, options = KINDS[NAMES.index(wanted)]
            encode(path, tone(SECONDS, rate_hz, channels=channels), rate_hz, codec, container, options=options)
        return path

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_is_read_whole_and_in_time(made, name, monkeypatch, capfd):
    path = made(name)
    rate_hz, channels = KINDS[NAMES.index(name)][3:5]
    monkeypatch.setenv("PATH", "")  # no program takes part
    loaded = read_audio(path)
    expected = load_audio((tone(SECONDS, rate_hz), rate_hz))
    assert len(loaded.samples) == pytest.approx(len(expected), abs=1000)  # codecs without lengths add a frame or two
    lag, alike = lag_seconds(loaded.samples, expected)
    # FFmpeg's WMA decoder leaves out two frames, as Microsoft's encoder asks; its own encoder adds but one.
    assert (-0.047 if "wma" in name else -0.005) < lag < 0.07
    assert alike > 0.97
    assert loaded.remarks == ()
    info = probe_audio(path)
    assert (info.sample_rate_hz, info.channels) == (rate_hz, channels)
    assert info.duration_seconds is None or info.duration_seconds == pytest.approx(SECONDS, abs=0.1)
    assert audio_problem(path) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.m4a", "alac.caf", "a.flac", "a.wv", "alac.mov", "a.mkv", "a.opus"])
def test_encoders_delays_are_no_sound(made, name):
    """What an encoder puts in front is cut off where the file says how much it is, and does not become silence."""
    path = made(name)
    rate_hz = KINDS[NAMES.index(name)][3]
    lag, _ = lag_seconds(load_audio(path), load_audio((tone(SECONDS, rate_hz), rate_hz)))
    assert abs(lag) < 0.0005
    assert len(load_audio(path)) == pytest.approx(SECONDS * 16000, abs=400)


@pytest.mark.parametrize(
    "name", ["a.mp3", "a.m4a", "a.opus", "a.aac", "aac.ts", "a.wma", "mp3.wav", "a.flac", "alac.caf"]
)
@pytest.mark.parametrize("wrong", ["song.wav", "song.mp3", "song.txt", "http:x", "nameless", "song.raw", "song.vox"])
def test_the_name_does_not_matter(made, tmp_path, name, wrong):
    path = tmp_path / wrong
    path.write_bytes(made(name).read_bytes())
    np.testing.assert_array_equal(load_audio(path), load_audio(made(name)))


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.flac", "a.opus", "int32.wav"])
def test_bytes_and_file_objects(made, name):
    expected, data = load_audio(made(name)), made(name).read_bytes()
    np.testing.assert_array_equal(load_audio(data), expected)
    np.testing.assert_array_equal(load_audio(bytearray(data)), expected)
    np.testing.assert_array_equal(load_audio(memoryview(data)), expected)
    np.testing.assert_array_equal(load_audio(io.BytesIO(data)), expected)
    with made(name).open("rb") as file:
        assert probe_audio(file).channels
        file.seek(0)
        np.testing.assert_array_equal(load_audio(file), expected)
    with tempfile.TemporaryFile() as file:  # from where it stands
        file.write(b"something before" + data)
        file.seek(len(b"something before"))
        np.testing.assert_array_equal(load_audio(file), expected)


def test_a_pipe(made):
    """As standard input is: one cannot seek in it, and it gives what it has."""
    expected = load_audio(made("a.m4a"))
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())", made("a.m4a")],
        stdout=writing,
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        np.testing.assert_array_equal(load_audio(file), expected)
    assert child.wait() == 0


def test_file_objects_that_are_refused(made, tmp_path):
    assert_refused(io.StringIO("text"), "is open as text")
    assert_refused(io.BytesIO(b""), r"is empty \(0 bytes\)")
    assert_refused(b"", r"is empty \(0 bytes\)")
    assert_refused(b"MThd" + b"not a sound " * 400, "The audio in memory cannot be read as audio")
    (tmp_path / "text.wav").write_text("no sound")
    with (tmp_path / "text.wav").open() as file, pytest.raises(AudioError, match=r"text\.wav is open as text"):
        load_audio(file)


def ogg_page(content, flags, position, number, serial=7):
    """One packet as a page (RFC 3533); the checksum is computed bit by bit."""
    table = bytes([255] * (len(content) // 255) + [len(content) % 255])
    head = b"OggS\0" + struct.pack("<BqIII", flags, position, serial, number, 0) + bytes([len(table)]) + table
    checksum = 0
    for byte in head + content:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return head[:22] + struct.pack("<I", checksum) + head[26:] + content


def test_speex():
    """There is no encoder, so this is silence: frames of the empty mode, written by hand."""
    head = b"Speex   " + b"1.2".ljust(20, b"\0") + struct.pack("<13i", 1, 80, 8000, 0, 4, 1, -1, 160, 0, 1, 0, 0, 0)
    pages = [ogg_page(head, 2, 0, 0), ogg_page(struct.pack("<ii", 0, 0), 0, 0, 1)]
    frame = bytes([0b00000_011, 0b11_111111])  # narrowband, mode 0, the end code
    for number in range(100):
        pages.append(ogg_page(frame, 4 if number == 99 else 0, 160 * (number + 1), number + 2))
    data = b"".join(pages)
    assert len(load_audio(data)) == pytest.approx(32000, abs=400)
    assert_refused(b"".join(pages[:-1]), "truncated or damaged: its last page is not there")
    joined = read_audio(data + data)
    assert len(joined.samples) == pytest.approx(64000, abs=800)
    assert "2 recordings joined" in joined.remarks[0]


def test_nothing_is_opened_from_within_a_file(tmp_path):
    """Playlists name other files and addresses; FFmpeg would open them."""
    soundfile.write(tmp_path / "secret.wav", tone(1.0), 48000)
    texts = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        "a.txt": f"ffconcat version 1.0\nfile '{tmp_path}/secret.wav'\n",
        "a.sdp": "v=0\nm=audio 9 RTP/AVP 0\nc=IN IP4 127.0.0.1\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert_refused(tmp_path / name, "cannot be read as audio")
        assert audio_problem(tmp_path / name) == "is a text file"


def test_samples_of_every_width_keep_their_level(tmp_path):
    samples = tone(1.0, 44100, channels=2)
    expected = load_audio((samples, 44100))
    for codec in ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_u8", "flac", "alac"):
        path = encode(tmp_path / f"{codec}.mkv", samples, 44100, codec, "mov" if codec == "alac" else "matroska")
        np.testing.assert_allclose(load_audio(path), expected, atol=0.01 if codec == "pcm_u8" else 1e-4)


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.webm", "a.opus", "a.flac", "a.wma", "int32.wav"])
def test_very_short_files(tmp_path, name):
    _, codec, container, rate_hz, channels, _ = KINDS[NAMES.index(name)]
    path = encode(tmp_path / name, tone(0.05, rate_hz, channels=channels), rate_hz, codec, container)
    assert 300 < len(load_audio(path)) < 2500


def test_one_sample(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(1, 0.5), 16000)
    assert load_audio(tmp_path / "a.wav").tolist() == [0.5]
    soundfile.write(tmp_path / "a.flac", np.full(1, 0.5), 16000)
    assert load_audio(tmp_path / "a.flac").tolist() == [0.5]
    soundfile.write(tmp_path / "b.wav", np.full(1, 0.5), 48000)
    assert_refused(tmp_path / "b.wav", "0 samples")  # a third of one


def test_a_video_without_sound_says_so(tmp_path):
    path = encode(tmp_path / "a.mp4", None, tracks=[], video_seconds=1.0)
    assert_refused(path, "has no audio stream, only pictures")
    assert audio_problem(path) == "has no audio stream"
    with pytest.raises(AudioError, match="has no audio stream"):
        probe_audio(path)
