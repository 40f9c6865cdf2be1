"""Reading guessed tokens ahead: faster, and the same tokens."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3torch import build_model, decoding, search  # noqa: E402
from mt3torch.stepper import Lanes, Stepper  # noqa: E402

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("one_thread")]
LONG = 36  # so many tokens that a tiny network repeats itself


@pytest.fixture(scope="module")
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture(scope="module")
def log_mel():
    return random_log_mel(tiny(), 12)


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
