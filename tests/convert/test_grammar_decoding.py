"""Decoding under the grammar: nothing is ignored, both networks agree, and instruments are those that were chosen."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flax")

from tiny_networks import random_log_mel  # noqa: E402
from wild_twins import MAX_TOKENS, METHODS, STEPS, VOCABULARIES, wild_twins  # noqa: E402

from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, brevity_penalty  # noqa: E402
from mt3core.errors import UsageError  # noqa: E402
from mt3core.notes.decoding import NoteDecoder  # noqa: E402
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary  # noqa: E402
from mt3decode.grammar import Grammar  # noqa: E402
from mt3jax import decoding as jax_decoding  # noqa: E402
from mt3torch import decoding  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=VOCABULARIES)
def twins(request):
    """Both networks with the same random weights, wild enough to write all kinds of tokens."""
    return wild_twins(request.param, {"shift": 2, "pitch": 1.5, "velocity": 2, "tie": 2, "drum": 1.3})


def options(method, **more):
    name, num_beams = METHODS[method]
    return Decoding(name, num_beams, max_tokens=MAX_TOKENS, grammar=True, **more)


def ordered(stream):
    results = dict(stream)
    return [results[number] for number in range(len(results))]


def ignored(config, found, last_steps=None):
    """(invalid and dropped events, kinds of events written) of segments that follow one another."""
    decoder, counts, kinds, start = NoteDecoder(config.vocabulary, is_grammatical=True), 0, set(), 0.0
    vocabulary = Vocabulary(config.vocabulary)
    for number, generated in enumerate(found):
        end = start + (STEPS if last_steps is None else last_steps[number]) / 100
        counts += sum(decoder.add_segment(start, generated.tokens, end))
        events = vocabulary.events_before_end(generated.tokens)
        kinds |= {kind for kind in vocabulary.event_ranges if vocabulary.is_type(kind, events).any()}
        start = end
    return counts, kinds


@pytest.mark.parametrize("method", METHODS)
def test_no_event_is_ignored_and_both_networks_agree(twins, method):
    config, torch_model, jax_model = twins
    log_mel = random_log_mel(config, 24)
    last_steps = [STEPS - number % 3 for number in range(24)]
    found = ordered(decoding.generate_stream(torch_model, log_mel, options(method), 6, last_steps))
    counts, kinds = ignored(config, found, last_steps)
    assert counts == 0
    assert {"shift", "pitch", "velocity", "program"} <= kinds
    assert all(generated.tokens[-1] == END_TOKEN for generated in found)
    without = ordered(
        decoding.generate_stream(torch_model, log_mel, dataclasses.replace(options(method), grammar=False))
    )
    assert ignored(config, without)[0] > 20, "random weights write nonsense without the grammar"
    theirs = ordered(jax_decoding.generate_stream(jax_model, log_mel, options(method), 8, last_steps))
    assert [one.tokens.tolist() for one in theirs] == [one.tokens.tolist() for one in found]
    np.testing.assert_allclose(
        [one.score for one in theirs], [one.score for one in found], rtol=1e-2
    )  # logits reach 80
    sums = [[one.log_probabilities.sum() for one in results] for results in (theirs, found)]
    np.testing.assert_allclose(*sums, rtol=1e-2)


@pytest.mark.slow
def test_a_thousand_decodes_of_random_weights(twins):
    config, torch_model, _ = twins
    found = ordered(
        decoding.generate_stream(torch_model, random_log_mel(config, 500), options("t5x"), 32, [STEPS] * 500)
    )
    assert ignored(config, found)[0] == 0
    assert sum(len(one.tokens) for one in found) > 5_000


@pytest.mark.parametrize("method", ["greedy", "t5x"])
def test_tokens_equal_a_search_without_cache(twins, method):
    """Written here once more, token by token: also where few lanes are left and tokens are guessed."""
    config, model, _ = twins
    log_mel = random_log_mel(config, 5)
    found = ordered(decoding.generate_stream(model, log_mel, options(method), 2, [STEPS] * 5))
    for number, generated in enumerate(found):
        assert generated.tokens.tolist() == searched(config, model, log_mel[number], method)


def searched(config, model, log_mel, method):
    grammar, chosen = Grammar.of(config), options(method)
    state = grammar.start_all([STEPS], chosen)
    encoded = model.encode(torch.from_numpy(log_mel)[None])
    tokens, total, best, best_score = [], 0.0, [], -np.inf
    while True:
        logits = model.decode(encoded, torch.tensor([[START_TOKEN, *tokens]]))[0, -1].double().detach().numpy()
        is_last = len(tokens) + 1 == chosen.max_tokens
        logits = np.where(grammar.allowed(state, np.array([is_last]))[0], logits, -np.inf)
        log_probs = logits - np.logaddexp.reduce(logits)
        order = np.argsort(-log_probs, kind="stable")[:2]
        if method == "greedy":
            tokens.append(int(order[0]))
            if tokens[-1] == END_TOKEN:
                return tokens
        else:
            if END_TOKEN in order:
                score = (total + log_probs[END_TOKEN]) / brevity_penalty(chosen.length_penalty, len(tokens) + 1)
                if score > best_score:
                    best, best_score = [*tokens, END_TOKEN], score
            following = next(int(token) for token in order if token != END_TOKEN)
            tokens.append(following)
            total += log_probs[following]
            if best_score > total / brevity_penalty(chosen.length_penalty, chosen.max_tokens + 1):
                return best
        state = grammar.advance(state, np.array(tokens[-1:]))


def test_guessed_tokens_change_nothing(twins, monkeypatch):
    from mt3torch import search

    config, model, _ = twins
    log_mel = random_log_mel(config, 3)
    guessed = ordered(decoding.generate_stream(model, log_mel, options("t5x"), 3, [STEPS] * 3))
    monkeypatch.setattr(search, "FEW_LANES", 0)
    plain = ordered(decoding.generate_stream(model, log_mel, options("t5x"), 3, [STEPS] * 3))
    assert [one.tokens.tolist() for one in guessed] == [one.tokens.tolist() for one in plain]
    for one, other in zip(guessed, plain, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_masks_of_a_device_are_those_of_the_host(twins, method, monkeypatch):
    from mt3torch import legal

    config, model, _ = twins
    log_mel = random_log_mel(config, 9)
    host = ordered(decoding.generate_stream(model, log_mel, options(method), 3, [STEPS] * 9))
    monkeypatch.setattr(legal, "_LegalOnHost", legal._LegalOnDevice)
    device = ordered(decoding.generate_stream(model, log_mel, options(method), 3, [STEPS] * 9))
    assert [one.tokens.tolist() for one in device] == [one.tokens.tolist() for one in host]
    assert [one.score for one in device] == [one.score for one in host]


@pytest.mark.parametrize("method", METHODS)
def test_only_chosen_instruments_are_written(twins, method):
    config, torch_model, jax_model = twins
    log_mel = random_log_mel(config, 12)
    chosen = options(method, programs=(0, 33), drums=False)
    vocabulary = Vocabulary(config.vocabulary)
    found, theirs = (
        ordered(decoding.generate_stream(torch_model, log_mel, chosen, 4)),
        ordered(jax_decoding.generate_stream(jax_model, log_mel, chosen, 4)),
    )
    assert [one.tokens.tolist() for one in theirs] == [one.tokens.tolist() for one in found]
    assert ignored(config, found)[0] == 0
    events = np.concatenate([one.tokens for one in found]) - NUM_SPECIAL_TOKENS
    assert not vocabulary.is_type("drum", events).any()
    programs = events[vocabulary.is_type("program", events)] - vocabulary.first_id("program")
    assert set(programs.tolist()) <= {0, 33}
    assert len(programs)
    drums = ordered(decoding.generate_stream(torch_model, log_mel, options(method, programs=()), 4))
    events = np.concatenate([one.tokens for one in drums]) - NUM_SPECIAL_TOKENS
    assert vocabulary.is_type("drum", events).any()
    assert not vocabulary.is_type("pitch", events).any()


def test_a_guitar_heard_as_another_is_written_as_the_chosen_one(twins, monkeypatch):
    """Stand-in logits of a network that hears a clean guitar (27): without its class it would have no instrument."""
    from mt3torch.stepper import Lanes

    config, model, _ = twins
    vocabulary = Vocabulary(config.vocabulary)
    events = [("program", 27), ("tie", 0), ("velocity", 1), ("pitch", 40), ("velocity", 0), ("pitch", 40)]
    script = [vocabulary.event_id(*event) + NUM_SPECIAL_TOKENS for event in events] + [END_TOKEN]

    def step(self, tokens):
        """Wants the tokens of the script one after the other, whatever has been read."""
        logits = torch.zeros(tokens.size, config.network.vocab_size)
        logits[:, script[min(self.reads, len(script) - 1)]] = 50.0
        self.reads += 1
        return logits

    monkeypatch.setattr(Lanes, "reads", 0, raising=False)
    monkeypatch.setattr(Lanes, "step", step)
    monkeypatch.setattr("mt3torch.search.FEW_LANES", 0)

    def written(**choice):
        found = decoding.generate(model, random_log_mel(config, 1), options("greedy", **choice))[0].tokens.tolist()
        return [vocabulary.meanings[token - NUM_SPECIAL_TOKENS] for token in found if token != END_TOKEN]

    assert written() == events
    assert written(programs=(25,)) == [("program", 25), *events[1:]]
    assert written(programs=(25, 28, 40)) == [("program", 28), *events[1:]]
    assert written(programs=(25, 27)) == events
    assert ("program", 27) not in written(programs=(40,))
    assert not any(kind == "pitch" for kind, _ in written(programs=()))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"programs": (0,)}, "only with the grammar"),
        ({"drums": False}, "only with the grammar"),
        ({"programs": (), "drums": False, "grammar": True}, "No instrument is left"),
        ({"programs": (128,), "grammar": True}, "no program 128"),
    ],
)
def test_contradictions_are_refused(values, sentence):
    with pytest.raises(UsageError, match=sentence):
        Decoding(**values)
