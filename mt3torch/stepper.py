"""One decoder step for many segments together, each at its own position: the fast form of `Decoder.step`.

The weights are a `Transformer`'s own, joined if several maps read the same input, so that a step consists of few
and large multiplications, and stored as the processor reads them fastest (`linear_maps.py`). Lanes are places for
segments; the occupied ones always come first, so every operation works on a leading slice of the caches and none is
wasted on empty places. The attention to the encoder's frames is in `cross_attention.py`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mt3core.config.model import NetworkConfig
from mt3torch.cross_attention import CrossAttention, FoldedAttention, PlainAttention
from mt3torch.linear_maps import LinearMap, linear_map
from mt3torch.model import (
    ACTIVATIONS,
    NORM_EPSILON,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    MultiHeadAttention,
    Transformer,
)
from mt3torch.one_token import OneToken, normed
from mt3torch.pages import Pages
from mt3torch.token_attention import Places, TokenCache, attend_to_tokens, by_layers

Norm = Callable[[Float[Tensor, "rows emb"]], Float[Tensor, "rows emb"]]
# What is rounded up to multiples of this where every shape is compiled or aligned, which is not so on a CPU.
LENGTH_STEP = 64
# Room for tokens at the start, enough for most segments, and by how much it grows when one needs more.
CAPACITY_STEP = 256
# Lanes are alike, and attend to their tokens together, unless one has read less than this share of the
# other's tokens, not counting a few tokens.
GROUP_SHARE = 0.5
SHORT_TOKENS = 48
# A free lane keeps the memory of so many tokens.
KEPT_TOKENS = 64
# Frames that a CPU encodes together. With four times as many, twice as many pages of memory were taken from the system,
# as what lies between two layers was given back and taken again.
ENCODER_ROWS = 512


@dataclass(frozen=True)
class LayerMaps:
    """One layer's maps but those of attention to frames. Maps that follow a norm include its scale, see `norm_of`."""

    self_query_key_value: LinearMap
    self_out: LinearMap
    mlp_in: LinearMap
    mlp_out: LinearMap


@dataclass(frozen=True)
class CrossMaps:
    query: LinearMap
    out: LinearMap


def in_order(maps: LayerMaps, cross_maps: CrossMaps) -> list[LinearMap]:
    """As `OneToken` takes them."""
    tokens = [maps.self_query_key_value, maps.self_out]
    return [*tokens, cross_maps.query, cross_maps.out, maps.mlp_in, maps.mlp_out]


class Stepper:
    """A network, prepared for stepping. Holds no state of a decoding; see `Lanes`.

    `dtype` is that of the multiplications: norms, sums and the weights of attention are always in float32. `is_folded`
    chooses the form of attention to frames (`cross_attention.py`), by default the plain one on a CPU; `is_norm_fused`
    the form of norms (`norm_of`); `is_query_first` that of attention to tokens, if all layers are one call.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: Transformer,
        dtype: torch.dtype = torch.float32,
        is_folded: bool | None = None,
        is_norm_fused: bool | None = None,
        is_query_first: bool = True,
    ) -> None:
        self.model = model
        self.network = model.config.network
        self.device = model.decoder.positions.device
        self.dtype = dtype
        self.is_folded = self.device.type != "cpu" if is_folded is None else is_folded
        self.is_query_first = is_query_first
        is_fused = self.device.type == "cuda" if is_norm_fused is None else is_norm_fused
        self.normed = norm_of(self.network, is_fused)
        self._encoder = _FastEncoder(model.encoder, self.network, dtype, is_fused)
        decoder = model.decoder
        layers = [cast(DecoderLayer, layer) for layer in decoder.layers]
        self.layers = [
            _maps(one, one.pre_self_attention_layer_norm, one.self_attention, self.network, dtype, is_fused)
            for one in layers
        ]
        self.cross_maps = [_cross_maps(layer, dtype, is_fused) for layer in layers]
        form = FoldedAttention if self.is_folded else PlainAttention
        self.cross: CrossAttention = form(self.network, [one.encoder_decoder_attention for one in layers], dtype)
        self.logits = linear_map(_logit_weights(decoder, is_fused))
        self._one_token: OneToken | None = None
        if self.device.type == "cpu" and not self.is_folded and not is_fused:
            pairs = zip(self.layers, self.cross_maps, strict=True)
            self._one_token = OneToken.of(self.network, [in_order(*pair) for pair in pairs], is_query_first)

    @torch.inference_mode()
    def encode(self, log_mel: Float[np.ndarray | Tensor, "batch frames mel"]) -> Float[Tensor, "batch frames emb"]:
        with in_full_precision(self.device):
            segments = torch.as_tensor(log_mel, dtype=torch.float32, device=self.device)
            if self.device.type != "cpu":
                return self._encoder(segments)
            parts = segments.split(max(1, ENCODER_ROWS // segments.shape[1]))
            return torch.cat([self._encoder(part) for part in parts])

    def embed(self, tokens: Int[Tensor, " rows"], positions: Int[Tensor, " rows"]) -> Float[Tensor, "rows emb"]:
        decoder = self.model.decoder
        return F.embedding(tokens, decoder.token_embedder.weight) + decoder.positions[positions]

    def decode(
        self,
        x: Float[Tensor, "rows emb"],
        caches: list[TokenCache],
        cross: list[Tensor],
        num_lanes: int,
        places: Places,
    ) -> Float[Tensor, "rows vocab"]:
        """Logits after the embedded tokens `x`, whose keys and values go into the layers' `caches`."""
        with in_full_precision(self.device):
            if self._one_token is not None and len(x) == places.num_sequences:
                whole = self._one_token(x, caches, cross, num_lanes, places)
                return self.logits(self.normed(whole))[: len(x)]
            for index, cache in enumerate(caches):
                x = self._layer(index, x, cache, cross, num_lanes, places)
            return self.logits(self.normed(x))

    def _layer(
        self, index: int, x: Tensor, cache: TokenCache, cross: list[Tensor], num_lanes: int, places: Places
    ) -> Tensor:
        maps, cross_maps, dtype, normed = self.layers[index], self.cross_maps[index], self.dtype, self.normed
        joined = maps.self_query_key_value(normed(x).to(dtype)).float()
        x = x + maps.self_out(attend_to_tokens(joined, cache, places, self.network).to(dtype))
        query = cross_maps.query(normed(x).to(dtype))
        x = x + cross_maps.out(self.cross.attend(index, cross, num_lanes, query))
        return x + _mlp(maps, normed(x).to(dtype), self.network)


class Lanes:
    """The caches of up to `num_lanes` active segments, `num_beams` sequences each, the oldest first."""

    def __init__(self, stepper: Stepper, num_lanes: int, num_beams: int, num_frames: int, max_tokens: int) -> None:
        self.stepper = stepper
        self.num_beams = num_beams
        self.max_tokens = max_tokens
        # Tokens each occupied lane has read so far. Older lanes come first, but not in strict order.
        self.lengths = np.zeros(0, np.int64)
        self._device = stepper.device
        self._capacity = min(CAPACITY_STEP, max_tokens)
        self._num_lanes = num_lanes
        self._pages: dict[int, Pages] = {}  # of the tensors in `_self`, on a CPU
        self._self = [self._empty(index) for index in range(2 * len(stepper.layers))]  # keys and values of each
        # Tokens that each lane, occupied or not, has memory for.
        self._touched = np.zeros(num_lanes, np.int64)
        self._cross = stepper.cross.empty(num_lanes, num_frames)

    def add(self, encoded: Float[Tensor, "batch frames emb"]) -> None:
        """Puts segments into the next free lanes."""
        with in_full_precision(self._device):
            count = len(self.lengths)
            self.stepper.cross.fill(self._cross, slice(count, count + len(encoded)), encoded)
        self.lengths = np.concatenate([self.lengths, np.zeros(len(encoded), np.int64)])

    def free(self, done: Bool[np.ndarray, " lanes"]) -> Int[np.ndarray, " kept"]:
        """Frees lanes and closes the gaps; returns the lanes that are kept, in their new order."""
        order = list(range(len(self.lengths)))
        for gap in np.flatnonzero(done)[::-1]:
            # Moving costs time, so not every lane moves up: one about as old as the next fills the gap, the gap that
            # it leaves is filled in the same way, and the last gap is at the end.
            while gap < len(order) - 1:
                ages = self.lengths[order[gap + 1 :]]
                source = gap + 1 + int(np.flatnonzero(_are_alike(ages, ages[0]))[-1])
                self._move(source, gap, int(self.lengths[order[source]]))
                order[gap], gap = order[source], source
            order.pop()
        self.lengths = self.lengths[order]
        self._give_back()
        return np.array(order, np.int64)

    def _give_back(self) -> None:
        """The memory of lanes in which a long segment has ended."""
        kept = np.full(self._num_lanes, KEPT_TOKENS)
        kept[: len(self.lengths)] = np.maximum(self.lengths, KEPT_TOKENS)
        width = self.stepper.network.head_dim
        rows = self.num_beams * self.stepper.network.num_heads
        for lane in np.flatnonzero(self._touched > kept).tolist():
            first, last = int(kept[lane]), int(self._touched[lane])
            begins = range(lane * rows * self._capacity, (lane + 1) * rows * self._capacity, self._capacity)
            for begin, pages in itertools.product(begins, self._pages.values()):
                pages.give_back((begin + first) * width, (begin + last) * width)
            self._touched[lane] = first

    def _move(self, source: int, target: int, length: int) -> None:
        self._touched[target] = max(self._touched[target], length)
        for state in self._cross:
            state[target] = state[source]
        for cache in self._self:
            cache[target, ..., :length, :] = cache[source, ..., :length, :]

    def reorder(self, parents: Int[np.ndarray, "lanes beams"]) -> None:
        """Within each lane, continues the given sequences."""
        changed = np.flatnonzero((parents != np.arange(self.num_beams)).any(axis=1))
        if len(changed) == 0:
            return
        used = int(self.lengths[changed].max())
        self._touched[changed] = np.maximum(self._touched[changed], used)
        lanes = torch.as_tensor(changed, device=self._device)[:, None]
        chosen = torch.as_tensor(parents[changed], device=self._device)
        for cache in self._self:
            part = cache[..., :used, :]
            part[lanes[:, 0]] = part[lanes, chosen]

    def step(self, tokens: Int[np.ndarray, "lanes width"]) -> Float[Tensor, "rows vocab"]:
        """Logits after one more token of every beam; without beams also after several, each seeing those before.

        Rows are lanes times beams, or lanes times tokens, lanes outside.
        """
        num_sequences = len(self.lengths) * self.num_beams
        width = tokens.size // num_sequences
        length = int(self.lengths.max()) + width
        self._reserve(length)
        place = torch.as_tensor(
            np.repeat(self.lengths, self.num_beams)[:, None] + np.arange(width), device=self._device
        )
        self.lengths += width
        np.maximum(self._touched[: len(self.lengths)], self.lengths, out=self._touched[: len(self.lengths)])
        x = self.stepper.embed(torch.as_tensor(tokens.reshape(-1), device=self._device), place.flatten())
        places = Places.of(place, self.stepper.network, self._capacity, self._alike())
        return self.stepper.decode(x, by_layers(self._self), self._cross, len(self.lengths), places)

    def take_back(self, counts: Int[np.ndarray, " lanes"]) -> None:
        """Forgets the given number of last tokens in each lane."""
        self.lengths -= counts

    def _alike(self) -> list[tuple[slice, int]]:
        """Slices of sequences that have read about equally many tokens, and how many: each slice is one attention."""
        if self._device.type != "cpu":  # elsewhere a call costs more than it saves
            length = min(-(-int(self.lengths.max()) // LENGTH_STEP) * LENGTH_STEP, self._capacity)
            return [(slice(0, len(self.lengths) * self.num_beams), length)]
        groups, start = [], 0
        while start < len(self.lengths):
            differ = np.flatnonzero(~_are_alike(self.lengths[start:], self.lengths[start]))
            end = start + int(differ[0]) if len(differ) else len(self.lengths)
            sequences = slice(start * self.num_beams, end * self.num_beams)
            groups.append((sequences, int(self.lengths[start:end].max())))
            start = end
        return groups

    def _reserve(self, length: int) -> None:
        if length <= self._capacity:
            return
        self._capacity = min(-(-length // CAPACITY_STEP) * CAPACITY_STEP, self.max_tokens)
        for index, old in enumerate(self._self):  # not all at once, as both together may not fit
            new = self._empty(index)
            for lane, used in enumerate(self.lengths):  # no more: memory that nobody wrote to is not taken
                new[lane, ..., :used, :] = old[lane, ..., :used, :]
            self._self[index] = new
        self._touched[:] = 0
        self._touched[: len(self.lengths)] = self.lengths

    def _empty(self, index: int) -> Float[Tensor, "lanes beams heads positions head_dim"]:
        """For `_self`. Zeros, not uninitialised: masked values must still be finite."""
        network = self.stepper.network
        shape = (self._num_lanes, self.num_beams, network.num_heads, self._capacity, network.head_dim)
        if self._device.type != "cpu":
            return torch.zeros(shape, dtype=torch.float32, device=self._device)
        self._pages[index] = Pages(shape)
        return self._pages[index].tensor


class _FastEncoder:
    """`Encoder` without dropout, on the rows of all segments together."""

    def __init__(self, encoder: Encoder, network: NetworkConfig, dtype: torch.dtype, is_norm_fused: bool) -> None:
        self._network, self._dtype = network, dtype
        self._normed = norm_of(network, is_norm_fused)
        self._positions, self._norm = encoder.positions, encoder.encoder_norm
        self._input = linear_map(encoder.continuous_inputs_projection.weight, dtype)
        self._layers = [
            _maps(layer, layer.pre_attention_layer_norm, layer.attention, network, dtype, is_norm_fused)
            for layer in (cast(EncoderLayer, one) for one in encoder.layers)
        ]

    def __call__(self, log_mel: Float[Tensor, "batch frames mel"]) -> Float[Tensor, "batch frames emb"]:
        batch, frames, _ = log_mel.shape
        x = self._input(log_mel.flatten(0, 1).to(self._dtype)).unflatten(0, (batch, frames))
        x = (x + self._positions[:frames]).flatten(0, 1)
        for maps in self._layers:
            x = x + maps.self_out(self._attend(maps, self._normed(x).to(self._dtype), batch))
            x = x + _mlp(maps, self._normed(x).to(self._dtype), self._network)
        return self._norm(x).unflatten(0, (batch, frames))

    def _attend(self, maps: LayerMaps, y: Tensor, batch: int) -> Tensor:
        num_heads, head_dim = self._network.num_heads, self._network.head_dim
        joined = maps.self_query_key_value(y).view(batch, -1, num_heads, 3, head_dim)
        query, key, value = joined.permute(3, 0, 2, 1, 4)
        if y.device.type != "cpu":  # some versions of PyTorch for Macs give wrong values for permuted views
            query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return attended.transpose(1, 2).reshape(len(y), -1)


def in_full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within a caller's `torch.autocast` the results would depend on the caller."""
    is_lowered = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if is_lowered else contextlib.nullcontext()


def _are_alike(length: np.ndarray, longer: np.ndarray) -> np.ndarray:
    return np.maximum(length, SHORT_TOKENS) >= GROUP_SHARE * longer


def norm_of(network: NetworkConfig, is_fused: bool) -> Norm:
    """The norm before a map, which includes its scale.

    On a CPU also the square root of `emb` is left to the map. On CUDA that would be five kernels, and PyTorch's own
    norm is one.
    """
    if is_fused:
        return functools.partial(F.rms_norm, normalized_shape=(network.emb_dim,), eps=NORM_EPSILON)
    return functools.partial(normed, epsilon=NORM_EPSILON, dtype=torch.float32)


def _mlp(maps: LayerMaps, y: Tensor, network: NetworkConfig) -> Tensor:
    gates = maps.mlp_in(y).chunk(len(network.mlp_activations), dim=-1)
    product = ACTIVATIONS[network.mlp_activations[0]](gates[0])
    for gate, activation in zip(gates[1:], network.mlp_activations[1:], strict=True):
        product = product * ACTIVATIONS[activation](gate)
    return maps.mlp_out(product)


def _after(norm: nn.RMSNorm, is_fused: bool, *weights: Tensor) -> Tensor:
    return torch.cat(weights) * (norm.weight * (1.0 if is_fused else len(norm.weight) ** 0.5))


def _maps(
    layer: EncoderLayer | DecoderLayer,
    norm: nn.RMSNorm,
    attention: MultiHeadAttention,
    network: NetworkConfig,
    dtype: torch.dtype,
    is_norm_fused: bool,
) -> LayerMaps:
    mlp = layer.mlp
    heads = (network.num_heads, network.head_dim)
    three = [one.weight.unflatten(0, heads) for one in (attention.query, attention.key, attention.value)]
    joined = torch.stack(three, dim=1)
    return LayerMaps(
        self_query_key_value=linear_map(_after(norm, is_norm_fused, joined.flatten(0, 2)), dtype),
        self_out=linear_map(attention.out.weight, dtype),
        mlp_in=linear_map(
            _after(layer.pre_mlp_layer_norm, is_norm_fused, *[getattr(mlp, gate).weight for gate in mlp.gates]), dtype
        ),
        mlp_out=linear_map(mlp.wo.weight, dtype),
    )


def _cross_maps(layer: DecoderLayer, dtype: torch.dtype, is_norm_fused: bool) -> CrossMaps:
    cross = layer.encoder_decoder_attention
    query = _after(layer.pre_cross_attention_layer_norm, is_norm_fused, cross.query.weight)
    return CrossMaps(linear_map(query, dtype), linear_map(cross.out.weight, dtype))


def _logit_weights(decoder: Decoder, is_norm_fused: bool) -> Tensor:
    """In float32 whatever the rest has, as the choice of a token depends on small differences."""
    if decoder.logits_via_embedding:
        weight = decoder.token_embedder.weight * decoder.token_embedder.weight.shape[1] ** -0.5
    else:
        weight = decoder.logits_dense.weight
    return _after(decoder.decoder_norm, is_norm_fused, weight)
