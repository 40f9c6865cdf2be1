"""Audio files and arrays: what can be read is read right, everything else says what is wrong."""

import os
import struct
import sys

import numpy as np
import pytest
import soundfile
import soxr
from refused import assert_refused

from mt3core.audio.load import load_audio, probe_audio
from mt3core.errors import AudioError

pytestmark = pytest.mark.unit


def tone(seconds=1.0, rate_hz=16000, frequency_hz=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@pytest.fixture
def written(tmp_path):
    """Writes samples to a file of this test and returns its path."""

    def write(name, samples, rate_hz=16000, subtype=None, **options):
        soundfile.write(tmp_path / name, samples, rate_hz, subtype=subtype, **options)
        return tmp_path / name

    return write


def cut(path, keep):
    """Leaves the first part of a file: a fraction, or a number of bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    return path


# What works


def test_int16_at_16_khz_is_taken_exactly(written):
    samples = np.random.default_rng(0).integers(-32768, 32768, 300_000).astype(np.int16)
    expected = samples.astype(np.float32) / 32768
    loaded = load_audio(written("a.wav", samples, subtype="PCM_16"))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(load_audio((samples, 16000)), expected)
    np.testing.assert_array_equal(load_audio(str(written("a.flac", samples))), expected)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "subtype"),
    [(16000, 1, "PCM_24"), (48000, 8, "PCM_24"), (96000, 2, "FLOAT"), (11025, 1, "PCM_U8"), (44100, 2, "PCM_16")],
)
def test_wav_of_every_kind(written, rate_hz, channels, subtype):
    mono = tone(2.0, rate_hz)
    samples = np.stack([mono * (1 + channel) / channels for channel in range(channels)], axis=1)
    path = written("a.wav", samples, rate_hz, subtype)
    loaded = load_audio(path)
    assert len(loaded) == 32000
    middle = slice(800, -800)  # the filter of the resampler has its edges
    expected = tone(2.0) * (channels + 1) / 2 / channels
    np.testing.assert_allclose(loaded[middle], expected[middle], atol=0.01 if subtype == "PCM_U8" else 2e-4)
    info = probe_audio(path)
    assert (info.duration_seconds, info.sample_rate_hz, info.channels) == (2.0, rate_hz, channels)
    assert info.format == f"WAV {subtype}"


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.mp3", None), ("a.ogg", "VORBIS"), ("a.ogg", "OPUS"), ("a.aiff", None)]
)
def test_other_formats(written, name, subtype):
    loaded = load_audio(written(name, tone(2.0, 48000), 48000, subtype))
    assert abs(len(loaded) - 32000) < 200
    correlation = np.correlate(loaded, tone(0.5), "valid").max() / np.sum(tone(0.5) ** 2)
    assert correlation > 0.98


def test_blocks_give_what_resampling_at_once_gives(written):
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, (700_000, 2)).astype(np.float32)
    expected = soxr.resample(samples.mean(axis=1), 44100, 16000, quality="HQ")
    np.testing.assert_allclose(load_audio(written("a.wav", samples, 44100, "FLOAT")), expected, atol=1e-6)
    np.testing.assert_allclose(load_audio((samples, 44100)), expected, atol=1e-6)


def test_another_rate_may_be_asked_for():
    assert len(load_audio((tone(), 16000), sample_rate_hz=22050)) == 22050


@pytest.mark.parametrize("rate_hz", [16000, 44100, 96000])
def test_ten_milliseconds(written, rate_hz):
    assert len(load_audio(written("a.wav", tone(0.01, rate_hz), rate_hz))) == pytest.approx(160, abs=1)


def test_samples_beyond_one_stay(written):
    loud = tone() * 10
    np.testing.assert_array_equal(load_audio(written("a.wav", loud, subtype="FLOAT")), loud)


def test_flac_of_unknown_length_is_read_to_its_end(written):
    samples = tone(20.0)
    path = written("a.flac", samples)
    data = bytearray(path.read_bytes())
    counts = int.from_bytes(data[18:26], "big")  # STREAMINFO: the lowest 36 bits count the samples
    data[18:26] = (counts & ~((1 << 36) - 1)).to_bytes(8, "big")
    path.write_bytes(data)
    assert probe_audio(path).duration_seconds is None
    np.testing.assert_allclose(load_audio(path), samples, atol=1e-4)
    with pytest.raises(AudioError, match="truncated or damaged"):
        load_audio(cut(path, 0.7))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFDB])
def test_wav_from_a_pipe_has_no_known_size(written, size):
    path = written("a.wav", tone())
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(load_audio(path)) == 16000


def without_xing_frame(path):
    """Takes away the first frame of an MP3 at 48 kHz, the one that counts the others."""
    data = path.read_bytes()
    kbits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[data[2] >> 4]
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    path.write_bytes(data[144 * kbits * 1000 // 48000 :])
    return path


def test_mp3_of_constant_bit_rate_needs_no_header_of_lengths(written):
    path = without_xing_frame(written("a.mp3", tone(3.0, 48000), 48000, bitrate_mode="CONSTANT", compression_level=0.5))
    assert len(load_audio(path)) == pytest.approx(48000, abs=1200)
    assert probe_audio(path).duration_seconds == pytest.approx(3.0, abs=0.08)


def test_mp3_of_variable_bit_rate_without_header_is_read_whole(written):
    samples = np.concatenate([np.random.default_rng(0).uniform(-0.9, 0.9, 48000), np.zeros(48000 * 9)])
    path = without_xing_frame(written("a.mp3", samples, 48000, bitrate_mode="VARIABLE", compression_level=0.5))
    with soundfile.SoundFile(path) as file:
        assert file.frames < 48000 * 6  # what libsndfile believes, and where it would stop
    assert len(load_audio(path)) == pytest.approx(160_000, abs=1200)


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 here")
def test_a_name_that_is_not_utf_8(written):
    path = written("a.flac", np.zeros(1600))
    assert len(load_audio(path.rename(path.with_name(os.fsdecode(b"caf\xe9.flac"))))) == 1600


def test_mp3_with_a_long_tag_in_front(written):
    path = written("a.mp3", tone(3.0, 48000), 48000)
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 16, 0]) + bytes(2048)
    path.write_bytes(tag + path.read_bytes())
    assert len(load_audio(path)) == pytest.approx(48000, abs=200)
    with pytest.raises(AudioError, match=r"ends at 1\.\d s of 3\.0 s"):
        load_audio(cut(path, 0.6))


@pytest.mark.parametrize(
    "samples",
    [
        tone(),
        tone().astype(np.float64),
        np.stack([tone(), tone()], axis=1),
        (tone() * 2**31).astype(np.int32),
        np.round(tone() * 128 + 128).astype(np.uint8),
        tone()[::-1][::-1],
        [float(value) for value in tone()],
    ],
)
def test_arrays_of_every_accepted_kind(samples):
    np.testing.assert_allclose(load_audio((samples, 16000)), tone(), atol=5e-3)


def test_an_array_from_torch():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(load_audio((torch.from_numpy(tone()), 16000)), tone())


def test_the_callers_array_is_not_changed():
    samples = tone()
    load_audio((samples, 16000))[:] = 0
    np.testing.assert_array_equal(samples, tone())


def test_real_recordings(realdata):
    paths = sorted(realdata.glob("*.flac"))
    assert paths
    for path in paths[:3]:
        info = probe_audio(path)
        assert len(load_audio(path)) == pytest.approx(info.duration_seconds * 16000, abs=2)


# What does not, and what is said


def test_missing_file_and_folder(tmp_path):
    for check in (load_audio, probe_audio):
        with pytest.raises(AudioError, match=r"There is no file .*Check the name"):
            check(tmp_path / "none.wav")
        with pytest.raises(AudioError, match="is a folder"):
            check(tmp_path)


@pytest.mark.parametrize("name", ["text.wav", "text.txt", "text.raw", "song.mid", "noise.mp3"])
def test_not_audio(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"MThd" + b"not a sound " * 400)
    assert_refused(path, "cannot be read as audio")


def test_empty_files(tmp_path, written):
    (tmp_path / "zero.wav").write_bytes(b"")
    assert_refused(tmp_path / "zero.wav", r"is empty \(0 bytes\)")
    path = written("none.wav", np.zeros(0, np.float32))
    assert_refused(path, "contains no audio: 0 samples")
    with pytest.raises(AudioError, match="0 samples"):
        probe_audio(path)


def test_audio_too_short_for_a_single_sample_of_the_result():
    assert_refused((np.zeros(1, np.float32), 96000), "0 samples")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinity_are_named_with_their_time(written, value, channels):
    samples = np.zeros((48000 * 8, channels), np.float32)
    samples[48000 * 7, 0] = value
    samples[48000 * 7 + 5] = -value
    sentence = r"not finite \(NaN or infinity\) at 7\.000 s"
    assert_refused(written("a.wav", samples, 48000, "FLOAT"), sentence)
    assert_refused((samples, 48000), sentence)


@pytest.mark.parametrize("keep", [0.4, 0.98])
@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        *(("a.flac", None), ("a.mp3", None), ("a.ogg", "VORBIS"), ("a.ogg", "OPUS")),
        *(("a.wav", None), ("a.aiff", None), ("a.w64", None), ("a.au", None)),
    ],
)
def test_truncated_files(written, name, subtype, keep):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000 * 4).astype(np.float32)
    path = written(name, noise, 48000, subtype)
    assert len(load_audio(path)) == pytest.approx(64000, abs=200)
    assert_refused(cut(path, keep), "truncated or damaged")


@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_the_cheap_check_sees_a_missing_end(written, name):
    path = cut(written(name, tone(5.0)), 0.6)
    with pytest.raises(AudioError, match="truncated or damaged"):
        probe_audio(path)


def test_flac_damaged_in_the_middle(written):
    path = written("a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, 160_000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    assert_refused(path, "truncated or damaged")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ((np.zeros((2, 3, 4)), 16000), "3 dimensions"),
        ((np.float32(0.5), 16000), "0 dimensions"),
        ((np.zeros((2, 16000)), 16000), r"shape \(2, 16000\).*transpose"),
        ((np.zeros((1, 16000)), 16000), r"shape \(1, 16000\).*transpose"),
        ((np.zeros(100, np.int64), 16000), "int64 values"),
        ((np.zeros(100, bool), 16000), "bool values"),
        ((np.zeros(100, complex), 16000), "complex128 values"),
        ((np.array(["a", "b"]), 16000), "values"),
        ((np.zeros(0), 16000), "0 samples"),
        ((np.zeros((0, 2)), 16000), "0 samples"),
        ((np.zeros(100), 0), "rate of 0 Hz"),
        ((np.zeros(100), -16000), "rate of -16000 Hz"),
        ((np.zeros(100), float("nan")), "rate of nan Hz"),
        ((np.zeros(100), 1e9), r"rate of 1e\+09 Hz"),
        ((16000, np.zeros(100)), "samples, sample_rate_hz"),
        ((np.zeros(100), "16000"), "samples, sample_rate_hz"),
        ((np.zeros(100),), "samples, sample_rate_hz"),
        (np.zeros(100), "samples, sample_rate_hz"),
        ([np.zeros(100), 16000], "samples, sample_rate_hz"),
    ],
)
def test_arrays_that_are_refused(source, sentence):
    assert_refused(source, sentence)
