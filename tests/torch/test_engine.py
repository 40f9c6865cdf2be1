"""One engine for many requests: nobody waits for ever, nothing is refused, and tokens are those of one alone."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3core.errors import DecodingError, UsageError  # noqa: E402
from mt3core.segments import AudioSegment  # noqa: E402
from mt3decode.stretches import Stretches  # noqa: E402
from mt3torch import Transcriber, build_model, decoding, engine  # noqa: E402
from mt3torch.decoding import LaneWorker  # noqa: E402
from mt3torch.device_loop import DeviceLoop  # noqa: E402
from mt3torch.device_worker import DeviceWorker  # noqa: E402
from mt3torch.engine import Engine  # noqa: E402
from mt3torch.stepper import Stepper  # noqa: E402

pytestmark = pytest.mark.unit
OPTIONS = Decoding(max_tokens=20)
BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
PATIENCE_SECONDS = 60  # after which a test has failed


@pytest.fixture(scope="module")
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture(scope="module")
def log_mel():
    return random_log_mel(tiny(), 24)


@pytest.fixture(scope="module")
def expected(model, log_mel):
    return tokens_of(decoding.generate_stream(model, log_mel, OPTIONS))


LOOP = DeviceLoop(look_every=2, lane_buckets=(2,), length_buckets=(8,))


@pytest.fixture(params=[(1, None), (2, None), (1, LOOP), (2, LOOP)], ids=["one", "two", "loop", "two_loops"])
def made(model, request):
    num_workers, loop = request.param
    with_threads = Engine(Stepper(model), OPTIONS, num_lanes=3, num_workers=num_workers, loop=loop)
    yield with_threads
    with_threads.close()


def tokens_of(stream):
    return {number: one.tokens.tolist() for number, one in stream}


def wait_until(condition):
    limit = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def in_time(function):
    """What it returns or raises; a failure if it does neither, which a thread that has died would lead to."""
    future = Future()

    def call():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future.result(PATIENCE_SECONDS)


def decoded_in_time(engine, log_mels):
    return in_time(lambda: tokens_of(engine.generate_stream(log_mels)))


def test_tokens_are_those_of_the_loop_request_after_request(made, log_mel, expected):
    assert len({tuple(tokens) for tokens in expected.values()}) > 1
    for _ in range(2):
        assert tokens_of(made.generate_stream(iter(log_mel))) == expected
    assert list(made.generate_stream([])) == []
    assert made.num_requests == 0


def test_ten_threads_three_of_which_cancel(made, log_mel, expected, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from engine_stress import stress

    tally = stress(made.generate_stream, log_mel, expected, seconds=10)
    assert tally.problems == []
    assert tally.num_hanging == 0
    assert tally.num_done >= 7
    assert tally.num_cancelled >= 3
    assert made.num_requests == 0
    assert tokens_of(made.generate_stream(log_mel)) == expected


def test_a_request_that_is_over_is_not_counted_as_cancelled(made, log_mel, expected, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from engine_stress import stress

    tally = stress(made.generate_stream, log_mel[:1], expected, seconds=0)
    assert (tally.num_done, tally.num_cancelled, tally.num_segments, tally.problems) == (7, 0, 10, [])


def test_what_goes_wrong_in_many_threads_is_seen(made, log_mel, expected, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import engine_stress

    other = {number: [*tokens, 1] for number, tokens in expected.items()}
    tally = engine_stress.stress(made.generate_stream, log_mel, other, seconds=0)
    assert len(tally.problems) == 10
    assert tally.problems[0].startswith("other tokens in ")
    tally = engine_stress.stress(lambda rows: iter([]), log_mel, expected, seconds=0)
    assert tally.num_done == 0
    assert len(tally.problems) == 10

    monkeypatch.setattr(engine_stress, "PATIENCE_SECONDS", 0.1)
    ended = threading.Event()
    tally = engine_stress.stress(lambda rows: iter(ended.wait, True), log_mel, expected, seconds=0)
    ended.set()
    assert tally.num_hanging == 10
    assert not tally.is_good


def test_requests_take_turns(model, log_mel):
    """A short request that comes while an endless one is running is finished all the same."""
    made = Engine(Stepper(model), OPTIONS, num_lanes=3)
    endless = made.generate_stream(itertools.cycle(log_mel))
    next(endless)
    assert len(list(made.generate_stream(log_mel[:4]))) == 4
    assert made.num_requests == 1
    endless.close()
    assert made.num_requests == 0
    made.close()


def test_no_more_is_read_than_can_be_used_soon(model, log_mel, monkeypatch):
    monkeypatch.setattr(engine, "encoder_batch", lambda *_: 2)
    made, read = Engine(Stepper(model), OPTIONS, num_lanes=2), []
    stream = made.generate_stream(read.append(1) or row for row in itertools.cycle(log_mel))
    for _ in itertools.islice(stream, 30):
        pass
    # Consumed, finished or in lanes, waiting, and in the reader's hands.
    assert len(read) <= 30 + engine.AHEAD * 2 + 2 * engine.BATCHES_AHEAD + 1
    time.sleep(0.2)
    assert len(read) <= 30 + engine.AHEAD * 2 + 2 * engine.BATCHES_AHEAD + 1
    stream.close()
    made.close()


def test_a_request_that_waits_for_its_audio_holds_nobody_up(made, log_mel, expected):
    arrived = threading.Event()

    def late():
        yield log_mel[0]
        arrived.wait(PATIENCE_SECONDS)
        yield log_mel[1]

    waiting = made.generate_stream(late())
    assert next(waiting)[0] == 0
    assert tokens_of(made.generate_stream(log_mel)) == expected
    arrived.set()
    assert tokens_of(waiting) == {1: expected[1]}


def test_an_error_in_reading_is_that_requests_own(made, log_mel, expected):
    with pytest.raises(OSError, match="the disk is gone"):
        list(made.generate_stream(broken(log_mel[:5])))
    assert tokens_of(made.generate_stream(log_mel)) == expected


def broken(log_mels):
    yield from log_mels
    raise OSError("the disk is gone")


@pytest.mark.parametrize("count", [0, 1, 5, 24])
def test_what_was_read_before_an_error_is_decoded_before_it_is_raised(made, log_mel, expected, count):
    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found += made.generate_stream(broken(log_mel[:count]))
    assert tokens_of(found) == {number: expected[number] for number in range(count)}
    assert made.num_requests == 0


def test_after_an_error_in_reading_a_request_can_be_cancelled_at_once(model, log_mel, monkeypatch):
    made, stuck = Engine(Stepper(model), OPTIONS, num_lanes=3), Stuck()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "lane_worker", lambda *_: stuck)
        stream = made.generate_stream(broken(log_mel[:3]))
        wait_until(lambda: stuck.tags and stream._request.is_read)
        assert made.num_requests == 1
        stream.close()
        assert made.num_requests == 0
        assert in_time(lambda: list(stream)) == []
        wait_until(lambda: not stuck.tags)
    made.close()


class Stuck:
    """A worker that finishes nothing."""

    num_wanted, is_idle = 1, False

    def __init__(self):
        self.tags = set()

    def encode(self, starts, last_steps):
        self.tags |= {tag for tag, _ in starts}

    def step(self):
        time.sleep(0.001)
        return []

    def drop(self, tag):
        self.tags.discard(tag)


def test_an_error_in_decoding_does_not_end_the_engine(made, log_mel, expected, monkeypatch):
    def fail(self):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        for worker in (LaneWorker, DeviceWorker):
            patch.setattr(worker, "step", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            list(made.generate_stream(log_mel))
    assert tokens_of(made.generate_stream(log_mel)) == expected


@pytest.mark.parametrize("error", [MemoryError("no lanes"), RuntimeError("no device")])
def test_lanes_that_cannot_be_made_are_an_error_of_the_requests_that_were_to_have_them(
    made, log_mel, expected, monkeypatch, error
):
    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine, "lane_worker", fail)
        with pytest.raises(type(error), match=str(error)):
            decoded_in_time(made, log_mel)
    assert made.num_requests == 0
    assert decoded_in_time(made, log_mel) == expected


def test_an_error_in_decoding_is_not_that_of_a_request_whose_segments_are_done(made, log_mel, expected, monkeypatch):
    def fail(self):
        raise RuntimeError("out of memory")

    arrived = threading.Event()

    def late():
        yield log_mel[0]
        arrived.wait(PATIENCE_SECONDS)
        yield from log_mel[1:]

    waiting = made.generate_stream(late())
    found = dict([next(waiting)])
    with monkeypatch.context() as patch:
        for worker in (LaneWorker, DeviceWorker):
            patch.setattr(worker, "step", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            decoded_in_time(made, log_mel)
    arrived.set()
    found |= in_time(lambda: dict(waiting))
    assert tokens_of(found.items()) == expected


def test_an_error_while_lanes_are_freed_is_that_of_the_requests_in_them(model, log_mel, expected, monkeypatch):
    def fail(self, tag):
        raise RuntimeError("dropping failed")

    monkeypatch.setattr(Stuck, "drop", fail)
    made, stuck, arrived = Engine(Stepper(model), OPTIONS, num_lanes=3), Stuck(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "lane_worker", lambda *_: stuck)
        left, other = made.generate_stream(log_mel[:2]), made.generate_stream(log_mel[:2])
        wait_until(lambda: len(stuck.tags) == 2)
    waiting = made.generate_stream(row for row in log_mel if arrived.wait(PATIENCE_SECONDS))
    left.close()
    with pytest.raises(RuntimeError, match="dropping failed"):
        in_time(lambda: list(other))
    assert decoded_in_time(made, log_mel) == expected
    arrived.set()
    assert in_time(lambda: tokens_of(waiting)) == expected
    made.close()


def test_an_error_in_what_becomes_of_a_segment_is_that_of_its_request(made, log_mel, expected, monkeypatch):
    def fail(*_):
        raise MemoryError("no notes")

    monkeypatch.setattr(Stretches, "give", fail)
    stretches = Stretches(tiny(), OPTIONS, [AudioSegment(0, 0, 7, 0.0)], [False], lambda piece: log_mel[0])
    with made._state.changed:  # so that they start together
        continuous, other = made.generate_stream(stretches), made.generate_stream(log_mel)
    with pytest.raises(MemoryError, match="no notes"):
        in_time(lambda: list(continuous))
    assert in_time(lambda: tokens_of(other)) == expected
    assert decoded_in_time(made, log_mel) == expected


def test_closing_ends_requests_and_threads(model, log_mel):
    before = threading.active_count()
    made = Engine(Stepper(model), OPTIONS, num_lanes=3, num_workers=2)
    stream = made.generate_stream(itertools.cycle(log_mel))
    next(stream)
    made.close()
    with pytest.raises(DecodingError, match="The engine was closed"):
        list(stream)
    with pytest.raises(DecodingError, match="Make a new Transcriber"):
        list(made.generate_stream(log_mel))
    wait_until(lambda: threading.active_count() <= before)


def test_threads_end_with_the_engine(model, log_mel):
    before = threading.active_count()
    made = Engine(Stepper(model), OPTIONS, num_lanes=3, num_workers=2)
    list(made.generate_stream(log_mel[:2]))
    assert threading.active_count() > before
    del made
    gc.collect()
    wait_until(lambda: threading.active_count() <= before)


def test_requests_outlive_the_engine_and_its_settings(model, log_mel, expected):
    before = threading.active_count()
    transcriber = Transcriber(model, OPTIONS, workers=2)
    stream = transcriber.generate_stream(log_mel)
    found = dict([next(stream)])
    transcriber.decoding = Decoding(max_tokens=5)
    assert max(len(one) for one in tokens_of(transcriber.generate_stream(log_mel)).values()) == 5
    del transcriber
    gc.collect()
    found |= dict(stream)
    assert tokens_of(found.items()) == expected
    wait_until(lambda: threading.active_count() <= before)


def test_threads_end_if_one_of_them_finds_that_nobody_needs_the_engine(model, log_mel):
    before = threading.active_count()
    made = Engine(Stepper(model), OPTIONS, num_lanes=3, num_workers=2)

    def last():
        with made._state.changed:  # as the collection of garbage might, at any moment
            made.close()
        yield log_mel[0]

    with pytest.raises(DecodingError, match="The engine was closed"):
        list(made.generate_stream(last()))
    wait_until(lambda: threading.active_count() <= before)


def test_the_audio_of_a_request_that_was_left_is_forgotten(made, log_mel):
    class Audio:
        pass

    def rows(audio):
        yield from itertools.cycle(log_mel)

    audio = Audio()
    held = weakref.ref(audio)
    stream = made.generate_stream(rows(audio))
    del audio
    next(stream)
    assert held() is not None
    stream.close()
    wait_until(lambda: held() is None)


def test_a_request_for_which_no_thread_can_be_started_does_not_hold_up_the_next(made, log_mel, expected, monkeypatch):
    start, started = threading.Thread.start, []

    def fail(self):
        if len(started) == made._state.num_workers - 1:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            made.generate_stream(log_mel)
    assert made.num_requests == 0
    assert tokens_of(made.generate_stream(log_mel)) == expected
    wait_until(lambda: not any(one.is_alive() for one in started))


FORKED = """
import os, signal
from tiny_networks import random_arrays, random_log_mel, tiny
from mt3core.decoding import Decoding
from mt3torch import Transcriber, build_model

transcriber = Transcriber(build_model(tiny(), random_arrays(tiny()), "cpu"), Decoding(max_tokens=20), workers=2)
log_mel = random_log_mel(tiny(), 24)
def decoded():
    return {number: one.tokens.tolist() for number, one in transcriber.generate_stream(log_mel)}
expected = decoded()
child = os.fork()
if child == 0:
    signal.alarm(240)
    os._exit(0 if decoded() == expected else 1)
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only some systems have fork")
def test_a_forked_process_has_threads_of_its_own():
    helpers = str(Path(__file__).parents[1] / "helpers")
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": helpers}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_idle_workers_give_their_memory_back(model, log_mel, expected, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.01)
    alive = set()
    start = LaneWorker.__init__

    def counted(self, *arguments):
        start(self, *arguments)
        alive.add(id(self))

    monkeypatch.setattr(LaneWorker, "__init__", counted)
    monkeypatch.setattr(LaneWorker, "__del__", lambda self: alive.discard(id(self)), raising=False)
    made = Engine(Stepper(model), OPTIONS, num_lanes=3, num_workers=2)
    for _ in range(2):
        assert tokens_of(made.generate_stream(log_mel)) == expected
        wait_until(lambda: not alive)
    made.close()


def test_the_callers_number_of_threads_stays(model, log_mel):
    before = torch.get_num_threads()
    made = Engine(Stepper(model), OPTIONS, num_lanes=3, num_workers=2)
    list(made.generate_stream(log_mel[:2]))
    assert torch.get_num_threads() == before
    made.close()


def test_a_transcriber_follows_its_settings(model, log_mel, expected):
    made = Transcriber(model, OPTIONS, workers=2)
    assert tokens_of(made.generate_stream(log_mel)) == expected
    made.decoding = Decoding(max_tokens=5)
    assert max(len(tokens) for tokens in tokens_of(made.generate_stream(log_mel)).values()) == 5
    made.close()
    made.decoding = OPTIONS
    assert tokens_of(made.generate_stream(log_mel)) == expected
    made.close()


@pytest.mark.parametrize("option", ["workers", "batch_size"])
@pytest.mark.parametrize("number", [0, -1])
def test_fewer_than_one_is_refused(model, option, number):
    with pytest.raises(UsageError, match=f"{option} is {number}. Use at least 1"):
        Transcriber(model, OPTIONS, **{option: number})
