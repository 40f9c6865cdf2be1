"""The loop for accelerators, run on the CPU: the same tokens, few looks and shapes, and nothing that graphs forbid."""

import contextlib
import dataclasses
import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import replayed  # noqa: E402
from tiny_networks import FORMS, random_arrays, random_log_mel, tiny  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_flatten  # noqa: E402
from wild_twins import MAX_TOKENS, STEPS, wild_arrays  # noqa: E402

from mt3core.config.model import MT3  # noqa: E402
from mt3core.decoding import Decoding  # noqa: E402
from mt3core.segments import AudioSegment  # noqa: E402
from mt3core.spectrogram import log_mel as log_mel_of  # noqa: E402
from mt3decode.grammar import Grammar  # noqa: E402
from mt3decode.stretches import Stretches  # noqa: E402
from mt3torch import (  # noqa: E402
    build_model,
    decoding,
    device_worker,
    one_token,
    stepper,
)
from mt3torch.device_lanes import Buckets, DeviceLanes, Shape  # noqa: E402
from mt3torch.device_loop import DeviceLoop, bytes_of_lane, device_batch, lanes_that_fit  # noqa: E402
from mt3torch.device_search import DeviceSearch  # noqa: E402
from mt3torch.device_worker import DeviceWorker, closed  # noqa: E402
from mt3torch.graphs import Graphs  # noqa: E402
from mt3torch.model import Transformer  # noqa: E402
from mt3torch.stepper import Stepper  # noqa: E402

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
LONG = 36
LANES = 5


@pytest.fixture(autouse=True)
def products(monkeypatch):
    """Layer by layer as on an accelerator."""
    monkeypatch.setattr(one_token, "are_bags_fast", lambda device: False)


@pytest.fixture(scope="module")
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture(scope="module")
def log_mel():
    return random_log_mel(tiny(), 24)


def loop_of(look_every):
    """With many shapes, so small that all occur."""
    return DeviceLoop(look_every, lane_buckets=(2, 3), length_buckets=(4, 8, 16))


def agree(found, expected, tolerance=1e-4):
    """Equal tokens; scores and confidences but for rounding."""
    found, expected = dict(found), dict(expected)
    assert found.keys() == expected.keys()
    for number, one in found.items():
        other = expected[number]
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.tokens.dtype == other.tokens.dtype
        assert one.score == pytest.approx(other.score, abs=tolerance)
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=tolerance)


@pytest.mark.parametrize("look_every", [1, 2, 7])
@pytest.mark.parametrize("method", ["greedy", "t5x"])
@pytest.mark.parametrize("max_tokens", [LONG, 6])
def test_tokens_are_those_of_the_loop_on_the_host(model, log_mel, method, look_every, max_tokens):
    options = Decoding(method, max_tokens=max_tokens)
    expected = dict(decoding.generate_stream(model, log_mel, options, LANES))
    assert max_tokens < LONG or len({len(one.tokens) for one in expected.values()}) > 1
    found = decoding.generate_stream(model, log_mel, options, LANES, loop=loop_of(look_every))
    agree(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_in_all_forms_of_network(form):
    config = tiny(form)
    model, log_mel = build_model(config, random_arrays(config), "cpu"), random_log_mel(config, 9)
    for is_folded in (True, False):
        prepared = Stepper(model, is_folded=is_folded, is_norm_fused=is_folded)
        found = decoding.generate_stream(prepared, log_mel, Decoding(max_tokens=20), 3, loop=loop_of(2))
        agree(found, decoding.generate_stream(model, log_mel, Decoding(max_tokens=20), 3))


@pytest.mark.parametrize("look_every", [1, 2, 7])
@pytest.mark.parametrize(
    "chosen",
    [
        {"method": "greedy"},
        {"method": "t5x"},
        {"method": "t5x", "programs": (0, 33), "drums": False},
        {"method": "t5x", "continuous": True},
        {"method": "greedy", "continuous": True, "grammar": False},
    ],
    ids=["greedy", "t5x", "instruments", "continuous", "without_grammar"],
)
def test_the_grammar_instruments_and_given_tokens(chosen, look_every):
    """All of them beside the accelerator; with random weights that write all kinds of tokens."""
    options = Decoding(**{"grammar": True, "max_tokens": MAX_TOKENS, **chosen})
    config, arrays = wild_arrays("mt3", {"pitch": 2, "velocity": 4, "tie": 2, "drum": 0.5}, 2)
    model, log_mels = build_model(config, arrays, "cpu"), random_log_mel(config, 12)

    def segments():
        if not options.continuous:
            return iter(log_mels)
        pieces = [AudioSegment(number, 0, 7, number * STEPS / 100) for number in range(len(log_mels))]
        silences = [number in (0, 5) for number in range(len(log_mels))]
        return Stretches(config, options, pieces, silences, lambda piece: log_mels[piece.index])

    steps = [STEPS - 10 * (number % 3) for number in range(len(log_mels))]
    expected = decoding.generate_stream(model, segments(), options, LANES, steps)
    found = decoding.generate_stream(model, segments(), options, LANES, steps, loop_of(look_every))
    agree(found, expected)


def test_beams_are_sorted_on_the_host(model, log_mel):
    options = Decoding("beam", 2, max_tokens=12)
    found = decoding.generate_stream(model, log_mel[:6], options, 3, loop=loop_of(7))
    agree(found, decoding.generate_stream(model, log_mel[:6], options, 3))


def test_the_host_looks_only_every_few_steps(model, log_mel, monkeypatch):
    looks, steps = [], []
    is_active, advance = DeviceSearch.is_active, DeviceSearch.advance
    monkeypatch.setattr(DeviceSearch, "is_active", lambda self, *one: looks.append(1) or is_active(self, *one))
    monkeypatch.setattr(DeviceSearch, "advance", lambda self, *one: steps.append(1) or advance(self, *one))
    options = Decoding(max_tokens=20)
    assert len(list(decoding.generate_stream(model, log_mel, options, LANES, loop=loop_of(5)))) == len(log_mel)
    assert len(steps) == 5 * len(looks) > 0


def test_lanes_are_made_when_they_are_needed_and_kept(model, log_mel, monkeypatch):
    made = []
    empty = DeviceLanes._empty
    monkeypatch.setattr(DeviceLanes, "_empty", lambda self, lanes: made.append(lanes) or empty(self, lanes))
    options, caches = Decoding(max_tokens=20), 2 * tiny().network.num_decoder_layers  # of keys, and of values
    for count, expected in ((2, [2]), (3, [3]), (24, [5]), (60, [5])):
        made.clear()
        list(decoding.generate_stream(model, np.resize(log_mel, (count, 7, 5)), options, LANES, loop=loop_of(2)))
        assert made == caches * expected
    made.clear()
    worker = DeviceWorker(Stepper(model), options, LANES, loop_of(2))
    with torch.inference_mode():
        for count in (2, 1, 2):
            started(worker, log_mel[:count])
            worker.step()
            worker.step()
    assert made == caches * [2] + caches * [3] + caches * [5]


def started(worker, log_mels, tag="one"):
    starts = [(tag, decoding.Start(number, log_mel)) for number, log_mel in enumerate(log_mels)]
    worker.encode(starts, [STEPS] * len(starts))


def finished(worker):
    found = {}
    while not worker.is_idle:
        found |= {(tag, number): one for tag, number, one in worker.step()}
    return found


def test_what_is_dropped_gives_its_lanes_back(model, log_mel):
    options = Decoding(max_tokens=20)
    expected = dict(decoding.generate_stream(model, log_mel, options))
    worker = DeviceWorker(Stepper(model), options, LANES, loop_of(2))
    with torch.inference_mode():
        started(worker, log_mel[:3], "mine")
        started(worker, log_mel[3:9], "theirs")
        early = {number: one for _, number, one in worker.step()}
        assert not early
        worker.drop("theirs")
        assert len(worker._tags) == 3
        agree({number: one for (_, number), one in finished(worker).items()}, {n: expected[n] for n in range(3)})
        started(worker, log_mel[9:12], "mine")
        assert worker.num_wanted
        agree({number: one for (_, number), one in finished(worker).items()}, {n: expected[n + 9] for n in range(3)})


def test_a_batch_is_encoded_ahead_and_not_more(model, log_mel):
    worker = DeviceWorker(Stepper(model), Decoding(max_tokens=20), 4, loop_of(2))
    with torch.inference_mode():
        assert worker.num_wanted == 4
        started(worker, log_mel[:4])
        assert worker.num_wanted == 0
        worker.step()
        assert worker.num_wanted == 4
        started(worker, log_mel[4:8])
        assert worker.num_wanted == 0


def test_lanes_do_not_wait_for_the_encoder_unless_there_is_nothing_else(model, log_mel, monkeypatch):
    """The encoder's own stream is late: its segments are there when they have been asked for three times."""
    waits = []

    class Late:
        asked = 0

        @property
        def is_reached(self):
            self.asked += 1
            return self.asked > 3

        def wait(self, tensors):
            waits.append((self.asked, len(tensors)))

    monkeypatch.setattr(device_worker.SideStream, "mark", lambda self: Late())
    options = Decoding(max_tokens=20)
    found = decoding.generate_stream(model, log_mel, options, 3, loop=loop_of(2))
    agree(found, decoding.generate_stream(model, log_mel, options, 3))
    assert waits[0] == (3, 3)  # the first batch, for which there was nothing to do
    assert all(asked > 3 for asked, _ in waits[1:-1])
    assert sum(count for _, count in waits) == len(log_mel)


@pytest.mark.parametrize("seed", range(20))
def test_gaps_are_closed_with_few_moves_and_the_long_ones_first(seed):
    random = np.random.default_rng(seed)
    is_kept, is_long = random.random((2, 30)) < random.random((2, 1))
    order = closed(is_kept, is_long)
    assert sorted(order) == np.flatnonzero(is_kept).tolist()
    longs = is_long[order]
    assert not (~longs[:-1] & longs[1:]).any()
    # Who is already in the right part stays.
    could_stay = [lane for lane in order if lane < len(order) and (lane < longs.sum()) == is_long[lane]]
    assert [lane for place, lane in enumerate(order) if place == lane] == sorted(could_stay)


def test_shapes_are_few():
    buckets = DeviceLoop().buckets(1024, 1024)
    assert buckets == Buckets((64, 128, 256, 512, 1024), (128, 256, 512, 1024))
    shapes = {
        buckets.shape(lanes, long, longest)
        for lanes in range(1, 1025, 7)
        for long in range(0, lanes + 1, 5)
        for longest in range(1, 1040, 31)
    }
    assert all(shape.num_long <= shape.num_lanes for shape in shapes)
    assert len(shapes) == 5 * (1 + 8 * 4)
    assert buckets.shape(65, 1, 300) == Shape(128, 16, 512, 128)
    assert buckets.shape(64, 0, 100).groups == [(slice(0, 64), 128)]
    assert buckets.shape(64, 60, 100).groups == [(slice(0, 64), 128)]
    assert DeviceLoop().buckets(40, 100) == Buckets((40,), (100,))
    one_length = DeviceLoop().buckets(40, 100)
    assert one_length.shape(30, 10, 100) == Shape(40, 0, 100, 100)
    assert not one_length.is_long(np.array([99, 108])).any()
    assert buckets.is_long(np.array([128, 129])).tolist() == [False, True]


@pytest.fixture
def captured(monkeypatch):
    """Every shape that was captured, by an imitation of CUDA's graphs."""
    captures = []
    capture = lambda function: captures.append(1) or replayed.capture(function)  # noqa: E731
    monkeypatch.setattr(Graphs, "on", classmethod(lambda cls, *_: cls(capture)))
    return captures


@pytest.mark.parametrize(("look_every", "grammar"), [(1, False), (7, True)])
def test_a_step_can_be_captured_and_replayed(captured, look_every, grammar):
    config, arrays = wild_arrays("mt3", {"pitch": 2, "velocity": 4, "tie": 2, "drum": 0.5}, 2)
    model, log_mels = build_model(config, arrays, "cpu"), random_log_mel(config, 12)
    options = Decoding(max_tokens=MAX_TOKENS, grammar=grammar)
    expected = decoding.generate_stream(model, log_mels, options, 3)
    found = decoding.generate_stream(model, log_mels, options, 3, loop=loop_of(look_every))
    agree(found, expected)
    assert 2 < len(captured) < 20


def test_graphs_are_captured_at_the_second_call_once_for_a_shape():
    calls, captures = [], []
    graphs = Graphs(lambda function: captures.append(1) or function)
    for shape in "aababa":
        graphs.run(shape, lambda shape=shape: calls.append(shape))
    assert "".join(calls) == "aababa"
    assert len(captures) == 2
    graphs.forget()
    graphs.run("a", lambda: calls.append("a"))
    assert len(captures) == 3


def test_what_cannot_be_captured_is_called_and_logged_once(model, log_mel, monkeypatch, caplog):
    def fail(function):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Graphs, "on", classmethod(lambda cls, *_: cls(fail)))
    options = Decoding(max_tokens=20)
    with caplog.at_level(logging.WARNING):
        found = dict(decoding.generate_stream(model, log_mel, options, 3, loop=loop_of(2)))
    agree(found, decoding.generate_stream(model, log_mel, options, 3))
    (record,) = caplog.records
    reason = "operation not permitted when stream is capturing"
    assert record.getMessage() == f"Decoding without CUDA graphs, which is slower: {reason}"


def test_no_graphs_where_there_are_none_or_none_are_wanted():
    assert Graphs.on(torch.device("cpu"))._capture is None
    assert Graphs.on(torch.device("cuda"), is_wanted=False)._capture is None


class _Watch(TorchDispatchMode):
    """The operations, and the devices of all tensors that they were given or gave."""

    def __init__(self):
        super().__init__()
        self.operations, self.devices = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations.add(func.overloadpacket.__name__)
        tensors = [one for one in tree_flatten((args, kwargs, result))[0] if isinstance(one, torch.Tensor)]
        self.devices |= {one.device.type for one in tensors}
        return result


@pytest.mark.parametrize("chosen", [{}, {"grammar": True, "programs": (0, 33)}, {"method": "greedy"}])
def test_a_step_never_waits_for_the_device_and_copies_nothing_to_it(chosen, monkeypatch):
    """On a device without values, where everything that would need them fails."""
    monkeypatch.setattr(stepper, "in_full_precision", lambda device: contextlib.nullcontext())
    config, device = wild_arrays("mt3", {})[0], torch.device("meta")
    with device:
        model = Transformer(config)
    model.requires_grad_(False)
    for stack in (model.encoder, model.decoder):
        stack.positions = stack.positions.to(device)
    search = DeviceSearch(Decoding(max_tokens=40, **chosen), Grammar.of(config), 8, device)
    lanes = DeviceLanes(Stepper(model, is_norm_fused=True), 8, config.network.input_frames, 40)
    with torch.no_grad(), _Watch() as watch:
        tokens, positions = search.next(4)
        search.advance(lanes.step(tokens, positions, Shape(4, 2, 16, 8)))
    assert watch.devices == {"meta"}
    assert "topk" in watch.operations
    assert not watch.operations & {"_local_scalar_dense", "nonzero", "item", "masked_select", "is_nonzero"}
    with pytest.raises((NotImplementedError, RuntimeError)):
        search.is_active(4)  # which is the look of the host


@pytest.mark.device
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
        pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")),
    ],
)
@pytest.mark.parametrize("method", ["greedy", "t5x"])
@pytest.mark.parametrize("makes_log_mels", [True, False])
def test_every_device_writes_the_same_tokens(device, method, makes_log_mels, caplog):
    """With the grammar, samples as input, more segments than lanes, and graphs where there are any."""
    config, arrays = wild_arrays("mt3", {"pitch": 2, "velocity": 4, "tie": 2, "drum": 0.5}, 2)
    samples = np.random.default_rng(0).standard_normal((40, config.segment_samples)).astype(np.float32)
    log_mels = np.stack([log_mel_of(row, config.spectrogram) for row in samples])
    options = Decoding(method, max_tokens=MAX_TOKENS, grammar=True, programs=(0, 33))
    expected = decoding.generate_stream(build_model(config, arrays, "cpu"), log_mels, options, 16)
    there = build_model(config, arrays, device)
    loop = DeviceLoop(lane_buckets=(4, 8), length_buckets=(16,), makes_log_mels=makes_log_mels)
    with caplog.at_level(logging.WARNING):
        given = iter(samples if makes_log_mels else log_mels)
        found = dict(decoding.generate_stream(there, given, options, 16, loop=loop))
    agree(found, expected, tolerance=2e-2)  # the network is wild: log-mels that differ by 1e-4 show
    assert not caplog.records  # every step could be captured


def test_memory_decides_the_number_of_lanes():
    gib = 2**30
    wide = MT3.network
    assert [lanes_that_fit(wide, 1024, size * gib) for size in (139, 79, 47, 23, 11, 5, 1)] == [
        1024, 1024, 512, 256, 128, 64, 16,
    ]  # fmt: skip
    assert lanes_that_fit(wide, 1024, 0) == 8
    assert lanes_that_fit(wide, 128, 23 * gib) == 1024
    # Keys and values of every layer take more than what the encoder gave.
    assert [lanes_that_fit(wide, 1024, 60 * gib, is_folded) for is_folded in (True, False)] == [1024, 512]
    assert [device_batch(lanes) for lanes in (1024, 512, 64, 16)] == [128, 64, 64, 16]


def test_the_memory_of_a_lane_is_what_its_tensors_take():
    config, device = dataclasses.replace(MT3), torch.device("meta")
    with device:
        model = Transformer(config)
    for stack in (model.encoder, model.decoder):
        stack.positions = stack.positions.to(device)
    for is_folded in (True, False):
        lanes = DeviceLanes(Stepper(model, is_folded=is_folded), 2, config.network.input_frames, 1024)
        search = DeviceSearch(Decoding(grammar=True), Grammar.of(config), 2, device)
        tensors = [*lanes._self, *lanes._cross, *search._state.values()]
        own = sum(one.element_size() * one.numel() for one in tensors) / 2
        assert own < bytes_of_lane(config.network, 1024, is_folded) < 1.1 * own


def test_the_default_on_cuda_follows_its_free_memory(model, monkeypatch):
    free = [80 * 2**30]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 2 * free[0]))
    prepared = Stepper(model)
    monkeypatch.setattr(prepared, "device", torch.device("cuda"))
    monkeypatch.setattr(prepared, "network", MT3.network)
    assert decoding.default_batch_size(prepared, Decoding()) == 1024
    assert decoding.default_batch_size(prepared, Decoding(), num_workers=2) == 512
    free[0] = 12 * 2**30
    assert decoding.default_batch_size(prepared, Decoding()) == 128
    assert decoding.default_batch_size(prepared, Decoding("beam", 4)) == 16


def test_the_default_loop_of_a_device():
    assert DeviceLoop.of(torch.device("cpu")) is None
    assert DeviceLoop.of(torch.device("cuda", 1)) == DeviceLoop()
    on_mac = DeviceLoop.of(torch.device("mps"))
    assert on_mac is not None
    assert not on_mac.has_graphs
    assert not on_mac.makes_log_mels
    assert on_mac.buckets(64, 1024) == Buckets((64,), (128, 256, 512, 1024))  # every new length compiles a program
