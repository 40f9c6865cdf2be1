"""Both networks with the same random weights, wild enough to write all kinds of tokens, for tests of decoding."""

import dataclasses

from tiny_networks import random_arrays, tiny

from mt3core.config.model import MT3, VocabularyConfig
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary

STEPS = 204
MAX_TOKENS = 40
VOCABULARIES = {"mt3": MT3.vocabulary, "no_repeats": VocabularyConfig(shortest_repeat_seconds=0.05, velocity_bins=3)}
METHODS = {"greedy": ("greedy", 1), "t5x": ("t5x", 1), "beam": ("beam", 3)}


def config_of(name):
    config = tiny()
    network = dataclasses.replace(
        config.network, emb_dim=32, vocab_size=1536, max_positions=64, max_target_tokens=MAX_TOKENS
    )
    return dataclasses.replace(config, network=network, vocabulary=VOCABULARIES[name])


def wild_twins(name, factors, *seed):
    """The config, and the networks in PyTorch and JAX, see `wild_arrays`."""
    from mt3jax.loading import build_model as build_jax
    from mt3torch import build_model

    config, arrays = wild_arrays(name, factors, *seed)
    return config, build_model(config, arrays, "cpu"), build_jax(config, arrays, "cpu")


def wild_arrays(name, factors, *seed):
    """The config, and the weights in PyTorch form; `factors` make types of events more frequent, or less."""
    config = config_of(name)
    arrays = {name: 3 * values if values.ndim > 1 else values for name, values in random_arrays(config, *seed).items()}
    rows = arrays["decoder.logits_dense.weight"]
    for kind, factor in factors.items():
        low, high = Vocabulary(config.vocabulary).event_ranges[kind]
        rows[low + NUM_SPECIAL_TOKENS : high + NUM_SPECIAL_TOKENS + 1] *= factor
    return config, arrays
