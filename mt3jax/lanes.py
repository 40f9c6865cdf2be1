"""Lanes: rows of one batch, each writing the tokens of its own segment at its own position.

The device's side of decoding with one beam. A lane whose segment is done starts the next one while the
others continue (`admit`), so the batch stays full. Every step reads the whole cache, and most segments are short:
so lanes have few positions, and a rare longer segment moves to a longer lane (`move`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mt3core.config.model import ModelConfig
from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, brevity_penalty
from mt3core.notes.vocabulary import PAD_ID
from mt3decode.grammar import Grammar, GrammarState
from mt3jax.compilation import program
from mt3jax.loading import network
from mt3jax.model import Cache

# T5X's score for a sequence that does not exist.
NO_SCORE = -1.0e7
# The fewest positions in a cache, enough for most segments; other numbers are this one doubled.
MIN_POSITIONS = 256


jax.tree_util.register_dataclass(
    GrammarState, data_fields=[field.name for field in dataclasses.fields(GrammarState)], meta_fields=[]
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Lanes:
    """The state of the lanes between steps."""

    cache: Cache
    tokens: Int[Array, "lanes positions"]
    # Tokens written so far, which is also the position of the next one.
    lengths: Int[Array, " lanes"]
    # The log probability of each token, and their sum.
    log_probabilities: Float[Array, "lanes positions"]
    log_probability: Float[Array, " lanes"]
    # The best end found so far: its score, and its length with the end token, or 0 if there is none. Its
    # tokens need no storage of their own: with one beam they are the beginning of those being written.
    best_score: Float[Array, " lanes"]
    best_length: Int[Array, " lanes"]
    best_end_log_probability: Float[Array, " lanes"]  # of its end token
    is_done: Bool[Array, " lanes"]
    # So many tokens at the beginning are given: they are in `tokens` from the start.
    given: Int[Array, " lanes"]
    # What the grammar knows of the sequences; None without it.
    grammar: GrammarState | None

    @property
    def num_positions(self) -> int:
        return self.tokens.shape[1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Limits:
    """The numbers of a `Decoding`: arguments of the compiled loop, so that new values need no new compilation."""

    max_tokens: Int[Array, ""]
    length_penalty: Float[Array, ""]


@program(static=("config", "num_lanes", "num_positions"))
def new_lanes(
    config: ModelConfig, num_lanes: int, num_positions: int, params: Any, grammar: GrammarState | None = None
) -> Lanes:
    """Lanes that are all free; with the grammar, `grammar` is any state of as many rows."""
    model, sizes = network(config, params), config.network
    return Lanes(
        cache=model.start_cache(jnp.zeros((num_lanes, sizes.input_frames, sizes.emb_dim)), num_positions),
        tokens=jnp.zeros((num_lanes, num_positions), jnp.int32),
        lengths=jnp.zeros(num_lanes, jnp.int32),
        log_probabilities=jnp.zeros((num_lanes, num_positions)),
        log_probability=jnp.zeros(num_lanes),
        best_score=jnp.full(num_lanes, NO_SCORE, jnp.float32),
        best_length=jnp.zeros(num_lanes, jnp.int32),
        best_end_log_probability=jnp.zeros(num_lanes),
        is_done=jnp.ones(num_lanes, bool),
        given=jnp.zeros(num_lanes, jnp.int32),
        grammar=grammar,
    )


@program(static=("config",), donate=("lanes",))
def admit(
    config: ModelConfig,
    params: Any,
    lanes: Lanes,
    log_mel: Float[Array, "admitted frames mel"],
    places: Int[Array, " admitted"],
    grammar: GrammarState | None = None,
    given: tuple[Int[Array, "admitted positions"], Int[Array, " admitted"]] | None = None,
) -> Lanes:
    """Starts new segments in the lanes `places`; a place past the last lane is ignored. `lanes` is donated.

    `grammar` is the state before the first token of each. `given` has the first tokens of each, and how many they are.
    """
    model = network(config, params)
    # The former segment's entries in self-attention may stay: each is overwritten before it is read.
    fresh = model.start_cache(model.encode(log_mel), 0)

    def placed(old: list[Array], new: list[Array]) -> list[Array]:
        return [whole.at[places].set(rows) for whole, rows in zip(old, new, strict=True)]

    return dataclasses.replace(
        lanes,
        cache=dataclasses.replace(
            lanes.cache,
            cross_keys=placed(lanes.cache.cross_keys, fresh.cross_keys),
            cross_values=placed(lanes.cache.cross_values, fresh.cross_values),
        ),
        lengths=lanes.lengths.at[places].set(0),
        log_probability=lanes.log_probability.at[places].set(0.0),
        best_score=lanes.best_score.at[places].set(NO_SCORE),
        best_length=lanes.best_length.at[places].set(0),
        is_done=lanes.is_done.at[places].set(False),
        tokens=lanes.tokens if given is None else lanes.tokens.at[places].set(given[0]),
        log_probabilities=lanes.log_probabilities.at[places].set(0.0),
        given=lanes.given if given is None else lanes.given.at[places].set(given[1]),
        grammar=jax.tree.map(lambda whole, rows: whole.at[places].set(rows), lanes.grammar, grammar),
    )


@program(static=("config", "is_greedy"), donate=("lanes",))
def run(
    config: ModelConfig, is_greedy: bool, params: Any, lanes: Lanes, limits: Limits, enough_done: Int[Array, ""]
) -> Lanes:
    """Steps until `enough_done` lanes are done, or an unfinished one has no position left. `lanes` is donated."""
    model, rules = network(config, params), Grammar.of(config)
    choose = _choose_greedy if is_greedy else _choose_t5x

    def goes_on(lanes: Lanes) -> Array:
        is_full = jnp.any(~lanes.is_done & (lanes.lengths >= lanes.num_positions))
        return (jnp.sum(lanes.is_done) < enough_done) & ~is_full

    def step(lanes: Lanes) -> Lanes:
        rows = jnp.arange(lanes.lengths.shape[0])
        last = jnp.where(lanes.lengths == 0, START_TOKEN, lanes.tokens[rows, lanes.lengths - 1])
        logits, cache = model.decode_step(last, lanes.lengths, lanes.cache)
        if lanes.grammar is not None:
            allowed = rules.allowed(lanes.grammar, lanes.lengths + 1 >= limits.max_tokens)
            logits = jnp.where(allowed, logits, -jnp.inf)
        log_softmax = jax.nn.log_softmax(logits)
        chosen = choose(lanes, lanes.log_probability[:, None] + log_softmax, limits)
        token = chosen["tokens"][rows, lanes.lengths]
        chosen["log_probabilities"] = lanes.log_probabilities.at[rows, lanes.lengths].set(log_softmax[rows, token])
        chosen["best_end_log_probability"] = jnp.where(
            chosen["best_length"] > lanes.lengths, log_softmax[:, END_TOKEN], lanes.best_end_log_probability
        )
        is_given = lanes.lengths < lanes.given
        stays = {name: lanes.is_done if name == "lengths" else lanes.is_done | is_given for name in chosen}
        kept = {
            name: jnp.where(stays[name] if new.ndim == 1 else stays[name][:, None], getattr(lanes, name), new)
            for name, new in chosen.items()
        }
        grammar = lanes.grammar
        if grammar is not None:
            written = kept["tokens"][rows, lanes.lengths]  # where it was given, not the one chosen
            grammar = rules.advance(grammar, jnp.where(lanes.is_done, PAD_ID, written))
        return dataclasses.replace(lanes, cache=cache, grammar=grammar, **kept)

    return jax.lax.while_loop(goes_on, step, lanes)


def _choose_greedy(lanes: Lanes, log_probability: Float[Array, "lanes vocab"], limits: Limits) -> dict[str, Array]:
    """The most probable token, until it is the end."""
    token = jnp.argmax(log_probability, axis=-1)
    best = jnp.max(log_probability, axis=-1)
    is_end = token == END_TOKEN
    score = best / brevity_penalty(limits.length_penalty, lanes.lengths + 1)
    return _written(lanes, token, best, is_end, score, is_end, limits)


def _choose_t5x(lanes: Lanes, log_probability: Float[Array, "lanes vocab"], limits: Limits) -> dict[str, Array]:
    """T5X's beam search with one beam: the two best continuations, an end among them is a candidate.

    The better one that is not an end continues, until no end that it may find can score above the candidate.
    """
    values, tokens = jax.lax.top_k(log_probability, 2)
    is_end = tokens == END_TOKEN
    end_score = jnp.max(jnp.where(is_end, values, NO_SCORE), axis=-1)
    end_score = end_score / brevity_penalty(limits.length_penalty, lanes.lengths + 1)
    is_better = jnp.any(is_end, axis=-1) & (end_score > lanes.best_score)
    score = jnp.where(is_better, end_score, lanes.best_score)
    token, value = (jnp.where(is_end[:, 0], pair[:, 1], pair[:, 0]) for pair in (tokens, values))
    is_done = score > value / brevity_penalty(limits.length_penalty, limits.max_tokens + 1)
    return _written(lanes, token, value, is_better, score, is_done, limits)


def _written(
    lanes: Lanes, token: Array, log_probability: Array, is_better: Array, score: Array, is_done: Array, limits: Limits
) -> dict[str, Array]:
    """The lanes' new values after `token`; `score` is that of the best end, found now if `is_better`."""
    lengths = lanes.lengths + 1
    return {
        "tokens": lanes.tokens.at[jnp.arange(len(token)), lanes.lengths].set(token),
        "lengths": lengths,
        "log_probability": log_probability,
        "best_score": score,
        "best_length": jnp.where(is_better, lengths, lanes.best_length),
        "is_done": is_done | (lengths >= limits.max_tokens),
    }


@program(donate=("target",))
def move(source: Lanes, target: Lanes, place: Int[Array, ""], new_place: Int[Array, ""]) -> Lanes:
    """The target, which is donated, with one of the source's lanes, which has fewer positions."""

    def moved(whole: Array, old: Array) -> Array:
        return jax.lax.dynamic_update_slice(whole, old[place][None], (new_place, *[0] * (whole.ndim - 1)))

    return jax.tree.map(moved, target, source)


def limits_of(decoding: Decoding, config: ModelConfig) -> Limits:
    """A network has no positions for more tokens than `max_positions`, whatever is requested."""
    max_tokens = min(decoding.max_tokens, config.network.max_positions)
    return Limits(jnp.asarray(max_tokens, jnp.int32), jnp.asarray(decoding.length_penalty, jnp.float32))


def positions_for(num_tokens: int) -> int:
    """The number of positions a cache needs to write at least one token more than `num_tokens`."""
    num_positions = MIN_POSITIONS
    while num_positions <= num_tokens:
        num_positions *= 2
    return num_positions
