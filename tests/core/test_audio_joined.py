"""Several recordings in one file, tags and junk anywhere: all that is there is read, and said."""

import struct

import numpy as np
import pytest
import soundfile
from audio_files import encode, tone
from refused import assert_refused

from mt3core.audio.load import load_audio, probe_audio, read_audio

pytestmark = pytest.mark.unit

JUNK = b"<html>not found</html>" + bytes(range(1, 200)) * 11
ID3 = b"ID3\x04\x00\x00\x00\x00\x10\x00" + bytes(2048)  # a size in bytes of 7 bits, and padding
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)


def mp3(tmp_path, seconds=2.0, rate_hz=44100, channels=1, xing=True, bit_rate=64_000, frequency_hz=440.0):
    options = {"id3v2_version": "0", "write_xing": "1" if xing else "0"}
    samples = tone(seconds, rate_hz, frequency_hz, channels)
    path = tmp_path / f"made-{rate_hz}-{channels}-{xing}-{seconds}.mp3"
    return encode(path, samples, rate_hz, "libmp3lame", options=options, bit_rate=bit_rate).read_bytes()


def variable_mp3(tmp_path, xing=True):
    """Loud noise, then silence: frames of very different size."""
    samples = np.concatenate([np.random.default_rng(0).uniform(-0.9, 0.9, 44100), np.zeros(44100 * 9)])
    path = tmp_path / "variable.mp3"
    soundfile.write(path, samples, 44100, bitrate_mode="VARIABLE", compression_level=0.5)
    data = path.read_bytes()
    kbits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[data[2] >> 4]
    return data if xing else data[144 * kbits * 1000 // 44100 :]


@pytest.fixture
def read(tmp_path):
    """Writes bytes to a file and reads it: (seconds, remarks)."""

    def read_bytes(data, name="a.bin"):
        path = tmp_path / name
        path.write_bytes(data)
        loaded = read_audio(path)
        assert probe_audio(path).channels
        return len(loaded.samples) / 16000, " ".join(loaded.remarks)

    return read_bytes


def test_joined_mp3_whose_first_counts_only_itself(tmp_path, read):
    first, second = mp3(tmp_path, 2.0), mp3(tmp_path, 3.0)
    seconds, remarks = read(first + second)
    assert seconds == pytest.approx(5.0, abs=0.12)
    assert remarks == "It is 2 recordings joined; all were read."
    seconds, _ = read(ID3 + first + ID3V1 + ID3 + second + APE + ID3V1)
    assert seconds == pytest.approx(5.0, abs=0.12)


def test_joined_mp3_where_the_first_was_cut(tmp_path, read):
    """What the first one counts is compared with its own frames, not with those of both."""
    first, second = mp3(tmp_path, 2.0), mp3(tmp_path, 3.0)
    with pytest.raises(Exception, match=r"truncated or damaged: part 1 ends at 1\.\d s of 2\.0 s"):
        read(first[: len(first) // 2] + second)
    with pytest.raises(Exception, match=r"truncated or damaged: part 2 ends at 1\.\d s of 3\.0 s"):
        read(first + second[: len(second) // 2])


def test_variable_bit_rate_without_count_behind_two_tags(tmp_path, read):
    assert read(ID3 + ID3 + variable_mp3(tmp_path, xing=False))[0] == pytest.approx(10.0, abs=0.1)
    assert read(bytes(5000) + ID3 + bytes(300) + variable_mp3(tmp_path, xing=False))[0] == pytest.approx(10.0, abs=0.1)


@pytest.mark.parametrize("rates_hz", [(44100, 22050), (22050, 44100), (48000, 44100), (8000, 48000)])
@pytest.mark.parametrize("between", [b"", ID3, ID3V1 + ID3])
def test_mp3_whose_rate_changes(tmp_path, read, rates_hz, between):
    first, second = (mp3(tmp_path, 2.0, rate_hz, frequency_hz=440) for rate_hz in rates_hz)
    seconds, remarks = read(first + between + second)
    assert seconds == pytest.approx(4.0, abs=0.25)  # at 8 kHz, LAME's delay is 0.14 s
    assert "joined with different sample rates" in remarks


def test_each_part_is_resampled_by_its_own_rate(tmp_path):
    """A tone of 440 Hz stays one, before and after the change."""
    steady = [np.sin(2 * np.pi * 440 * np.arange(rate_hz * 2) / rate_hz)[:, None] * 0.5 for rate_hz in (44100, 22050)]
    data = b""
    for samples, rate_hz in zip(steady, (44100, 22050), strict=True):
        path = tmp_path / f"{rate_hz}.mp3"
        data += encode(path, samples.astype(np.float32), rate_hz, "libmp3lame", bit_rate=64_000).read_bytes()
    samples = load_audio(data)
    for first in (8000, 40000):
        spectrum = np.abs(np.fft.rfft(samples[first : first + 16000] * np.hanning(16000)))
        assert int(np.argmax(spectrum)) == 440


def test_mp3_whose_channels_change(tmp_path, read):
    seconds, _ = read(mp3(tmp_path, 2.0, channels=2) + mp3(tmp_path, 2.0, channels=1))
    assert seconds == pytest.approx(4.0, abs=0.12)


def test_junk_before_between_and_after(tmp_path, read):
    first, second = mp3(tmp_path, 2.0), mp3(tmp_path, 3.0)
    for data, junk in ((JUNK + first, JUNK), (first + JUNK, JUNK)):
        seconds, remarks = read(data)
        assert seconds == pytest.approx(2.0, abs=0.06)
        assert f"{len(junk)} bytes that are no audio were passed over" in remarks
    seconds, remarks = read(JUNK + first + JUNK + second + JUNK)
    assert seconds == pytest.approx(5.0, abs=0.12)
    assert f"{3 * len(JUNK)} bytes that are no audio were passed over, the first of them at 0.000 s" in remarks


def test_a_frame_cut_by_the_next_file(tmp_path):
    """A recording that stops within a frame, and another behind it: the first one is not whole."""
    first, second = mp3(tmp_path, 2.0, xing=False), mp3(tmp_path, 3.0, xing=False)
    for between in (ID3, b""):
        assert_refused(first[:-100] + between + second, r"a recording in it is cut off within a frame at 2\.0\d s")
        samples = load_audio(first[:-100] + between + second, damaged="keep")
        assert len(samples) / 16000 == pytest.approx(5.0, abs=0.15)


def test_a_recording_of_a_stream_begins_and_ends_anywhere(tmp_path, read):
    data = mp3(tmp_path, 3.0, xing=False)
    seconds, remarks = read(data[100:])
    assert seconds == pytest.approx(3.0, abs=0.06)
    assert "bytes that are no audio" in remarks


@pytest.mark.parametrize("codec", ["aac", "ac3", "eac3"])
def test_other_frames_with_tags_junk_and_joined(tmp_path, read, codec):
    container = "adts" if codec == "aac" else codec
    first, second = (
        encode(tmp_path / f"{seconds}.{codec}", tone(seconds), 48000, codec, container).read_bytes()
        for seconds in (2.0, 3.0)
    )
    assert read(ID3 + first + ID3V1)[0] == pytest.approx(2.0, abs=0.05)
    assert read(first + second)[0] == pytest.approx(5.0, abs=0.1)
    seconds, remarks = read(JUNK + first + JUNK + second + JUNK)
    assert seconds == pytest.approx(5.0, abs=0.1)
    assert f"{3 * len(JUNK)} bytes" in remarks


@pytest.mark.parametrize("codecs", [("vorbis", "vorbis"), ("opus", "opus"), ("vorbis", "opus"), ("flac", "vorbis")])
@pytest.mark.parametrize("between", [b"", JUNK])
def test_chained_ogg(tmp_path, read, codecs, between):
    """With another rate and number of channels in the second link."""
    data = []
    for number, (codec, rate_hz, channels) in enumerate(zip(codecs, (48000, 44100), (1, 2), strict=True)):
        path = tmp_path / f"{number}.ogg"
        samples = tone(2.0 + number, rate_hz, channels=channels)
        if codec == "flac":
            encode(path, samples, rate_hz, "flac", "oga")
        elif codec == "opus":
            encode(path, tone(2.0 + number, channels=channels), 48000, "libopus", "ogg")
        else:
            soundfile.write(path, samples, rate_hz, format="OGG", subtype="VORBIS")
        data.append(path.read_bytes())
    path = tmp_path / "chained"
    path.write_bytes(between.join(data))
    loaded = read_audio(path)
    assert len(loaded.samples) == pytest.approx(80_000, abs=20)
    assert "It is 2 recordings joined (chained Ogg); all were read." in loaded.remarks
    assert any("no audio" in remark for remark in loaded.remarks) == bool(between)
    assert probe_audio(path).duration_seconds == pytest.approx(5.0, abs=0.01)
    expected = load_audio((tone(3.0, 48000), 48000))
    part = loaded.samples[32000:]
    np.testing.assert_allclose(part[1000:40000], expected[1000:40000], atol=0.06)


def test_a_link_without_its_end_is_refused(tmp_path, read):
    soundfile.write(tmp_path / "a.ogg", tone(4.0), 48000, format="OGG", subtype="VORBIS")
    whole = (tmp_path / "a.ogg").read_bytes()
    last_page = whole.rindex(b"OggS")
    for data in (whole[:last_page], whole[:last_page] + whole):
        with pytest.raises(Exception, match=r"truncated or damaged: .*nothing marks the end after"):
            read(data)


def flac(tmp_path, seconds, rate_hz=44100):
    soundfile.write(tmp_path / "part.flac", tone(seconds, rate_hz), rate_hz)
    return (tmp_path / "part.flac").read_bytes()


def test_flac_joined_tagged_and_behind_junk(tmp_path, read):
    first, second = flac(tmp_path, 2.0), flac(tmp_path, 3.0, 48000)
    assert read(first + second) == (5.0, "It is 2 recordings joined; all were read.")
    assert read(ID3 + first) == (2.0, "")
    assert read(first + ID3V1)[0] == 2.0
    seconds, remarks = read(JUNK + first)
    assert seconds == 2.0
    assert f"{len(JUNK)} bytes in front of it that are no audio were passed over." in remarks


def test_mp4_and_matroska_joined(tmp_path, read):
    for codec, container in (("aac", "mp4"), ("libopus", "webm"), ("flac", "matroska")):
        path = encode(tmp_path / "a", tone(2.0), 48000, codec, container)
        seconds, remarks = read(path.read_bytes() * 2)
        assert seconds == pytest.approx(4.0, abs=0.05)
        assert remarks == "It is 2 recordings joined; all were read."


def test_ten_joined_mp3_stay_one_file(tmp_path, read):
    seconds, remarks = read(mp3(tmp_path, 1.0) * 10)
    assert seconds == pytest.approx(10.0, abs=0.6)
    assert "It is 10 recordings joined" in remarks


def test_cover_art_is_no_video(tmp_path, read):
    """A picture in a tag is a stream for FFmpeg; the sound neither begins late because of it nor is there another."""
    picture = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 40 + b"\xff\xd9"
    content = b"\x00image/jpeg\x00\x03\x00" + picture
    frame = b"APIC" + struct.pack(">I", len(content)) + b"\0\0" + content
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    seconds, remarks = read(b"ID3\x03\x00\x00" + size + frame + mp3(tmp_path, 2.0))
    assert seconds == pytest.approx(2.0, abs=0.05)
    assert remarks == ""


def test_one_frame_cut_short_is_a_missing_end(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3(tmp_path, 2.0, xing=False)[:-50])
    assert_refused(path, r"truncated or damaged: its last frame is incomplete \(\d+ of \d+ bytes\).*--damaged keep")
    loaded = read_audio(path, damaged="keep")
    assert len(loaded.samples) == pytest.approx(32000, abs=1000)
    assert loaded.remarks[0].startswith("It is truncated: its last frame is incomplete")
