"""T5X's beam search with any number of beams, for a whole batch at a time.

Every step uses the best `2 * num_beams` continuations of all beams together. Those that end compete for the
places of finished beams by their score; the best others stay alive. It stops when the worst finished beam scores
above anything a living one can still reach. With one beam this is what `lanes.py` does faster.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from mt3core.config.model import ModelConfig
from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, Generated, brevity_penalty
from mt3decode.grammar import Grammar, GrammarState, steps_of
from mt3decode.stretches import LogMels, Start, Stretches
from mt3jax.compilation import program
from mt3jax.inputs import network_inputs
from mt3jax.lanes import NO_SCORE, Limits, limits_of, positions_for
from mt3jax.loading import network
from mt3jax.model import Cache, Transformer


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Beams:
    """The state of the search between steps; beams in falling order of their scores."""

    # One row per living beam: those of the first segment, those of the second, ...
    cache: Cache
    length: Int[Array, ""]
    live_tokens: Int[Array, "batch beams positions"]
    live_log_probabilities: Float[Array, "batch beams positions"]  # of each token
    live_scores: Float[Array, "batch beams"]
    finished_tokens: Int[Array, "batch beams positions"]
    finished_log_probabilities: Float[Array, "batch beams positions"]
    finished_scores: Float[Array, "batch beams"]
    is_finished: Bool[Array, "batch beams"]
    # False if a row of the batch has no segment.
    is_used: Bool[Array, " batch"]
    # So many tokens at the beginning are given: they are in `live_tokens` from the start.
    given: Int[Array, " batch"]
    # What the grammar knows, one row per living beam; None without it.
    grammar: GrammarState | None


def beam_search_stream(
    model: Transformer,
    log_mels: LogMels,
    decoding: Decoding,
    batch_size: int,
    last_steps: Sequence[int] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """Yields (number of the segment, its tokens); about `batch_size` beams are searched at a time."""
    params = nnx.to_pure_dict(nnx.state(model))
    rules = Grammar.of(model.config)
    place = jax.tree.leaves(params)[0].device
    num_segments = max(1, batch_size // decoding.num_beams)
    limits = jax.device_put(limits_of(decoding, model.config), place)
    if isinstance(log_mels, Stretches):
        take = log_mels.take
    else:
        waiting = itertools.starmap(Start, enumerate(log_mels))

        def take(most: int) -> list[Start]:
            return list(itertools.islice(waiting, most))

    while group := take(num_segments):
        log_mel = network_inputs(group, num_segments, model.config, place)
        is_used = np.arange(num_segments) < len(group)
        tokens, counts = np.zeros((num_segments, positions_for(0)), np.int32), np.zeros(num_segments, np.int32)
        for row, start in enumerate(group):
            tokens[row, : len(start.given)], counts[row] = start.given, len(start.given)
        arguments = (log_mel, *jax.device_put((is_used, tokens, counts), place))
        grammar = None
        if decoding.grammar:
            steps = steps_of([start.number for start in group], last_steps, model.config)
            steps += [0] * (num_segments - len(group))
            rows = [step for step in steps for _ in range(decoding.num_beams)]
            grammar = jax.device_put(rules.start_all(rows, decoding), place)
        beams = start_beams(model.config, decoding.num_beams, params, *arguments, grammar)
        beams = _search(model.config, params, beams, limits)
        for row, start in enumerate(group):
            generated = rules.as_chosen(decoding, _best(beams, row, decoding.length_penalty))
            if isinstance(log_mels, Stretches):
                log_mels.give(start.number, generated.tokens)
            yield start.number, generated


def _search(config: ModelConfig, params: Any, beams: Beams, limits: Limits) -> Beams:
    while True:
        beams = run_beams(config, params, beams, limits)
        length = int(beams.length)
        if length < beams.live_tokens.shape[2] or length >= int(limits.max_tokens):
            return beams
        beams = resize_beams(positions_for(length), beams)


def _best(beams: Beams, row: int, length_penalty: float) -> Generated:
    if bool(beams.is_finished[row, 0]):
        tokens = np.asarray(beams.finished_tokens[row, 0])
        length = int(np.argmax(tokens == END_TOKEN)) + 1
        log_probabilities = np.asarray(beams.finished_log_probabilities[row, 0])[:length]
        return Generated(tokens[:length], float(beams.finished_scores[row, 0]), log_probabilities)
    length = int(beams.length)
    tokens, log_probabilities = (
        np.asarray(values[row, 0])[:length] for values in (beams.live_tokens, beams.live_log_probabilities)
    )
    score = float(beams.live_scores[row, 0] / brevity_penalty(length_penalty, length))
    return Generated(tokens, score, log_probabilities)


@program(static=("config", "num_beams"))
def start_beams(
    config: ModelConfig,
    num_beams: int,
    params: Any,
    log_mel: Float[Array, "batch frames mel"],
    is_used: Bool[Array, " batch"],
    given_tokens: Int[Array, "batch positions"],
    given: Int[Array, " batch"],
    grammar: GrammarState | None = None,
) -> Beams:
    model = network(config, params)
    cache = model.start_cache(model.encode(log_mel), positions_for(0))
    batch = log_mel.shape[0]
    no_tokens = jnp.zeros((batch, num_beams, positions_for(0)), jnp.int32)
    no_log_probabilities = jnp.zeros((batch, num_beams, positions_for(0)))
    no_scores = jnp.full((batch, num_beams), NO_SCORE, jnp.float32)
    return Beams(
        cache=jax.tree.map(lambda rows: jnp.repeat(rows, num_beams, axis=0), cache),
        length=jnp.zeros((), jnp.int32),
        live_tokens=no_tokens + given_tokens[:, None],
        live_log_probabilities=no_log_probabilities,
        live_scores=no_scores.at[:, 0].set(0.0),
        finished_tokens=no_tokens,
        finished_log_probabilities=no_log_probabilities,
        finished_scores=no_scores,
        is_finished=jnp.zeros((batch, num_beams), bool),
        is_used=is_used,
        given=given,
        grammar=grammar,
    )


@program(static=("config",), donate=("beams",))
def run_beams(config: ModelConfig, params: Any, beams: Beams, limits: Limits) -> Beams:
    """Steps until everything is decided or no position is left. `beams` is donated and must not be used again."""
    model, rules = network(config, params), Grammar.of(config)

    def goes_on(beams: Beams) -> Array:
        reachable = beams.live_scores[:, 0] / brevity_penalty(limits.length_penalty, limits.max_tokens + 1)
        is_decided = jnp.min(beams.finished_scores, axis=1) > reachable
        num_positions = jnp.minimum(limits.max_tokens, beams.live_tokens.shape[2])
        return (beams.length < num_positions) & jnp.any(~is_decided & beams.is_used)

    def step(beams: Beams) -> Beams:
        batch, num_beams, _ = beams.live_tokens.shape
        last = jnp.where(beams.length == 0, START_TOKEN, beams.live_tokens[:, :, beams.length - 1])
        positions = jnp.full(batch * num_beams, beams.length)
        logits, cache = model.decode_step(last.reshape(-1), positions, beams.cache)
        if beams.grammar is not None:
            is_last = jnp.broadcast_to(beams.length + 1 >= limits.max_tokens, positions.shape)
            logits = jnp.where(rules.allowed(beams.grammar, is_last), logits, -jnp.inf)
        log_probability = jax.nn.log_softmax(logits).reshape(batch, num_beams, -1)
        chosen = _chosen(beams, cache, log_probability, limits)
        if chosen.grammar is None:
            return chosen
        written = chosen.live_tokens[:, :, beams.length].reshape(-1)
        return dataclasses.replace(chosen, grammar=rules.advance(chosen.grammar, written))

    return jax.lax.while_loop(goes_on, step, beams)


def _chosen(beams: Beams, cache: Cache, log_probability: Float[Array, "batch beams vocab"], limits: Limits) -> Beams:
    """The beams after one step; `log_probability` is that of each next token of each beam.

    The grammar's rows follow their beams, but not yet the new tokens. Where the next token is given, beams stay.
    """
    batch, num_beams, vocab = log_probability.shape
    totals = beams.live_scores[:, :, None] + log_probability
    values, places = jax.lax.top_k(totals.reshape(batch, -1), 2 * num_beams)
    parents, next_tokens = places // vocab, places % vocab
    tokens = _rows(beams.live_tokens, parents).at[:, :, beams.length].set(next_tokens)
    chosen = _rows(log_probability.reshape(batch, -1), places)
    log_probabilities = _rows(beams.live_log_probabilities, parents).at[:, :, beams.length].set(chosen)
    is_end = next_tokens == END_TOKEN

    live_scores, live = jax.lax.top_k(jnp.where(is_end, NO_SCORE, values), num_beams)
    is_given = (beams.length < beams.given)[:, None]
    # The cache's rows follow their beams; the encoder's output is the same for all beams of a segment.
    sources = jnp.where(is_given, jnp.arange(num_beams), _rows(parents, live))
    rows = (jnp.arange(batch)[:, None] * num_beams + sources).reshape(-1)
    cache = dataclasses.replace(
        cache,
        self_keys=[keys[rows] for keys in cache.self_keys],
        self_values=[values[rows] for values in cache.self_values],
    )

    scores = jnp.where(is_end, values / brevity_penalty(limits.length_penalty, beams.length + 1), NO_SCORE)
    scores = jnp.where(is_given, NO_SCORE, scores)
    is_end = is_end & ~is_given
    finished_scores, finished = jax.lax.top_k(jnp.concatenate([beams.finished_scores, scores], 1), num_beams)
    return dataclasses.replace(
        beams,
        cache=cache,
        length=beams.length + 1,
        live_tokens=jnp.where(is_given[:, :, None], beams.live_tokens, _rows(tokens, live)),
        live_log_probabilities=jnp.where(
            is_given[:, :, None], beams.live_log_probabilities, _rows(log_probabilities, live)
        ),
        live_scores=jnp.where(is_given, beams.live_scores, live_scores),
        finished_tokens=_rows(jnp.concatenate([beams.finished_tokens, tokens], 1), finished),
        finished_log_probabilities=_rows(
            jnp.concatenate([beams.finished_log_probabilities, log_probabilities], 1), finished
        ),
        finished_scores=finished_scores,
        is_finished=_rows(jnp.concatenate([beams.is_finished, is_end], 1), finished),
        grammar=jax.tree.map(lambda values: values[rows], beams.grammar),
    )


def _rows(array: Array, indices: Int[Array, "batch chosen"]) -> Array:
    """`array[b, indices[b, c]]` for all b and c."""
    return jax.vmap(lambda row, chosen: row[chosen])(array, indices)


@program(static=("num_positions",))
def resize_beams(num_positions: int, beams: Beams) -> Beams:
    """With more positions, the new ones empty."""

    def longer(array: Array) -> Array:
        padding = [(0, 0)] * array.ndim
        padding[2] = (0, num_positions - array.shape[2])
        return jnp.pad(array, padding)

    self_keys, self_values = (
        list(map(longer, entries)) for entries in (beams.cache.self_keys, beams.cache.self_values)
    )
    return dataclasses.replace(
        beams,
        cache=dataclasses.replace(beams.cache, self_keys=self_keys, self_values=self_values),
        live_tokens=longer(beams.live_tokens),
        live_log_probabilities=longer(beams.live_log_probabilities),
        finished_tokens=longer(beams.finished_tokens),
        finished_log_probabilities=longer(beams.finished_log_probabilities),
    )
