"""Decoding with given prologues: both networks agree, and segments begin with what the ones before left sounding."""

import dataclasses
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flax")

from tiny_networks import random_log_mel  # noqa: E402
from wild_twins import MAX_TOKENS, METHODS, STEPS, VOCABULARIES, wild_twins  # noqa: E402

from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, brevity_penalty  # noqa: E402
from mt3core.notes.decoding import NoteDecoder  # noqa: E402
from mt3core.notes.encoding import SegmentEncoder  # noqa: E402
from mt3core.segments import AudioSegment  # noqa: E402
from mt3decode.grammar import Grammar  # noqa: E402
from mt3decode.stretches import Stretches, prologue  # noqa: E402
from mt3jax import decoding as jax_decoding  # noqa: E402
from mt3torch import decoding  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SEGMENTS = 16
# The network's clock: a segment's last step is exactly the next one's start.
STARTS = list(itertools.accumulate([STEPS / 100] * 200, initial=0.0))
# Stretches of 7, 1, 3 and 5 segments.
SILENCES = [number in (0, 7, 8, 11) for number in range(SEGMENTS)]


@pytest.fixture(scope="module", params=VOCABULARIES)
def twins(request):
    """Both networks with the same random weights, wild enough to write all kinds of tokens, and many notes."""
    return wild_twins(request.param, {"pitch": 2, "velocity": 4, "tie": 2, "drum": 0.5}, 2)


def options(method, grammar=True):
    name, num_beams = METHODS[method]
    return Decoding(name, num_beams, max_tokens=MAX_TOKENS, grammar=grammar, continuous=True)


def stretches_of(config, log_mels, chosen, silences=SILENCES):
    pieces = [AudioSegment(number, 0, 7, STARTS[number]) for number in range(len(log_mels))]
    return Stretches(config, chosen, pieces, silences, lambda piece: log_mels[piece.index])


def in_torch(twins, log_mels, chosen, lanes=5, silences=SILENCES):
    config, model, _ = twins
    stretches = stretches_of(config, log_mels, chosen, silences)
    return ordered(decoding.generate_stream(model, stretches, chosen, lanes, [STEPS] * len(log_mels)))


def in_jax(twins, log_mels, chosen, lanes=8, silences=SILENCES):
    config, _, model = twins
    stretches = stretches_of(config, log_mels, chosen, silences)
    return ordered(jax_decoding.generate_stream(model, stretches, chosen, lanes, [STEPS] * len(log_mels)))


def ordered(stream):
    results = dict(stream)
    return [results[number] for number in range(len(results))]


def tokens_of(found):
    return [generated.tokens.tolist() for generated in found]


def unmatched(config, found, silences=SILENCES):
    """The counts of invalid, dropped and unmatched events, and that of notes in prologues; checks the prologues."""
    ignored, in_prologues, decoder = 0, 0, NoteDecoder(config.vocabulary, is_grammatical=True)
    encoder = SegmentEncoder(config.vocabulary, 125.0)
    for number, generated in enumerate(found):
        if silences[number]:
            decoder.forget()
        expected = prologue(encoder, [] if silences[number] else decoder.sounding)
        if len(expected) <= MAX_TOKENS // 2:
            assert generated.tokens[: len(expected)].tolist() == expected.tolist()
            in_prologues += len(expected) - 1
            assert not generated.log_probabilities[: len(expected)].any()
        ignored += sum(decoder.add_segment(STARTS[number], generated.tokens, STARTS[number + 1]))
    return ignored, decoder.unmatched_events, in_prologues


@pytest.mark.parametrize("grammar", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_prologues_are_what_sounds_and_both_networks_agree(twins, method, grammar):
    config, chosen = twins[0], options(method, grammar)
    log_mels = random_log_mel(config, SEGMENTS)
    found = in_torch(twins, log_mels, chosen)
    ignored, not_matched, in_prologues = unmatched(config, found)
    assert in_prologues > 30
    if grammar:
        assert (ignored, not_matched) == (0, 0)
        assert all(generated.tokens[-1] == END_TOKEN for generated in found)
    theirs = in_jax(twins, log_mels, chosen)
    assert tokens_of(theirs) == tokens_of(found)
    np.testing.assert_allclose([one.score for one in theirs], [one.score for one in found], rtol=1e-2)
    assert unmatched(config, theirs) == (ignored, not_matched, in_prologues)
    without = ordered(decoding.generate_stream(twins[1], log_mels, dataclasses.replace(chosen, continuous=False)))
    assert tokens_of(without) != tokens_of(found)


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_lanes_changes_nothing(twins, method):
    log_mels, chosen = random_log_mel(twins[0], SEGMENTS), options(method)
    found = in_torch(twins, log_mels, chosen, 1)
    for lanes in (2, 7):
        assert tokens_of(in_torch(twins, log_mels, chosen, lanes)) == tokens_of(found)
    assert tokens_of(in_jax(twins, log_mels, chosen, 1)) == tokens_of(found)


def test_reading_given_tokens_at_once_changes_nothing(twins, monkeypatch):
    from mt3torch import search

    log_mels, chosen = random_log_mel(twins[0], 8), options("t5x")
    found = in_torch(twins, log_mels, chosen, 2, SILENCES[:8])
    monkeypatch.setattr(search, "FEW_LANES", 0)
    assert tokens_of(in_torch(twins, log_mels, chosen, 2, SILENCES[:8])) == tokens_of(found)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_ignored_in_two_hundred_decodes(twins, method):
    silences = [number % 29 == 0 for number in range(200)]
    found = in_torch(twins, random_log_mel(twins[0], 200), options(method), 7, silences)
    assert unmatched(twins[0], found, silences)[:2] == (0, 0)


@pytest.mark.parametrize("method", ["greedy", "t5x"])
def test_tokens_and_scores_equal_a_search_without_cache(twins, method):
    """Written here once more, token by token, for two segments that follow one another."""
    config, model, _ = twins
    log_mels = random_log_mel(config, 2)
    found = in_torch(twins, log_mels, options(method), 2, [True, False])
    decoder, encoder = NoteDecoder(config.vocabulary), SegmentEncoder(config.vocabulary, 125.0)
    for number, generated in enumerate(found):
        given = prologue(encoder, decoder.sounding)
        tokens, score = searched(config, model, log_mels[number], method, given.tolist())
        assert generated.tokens.tolist() == tokens
        assert generated.score == pytest.approx(score, rel=1e-2)
        decoder.add_segment(STARTS[number], generated.tokens, STARTS[number + 1])


def searched(config, model, log_mel, method, given):
    grammar, chosen = Grammar.of(config), options(method)
    state = grammar.start_all([STEPS], chosen)
    encoded = model.encode(torch.from_numpy(log_mel)[None])
    tokens, total, best, best_score = [], 0.0, [], -np.inf
    for token in given:
        tokens.append(token)
        state = grammar.advance(state, np.array([token]))
    while True:
        logits = model.decode(encoded, torch.tensor([[START_TOKEN, *tokens]]))[0, -1].double().detach().numpy()
        is_last = len(tokens) + 1 == chosen.max_tokens
        logits = np.where(grammar.allowed(state, np.array([is_last]))[0], logits, -np.inf)
        log_probs = logits - np.logaddexp.reduce(logits)
        order = np.argsort(-log_probs, kind="stable")[:2]
        penalty = brevity_penalty(chosen.length_penalty, len(tokens) + 1)
        if method == "greedy":
            tokens.append(int(order[0]))
            total += log_probs[order[0]]
            if tokens[-1] == END_TOKEN:
                return tokens, total / penalty
        else:
            if END_TOKEN in order and (total + log_probs[END_TOKEN]) / penalty > best_score:
                best, best_score = [*tokens, END_TOKEN], (total + log_probs[END_TOKEN]) / penalty
            following = next(int(token) for token in order if token != END_TOKEN)
            tokens.append(following)
            total += log_probs[following]
            if best_score > total / brevity_penalty(chosen.length_penalty, chosen.max_tokens + 1):
                return best, best_score
        state = grammar.advance(state, np.array(tokens[-1:]))
