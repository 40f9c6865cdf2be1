"""Around the decoding loop in JAX: log-mels on the device, audio read ahead, lanes by memory, segments that run on."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("jax")

import jax
from small_models import RATE_HZ
from tiny_networks import random_arrays, random_log_mel, tiny

from mt3core.config.model import MT3
from mt3core.decoding import Decoding, Generated
from mt3core.model.search import load_pretrained
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3decode.ahead import ReadAhead
from mt3decode.stretches import Start, network_input
from mt3jax import Transcriber, decoding
from mt3jax.inputs import network_inputs
from mt3jax.loading import build_model
from mt3jax.transcriber import MOST_LANES, default_batch_size, lane_bytes

pytestmark = pytest.mark.unit
SECONDS = 20


def sound(seconds, seed=0):
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).normal(0, 0.01, len(time))
    return (0.3 * np.sin(2 * np.pi * 220 * time * (1 + seed)) + noise).astype(np.float32)


@pytest.mark.parametrize("name", ["mt3", "small"])
def test_log_mels_of_the_device_are_those_of_the_host(name):
    config = MT3 if name == "mt3" else load_pretrained("small")[0]
    samples = np.concatenate([sound(2.5), np.zeros(3000, np.float32), sound(2.0, 1)])
    pieces = segments(len(samples), config)
    expected = log_mel_segments(samples, pieces, config)
    starts = [Start(piece.index, network_input(samples, piece, config, takes_samples=True)) for piece in pieces]
    found = np.asarray(network_inputs(starts, len(starts) + 2, config, jax.devices()[0]))
    assert found.shape == (len(pieces) + 2, *expected.shape[1:])
    np.testing.assert_allclose(found[: len(pieces)], expected, atol=2e-3)
    assert np.abs(found[: len(pieces)] - expected).mean() < 1e-5
    last = pieces[-1].num_frames
    assert last < config.network.input_frames
    assert not found[len(pieces) - 1, last:].any()


@pytest.mark.integration
@pytest.mark.parametrize("method", ["greedy", "t5x", "beam"])
def test_tokens_are_the_same_with_log_mels_of_the_device(method):
    given = Decoding(method, 2 if method == "beam" else 1, max_tokens=40, grammar=method != "beam")
    host = Transcriber.from_pretrained("small", "cpu", given)
    device = Transcriber(host.model, given, on_device=True)
    assert (host.takes_samples, device.takes_samples) == (False, True)
    recordings = [(sound(3.3, 1), RATE_HZ), (sound(1.1, 2), RATE_HZ)]
    expected, found = host.transcribe(recordings), device.transcribe(recordings)
    assert [one.segments for one in found] == [one.segments for one in expected]
    assert sum(len(one.segments) for one in found) == 10


def test_segments_that_follow_one_another_are_made_on_the_device_too():
    given = Decoding(max_tokens=40, continuous=True, grammar=True)
    host = Transcriber.from_pretrained("small", "cpu", given)
    recording = (sound(2.1, 1), RATE_HZ)
    expected = host.transcribe(recording)
    assert Transcriber(host.model, given, on_device=True).transcribe(recording).segments == expected.segments


def fake_device(platform, gigabytes):
    stats = None if gigabytes is None else {"bytes_limit": int(gigabytes * 1e9)}
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats)


@pytest.mark.parametrize(
    ("platform", "gigabytes", "expected"),
    [("cpu", None, 16), ("gpu", None, 128), ("gpu", 4, 128), ("gpu", 16, 256), ("gpu", 80, 512), ("tpu", 95, 512)],
)
def test_lanes_by_memory(platform, gigabytes, expected):
    lanes = default_batch_size(fake_device(platform, gigabytes), MT3.network)
    assert lanes == expected
    assert lanes <= MOST_LANES
    if lanes > 128:
        assert lanes * lane_bytes(MT3.network) < 0.3e9 * gigabytes
    narrow = replace(MT3.network, num_decoder_layers=2)
    assert default_batch_size(fake_device(platform, gigabytes), narrow) >= lanes


def test_lane_bytes_are_those_of_the_arrays():
    from mt3jax import lanes

    config = tiny()
    model = build_model(config, random_arrays(config), "cpu")
    batch = decoding._Batch(model, Decoding("greedy"), 3, lanes.MIN_POSITIONS)
    cache = jax.tree.leaves(batch.lanes.cache)
    assert sum(one.nbytes for one in cache) == 3 * lane_bytes(config.network)


class FakeBatch:
    """Lanes in which a segment needs as many steps as its log-mel says."""

    made: ClassVar = []

    def __init__(self, model, decoding, size, num_positions):
        self.size, self.lanes = size, SimpleNamespace(num_positions=num_positions)
        self.segments = [None] * size
        self.work = {}  # segment: [steps done, steps needed]
        self.made.append(self)

    free = decoding._Batch.free
    occupied = decoding._Batch.occupied
    numbers = decoding._Batch.numbers

    def full(self):
        return [lane for lane in self.occupied() if self.work[self.segments[lane]][0] >= self.lanes.num_positions]

    def admit(self, group, group_size, last_steps):
        for lane, start in zip(self.free(), group, strict=False):
            self.segments[lane] = start.number
            self.work[start.number] = [0, int(start.log_mel)]

    def take(self, other, lane):
        place, number = self.free()[0], other.segments[lane]
        self.segments[place], other.segments[lane] = number, None
        self.work[number] = other.work.pop(number)

    def run(self, enough_done):
        while len(self.free()) + len(self.done()) < enough_done and not self.full():
            for lane in self.occupied():
                done, needed = self.work[self.segments[lane]]
                self.work[self.segments[lane]][0] = min(done + 1, needed)
        for lane in self.done():
            number, self.segments[lane] = self.segments[lane], None
            yield number, Generated(np.zeros(1, np.int32), 0.0)

    def done(self):
        return [lane for lane in self.occupied() if len(set(self.work[self.segments[lane]])) == 1]


@pytest.fixture
def stream(monkeypatch):
    monkeypatch.setattr(decoding, "_Batch", FakeBatch)
    monkeypatch.setattr(FakeBatch, "made", [])

    def run(lengths):
        return decoding.generate_stream(None, lengths, Decoding(), 8)

    return run


@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_segment_that_runs_on_holds_back_a_bounded_number_of_others(stream, is_ahead):
    """It leaves its short lane, and does not wait for the end of the recording to go on."""
    lengths = [np.array(1000 if number in (5, 100, 101) else 70) for number in range(400)]
    order = [number for number, _ in stream(ReadAhead(lengths, 8) if is_ahead else lengths)]
    assert sorted(order) == list(range(400))
    for number in (5, 100, 101):
        assert order.index(number) < number + (decoding.AHEAD + 1) * 8 + 3
    assert len(FakeBatch.made) == 3  # 256, 512 and 1024 positions


def test_audio_that_is_late_keeps_nothing_back(stream):
    """What there is, long segments as well, is decoded while the next audio is waited for."""
    goes_on = threading.Event()

    def late():
        yield from map(np.array, (3, 1000, 3))
        assert goes_on.wait(SECONDS)
        yield np.array(3)

    results = stream(ReadAhead(late(), 8))
    assert sorted(number for number, _ in (next(results) for _ in range(3))) == [0, 1, 2]
    goes_on.set()
    assert [number for number, _ in results] == [3]


def broken(items):
    yield from items
    raise OSError("The disk is gone.")


@pytest.mark.parametrize("is_ahead", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, 40])
@pytest.mark.parametrize("method", [Decoding("greedy", max_tokens=20), Decoding("beam", 2, max_tokens=20)])
def test_what_was_read_before_an_error_is_decoded_before_it_is_raised(method, count, is_ahead):
    config = tiny()
    model, log_mels = build_model(config, random_arrays(config), "cpu"), random_log_mel(config, 40)[:count]
    expected = dict(decoding.generate_stream(model, log_mels, method, 8))
    given = ReadAhead(broken(log_mels), 8) if is_ahead else broken(log_mels)
    found = []
    with pytest.raises(OSError, match="disk is gone"):
        found += decoding.generate_stream(model, given, method, 8)
    assert sorted(number for number, _ in found) == list(range(count))
    assert all(one.tokens.tolist() == expected[number].tokens.tolist() for number, one in found)


def test_after_an_error_in_reading_a_stream_can_be_left_at_once(stream):
    """With segments in lanes, of which one runs on."""
    results = stream(broken(np.array(1000 if number == 5 else 70 + number) for number in range(8)))
    next(results)
    results.close()
    assert list(results) == []
    assert FakeBatch.made[0].occupied()
