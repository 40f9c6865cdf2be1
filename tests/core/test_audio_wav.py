"""WAV files whose header is wrong, odd or not alone; chunks are written byte by byte."""

import struct

import numpy as np
import pytest
import soundfile
from audio_files import encode, tone
from refused import assert_refused

from mt3core.audio.load import load_audio, probe_audio, read_audio

pytestmark = pytest.mark.unit

RATE_HZ = 16000
UNSET = [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 44, 0x7FFFFFDB, 0xFFFFF000]


def pcm(seconds=1.0, channels=1, rate_hz=RATE_HZ):
    return np.round(tone(seconds, rate_hz, channels=channels) * 32767).astype("<i2").tobytes()


def chunk(name, content, size=None):
    return name + struct.pack("<I", len(content) if size is None else size) + content + bytes(len(content) % 2)


def form(channels=1, rate_hz=RATE_HZ, tag=1, bits=16):
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * channels * 2, channels * 2, bits))


def riff(*chunks, size=None, name=b"RIFF"):
    content = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(content) if size is None else size) + content


def whole(seconds=1.0, **options):
    return riff(form(**options), chunk(b"data", pcm(seconds, **options)))


def expected(seconds=1.0):
    return np.frombuffer(pcm(seconds), "<i2").astype(np.float32) / 32768


def read(data, remark):
    loaded = read_audio(data)
    if remark:
        (said,) = loaded.remarks
        assert remark in said
    else:
        assert loaded.remarks == ()
    return loaded.samples


def test_size_0_as_left_by_a_recorder_that_crashed():
    for riff_size in (0, 36, None):
        data = riff(form(), chunk(b"data", pcm(), size=0), size=riff_size)
        samples = read(data, "Its header says that there are 0 bytes of sound, as if the recorder had crashed")
        np.testing.assert_array_equal(samples, expected())
        assert probe_audio(data).duration_seconds == 1.0


def test_a_recorder_that_crashed_within_a_sample():
    data = riff(form(channels=2), chunk(b"data", pcm(channels=2), size=0), size=0)[:-3]
    assert len(read(data, "as if the recorder had crashed")) == 15999


def test_size_0_and_nothing_there_is_empty():
    assert_refused(riff(form(), chunk(b"data", b"")), "0 samples")
    assert_refused(riff(form(), chunk(b"data", b""), chunk(b"LIST", b"INFOsoft")), "0 samples")


@pytest.mark.parametrize("size", UNSET)
def test_sizes_that_were_never_set(size):
    data = riff(form(), chunk(b"data", pcm(), size=size), size=size)
    np.testing.assert_array_equal(read(data, "Its header does not say how long it is"), expected())


@pytest.mark.parametrize("size", [len(pcm()) + 1, len(pcm()) + 2, 2 * len(pcm()), 1 << 30, 0x7FFE0000])
def test_a_size_that_could_be_meant_is_a_missing_end(size):
    data = riff(form(), chunk(b"data", pcm(), size=size), size=size + 36)
    assert_refused(data, rf"truncated or damaged: it has 32000 of the {size} bytes announced in its header")
    loaded = read_audio(data, damaged="keep")
    np.testing.assert_array_equal(loaded.samples, expected())
    assert "It is truncated: it has 32000" in loaded.remarks[0]


@pytest.mark.parametrize("size", [2, 1000, 16000, 31000])
def test_a_size_that_is_too_small(size):
    data = riff(form(), chunk(b"data", pcm(), size=size))
    samples = read(data, f"Its header announces {size} bytes of sound, but 32000 are there; all were read (1.00 s).")
    np.testing.assert_array_equal(samples, expected())


def test_both_sizes_too_small_by_far():
    """As where a recorder writes them now and then, or where they wrapped around beyond 4 GiB."""
    data = riff(form(), chunk(b"data", pcm(5.0), size=8000), size=8036)
    np.testing.assert_array_equal(read(data, "announces 8000 bytes of sound, but 160000"), expected(5.0))


@pytest.mark.parametrize(
    "rest",
    [
        b"TAG" + bytes(125),
        b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10),
        chunk(b"LIST", b"INFOsoft\x04\x00\x00\x00mt3\x00"),
        chunk(b"id3 ", b"ID3" + bytes(41)),
        chunk(b"LIST", b"INFO" + bytes(5)) + chunk(b"bext", bytes(603)),
        bytes(7),
        bytes(5000),
    ],
)
def test_what_stands_behind_the_samples(rest):
    data = whole() + rest
    np.testing.assert_array_equal(read(data, ""), expected())


def test_junk_behind_the_end_that_the_header_states():
    data = whole() + b"\x93\x01\xfe" * 100
    np.testing.assert_array_equal(read(data, "300 bytes behind its end were passed over."), expected())


def test_chunks_in_front_and_odd_sizes():
    for extra in (chunk(b"bext", bytes(603)), chunk(b"JUNK", bytes(28)) + chunk(b"LIST", b"INFO123")):
        data = riff(extra, form(), extra, chunk(b"data", pcm()), extra)
        np.testing.assert_array_equal(read(data, ""), expected())


def test_joined_wav_files():
    data = whole(1.0) + whole(2.0)
    samples = read(data, "It is 2 recordings joined; all were read.")
    np.testing.assert_array_equal(samples, np.concatenate([expected(1.0), expected(2.0)]))
    assert probe_audio(data).duration_seconds == 3.0
    other = whole(1.0) + riff(form(2, 8000), chunk(b"data", pcm(2.0, 2, 8000)))
    assert len(read(other, "joined")) == pytest.approx(48000, abs=2)
    assert_refused((whole(1.0) + whole(2.0))[:-1000], "truncated or damaged")


def test_junk_in_front():
    for front in (b"HTTP/1.1 200 OK\r\n\r\n", bytes(512)):
        np.testing.assert_array_equal(read(front + whole(), f"{len(front)} bytes in front of it"), expected())
    np.testing.assert_array_equal(read(b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + whole(), ""), expected())


def rf64(data_size, riff_size, name=b"RF64"):
    sizes = chunk(b"ds64", struct.pack("<QQQI", riff_size, data_size, 0, 0))
    return riff(sizes, form(), chunk(b"data", pcm(), size=0xFFFFFFFF), size=0xFFFFFFFF, name=name)


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_64_bit_sizes(name):
    np.testing.assert_array_equal(read(rf64(32000, 32072, name), ""), expected())
    assert "crashed" in read_audio(rf64(0, 0, name)).remarks[0]
    np.testing.assert_array_equal(load_audio(rf64(0, 0, name)), expected())
    assert_refused(rf64(64000, 64072, name), "32000 of the 64000 bytes announced")


def test_more_than_4_gib_is_given_64_bit_sizes(tmp_path):
    """The size wrapped around: the header that libsndfile is shown has the real one. The file is a hole on the disk."""
    size = (1 << 32) + 32000
    path = tmp_path / "long.wav"
    head = riff(form(2, 96000), chunk(b"data", b"", size=32000), size=32036)
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + size - 4)
        file.write(b"\1\2\3\4")
    assert probe_audio(path).duration_seconds == pytest.approx(size / 4 / 96000)


def test_big_endian_wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1.0, RATE_HZ), RATE_HZ, endian="BIG", subtype="PCM_16")
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RIFX"
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), expected(), atol=1e-4)


@pytest.mark.parametrize("codec", ["libmp3lame", "wmav2", "ac3"])
def test_compressed_sound_inside(tmp_path, codec):
    path = encode(tmp_path / "a.wav", tone(4.0, channels=2), 48000, codec, "wav")
    assert len(load_audio(path)) == pytest.approx(64000, abs=1000)
    assert_refused(path.read_bytes()[:-1000], "truncated or damaged")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = bytes(4)
    loaded = read_audio(bytes(data))
    assert "as if the recorder had crashed" in loaded.remarks[0]
    assert len(loaded.samples) == pytest.approx(64000, abs=1000)


def test_variable_bit_rate_mp3_inside(tmp_path):
    """Noise, then silence: a length guessed from the mean bit rate would be wrong."""
    samples = np.concatenate([np.random.default_rng(0).uniform(-0.9, 0.9, 48000), np.zeros(48000 * 9)])
    soundfile.write(tmp_path / "a.mp3", samples, 48000, bitrate_mode="VARIABLE", compression_level=0.5)
    form_mp3 = chunk(b"fmt ", struct.pack("<HHIIHHHHIHHH", 0x55, 1, 48000, 8000, 1, 0, 12, 1, 2, 384, 1, 0))
    data = riff(form_mp3, chunk(b"data", (tmp_path / "a.mp3").read_bytes()))
    assert len(load_audio(data)) == pytest.approx(160_000, abs=1000)


def test_ac3_disguised_as_pcm(tmp_path):
    """As it goes through a digital cable (IEC 61937): read as samples it would be noise."""
    path = encode(tmp_path / "a.spdif", tone(4.0, channels=2), 48000, "ac3", "spdif")
    data = riff(form(2, 48000), chunk(b"data", path.read_bytes()))
    samples = load_audio(data)
    assert len(samples) == pytest.approx(64000, abs=600)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_24_bit_8_channels_and_other_plain_forms(tmp_path):
    samples = tone(1.0, 48000, channels=8)
    for subtype in ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "PCM_U8", "IMA_ADPCM", "MS_ADPCM", "GSM610"):
        channels = 1 if "ADPCM" in subtype or subtype == "GSM610" else 8
        soundfile.write(tmp_path / "a.wav", samples[:, :channels], 48000, subtype)
        loaded = read_audio(tmp_path / "a.wav")
        assert len(loaded.samples) == pytest.approx(16000, abs=400)
        assert loaded.remarks == ()
