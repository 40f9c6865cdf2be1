"""The MT3 network in PyTorch: a T5 encoder-decoder from log-mel frames to event tokens.

`mt3jax/model.py` is this file's twin: the same classes in the same order, under the same names. Read
downward: one attention, one MLP, a layer, a stack, the whole network. Three things differ from a plain
transformer, all after Magenta's MT3: queries are not scaled (the scale lives in the weights), norms have
neither mean nor bias, and positions are added from one fixed table.
"""

from __future__ import annotations

import dataclasses
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mt3core.config.model import ModelConfig, NetworkConfig
from mt3core.model.positions import position_table

NORM_EPSILON = 1e-6
# Logits are summed over this many parts of the width: in one float32 sum of 512 products, rounding is most of the
# difference between the two frameworks, 1.1e-4 on a real recording; with four it is 4e-5.
LOGIT_PARTS = 4
ACTIVATIONS = {
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "linear": lambda x: x,
}


class Dropout:
    """Dropout for one forward pass; inactive without a generator. Draws are shared along one axis."""

    def __init__(self, rate: float, generator: torch.Generator | None) -> None:
        self.rate = rate
        self.generator = generator

    def __call__(self, x: Tensor, shared_axis: int | None) -> Tensor:
        if self.generator is None or self.rate == 0.0:
            return x
        shape = tuple(1 if axis == shared_axis else size for axis, size in enumerate(x.shape))
        keep = torch.rand(shape, generator=self.generator, device=x.device) >= self.rate
        return torch.where(keep, x / (1.0 - self.rate), 0.0)


@dataclasses.dataclass
class Cache:
    """The state of cached decoding, one entry per decoder layer."""

    self_keys: list[Float[Tensor, "batch heads positions head_dim"]]
    self_values: list[Float[Tensor, "batch heads positions head_dim"]]
    cross_keys: list[Float[Tensor, "batch heads frames head_dim"]]
    cross_values: list[Float[Tensor, "batch heads frames head_dim"]]


class MultiHeadAttention(nn.Module):
    """Attention without biases and without a scale."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_dim = config.head_dim
        self.query = linear(config.emb_dim, config.num_heads * config.head_dim)
        self.key = linear(config.emb_dim, config.num_heads * config.head_dim)
        self.value = linear(config.emb_dim, config.num_heads * config.head_dim)
        self.out = linear(config.num_heads * config.head_dim, config.emb_dim)

    def forward(
        self,
        queries: Float[Tensor, "batch queries emb"],
        memory: Float[Tensor, "batch keys emb"],
        mask: Bool[Tensor, "#batch 1 #queries keys"] | None,
        dropout: Dropout,
    ) -> Float[Tensor, "batch queries emb"]:
        """Each row's queries attend to its own memory."""
        key, value = self.keys_and_values(memory)
        # Magenta drops attention weights for all queries at once: the same as dropping values.
        return self.attend(queries, key, dropout(value, shared_axis=3), mask)

    def keys_and_values(self, memory: Float[Tensor, "batch keys emb"]) -> tuple[Tensor, Tensor]:
        """Both as (batch, heads, keys, head_dim)."""
        return self._split_heads(self.key(memory)), self._split_heads(self.value(memory))

    def attend(
        self,
        queries: Float[Tensor, "batch queries emb"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        mask: Bool[Tensor, "#batch 1 #queries keys"] | None,
    ) -> Float[Tensor, "batch queries emb"]:
        return self.out(self.weigh(self.query(queries), key, value, mask))

    def weigh(
        self,
        query: Float[Tensor, "batch queries joined"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
        mask: Bool[Tensor, "#batch 1 #queries keys"] | None,
    ) -> Float[Tensor, "batch queries joined"]:
        """The outputs of all heads, joined."""
        query = self._split_heads(query)
        if needs_contiguous(query.device):
            query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
            if mask is not None:
                mask = mask.expand(len(query), query.shape[1], query.shape[2], key.shape[2]).contiguous()
        joined = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0).transpose(1, 2)
        return joined.flatten(2)

    def _split_heads(self, x: Float[Tensor, "batch length joined"]) -> Float[Tensor, "batch heads length head_dim"]:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


class Mlp(nn.Module):
    """Feed-forward block: the product of one projection per activation, projected back."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.activations = config.mlp_activations
        self.gates = ["wi"] if len(self.activations) == 1 else [f"wi_{i}" for i in range(len(self.activations))]
        for gate in self.gates:
            setattr(self, gate, linear(config.emb_dim, config.mlp_dim))
        self.wo = linear(config.mlp_dim, config.emb_dim)

    def forward(self, inputs: Float[Tensor, "batch length emb"], dropout: Dropout) -> Float[Tensor, "batch length emb"]:
        hidden = torch.ones((), dtype=inputs.dtype, device=inputs.device)
        for gate, activation in zip(self.gates, self.activations, strict=True):
            hidden = hidden * ACTIVATIONS[activation](getattr(self, gate)(inputs))
        return self.wo(dropout(hidden, shared_axis=1))


class EncoderLayer(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.pre_attention_layer_norm = norm(config)
        self.attention = MultiHeadAttention(config)
        self.pre_mlp_layer_norm = norm(config)
        self.mlp = Mlp(config)

    def forward(
        self,
        x: Float[Tensor, "batch frames emb"],
        mask: Bool[Tensor, "#batch 1 #frames frames"] | None,
        dropout: Dropout,
    ) -> Float[Tensor, "batch frames emb"]:
        y = self.pre_attention_layer_norm(x)
        x = x + dropout(self.attention(y, y, mask, dropout), shared_axis=1)
        return x + dropout(self.mlp(self.pre_mlp_layer_norm(x), dropout), shared_axis=1)


class DecoderLayer(nn.Module):
    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.pre_self_attention_layer_norm = norm(config)
        self.self_attention = MultiHeadAttention(config)
        self.pre_cross_attention_layer_norm = norm(config)
        self.encoder_decoder_attention = MultiHeadAttention(config)
        self.pre_mlp_layer_norm = norm(config)
        self.mlp = Mlp(config)

    def forward(
        self,
        x: Float[Tensor, "rows tokens emb"],
        encoded: Float[Tensor, "batch frames emb"],
        self_mask: Bool[Tensor, "#rows 1 tokens tokens"],
        cross_mask: Bool[Tensor, "#batch 1 #tokens frames"] | None,
        dropout: Dropout,
    ) -> Float[Tensor, "rows tokens emb"]:
        y = self.pre_self_attention_layer_norm(x)
        x = x + dropout(self.self_attention(y, y, self_mask, dropout), shared_axis=1)
        y = self.pre_cross_attention_layer_norm(x)
        x = x + dropout(self.encoder_decoder_attention(y, encoded, cross_mask, dropout), shared_axis=1)
        return x + dropout(self.mlp(self.pre_mlp_layer_norm(x), dropout), shared_axis=1)

    def step(
        self, x: Float[Tensor, "batch 1 emb"], positions: Int[Tensor, " batch"], cache: Cache, layer: int
    ) -> Float[Tensor, "batch 1 emb"]:
        """One token per row at its own position; writes that position's key and value into the cache."""
        y = self.pre_self_attention_layer_norm(x)
        key, value = self.self_attention.keys_and_values(y)
        rows = torch.arange(x.shape[0], device=x.device)
        cache.self_keys[layer][rows, :, positions] = key[:, :, 0]
        cache.self_values[layer][rows, :, positions] = value[:, :, 0]
        length = cache.self_keys[layer].shape[2]
        seen = (torch.arange(length, device=x.device) <= positions[:, None])[:, None, None, :]
        x = x + self.self_attention.attend(y, cache.self_keys[layer], cache.self_values[layer], seen)
        y = self.pre_cross_attention_layer_norm(x)
        x = x + self.encoder_decoder_attention.attend(y, cache.cross_keys[layer], cache.cross_values[layer], None)
        return x + self.mlp(self.pre_mlp_layer_norm(x), Dropout(0.0, None))


class Encoder(nn.Module):
    positions: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("positions", fixed_positions(config), persistent=False)
        self.continuous_inputs_projection = linear(config.input_bands, config.emb_dim)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_encoder_layers)])
        self.encoder_norm = norm(config)

    def forward(
        self,
        log_mel: Float[Tensor, "batch frames mel"],
        mask: Bool[Tensor, "#batch 1 #frames frames"] | None,
        dropout: Dropout,
    ) -> Float[Tensor, "batch frames emb"]:
        x = self.continuous_inputs_projection(log_mel) + self.positions[: log_mel.shape[1]]
        x = dropout(x, shared_axis=1)
        for layer in self.layers:
            x = layer(x, mask, dropout)
        return dropout(self.encoder_norm(x), shared_axis=None)


class Decoder(nn.Module):
    positions: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("positions", fixed_positions(config), persistent=False)
        self.token_embedder = nn.Embedding(config.vocab_size, config.emb_dim)
        self.layers = nn.ModuleList([DecoderLayer(config) for _ in range(config.num_decoder_layers)])
        self.decoder_norm = norm(config)
        if not config.logits_via_embedding:
            self.logits_dense = linear(config.emb_dim, config.vocab_size)
        self.logits_via_embedding = config.logits_via_embedding

    def forward(
        self,
        encoded: Float[Tensor, "batch frames emb"],
        decoder_input_ids: Int[Tensor, "rows tokens"],
        positions: Int[Tensor, "#rows tokens"],
        self_mask: Bool[Tensor, "#rows 1 tokens tokens"],
        cross_mask: Bool[Tensor, "#batch 1 #tokens frames"] | None,
        dropout: Dropout,
    ) -> Float[Tensor, "rows tokens emb"]:
        x = dropout(self.embed(decoder_input_ids, positions), shared_axis=1)
        for layer in self.layers:
            x = layer(x, encoded, self_mask, cross_mask, dropout)
        return dropout(self.decoder_norm(x), shared_axis=1)

    def step(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: Cache
    ) -> Float[Tensor, "batch vocab"]:
        x = self.embed(tokens, positions)[:, None]
        for index, layer in enumerate(self.layers):
            x = layer.step(x, positions, cache, index)
        return self.logits(self.decoder_norm(x))[:, 0]

    def embed(self, tokens: Int[Tensor, "*places"], positions: Int[Tensor, "*#places"]) -> Float[Tensor, "*places emb"]:
        return self.token_embedder(tokens) + self.positions[positions]

    def logits(self, x: Float[Tensor, "*places emb"]) -> Float[Tensor, "*places vocab"]:
        kernel = self.token_embedder.weight.T if self.logits_via_embedding else self.logits_dense.weight.T
        scale = x.shape[-1] ** -0.5 if self.logits_via_embedding else 1.0
        parts = zip(x.tensor_split(LOGIT_PARTS, dim=-1), kernel.tensor_split(LOGIT_PARTS), strict=True)
        return scale * reduce(add, (part @ rows for part, rows in parts))


class Transformer(nn.Module):
    """The whole network. `decode` is teacher forcing; `start_cache` and `decode_step` go token by token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.network)
        self.decoder = Decoder(config.network)

    def encode(
        self,
        log_mel: Float[Tensor, "batch frames mel"],
        mask: Bool[Tensor, "#batch 1 #frames frames"] | None = None,
        dropout_generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch frames emb"]:
        """Reads log-mel segments. Without `mask`, every frame sees every frame, as in the original."""
        return self.encoder(log_mel, mask, Dropout(self.config.network.dropout_rate, dropout_generator))

    def decode(
        self,
        encoded: Float[Tensor, "batch frames emb"],
        decoder_input_ids: Int[Tensor, "batch tokens"],
        positions: Int[Tensor, "#batch tokens"] | None = None,
        self_mask: Bool[Tensor, "#batch 1 tokens tokens"] | None = None,
        cross_mask: Bool[Tensor, "#batch 1 #tokens frames"] | None = None,
        dropout_generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token at every position. Masks: True may be seen; the default is causal."""
        length, device = decoder_input_ids.shape[1], decoder_input_ids.device
        if positions is None:
            positions = torch.arange(length, device=device)[None]
        if self_mask is None:
            self_mask = torch.ones((length, length), dtype=torch.bool, device=device).tril()[None, None]
        dropout = Dropout(self.config.network.dropout_rate, dropout_generator)
        hidden = self.decoder(encoded, decoder_input_ids, positions, self_mask, cross_mask, dropout)
        return self.decoder.logits(hidden)

    def start_cache(self, encoded: Float[Tensor, "batch frames emb"], max_tokens: int) -> Cache:
        """An empty cache for `max_tokens` tokens, with the encoder's keys and values already in it."""
        batch, network = encoded.shape[0], self.config.network
        empty = encoded.new_zeros((batch, network.num_heads, max_tokens, network.head_dim))
        cross = [layer.encoder_decoder_attention.keys_and_values(encoded) for layer in self.decoder.layers]
        return Cache(
            self_keys=[empty.clone() for _ in cross],
            self_values=[empty.clone() for _ in cross],
            cross_keys=[key for key, _ in cross],
            cross_values=[value for _, value in cross],
        )

    def restore_positions(self) -> None:
        """Computes the position tables again, which are not stored in weight files."""
        for stack in (self.encoder, self.decoder):
            stack.positions = fixed_positions(self.config.network)

    def decode_step(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cache: Cache
    ) -> tuple[Float[Tensor, "batch vocab"], Cache]:
        """Logits after one more token per row, and the cache that now contains it."""
        return self.decoder.step(tokens, positions, cache), cache


def needs_contiguous(device: torch.device) -> bool:
    """Whether attention gave wrong values for views, without an error, in some versions of PyTorch.

    On MPS: for permuted queries, keys and values of heads 64 wide or more (PyTorch's issues 163597 and 181133), and for
    masks that heads share (184180). 2.13 is the first release made after all were corrected; copies are always right.
    """
    return device.type == "mps"


def linear(in_features: int, out_features: int) -> nn.Linear:
    return nn.Linear(in_features, out_features, bias=False)


def norm(config: NetworkConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.emb_dim, eps=NORM_EPSILON)


def fixed_positions(config: NetworkConfig) -> Tensor:
    return torch.from_numpy(position_table(config.max_positions, config.emb_dim).copy())
