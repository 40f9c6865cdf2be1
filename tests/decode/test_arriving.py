"""Recordings are read while they are decoded, and cut as if they were there as a whole."""

import bisect
import io
import itertools
import math
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
from inventive import Inventive
from small_models import RATE_HZ

from mt3core.audio.load import AudioReader, load_audio
from mt3core.config.model import MT3
from mt3core.decoding import Decoding
from mt3core.errors import AudioError
from mt3core.notes.choosing import Excerpt
from mt3core.recording_level import LevelMeter, measure_level
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3decode.arriving import ArrivingSegments, mono_blocks
from mt3decode.grammar import last_step, last_steps
from mt3decode.windows import windows

pytestmark = pytest.mark.unit
SEGMENT = MT3.segment_samples


def noise(num_samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, num_samples).astype(np.float32)


def in_blocks(samples, size):
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize("size", [997, 4_096, 100_003])
def test_resampled_samples_are_the_same_whatever_the_blocks(rate_hz, size):
    samples = noise(5 * rate_hz)
    expected = soxr.resample(samples, rate_hz, RATE_HZ, quality="HQ")
    found = np.concatenate(list(mono_blocks(in_blocks(samples, size), rate_hz, RATE_HZ)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_blocks_of_a_file_are_the_whole_file(tmp_path, name, rate_hz):
    stereo = noise(2 * 7 * rate_hz).reshape(-1, 2)
    soundfile.write(tmp_path / name, stereo, rate_hz)
    blocks = list(AudioReader(tmp_path / name))
    assert len(blocks) > 3
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(tmp_path / name))
    if name == "a.wav":
        mono = soundfile.read(tmp_path / name, dtype="float32")[0].mean(axis=1, dtype=np.float32)
        np.testing.assert_array_equal(load_audio(tmp_path / name), soxr.resample(mono, rate_hz, RATE_HZ, "HQ"))


LENGTHS = [1, 127, 128, SEGMENT - 129, SEGMENT - 1, SEGMENT, 2 * SEGMENT + 1, 3 * SEGMENT + 777]
EXCERPTS = [None, Excerpt(0.0, 2.05), Excerpt(2.04, 4.1), Excerpt(2.05, 4.09), Excerpt(3.0), Excerpt(5.0, 5.1)]


@pytest.mark.parametrize("overlap", [1, 2, 4])
@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_segments_are_those_of_the_whole(overlap, excerpt):
    for length in LENGTHS:
        samples, wanted = noise(length), excerpt or Excerpt()
        everything = segments(length, MT3) if overlap == 1 else windows(length, MT3, overlap)
        limits = last_steps(everything, MT3) if overlap == 1 else [last_step(MT3)] * len(everything)
        starts = [piece.start_seconds for piece in everything]
        first = max(bisect.bisect_right(starts, wanted.start_seconds) - 1, 0)
        end = math.inf if wanted.end_seconds is None else wanted.end_seconds
        needed = slice(first, max(bisect.bisect_left(starts, end), first + 1))
        for size in (4000, length):
            arriving = ArrivingSegments(in_blocks(samples, size), MT3, overlap, excerpt)
            if wanted.start_seconds and wanted.start_seconds >= length / RATE_HZ:
                with pytest.raises(AudioError, match="would start at"):
                    list(arriving)
                continue
            log_mels = np.stack(list(arriving))
            pieces = everything[needed]
            assert arriving.count == arriving.expected_count == len(log_mels)
            taken = [arriving.take(number) for number in range(arriving.count)]
            assert [piece for piece, _ in taken] == pieces
            following = [piece and piece.start_seconds for _, piece in taken]
            assert following == [*(piece.start_seconds for piece in pieces[1:]), None]
            assert arriving.last_steps == limits[needed]
            assert arriving.is_cut == (needed.stop < len(everything))
            assert arriving.seconds == length / RATE_HZ
            np.testing.assert_array_equal(log_mels, log_mel_segments(samples, pieces, MT3))


@pytest.mark.parametrize("size", [997, 100_003])
@pytest.mark.parametrize("excerpt", [None, Excerpt(2.0, 4.1)])
def test_windows_are_played_faster_in_turn_except_the_last(excerpt, size):
    paces = {0: 1.0, 1: 2 ** (1 / 12), -2: 2 ** (-2 / 12)}
    for length in LENGTHS:
        samples, plain = noise(length), ArrivingSegments([noise(length)], MT3, 4, excerpt, takes_samples=True)
        if excerpt and excerpt.start_seconds >= length / RATE_HZ:
            continue
        heard = list(plain)
        arriving = ArrivingSegments(
            in_blocks(samples, size), MT3, 4, excerpt, takes_samples=True, semitones=tuple(paces)
        )
        for number, own in enumerate(arriving):
            expected, (piece, following) = heard[number], arriving.take(number)
            unchanged, _ = plain.take(number)
            ends_here = piece.first_frame * 128 + SEGMENT > length
            assert piece.semitones == (0 if ends_here else list(paces)[piece.index % 3])
            assert (following is None) == (number + 1 == len(heard))
            if piece.semitones:
                first, pace = piece.first_frame * 128, paces[piece.semitones]
                expected = soxr.resample(samples[first : first + round(SEGMENT * pace)], pace, 1.0)
                assert 0 <= len(own) - len(expected) < 128
                assert len(own) == 128 * piece.num_frames <= SEGMENT
                assert piece.pace == pytest.approx(pace)
                np.testing.assert_array_equal(own[: len(expected)], expected[:SEGMENT])
                assert not own[len(expected) :].any()
            else:
                assert piece == unchanged
                np.testing.assert_array_equal(own, expected)
        assert arriving.count == plain.count == len(heard)


def test_what_is_played_faster_is_heard_higher():
    sine = np.sin(2 * np.pi * 440 * np.arange(10 * SEGMENT) / RATE_HZ).astype(np.float32)
    arriving = ArrivingSegments([sine], MT3, 2, takes_samples=True, semitones=(0, 12))
    heard = [np.argmax(np.abs(np.fft.rfft(own))) * RATE_HZ / len(own) for own in itertools.islice(arriving, 4)]
    assert heard == pytest.approx([440, 880, 440, 880], abs=0.5)


@pytest.mark.parametrize("excerpt", EXCERPTS)
def test_the_expected_number_is_the_true_one(excerpt):
    for length in LENGTHS:
        arriving = ArrivingSegments([noise(length)], MT3, 1, excerpt, announced_seconds=lambda n=length: n / RATE_HZ)
        expected = arriving.expected_count
        if not (excerpt and excerpt.start_seconds >= length / RATE_HZ):
            assert abs(expected - len(list(arriving))) <= 1  # times of segments are rounded to steps
            assert excerpt or expected == arriving.count


@pytest.mark.parametrize("size", [1, 7_999, 8_000, 50_001])
def test_the_level_of_blocks_is_that_of_the_whole(size):
    samples = np.concatenate([noise(9_000), np.zeros(20_000, np.float32), noise(30_500, 1)])[
        : 59_500 if size > 1 else 99
    ]
    meter = LevelMeter(RATE_HZ)
    for block in in_blocks(samples, size):
        meter.add(block)
    assert meter.level == measure_level(samples, RATE_HZ)


def test_memory_does_not_grow_with_the_recording():
    def peak_bytes(seconds):
        tracemalloc.start()
        arriving = ArrivingSegments((noise(RATE_HZ) for _ in range(seconds)), MT3)
        for number, _ in enumerate(arriving):
            arriving.take(number)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(4)  # tables
    assert peak_bytes(60) < peak_bytes(10) + 100_000


class Watched(io.BytesIO):
    """Knows how far it has been read."""

    furthest = 0

    def read(self, *size):
        found = super().read(*size)
        self.furthest = max(self.furthest, self.tell())
        return found


@pytest.mark.parametrize("overlap", [1, 2])
def test_the_first_notes_come_before_the_file_is_read(overlap):
    """Some blocks are enough, however long it is."""
    file = Watched()
    soundfile.write(file, noise(100 * RATE_HZ), RATE_HZ, format="WAV")
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    transcriber = Inventive()
    transcriber.decoding = Decoding(overlap=overlap)
    file.furthest = 0
    with transcriber.stream(file) as notes:
        next(notes)
        assert 0 < file.furthest < size / 2
        assert len(list(notes)) > 100
    assert file.furthest == size


def test_what_is_damaged_at_its_end_gives_notes_and_then_the_error(tmp_path):
    """It must not pass for the whole: there is no result."""
    soundfile.write(tmp_path / "a.flac", noise(60 * RATE_HZ), RATE_HZ)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[-2000:-1900] = bytes(100)
    stream = Inventive().stream(bytes(content))
    found = [next(stream) for _ in range(50)]
    with pytest.raises(AudioError, match="damaged"):
        list(stream)
    assert found == sorted(found, key=lambda note: note.onset)
    assert stream.result is None


@pytest.mark.parametrize("is_left_early", [False, True])
def test_the_source_is_closed(is_left_early):
    closed = []

    def blocks():
        try:
            for number in range(30):
                yield noise(RATE_HZ, number)
        finally:
            closed.append(True)

    with Inventive().stream(blocks(), RATE_HZ) as notes:
        next(notes)
        assert not closed
        if not is_left_early:
            list(notes)
    assert closed


def test_a_source_is_closed_once_the_thread_that_reads_it_notices():
    closed = []

    def blocks():
        try:
            yield noise(SEGMENT)
            arriving.close()  # as from another thread, while the next block is waited for
            yield noise(SEGMENT)
        finally:
            closed.append(True)

    arriving = ArrivingSegments(blocks(), MT3, is_live=True)
    assert len(list(arriving)) == 1
    assert closed  # and the second block was not asked for again
