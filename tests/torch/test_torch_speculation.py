"""Reading guessed tokens ahead, and decoding in several processes: faster, and the same tokens."""

import io
import itertools
import os
import queue
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3core.errors import DecodingError  # noqa: E402
from mt3torch import Transcriber, build_model, decoding, processes, search, transcriber, worker_process  # noqa: E402
from mt3torch.stepper import Lanes, Stepper  # noqa: E402

pytestmark = pytest.mark.unit
LONG = 36  # so many tokens that a tiny network repeats itself


@pytest.fixture(scope="module")
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture(scope="module")
def log_mel():
    return random_log_mel(tiny(), 12)


@pytest.fixture(autouse=True)
def few_threads():
    """Tiny networks gain nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def outcomes(stream):
    """To be compared with `exact`."""
    return {
        number: (tokens, pytest.approx(score, abs=1e-4), pytest.approx(log_probabilities, abs=1e-4))
        for number, (tokens, score, log_probabilities) in exact(stream).items()
    }


def exact(stream):
    return {number: (one.tokens.tolist(), one.score, one.log_probabilities.tolist()) for number, one in stream}


@pytest.mark.parametrize("method", ["greedy", "t5x"])
@pytest.mark.parametrize("lanes", [1, 3, 4])
def test_guessing_changes_no_token_and_saves_steps(model, log_mel, monkeypatch, method, lanes):
    steps = []
    step = Lanes.step
    monkeypatch.setattr(Lanes, "step", lambda self, tokens: steps.append(tokens.shape) or step(self, tokens))
    options = Decoding(method, max_tokens=LONG)
    guessed = dict(decoding.generate_stream(model, log_mel, options, lanes))
    with_guesses, wide = len(steps), [shape for shape in steps if shape[1] > 1]
    steps.clear()
    monkeypatch.setattr(search, "FEW_LANES", 0)
    assert outcomes(decoding.generate_stream(model, log_mel, options, lanes)) == exact(guessed.items())
    assert wide
    assert with_guesses < len(steps)


def test_a_guess_is_what_followed_the_last_two_tokens():
    single = search.SingleSearch(Decoding("greedy", max_tokens=100), 3)
    single.add(3)
    for tokens in ([5, 5, 9], [6, 6, 9], [7, 8, 9], [5, 5, 9], [6, 7, 8]):
        single.advance(np.array(tokens)[:, None, None], np.zeros((3, 1, 1)))
    # 5 6 7 5 6: goes on with 7 5 6 7 5. Nothing repeats in 5 6 8 5 7, and 9 9 9 9 8 is new, too.
    assert single.guesses(5)[0].tolist() == [7, 5, 6, 7, 5]
    assert (single.guesses(5)[1:] == 1).all()
    assert single.guesses(95) is None  # no room
    single.keep(np.array([1, 2]))
    assert single.guesses(5) is None


def test_several_tokens_in_one_step_are_like_one_after_the_other(model, log_mel):
    """Also after some were taken back."""
    stepper = Stepper(model)
    tokens = np.random.default_rng(0).integers(2, 13, (3, 9))
    with torch.inference_mode():
        encoded = stepper.encode(log_mel[:3])
        one, several = (Lanes(stepper, 3, 1, encoded.shape[1], 40) for _ in range(2))
        one.add(encoded)
        several.add(encoded)
        expected = torch.stack([one.step(tokens[:, [column]]) for column in range(9)], dim=1)
        several.step(tokens[:, :4])
        several.take_back(np.array([0, 1, 3]))
        for lane, start in enumerate((4, 3, 1)):
            np.testing.assert_array_equal(several.lengths[lane], start)
        read = np.stack([tokens[lane, start : start + 5] for lane, start in enumerate((4, 3, 1))])
        found = several.step(read).unflatten(0, (3, 5))
    for lane, start in enumerate((4, 3, 1)):
        torch.testing.assert_close(found[lane], expected[lane, start : start + 5], atol=1e-5, rtol=1e-5)


@pytest.fixture
def in_processes(model):
    made = processes.Processes(model, Decoding(max_tokens=LONG), num_processes=2, num_lanes=4)
    yield made
    made.close()


@pytest.mark.integration
def test_processes_give_the_same_tokens_stream_after_stream(in_processes, model, log_mel):
    expected = outcomes(decoding.generate_stream(model, log_mel, Decoding(max_tokens=LONG)))
    for _ in range(2):
        assert expected == exact(in_processes.generate_stream(iter(log_mel)))
    assert list(in_processes.generate_stream([])) == []
    read = []
    endless = (read.append(1) or row for row in itertools.cycle(log_mel))
    for _ in itertools.islice(in_processes.generate_stream(endless), 30):
        pass
    assert len(read) <= 30 + 2 * (4 + processes.HELD_BACK)


def test_processes_end_with_their_object(model):
    made = processes.Processes(model, Decoding(max_tokens=LONG), num_processes=2, num_lanes=4)
    children, folder = made._children, made._folder.name
    assert os.path.exists(folder)
    del made
    assert [child.returncode for child in children] == [-signal.SIGKILL] * 2
    assert not os.path.exists(folder)


def test_a_process_left_alone_ends_and_tidies_up(tmp_path, monkeypatch):
    """Also where the other one was killed in the middle of a segment."""
    ends = []
    monkeypatch.setattr(os, "_exit", ends.append)
    folder = tmp_path / "mt3-abc"
    (folder / "model").mkdir(parents=True)
    segment = np.arange(6, dtype="<f4")
    frames = queue.SimpleQueue()
    sent = b"".join(np.array([number, 204], "<i8").tobytes() + segment.tobytes() for number in (4, 5))
    worker_process._read_until_alone(io.BytesIO(sent[:-3]), (2, 3), frames, str(folder))
    assert ends == [0]
    assert not folder.exists()
    number, last_step, log_mel = frames.get_nowait()
    assert (number, last_step) == (4, 204)
    np.testing.assert_array_equal(log_mel, segment.reshape(2, 3))
    assert frames.empty()


def test_where_no_processes_can_be_started_one_does_it_all(model, log_mel, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(transcriber, "LEAST_SEGMENTS_FOR_PROCESSES", 10)
    monkeypatch.setattr(processes.subprocess, "Popen", fail)
    options = Decoding(max_tokens=LONG)
    with_two, alone = Transcriber(model, options, processes=2), Transcriber(model, options)
    with pytest.warns(RuntimeWarning, match="could not be started .No space left"):
        stream = with_two.generate_stream(log_mel)
    assert outcomes(stream) == exact(alone.generate_stream(log_mel))


@pytest.mark.integration
def test_a_process_that_dies_is_reported(in_processes, log_mel):
    folder = in_processes._folder.name
    stream = in_processes.generate_stream(itertools.cycle(log_mel))
    next(stream)
    with pytest.raises(DecodingError, match="are decoding another recording"):
        next(in_processes.generate_stream(log_mel))
    os.kill(in_processes._children[1].pid, signal.SIGKILL)
    with pytest.raises(DecodingError, match=r"ended with code -9, perhaps out of memory.*--processes 1"):
        for _ in stream:
            pass
    assert not in_processes.is_open
    assert not os.path.exists(folder)


@pytest.mark.integration
def test_an_error_in_a_process_is_quoted(model, log_mel, monkeypatch):
    monkeypatch.setattr(processes, "WORKER_MODULE", "mt3torch.absent")
    broken = processes.Processes(model, Decoding(max_tokens=LONG), num_processes=2, num_lanes=4)
    with pytest.raises(DecodingError, match=r"code 1: .*No module named mt3torch.absent"):
        list(broken.generate_stream(log_mel))


@pytest.mark.integration
def test_the_transcriber_starts_processes_for_long_recordings_only(model, log_mel, monkeypatch):
    monkeypatch.setattr(transcriber, "LEAST_SEGMENTS_FOR_PROCESSES", 10)
    options = Decoding(max_tokens=LONG)
    with_two, alone = Transcriber(model, options, processes=2), Transcriber(model, options)
    with_two.close()
    assert outcomes(with_two.generate_stream(log_mel[:9])) == exact(alone.generate_stream(log_mel[:9]))
    assert with_two._started is None
    assert outcomes(with_two.generate_stream(log_mel)) == exact(alone.generate_stream(log_mel))
    assert with_two._started.is_open
    with_two.close()
    assert not with_two._started.is_open
