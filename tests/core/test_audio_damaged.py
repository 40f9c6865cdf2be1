"""Truncated and damaged files: refused with the amount and the place, or read with silence there when that is asked."""

import dataclasses
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile
from audio_files import encode, lag_seconds, tone
from refused import assert_refused

from mt3core.audio.load import load_audio, probe_audio, read_audio
from mt3core.errors import AudioError, UsageError

pytestmark = pytest.mark.unit

# name, codec, container, rate, options: all say somewhere how long they are, or how long their last part is
STATING = [
    ("a.mp3", "libmp3lame", "mp3", 44100, {}),
    ("a.m4a", "aac", "ipod", 44100, {}),
    ("front.mp4", "aac", "mp4", 44100, {"movflags": "faststart"}),
    ("fragmented.mp4", "aac", "mp4", 44100, {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    ("alac.mov", "alac", "mov", 44100, {}),
    ("a.opus", "libopus", "ogg", 48000, {}),
    ("flac.oga", "flac", "oga", 44100, {}),
    ("a.webm", "libopus", "webm", 48000, {}),
    ("a.mkv", "flac", "matroska", 44100, {}),
    ("a.wma", "wmav2", "asf", 44100, {}),
    ("a.flac", "flac", "flac", 44100, {}),
    ("a.wv", "wavpack", "wv", 44100, {}),
    ("a.tta", "tta", "tta", 44100, {}),
    ("aac.flv", "aac", "flv", 44100, {}),
    ("mp3.avi", "libmp3lame", "avi", 44100, {}),
    ("alac.caf", "alac", "caf", 44100, {}),
    ("pcm.caf", "pcm_s16be", "caf", 44100, {}),
    ("a.aac", "aac", "adts", 44100, {}),
    ("mp3.wav", "libmp3lame", "wav", 44100, {}),
    ("a.aiff", "pcm_s16be", "aiff", 44100, {}),
    ("a.ts", "ac3", "mpegts", 48000, {}),
]


def noise(seconds, rate_hz):
    return np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate_hz), 1)).astype(np.float32)


@pytest.mark.parametrize(("name", "codec", "container", "rate_hz", "options"), STATING)
def test_no_prefix_passes_for_the_whole(tmp_path, name, codec, container, rate_hz, options, capfd):
    path = encode(tmp_path / name, noise(4.0, rate_hz), rate_hz, codec, container, options=options)
    whole = load_audio(path)
    assert len(whole) == pytest.approx(64000, abs=1000)
    data = path.read_bytes()
    for kept in (0.02, 0.11, 0.3, 0.5, 0.77, 0.9, 0.97):
        path.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(AudioError, match="truncated or damaged") as caught:
            load_audio(path)
        assert str(path) in str(caught.value)
        assert "--damaged keep" in caught.value.next_step
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.mp3", "a.webm", "a.flac", "a.opus", "front.mp4", "a.aiff"])
def test_what_is_there_of_a_truncated_file_can_be_kept(tmp_path, name):
    _, codec, container, rate_hz, options = next(kind for kind in STATING if kind[0] == name)
    path = encode(tmp_path / name, noise(4.0, rate_hz), rate_hz, codec, container, options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    loaded = read_audio(path, damaged="keep")
    assert len(loaded.samples) / 16000 == pytest.approx(2.4, abs=0.5)
    assert any(remark.startswith("It is truncated: ") for remark in loaded.remarks)
    assert probe_audio(path, damaged="keep").channels == 1


def corrupt_packet(path, second):
    """Overwrites the packet that sounds at a second with bytes that do not decode."""
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.pts is not None and float(packet.pts * packet.time_base) >= second:
                place, size, raw = packet.pos, packet.size, bytes(packet)
                break
    data = bytearray(path.read_bytes())
    place = data.index(raw, max(0, place))
    data[place : place + size] = b"\xff" * size
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "codec", "container", "rate_hz", "most_lost"),
    [
        ("a.m4a", "aac", "ipod", 44100, 0.08),
        ("a.mkv", "aac", "matroska", 44100, 0.08),
        ("a.mkv", "flac", "matroska", 44100, 0.15),
        ("a.flac", "flac", "flac", 44100, 0.25),
        ("a.caf", "alac", "caf", 44100, 0.2),
        ("a.mov", "alac", "mov", 44100, 0.2),
        ("a.tta", "tta", "tta", 44100, 1.1),
    ],
)
def test_damaged_frames(tmp_path, name, codec, container, rate_hz, most_lost, capfd):
    path = encode(tmp_path / name, tone(4.0, rate_hz), rate_hz, codec, container)
    whole = load_audio(path)
    corrupt_packet(path, 1.2)
    with pytest.raises(AudioError, match=r"truncated or damaged: [\d.]+ s at [012]\.\d+ s cannot be decoded") as caught:
        load_audio(path)
    assert "--damaged keep" in caught.value.next_step
    kept = read_audio(path, damaged="keep")
    (remark,) = kept.remarks
    assert remark.startswith("It is damaged: ")
    assert remark.endswith("could not be decoded; silence stands there.")
    # Silence of the same length: all that follows keeps its time.
    assert len(kept.samples) == pytest.approx(len(whole), abs=20)
    lag, alike = lag_seconds(kept.samples[48000:], whole[48000:])
    assert lag == 0
    assert alike > 0.99
    different = np.flatnonzero(np.abs(kept.samples - whole) > 0.05) / 16000
    assert 1.2 - most_lost < different.min() < 1.2 + most_lost
    assert different.max() - different.min() < most_lost
    assert capfd.readouterr() == ("", "")


def test_wavpack_with_a_damaged_block(tmp_path):
    """FFmpeg does not find the next block."""
    path = encode(tmp_path / "a.wv", tone(4.0, 44100), 44100, "wavpack", "wv")
    corrupt_packet(path, 1.2)
    assert_refused(path, r"truncated or damaged: it ends at 2\.0 s of 4\.0 s")
    assert len(load_audio(path, damaged="keep")) == pytest.approx(32000, abs=10)


@pytest.mark.parametrize("xing", ["1", "0"])
def test_mp3_with_overwritten_frames(tmp_path, xing):
    """The decoder would go on with what follows, 0.26 s too early."""
    options = {"write_xing": xing}
    path = encode(tmp_path / "a.mp3", tone(6.0, 44100), 44100, "libmp3lame", options=options, bit_rate=128_000)
    whole = load_audio(path)
    data = bytearray(path.read_bytes())
    data[30_000:34_000] = bytes(4000)
    path.write_bytes(data)
    assert_refused(path, r"truncated or damaged: 0\.2\d s at 1\.8\d s cannot be decoded")
    kept = read_audio(path, damaged="keep")
    assert "It is damaged: 0.2" in kept.remarks[-1]
    assert len(kept.samples) == pytest.approx(len(whole), abs=1200)
    lag, alike = lag_seconds(kept.samples, whole)
    assert abs(lag) < 0.03
    assert alike > 0.99


def test_mp3_whose_first_frames_are_lost(tmp_path):
    """The frame with the count is there, so the others are missed."""
    path = encode(tmp_path / "a.mp3", tone(1.0, 44100), 44100, "libmp3lame", bit_rate=64_000)
    data = bytearray(path.read_bytes())
    data[700:5000] = bytes(4300)
    path.write_bytes(data)
    assert_refused(path, r"truncated or damaged: 0\.5\d s at 0\.0\d+ s cannot be decoded")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_with_a_damaged_page(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(20.0, 48000)[:, 0], 48000, format="OGG", subtype=subtype)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert_refused(path, "truncated or damaged: .* cannot be decoded|a page after .* has a wrong checksum")
    kept = read_audio(path, damaged="keep")
    assert len(kept.samples) / 16000 == pytest.approx(20.0, abs=0.15)
    assert any("It is damaged" in remark for remark in kept.remarks)


def test_ogg_with_a_missing_page(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(20.0, 48000)[:, 0], 48000, format="OGG", subtype="OPUS")
    data = path.read_bytes()
    start = data.index(b"OggS", len(data) // 2)
    path.write_bytes(data[:start] + data[data.index(b"OggS", start + 4) :])
    assert_refused(path, "truncated or damaged")
    kept = read_audio(path, damaged="keep")
    assert len(kept.samples) / 16000 == pytest.approx(20.0, abs=0.15)


def test_flac_with_its_end_missing_at_a_frame(tmp_path):
    """Nothing is damaged then; only the header's count tells."""
    path = encode(tmp_path / "a.flac", tone(4.0, 44100), 44100, "flac", "flac")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(audio=0) if packet.size]
    path.write_bytes(path.read_bytes()[: places[len(places) // 2]])
    assert_refused(path, r"it ends at 2\.\d s of 4\.0 s")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_S8"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_flac_samples_are_compared_with_their_checksum(tmp_path, subtype, channels):
    path = tmp_path / "a.flac"
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (200_000, channels))
    soundfile.write(path, samples, 16000, subtype)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert read_audio(path).remarks == ()
    np.testing.assert_array_equal(load_audio(path), expected.mean(axis=1, dtype=np.float32))
    np.testing.assert_array_equal(load_audio(path, damaged="keep"), load_audio(path))
    data = bytearray(path.read_bytes())
    data[30] ^= 1  # within the checksum
    path.write_bytes(data)
    assert_refused(path, "truncated or damaged: its samples do not match the checksum in its header")
    kept = read_audio(path, damaged="keep")
    assert len(kept.samples) == 200_000
    assert kept.remarks == (
        "It is damaged: its samples do not match the checksum in its header; what is there was read.",
    )


def test_flac_of_unknown_length_cut_between_two_frames(tmp_path):
    """Only the checksum tells."""
    path = encode(tmp_path / "a.flac", tone(4.0, 44100), 44100, "flac", "flac")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    counts = int.from_bytes(data[18:26], "big")
    data[18:26] = (counts & ~((1 << 36) - 1)).to_bytes(8, "big")
    path.write_bytes(data)
    assert len(load_audio(path)) == 64000
    path.write_bytes(data[: places[len(places) // 2]])
    assert_refused(path, "its samples do not match the checksum in its header")
    data[26:42] = bytes(16)  # no checksum either: nothing is stated
    path.write_bytes(data[: places[len(places) // 2]])
    assert len(load_audio(path)) == pytest.approx(32000, abs=1000)


def test_a_container_that_reading_cannot_get_through(tmp_path):
    path = encode(tmp_path / "a.m4a", tone(4.0, 44100), 44100, "aac", "ipod")
    data = path.read_bytes()
    place = data.index(b"stsz") + 12  # sizes of the packets: now all of them lie far outside
    path.write_bytes(data[:place] + b"\x7f\xff\xff\xff" * 60 + data[place + 240 :])
    with pytest.raises(AudioError):
        load_audio(path)


def test_a_stream_that_turns_up_while_reading(tmp_path, monkeypatch):
    """PyAV then fails with an IndexError (damaged MPEG-TS); what was read before must not pass for the whole."""
    from mt3core.audio import av_reader

    class Container:
        def __init__(self, real):
            self._real = real

        def demux(self, stream):
            for number, packet in enumerate(self._real.demux(stream)):
                if number == 20:
                    raise IndexError("list index out of range")
                yield packet

        def __getattr__(self, name):
            return getattr(self._real, name)

    path = tmp_path / "a.ts"
    encode(path, tone(2.0, 44_100), 44_100, "aac", "mpegts")
    run = av_reader._Decoding.run

    def with_container(self):
        self.audio = dataclasses.replace(self.audio, container=Container(self.audio.container))
        return run(self)

    monkeypatch.setattr(av_reader._Decoding, "run", with_container)
    assert_refused(path, "its streams change")


def test_a_stated_length_of_0_is_none(tmp_path):
    path = encode(tmp_path / "a.wv", tone(1.0, 44100), 44100, "wavpack", "wv")
    data = bytearray(path.read_bytes())
    data[12:16] = bytes(4)  # the number of samples
    path.write_bytes(data)
    assert probe_audio(path).duration_seconds != 0
    assert len(load_audio(path)) == 16000


def test_damaged_takes_two_words():
    for word in ("skip", "", None, True):
        with pytest.raises(UsageError, match='Use "refuse" or "keep"'):
            load_audio(b"RIFF", damaged=word)


def test_no_library_writes_to_the_terminal(tmp_path):
    """In a process of its own, since libraries write past Python's streams."""
    files = []
    for name, codec, container, rate_hz, options in STATING:
        path = encode(tmp_path / name, tone(2.0, rate_hz), rate_hz, codec, container, options=options)
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 700] = b"\xff" * 700
        path.write_bytes(data[: len(data) * 9 // 10])
        files.append(str(path))
    program = (
        "import sys\nfrom mt3core.audio.load import audio_problem, load_audio, probe_audio\n"
        "for name in sys.argv[1:]:\n for read in (probe_audio, load_audio, audio_problem):\n"
        "  try: read(name)\n  except Exception: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("counted", [4_000, 12_000])
def test_flac_whose_header_counts_wrongly(tmp_path, counted):
    """Too few: the checksum proves that all was read. Too many: something is missing."""
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(0.5, 16_000), 16_000)
    data = bytearray(path.read_bytes())
    data[22:26] = counted.to_bytes(4, "big")
    path.write_bytes(data)
    if counted < 8_000:
        assert len(load_audio(path)) == 8_000
    else:
        assert_refused(path, "truncated or damaged")


def test_flac_in_matroska_is_compared_with_its_checksum(tmp_path):
    """A lost block at the end is shorter than what containers may be wrong by."""
    samples = noise(1.0, 44_100)
    path = encode(tmp_path / "a.mka", samples, 44_100, "flac", "matroska")
    assert load_audio(path, 44_100).shape == (44_100,)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"\xa3", 0, len(data) - 300) if b"\xa3" in data[-9_000:] else len(data) - 3_000
    data[last : last + 256] = bytes(256)
    path.write_bytes(data)
    assert_refused(path, "truncated or damaged")
    cut = tmp_path / "cut.mka"  # an excerpt that was copied without decoding keeps the checksum of the whole
    whole = encode(tmp_path / "whole.mka", samples, 44_100, "flac", "matroska")
    with av.open(str(whole)) as source, av.open(str(cut), "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for number, packet in enumerate(source.demux(audio=0)):
            if packet.dts is not None and number < 5:
                packet.stream = stream
                target.mux(packet)
    assert 0 < len(load_audio(cut, 44_100)) < 44_100


def test_tags_in_another_encoding(tmp_path):
    path = encode(tmp_path / "a.mkv", tone(1.0, 48_000), 48_000, "flac", "matroska", metadata={"title": "Stueck"})
    data = path.read_bytes()
    assert b"Stueck" in data
    path.write_bytes(data.replace(b"Stueck", b"St\xfc\xe9ck"))
    assert len(load_audio(path, 48_000)) == 48_000


def test_flac_that_is_longer_than_its_header_says(tmp_path):
    """libsndfile stops where the header says; the checksum tells that there is more."""
    path = encode(tmp_path / "a.flac", tone(1.0, 44100), 44100, "flac", "flac")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = (256).to_bytes(4, "big")  # the number of samples in STREAMINFO
    path.write_bytes(data)
    for damaged in ("refuse", "keep"):
        loaded = read_audio(path, damaged=damaged)
        assert len(loaded.samples) == 16000
        assert loaded.remarks == ("Its header says that it has 0.006 s; all 1.00 s were read.",)


def test_a_length_below_nothing_is_no_length(tmp_path):
    path = encode(tmp_path / "a.wma", tone(1.0, 44100), 44100, "wmav2", "asf")
    data = bytearray(path.read_bytes())
    play_duration = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 64  # of the file properties object
    data[play_duration : play_duration + 8] = bytes(8)
    preroll = play_duration + 16
    data[preroll : preroll + 8] = (60_000).to_bytes(8, "little")
    path.write_bytes(data)
    assert probe_audio(path).duration_seconds is None
    assert len(load_audio(path)) == pytest.approx(16000, abs=2000)


def test_tags_in_an_old_encoding_are_no_problem(tmp_path):
    """ID3v1 behind the sound, in Latin-1: PyAV takes tags for UTF-8, and gave the file up."""
    path = encode(tmp_path / "a.tta", tone(1.0, 44100), 44100, "tta", "tta")
    tag = b"TAG" + "Où est Noé".encode("latin-1").ljust(30, b"\0") + bytes(94) + b"\xff"
    path.write_bytes(path.read_bytes() + tag)
    loaded = read_audio(path)
    assert (len(loaded.samples), loaded.remarks) == (16000, ())


def test_a_header_that_asks_for_more_memory_than_there_is(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.tta", tone(1.0, 44100), 44100, "tta", "tta")

    def refuse(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(AudioError, match="cannot be read as audio"):
        load_audio(path)


@pytest.mark.parametrize("damaged", ["refuse", "keep"])
def test_flac_whose_header_has_an_impossible_rate(tmp_path, damaged):
    """FFmpeg takes the time of every frame by it: half a second with a rate of 4 Hz was kept as an hour of silence."""
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(0.5, 44100), 44100)
    data = bytearray(path.read_bytes())
    data[18:20] = bytes(2)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"has a sample rate of \d Hz\. Use a rate from 1000"):
        read_audio(path, damaged=damaged)
