"""Time, tracks and channels: gaps and late starts become silence, one track is chosen and said, antiphase is heard."""

import re

import numpy as np
import pytest
import soundfile
from audio_files import encode, lag_seconds, tone

from mt3core.audio.load import AudioReader, load_audio, probe_audio, read_audio
from mt3core.errors import AudioError

pytestmark = pytest.mark.unit

CLOCKED = [
    ("a.webm", "libopus", "webm"),
    ("a.mkv", "flac", "matroska"),
    ("a.mkv", "aac", "matroska"),
    ("a.mp4", "aac", "mp4"),
    ("a.mov", "alac", "mov"),
    ("a.ts", "mp2", "mpegts"),
    ("a.flv", "aac", "flv"),
]


def silent_from(samples, rate_hz=16000, least_seconds=0.3):
    """(start, length) in seconds of the longest stretch of silence."""
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    edges = np.concatenate([[-1], loud, [len(samples)]])
    widest = int(np.argmax(np.diff(edges)))
    return (edges[widest] + 1) / rate_hz, (edges[widest + 1] - edges[widest]) / rate_hz


@pytest.mark.parametrize(("name", "codec", "container"), CLOCKED)
def test_gaps_become_silence(tmp_path, name, codec, container):
    """A pause of 1.5 s after the first second: the rest is that much later."""
    path = encode(tmp_path / name, tone(3.0), 48000, codec, container, gaps=[(1.0, 1.5)])
    loaded = read_audio(path)
    assert len(loaded.samples) / 16000 == pytest.approx(4.5, abs=0.08)
    start, length = silent_from(loaded.samples)
    assert start == pytest.approx(1.0, abs=0.08)
    assert length == pytest.approx(1.5, abs=0.08)
    (remark,) = loaded.remarks
    assert remark.startswith("Its timestamps leave 1.")
    whole = load_audio(encode(tmp_path / f"whole{name}", tone(3.0), 48000, codec, container))
    lag, alike = lag_seconds(loaded.samples[len(whole) // 2 + 24000 - 8000 :], whole[len(whole) // 2 - 8000 :])
    assert abs(lag) < 0.0015  # Matroska and FLV count milliseconds
    assert alike > 0.98


def test_many_gaps_are_counted(tmp_path):
    gaps = [(0.5, 0.2), (1.0, 0.3), (1.5, 0.5)]
    loaded = read_audio(encode(tmp_path / "a.mkv", tone(2.0), 48000, "flac", "matroska", gaps=gaps))
    assert len(loaded.samples) / 16000 == pytest.approx(3.0, abs=0.1)
    assert "leave 1.0" in loaded.remarks[0]
    assert "and 2 more places" in loaded.remarks[0]


@pytest.mark.parametrize("jitter_ms", [1, 3])
def test_jitter_is_no_gap(tmp_path, jitter_ms):
    """Timestamps rounded to milliseconds, and some more: not a sample is put in."""
    rng = np.random.default_rng(0)
    steps = [(place, 0.001 * jitter_ms * rng.choice([-1, 1])) for place in np.arange(0.1, 2.9, 0.2)]
    steps = [one for pair in zip(steps, [(place + 0.1, -step) for place, step in steps], strict=True) for one in pair]
    loaded = read_audio(encode(tmp_path / "a.mkv", tone(3.0), 48000, "pcm_s16le", "matroska", gaps=steps))
    assert len(loaded.samples) == 48000
    assert loaded.remarks == ()


@pytest.mark.parametrize(("name", "codec", "container"), CLOCKED[:6])
def test_sound_that_begins_late_keeps_its_offset_to_the_picture(tmp_path, name, codec, container):
    path = encode(tmp_path / name, tone(2.0), 48000, codec, container, starts=[0.75], video_seconds=3.0)
    loaded = read_audio(path)
    start, length = silent_from(loaded.samples)
    assert start == 0.0
    assert length == pytest.approx(0.75, abs=0.09)  # transport streams let the picture begin a frame earlier
    assert any("after the picture; silence stands before it" in remark for remark in loaded.remarks)


@pytest.mark.parametrize(("name", "codec", "container"), CLOCKED)
def test_sound_that_begins_with_the_picture_gets_no_silence(tmp_path, name, codec, container):
    path = encode(tmp_path / name, tone(2.0), 48000, codec, container, video_seconds=2.0)
    loaded = read_audio(path)
    if container not in ("mpegts", "flv"):  # where the picture is sent ahead
        assert loaded.remarks == ()
    assert len(loaded.samples) / 16000 == pytest.approx(2.0, abs=0.13)


def test_the_clock_of_a_recording_without_picture_may_begin_anywhere(tmp_path):
    path = encode(tmp_path / "a.mkv", tone(2.0), 48000, "flac", "matroska", starts=[1000.0])
    assert len(load_audio(path)) == 32000


# Tracks


def two_tracks(tmp_path, first, second, **options):
    return encode(tmp_path / "a.mp4", None, 16000, "aac", "mp4", tracks=[first, second], **options)


def loudness(samples):
    return float(np.sqrt(np.mean(samples**2)))


def test_of_several_tracks_one_is_read_and_said(tmp_path):
    silence, sound = np.zeros((64000, 1), np.float32), tone(4.0, 16000)
    path = two_tracks(tmp_path, silence, sound, video_seconds=2.0)
    loaded = read_audio(path)
    assert "It has 2 audio tracks; track 1" in loaded.remarks[0]
    assert "--track chooses another" in loaded.remarks[0]
    assert loaded.remarks[1] == "The track that was read is silent; another one may be meant."
    assert loudness(loaded.samples) == 0
    second = read_audio(path, track=2)
    assert second.remarks == ("It has 2 audio tracks; track 2 was read, as asked.",)
    assert loudness(second.samples) == pytest.approx(0.35, abs=0.02)
    np.testing.assert_array_equal(load_audio(path, track=1), loaded.samples)
    assert probe_audio(path, track=2).channels == 1


def test_the_track_marked_as_default_is_read(tmp_path):
    silence, sound = np.zeros((32000, 1), np.float32), tone(2.0, 16000)
    tracks = [silence, sound]
    path = encode(tmp_path / "a.mkv", None, 16000, "flac", "matroska", tracks=tracks, default_track=1)
    loaded = read_audio(path)
    assert "It has 2 audio tracks; track 2, which is marked as default, was read" in loaded.remarks[0]
    assert loudness(loaded.samples) > 0.3


def test_a_track_that_is_not_there(tmp_path):
    path = two_tracks(tmp_path, tone(1.0, 16000), tone(1.0, 16000))
    for read in (load_audio, probe_audio):
        with pytest.raises(AudioError, match=r"has 2 audio tracks; there is no track 3. Use --track 1 to 2"):
            read(path, track=3)
    soundfile.write(tmp_path / "a.wav", tone(1.0), 48000)
    for read in (load_audio, probe_audio):
        with pytest.raises(AudioError, match="has 1 audio track; there is no track 2"):
            read(tmp_path / "a.wav", track=2)
    assert len(load_audio(tmp_path / "a.wav", track=1)) == 16000


# Channels


def test_antiphase_is_heard_and_said(tmp_path):
    mono = tone(2.0, 44100)
    soundfile.write(tmp_path / "a.flac", np.hstack([mono, -mono]), 44100)
    loaded = read_audio(tmp_path / "a.flac")
    assert loaded.remarks == (
        "Its channels are in antiphase, so that their mean is all but silent; their difference was used.",
    )
    np.testing.assert_allclose(loaded.samples, load_audio((mono, 44100)), atol=1e-4)
    array = read_audio((np.hstack([mono, -mono]), 44100))
    np.testing.assert_allclose(array.samples, loaded.samples, atol=1e-4)
    assert array.remarks == loaded.remarks


def test_antiphase_through_a_codec(tmp_path):
    mono = tone(2.0)
    loaded = read_audio(encode(tmp_path / "a.mp3", np.hstack([mono, -mono]), 48000, "libmp3lame"))
    assert "antiphase" in loaded.remarks[0]
    assert loudness(loaded.samples) == pytest.approx(0.35, abs=0.02)


def test_antiphase_is_decided_for_some_seconds_together(tmp_path):
    """Half of them in phase: the mean is not silent, so nothing changes."""
    mono = tone(4.0, 44100)
    second = mono.copy()
    second[: len(mono) // 2] *= -1
    soundfile.write(tmp_path / "a.wav", np.hstack([mono, second]), 44100, "FLOAT")
    loaded = read_audio(tmp_path / "a.wav")
    assert loaded.remarks == ()
    expected = load_audio(((mono + second) / 2, 44100))
    np.testing.assert_allclose(loaded.samples, expected, atol=1e-6)


def test_a_recording_may_be_in_antiphase_in_part(tmp_path):
    """Decided while it is read: what comes first does not wait for what comes last."""
    mono = tone(35.0, 16000)
    second = mono.copy()
    second[: 20 * 16000] *= -1
    soundfile.write(tmp_path / "a.wav", np.hstack([mono, second]), 16000, "FLOAT")
    reader = AudioReader(tmp_path / "a.wav")
    samples = np.concatenate(list(reader))
    np.testing.assert_allclose(samples[: 16 * 16000], mono[: 16 * 16000, 0], atol=1e-6)
    np.testing.assert_allclose(samples[25 * 16000 :], mono[25 * 16000 :, 0], atol=1e-6)
    assert len(reader.remarks) == 1
    assert re.match(r"Its channels are in antiphase for [12].\.\d\d s of its sound, so that", reader.remarks[0])


def test_what_is_left_of_silence_may_cancel(tmp_path):
    offset = np.full((32_000, 1), 1e-4, np.float32)
    assert read_audio((np.hstack([offset, -offset]), 16000)).remarks == ()


def test_more_than_two_channels_in_antiphase(tmp_path):
    mono = tone(2.0, 16000)
    soundfile.write(tmp_path / "a.wav", np.hstack([0.5 * mono, -mono, 0.5 * mono]), 16000, "FLOAT")
    loaded = read_audio(tmp_path / "a.wav")
    assert "channel 2 alone was used" in loaded.remarks[0]
    np.testing.assert_array_equal(loaded.samples, -mono[:, 0])


@pytest.mark.parametrize(
    "channels",
    [
        lambda a, b: [a, b],
        lambda a, b: [a, np.zeros_like(a)],
        lambda a, b: [a, -0.5 * a],
        lambda a, b: [a] + [np.zeros_like(a)] * 7,
        lambda a, b: [a + b, a - b],
    ],
)
def test_ordinary_channels_are_averaged_as_ever(channels):
    rng = np.random.default_rng(0)
    samples = np.stack(channels(*rng.uniform(-0.5, 0.5, (2, 300_000)).astype(np.float32)), axis=1)
    loaded = read_audio((samples, 16000))
    assert loaded.remarks == ()
    np.testing.assert_array_equal(loaded.samples, samples.mean(axis=1, dtype=np.float32))
