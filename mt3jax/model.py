"""The MT3 network in Flax NNX: a T5 encoder-decoder from log-mel frames to event tokens.

`mt3torch/model.py` is this file's twin: the same classes in the same order, under the same names. Read
downward: one attention, one MLP, a layer, a stack, the whole network. Three things differ from a plain
transformer, all after Magenta's MT3: queries are not scaled (the scale lives in the weights), norms have
neither mean nor bias, and positions are added from one fixed table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int, Key

from mt3core.config.model import ModelConfig, NetworkConfig
from mt3core.model.positions import position_table
from mt3jax.attention import attention
from mt3jax.packing import Dropout, Packing
from mt3jax.products import matmul_in_parts, matmul_together, take_rows

NORM_EPSILON = 1e-6
# Logits are summed in this many parts: in one, the frameworks differ by 1.1e-4 on a real recording; in four, by 4e-5.
LOGIT_PARTS = 4
ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "linear": lambda x: x,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Cache:
    """The state of cached decoding, one entry per decoder layer."""

    self_keys: list[Float[Array, "batch heads positions head_dim"]]
    self_values: list[Float[Array, "batch heads positions head_dim"]]
    cross_keys: list[Float[Array, "batch heads frames head_dim"]]
    cross_values: list[Float[Array, "batch heads frames head_dim"]]


class MultiHeadAttention(nnx.Module):
    """Attention without biases and without a scale."""

    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs) -> None:
        self.num_heads = config.num_heads
        self.head_dim = config.head_dim
        self.implementation = "xla"
        self.is_causal = False  # a promise about the mask, which halves the work of fused attention
        # The scale that other transformers apply to queries is part of their initial variance here.
        self.query = linear(config.emb_dim, config.num_heads * config.head_dim, rngs, 1.0 / config.head_dim)
        self.key = linear(config.emb_dim, config.num_heads * config.head_dim, rngs)
        self.value = linear(config.emb_dim, config.num_heads * config.head_dim, rngs)
        self.out = linear(config.num_heads * config.head_dim, config.emb_dim, rngs)

    def __call__(
        self,
        queries: Float[Array, "batch queries emb"],
        memory: Float[Array, "batch keys emb"],
        mask: Bool[Array, "#batch 1 #queries keys"] | None,
        dropout: Dropout,
    ) -> Float[Array, "batch queries emb"]:
        """Each row's queries attend to its own memory."""
        key, value = self.keys_and_values(memory)
        # Magenta drops attention weights for all queries at once: the same as dropping values.
        return self.attend(queries, key, dropout(value, shared_axis=3), mask)

    def attend_in_tiles(
        self,
        queries: Float[Array, "rows queries emb"],
        memory: Float[Array, "examples keys emb"],
        packing: Packing,
        dropout: Dropout,
    ) -> Float[Array, "rows queries emb"]:
        """Each tile's queries attend to the memory of its example, whose keys and values are computed once."""
        key, value = self.keys_and_values(memory)
        value = dropout.of_examples(value, shared_axis=3)
        query, key, value = packing.to_tiles(self.query(queries)), packing.for_tiles(key), packing.for_tiles(value)
        return self.out(packing.from_tiles(self.weigh(query, key, value, None)))

    def keys_and_values(self, memory: Float[Array, "batch keys emb"]) -> tuple[Array, Array]:
        """Both as (batch, heads, keys, head_dim)."""
        return self._split_heads(self.key(memory)), self._split_heads(self.value(memory))

    def attend(
        self,
        queries: Float[Array, "batch queries emb"],
        key: Float[Array, "batch heads keys head_dim"],
        value: Float[Array, "batch heads keys head_dim"],
        mask: Bool[Array, "#batch 1 #queries keys"] | None,
    ) -> Float[Array, "batch queries emb"]:
        return self.out(self.weigh(self.query(queries), key, value, mask))

    def weigh(
        self,
        query: Float[Array, "batch queries joined"],
        key: Float[Array, "batch heads keys head_dim"],
        value: Float[Array, "batch heads keys head_dim"],
        mask: Bool[Array, "#batch 1 #queries keys"] | None,
    ) -> Float[Array, "batch queries joined"]:
        """The outputs of all heads, joined."""
        query = self._split_heads(query)
        joined = attention(query, key, value, mask, self.implementation, self.is_causal).swapaxes(1, 2)
        return joined.reshape(*joined.shape[:2], -1)

    def _split_heads(self, x: Float[Array, "batch length joined"]) -> Float[Array, "batch heads length head_dim"]:
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).swapaxes(1, 2)


class Mlp(nnx.Module):
    """Feed-forward block: the product of one projection per activation, projected back."""

    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs) -> None:
        self.activations = config.mlp_activations
        gates = len(self.activations)
        self.gates = ("wi",) if gates == 1 else tuple(f"wi_{i}" for i in range(gates))
        for gate in self.gates:
            setattr(self, gate, linear(config.emb_dim, config.mlp_dim, rngs))
        self.wo = linear(config.mlp_dim, config.emb_dim, rngs)
        self.joins_gates = False

    def __call__(self, inputs: Float[Array, "batch length emb"], dropout: Dropout) -> Float[Array, "batch length emb"]:
        kernels = [getattr(self, gate).kernel[...] for gate in self.gates]
        products = matmul_together(inputs, kernels) if self.joins_gates else [inputs @ kernel for kernel in kernels]
        hidden = math.prod(ACTIVATIONS[name](product) for name, product in zip(self.activations, products, strict=True))
        return self.wo(dropout(hidden, shared_axis=1))


class EncoderLayer(nnx.Module):
    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs) -> None:
        self.pre_attention_layer_norm = norm(config, rngs)
        self.attention = MultiHeadAttention(config, rngs)
        self.pre_mlp_layer_norm = norm(config, rngs)
        self.mlp = Mlp(config, rngs)

    def __call__(
        self,
        x: Float[Array, "batch frames emb"],
        mask: Bool[Array, "#batch 1 #frames frames"] | None,
        dropout: Dropout,
    ) -> Float[Array, "batch frames emb"]:
        y = self.pre_attention_layer_norm(x)
        x = x + dropout(self.attention(y, y, mask, dropout), shared_axis=1)
        return x + dropout(self.mlp(self.pre_mlp_layer_norm(x), dropout), shared_axis=1)


class DecoderLayer(nnx.Module):
    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs) -> None:
        self.pre_self_attention_layer_norm = norm(config, rngs)
        self.self_attention = MultiHeadAttention(config, rngs)
        self.pre_cross_attention_layer_norm = norm(config, rngs)
        self.encoder_decoder_attention = MultiHeadAttention(config, rngs)
        self.pre_mlp_layer_norm = norm(config, rngs)
        self.mlp = Mlp(config, rngs)

    def __call__(
        self,
        x: Float[Array, "rows tokens emb"],
        encoded: Float[Array, "batch frames emb"],
        self_mask: Bool[Array, "#rows 1 tokens tokens"],
        cross_mask: Bool[Array, "#batch 1 #tokens frames"] | None,
        dropout: Dropout,
        packing: Packing | None = None,
    ) -> Float[Array, "rows tokens emb"]:
        y = self.pre_self_attention_layer_norm(x)
        x = x + dropout(self.self_attention(y, y, self_mask, dropout), shared_axis=1)
        y = self.pre_cross_attention_layer_norm(x)
        if packing is None:
            y = self.encoder_decoder_attention(y, encoded, cross_mask, dropout)
        else:
            y = self.encoder_decoder_attention.attend_in_tiles(y, encoded, packing, dropout)
        x = x + dropout(y, shared_axis=1)
        return x + dropout(self.mlp(self.pre_mlp_layer_norm(x), dropout), shared_axis=1)

    def step(
        self, x: Float[Array, "batch 1 emb"], positions: Int[Array, " batch"], cache: Cache, layer: int
    ) -> Float[Array, "batch 1 emb"]:
        """One token per row at its own position; writes that position's key and value into the cache."""
        y = self.pre_self_attention_layer_norm(x)
        key, value = self.self_attention.keys_and_values(y)
        rows = jnp.arange(x.shape[0])
        cache.self_keys[layer] = cache.self_keys[layer].at[rows, :, positions].set(key[:, :, 0])
        cache.self_values[layer] = cache.self_values[layer].at[rows, :, positions].set(value[:, :, 0])
        length = cache.self_keys[layer].shape[2]
        seen = (jnp.arange(length) <= positions[:, None])[:, None, None, :]
        x = x + self.self_attention.attend(y, cache.self_keys[layer], cache.self_values[layer], seen)
        y = self.pre_cross_attention_layer_norm(x)
        x = x + self.encoder_decoder_attention.attend(y, cache.cross_keys[layer], cache.cross_values[layer], None)
        return x + self.mlp(self.pre_mlp_layer_norm(x), Dropout(0.0, None))


class Encoder(nnx.Module):
    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.remat = False
        self.continuous_inputs_projection = linear(config.input_bands, config.emb_dim, rngs)
        self.layers = nnx.List([EncoderLayer(config, rngs) for _ in range(config.num_encoder_layers)])
        self.encoder_norm = norm(config, rngs)

    def __call__(
        self,
        log_mel: Float[Array, "batch frames mel"],
        mask: Bool[Array, "#batch 1 #frames frames"] | None,
        dropout: Dropout,
    ) -> Float[Array, "batch frames emb"]:
        x = self.continuous_inputs_projection(log_mel)
        x = dropout(x + fixed_positions(self.config, x.dtype)[: x.shape[1]], shared_axis=1)
        for layer in self.layers:
            x = checkpointed(layer, self.remat)(x, mask, dropout)
        return dropout(self.encoder_norm(x), shared_axis=None)


class Decoder(nnx.Module):
    def __init__(self, config: NetworkConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.remat = False
        self.token_embedder = nnx.Embed(
            config.vocab_size, config.emb_dim, embedding_init=jax.nn.initializers.normal(1.0), rngs=rngs
        )
        self.layers = nnx.List([DecoderLayer(config, rngs) for _ in range(config.num_decoder_layers)])
        self.decoder_norm = norm(config, rngs)
        if not config.logits_via_embedding:
            self.logits_dense = linear(config.emb_dim, config.vocab_size, rngs)
        self.logits_via_embedding = config.logits_via_embedding
        self.logit_parts = LOGIT_PARTS

    def __call__(
        self,
        encoded: Float[Array, "batch frames emb"],
        decoder_input_ids: Int[Array, "rows tokens"],
        positions: Int[Array, "#rows tokens"],
        self_mask: Bool[Array, "#rows 1 tokens tokens"],
        cross_mask: Bool[Array, "#batch 1 #tokens frames"] | None,
        dropout: Dropout,
        packing: Packing | None = None,
    ) -> Float[Array, "rows tokens emb"]:
        x = dropout(self.embed(decoder_input_ids, positions), shared_axis=1)
        for layer in self.layers:
            x = checkpointed(layer, self.remat)(x, encoded, self_mask, cross_mask, dropout, packing)
        return dropout(self.decoder_norm(x), shared_axis=1)

    def step(
        self, tokens: Int[Array, " batch"], positions: Int[Array, " batch"], cache: Cache
    ) -> Float[Array, "batch vocab"]:
        x = self.embed(tokens, positions)[:, None]
        for index, layer in enumerate(self.layers):
            x = layer.step(x, positions, cache, index)
        return self.logits(self.decoder_norm(x))[:, 0]

    def embed(self, tokens: Int[Array, "*places"], positions: Int[Array, "*#places"]) -> Float[Array, "*places emb"]:
        table = self.token_embedder.embedding[...]  # calling the embedder would return the type it was made with
        return take_rows(table, tokens) + fixed_positions(self.config, table.dtype)[positions]

    def logits(self, x: Float[Array, "*places emb"]) -> Float[Array, "*places vocab"]:
        kernel = self.token_embedder.embedding[...].T if self.logits_via_embedding else self.logits_dense.kernel[...]
        scale = x.shape[-1] ** -0.5 if self.logits_via_embedding else 1.0
        return scale * matmul_in_parts(x, kernel, self.logit_parts)


class Transformer(nnx.Module):
    """The whole network. `decode` is teacher forcing; `start_cache` and `decode_step` go token by token."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        self.config = config
        self.encoder = Encoder(config.network, rngs)
        self.decoder = Decoder(config.network, rngs)

    def encode(
        self,
        log_mel: Float[Array, "batch frames mel"],
        mask: Bool[Array, "#batch 1 #frames frames"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch frames emb"]:
        """Reads log-mel segments. Without `mask`, every frame sees every frame, as in the original."""
        return self.encoder(log_mel, mask, Dropout(self.config.network.dropout_rate, dropout_key))

    def decode(
        self,
        encoded: Float[Array, "batch frames emb"],
        decoder_input_ids: Int[Array, "batch tokens"],
        positions: Int[Array, "#batch tokens"] | None = None,
        self_mask: Bool[Array, "#batch 1 tokens tokens"] | None = None,
        cross_mask: Bool[Array, "#batch 1 #tokens frames"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch tokens vocab"]:
        """Logits of the next token at every position. Masks: True may be seen; the default is causal."""
        length = decoder_input_ids.shape[1]
        if positions is None:
            positions = jnp.arange(length)[None]
        if self_mask is None:
            self_mask = jnp.tril(jnp.ones((length, length), dtype=bool))[None, None]
        dropout = Dropout(self.config.network.dropout_rate, dropout_key)
        hidden = self.decoder(encoded, decoder_input_ids, positions, self_mask, cross_mask, dropout)
        return self.decoder.logits(hidden)

    def decode_packed(
        self,
        encoded: Float[Array, "examples frames emb"],
        decoder_input_ids: Int[Array, "rows tokens"],
        packing: Packing,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "rows tokens emb"]:
        """Like `decode` for rows of several examples' tokens, each of which sees its own example; returns no logits."""
        dropout = Dropout(self.config.network.dropout_rate, dropout_key, packing)
        masks = (packing.self_mask(), None)
        return self.decoder(encoded, decoder_input_ids, packing.positions, *masks, dropout, packing)

    def start_cache(self, encoded: Float[Array, "batch frames emb"], max_tokens: int) -> Cache:
        """An empty cache for `max_tokens` tokens, with the encoder's keys and values already in it."""
        batch, network = encoded.shape[0], self.config.network
        empty = jnp.zeros((batch, network.num_heads, max_tokens, network.head_dim), encoded.dtype)
        cross = [layer.encoder_decoder_attention.keys_and_values(encoded) for layer in self.decoder.layers]
        return Cache(
            self_keys=[empty for _ in cross],
            self_values=[empty for _ in cross],
            cross_keys=[key for key, _ in cross],
            cross_values=[value for _, value in cross],
        )

    def decode_step(
        self, tokens: Int[Array, " batch"], positions: Int[Array, " batch"], cache: Cache
    ) -> tuple[Float[Array, "batch vocab"], Cache]:
        """Logits after one more token per row, and the cache that now contains it."""
        return self.decoder.step(tokens, positions, cache), cache


def linear(in_features: int, out_features: int, rngs: nnx.Rngs, variance: float = 1.0) -> nnx.Linear:
    kernel_init = jax.nn.initializers.variance_scaling(variance, "fan_in", "truncated_normal")
    return nnx.Linear(in_features, out_features, use_bias=False, kernel_init=kernel_init, rngs=rngs)


def norm(config: NetworkConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(config.emb_dim, epsilon=NORM_EPSILON, rngs=rngs)


def fixed_positions(config: NetworkConfig, dtype: DTypeLike = jnp.float32) -> Array:
    return jnp.asarray(position_table(config.max_positions, config.emb_dim), dtype)


def checkpointed(layer: Callable, remat: bool) -> Callable:
    """The layer; with `remat`, its activations are computed again for the backward pass instead of being kept."""
    return (lambda x, *rest: jax.checkpoint(lambda x: layer(x, *rest))(x)) if remat else layer
