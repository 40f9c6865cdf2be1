"""Cutting a recording into segments: frame counts, start times and samples of the original."""

import numpy as np
import pytest

from mt3core.config.model import ISMIR2021, MT3
from mt3core.segments import num_frames, segment_samples, segments

pytestmark = pytest.mark.unit


def test_frame_counts_equal_the_original(golden):
    arrays = golden("spectrogram.npz")
    counts = [num_frames(int(n), 128) for n in arrays["frame_count_num_samples"]]
    assert counts == arrays["frame_count_num_frames"].tolist()


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, [1]), (127, [1]), (128, [2]), (32767, [256]), (32768, [256, 1]), (96037, [256] * 2 + [239])],
)
def test_only_the_last_segment_is_shorter(samples, frames):
    result = segments(samples, MT3)
    assert [segment.num_frames for segment in result] == frames
    assert [segment.first_frame for segment in result] == [256 * index for index in range(len(frames))]
    assert [segment.index for segment in result] == list(range(len(frames)))


def test_start_times_round_down_one_step_early_like_the_original():
    starts = [segment.start_seconds for segment in segments(32768 * 20, MT3)]
    assert starts[1] == pytest.approx(2.04, abs=1e-9)
    assert starts[15] == pytest.approx(30.71, abs=1e-9)  # 30.72 lies on the grid; float64 makes it a step early


@pytest.mark.parametrize("name", ["song", "example", "synthetic"])
def test_segments_equal_the_original(golden, name):
    expected = golden(f"end_to_end_{name}.json")
    result = segments(expected["num_samples"], MT3)
    assert [(s.first_frame, s.num_frames) for s in result] == [
        (s["first_frame"], s["num_frames"]) for s in expected["segments"]
    ]
    assert [s.start_seconds for s in result] == [s["start_time"] for s in expected["segments"]]


@pytest.mark.parametrize(("config", "length"), [(MT3, 256), (ISMIR2021, 512)])
def test_other_segment_lengths(config, length):
    assert [segment.first_frame for segment in segments(128 * length * 2 - 1, config)] == [0, length]


def test_samples_are_the_segments_own_then_zeros():
    samples = np.arange(1, 40001, dtype=np.float32)
    first, second = segments(len(samples), MT3)
    np.testing.assert_array_equal(segment_samples(samples, first, MT3), samples[:32768])
    own = segment_samples(samples, second, MT3)
    assert own.dtype == np.float32
    assert own.shape == (32768,)
    np.testing.assert_array_equal(own[: 40000 - 32768], samples[32768:])
    assert not own[40000 - 32768 :].any()


def test_the_last_segment_may_hold_no_audio_at_all():
    samples = np.ones(32768, np.float32)
    last = segments(len(samples), MT3)[-1]
    assert last.num_frames == 1
    assert not segment_samples(samples, last, MT3).any()
