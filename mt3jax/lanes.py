"""Lanes: rows of one batch, each writing the tokens of its own segment at its own position.

The device's side of decoding with one beam. A lane whose segment is done takes up the next one while the
others go on (`admit`), so the batch stays full. Every step reads the whole cache, and most segments are short:
so lanes have few positions, and the seldom segment that needs more goes on in another, longer lane (`move`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from mt3core.config.model import ModelConfig
from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, brevity_penalty
from mt3jax.compilation import Program
from mt3jax.model import Cache, Transformer

# T5X's score of what does not exist.
NO_SCORE = -1.0e7
# The fewest positions that a cache is made for, enough for most segments; other numbers are this one doubled.
MIN_POSITIONS = 256


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Lanes:
    """What the lanes remember between steps."""

    cache: Cache
    tokens: Int[Array, "lanes positions"]
    # Tokens written so far, which is also the place of the next one.
    lengths: Int[Array, " lanes"]
    # Sum of the log probabilities of the tokens written.
    log_probability: Float[Array, " lanes"]
    # The best end found so far: its score, and its length with the end token, 0 where there is none. Its
    # tokens need no place of their own: with one beam they are the beginning of those being written.
    best_score: Float[Array, " lanes"]
    best_length: Int[Array, " lanes"]
    is_done: Bool[Array, " lanes"]

    @property
    def num_positions(self) -> int:
        return self.tokens.shape[1]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Limits:
    """The numbers of a `Decoding`: arguments of the compiled loop, so that others need no new compilation."""

    max_tokens: Int[Array, ""]
    length_penalty: Float[Array, ""]


def _new_lanes(static: tuple[ModelConfig, int, int], params: Any) -> Lanes:
    config, num_lanes, num_positions = static
    model, network = with_params(config, params), config.network
    return Lanes(
        cache=model.start_cache(jnp.zeros((num_lanes, network.input_frames, network.emb_dim)), num_positions),
        tokens=jnp.zeros((num_lanes, num_positions), jnp.int32),
        lengths=jnp.zeros(num_lanes, jnp.int32),
        log_probability=jnp.zeros(num_lanes),
        best_score=jnp.full(num_lanes, NO_SCORE),
        best_length=jnp.zeros(num_lanes, jnp.int32),
        is_done=jnp.ones(num_lanes, bool),
    )


def _admit(
    config: ModelConfig,
    params: Any,
    lanes: Lanes,
    log_mel: Float[Array, "admitted frames mel"],
    places: Int[Array, " admitted"],
) -> Lanes:
    model = with_params(config, params)
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
    )


def _run(
    static: tuple[ModelConfig, bool], params: Any, lanes: Lanes, limits: Limits, enough_done: Int[Array, ""]
) -> Lanes:
    config, is_greedy = static
    model = with_params(config, params)
    choose = _choose_greedy if is_greedy else _choose_t5x

    def goes_on(lanes: Lanes) -> Array:
        is_full = jnp.any(~lanes.is_done & (lanes.lengths >= lanes.num_positions))
        return (jnp.sum(lanes.is_done) < enough_done) & ~is_full

    def step(lanes: Lanes) -> Lanes:
        rows = jnp.arange(lanes.lengths.shape[0])
        last = jnp.where(lanes.lengths == 0, START_TOKEN, lanes.tokens[rows, lanes.lengths - 1])
        logits, cache = model.decode_step(last, lanes.lengths, lanes.cache)
        chosen = choose(lanes, lanes.log_probability[:, None] + jax.nn.log_softmax(logits), limits)
        kept = {
            name: jnp.where(lanes.is_done if new.ndim == 1 else lanes.is_done[:, None], getattr(lanes, name), new)
            for name, new in chosen.items()
        }
        return dataclasses.replace(lanes, cache=cache, **kept)

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

    The better one that is no end goes on, until no end that it may find can score above the candidate.
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
    """The lanes' new values after `token`; `score` is that of the best end, found now where `is_better`."""
    lengths = lanes.lengths + 1
    return {
        "tokens": lanes.tokens.at[jnp.arange(len(token)), lanes.lengths].set(token),
        "lengths": lengths,
        "log_probability": log_probability,
        "best_score": score,
        "best_length": jnp.where(is_better, lengths, lanes.best_length),
        "is_done": is_done | (lengths >= limits.max_tokens),
    }


def _move(_: None, source: Lanes, target: Lanes, place: Int[Array, ""], new_place: Int[Array, ""]) -> Lanes:
    def moved(whole: Array, old: Array) -> Array:
        return jax.lax.dynamic_update_slice(whole, old[place][None], (new_place, *[0] * (whole.ndim - 1)))

    return jax.tree.map(moved, target, source)


def admit(config: ModelConfig, params: Any, lanes: Lanes, log_mel: Array, places: Array) -> Lanes:
    """Starts new segments in the lanes `places`; a place past the last lane is none. `lanes` is used up."""
    # What has as many places as there are positions stays outside, so that one program serves all sizes.
    cache = dataclasses.replace(lanes.cache, self_keys=[], self_values=[])
    rest = dataclasses.replace(lanes, cache=cache, tokens=lanes.tokens[:, :0])
    admitted = admit_without_positions(config, params, rest, log_mel, places)
    # Self-attention's entries of the former segment may stay: each is overwritten before it is seen.
    cache = dataclasses.replace(admitted.cache, self_keys=lanes.cache.self_keys, self_values=lanes.cache.self_values)
    return dataclasses.replace(admitted, cache=cache, tokens=lanes.tokens)


def with_params(config: ModelConfig, params: Any) -> Transformer:
    """The network of a configuration around its parameters, which may be traced."""
    return nnx.merge(_graph(config), params)


@functools.cache
def _graph(config: ModelConfig) -> nnx.GraphDef:
    # A graph of its own is as good as the model's, and a configuration is quickly hashed, which a graph is not.
    return nnx.split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0))))[0]


def limits_of(decoding: Decoding, config: ModelConfig) -> Limits:
    """A network has no positions for more tokens than `max_positions`, whatever is asked for."""
    max_tokens = min(decoding.max_tokens, config.network.max_positions)
    return Limits(jnp.asarray(max_tokens, jnp.int32), jnp.asarray(decoding.length_penalty, jnp.float32))


def positions_for(num_tokens: int) -> int:
    """How many positions the cache shall have to write at least one token more than `num_tokens`."""
    num_positions = MIN_POSITIONS
    while num_positions <= num_tokens:
        num_positions *= 2
    return num_positions


def resized_cache(cache: Cache, num_positions: int) -> Cache:
    """The cache with fewer or more positions in self-attention, new ones empty."""
    return dataclasses.replace(
        cache,
        self_keys=[resized(keys, 2, num_positions) for keys in cache.self_keys],
        self_values=[resized(values, 2, num_positions) for values in cache.self_values],
    )


def resized(array: Array, axis: int, size: int) -> Array:
    """The array cut at the end of one axis, or continued with zeros."""
    if size <= array.shape[axis]:
        return jax.lax.slice_in_dim(array, 0, size, axis=axis)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, padding)


# new_lanes((config, num_lanes, num_positions), params): all lanes free.
new_lanes = Program(_new_lanes)
# admit_without_positions(config, params, lanes, log_mel, places): see `admit`.
admit_without_positions = Program(_admit, donate=(2,))
# run((config, is_greedy), params, lanes, limits, enough_done): steps until `enough_done` lanes are done, or one
# that is not has no position left.
run = Program(_run, donate=(2,))
# move(None, source, target, place, new_place): the target with one of the source's lanes, which has fewer positions.
move = Program(_move, donate=(2,))
PROGRAMS = (new_lanes, admit_without_positions, run, move)
