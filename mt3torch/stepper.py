"""One decoder step for many segments together, each at its own position: the fast form of `Decoder.step`.

The weights are a `Transformer`'s own, joined if several maps read the same input, so that a step consists of few
and large multiplications. Lanes are places for segments; the occupied ones always come first, so
every operation works on a leading slice of the caches and none is wasted on empty places.

Reading memory is most of what a step costs, and the keys and values of every layer for every encoder frame
would be most of that memory. They are never formed: `q·(K e) = (Kᵀ q)·e` for an encoder frame e, so queries
are mapped into the encoder's space, attend there to the frames themselves, the same for all layers, heads and
beams, and the resulting mean frames are mapped to values. A segment of `mt3` takes 0.5 MB instead of 6.3 MB.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mt3torch.model import ACTIVATIONS, NORM_EPSILON, DecoderLayer, Transformer

# Room for tokens at the start, enough for most segments, and by how much it grows when one needs more.
CAPACITY_STEP = 256
# From this many rows on, MKL multiplies faster, up to twice, if the product is requested transposed.
TRANSPOSED_ROWS = range(8, 33)
# Lanes are alike, and attend to their tokens together, unless one has read less than this share of the
# other's tokens, not counting a few tokens.
GROUP_SHARE = 0.5
SHORT_TOKENS = 48


@dataclass(frozen=True)
class StepWeights:
    """One decoder layer's weights, (out, in) each, with cross attention's keys and values by heads.

    Maps that follow a norm include the norm's scale, see `_normed`.
    """

    self_query_key_value: Tensor
    self_out: Tensor
    cross_query: Tensor
    cross_key: Float[Tensor, "heads head_dim emb"]
    cross_value: Float[Tensor, "heads emb head_dim"]
    cross_out: Tensor
    mlp_in: Tensor
    mlp_out: Tensor


class Stepper:
    """A network's decoder, prepared for stepping. Holds no state of a decoding; see `Lanes`."""

    @torch.inference_mode()
    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.network = model.config.network
        self.device = model.decoder.positions.device
        self.layers = [_prepare(layer) for layer in model.decoder.layers]

    @torch.inference_mode()
    def encode(self, log_mel: Float[np.ndarray | Tensor, "batch frames mel"]) -> Float[Tensor, "batch frames emb"]:
        with in_full_precision(self.device):
            return self.model.encode(torch.as_tensor(log_mel, dtype=torch.float32, device=self.device))


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
        # Zeros, not uninitialised: masked values must still be finite.
        self._self = [self._empty(num_lanes) for _ in stepper.layers]
        self._encoded = self._zeros(num_lanes, num_frames, stepper.network.emb_dim)

    def add(self, encoded: Float[Tensor, "batch frames emb"]) -> None:
        """Puts segments into the next free lanes."""
        count = len(self.lengths)
        self._encoded[count : count + len(encoded)] = encoded
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
        return np.array(order, np.int64)

    def _move(self, source: int, target: int, length: int) -> None:
        self._encoded[target] = self._encoded[source]
        for cache in self._self:
            cache[:, target, ..., :length, :] = cache[:, source, ..., :length, :]

    def reorder(self, parents: Int[np.ndarray, "lanes beams"]) -> None:
        """Within each lane, continues the given sequences."""
        changed = np.flatnonzero((parents != np.arange(self.num_beams)).any(axis=1))
        if len(changed) == 0:
            return
        used = int(self.lengths[changed].max())
        lanes = torch.as_tensor(changed, device=self._device)[:, None]
        chosen = torch.as_tensor(parents[changed], device=self._device)
        for cache in self._self:
            for part in cache[..., :used, :]:  # keys, values
                part[lanes[:, 0]] = part[lanes, chosen]

    def step(self, tokens: Int[np.ndarray, "lanes width"]) -> Float[Tensor, "rows vocab"]:
        """Logits after one more token of every beam; without beams also after several, each seeing those before.

        Rows are lanes times beams, or lanes times tokens, lanes outside.
        """
        num_sequences = len(self.lengths) * self.num_beams
        width = tokens.size // num_sequences
        length = int(self.lengths.max()) + width
        self._reserve(length)
        places = np.repeat(self.lengths, self.num_beams)[:, None] + np.arange(width)
        place = torch.as_tensor(places, device=self._device)
        self.lengths += width
        hidden = torch.arange(length, device=self._device) > place[:, :, None]
        mask = self._zeros(*hidden.shape).masked_fill_(hidden, -torch.inf)[:, None]
        decoder = self.stepper.model.decoder
        x = decoder.token_embedder(torch.as_tensor(tokens.reshape(-1), device=self._device))
        x = x + decoder.positions[place.flatten()]
        where = _Place(self._cache_rows(place), mask, self._groups())
        with in_full_precision(self._device):
            for index in range(len(self.stepper.layers)):
                x = self._layer(index, x, where)
            return decoder.logits(decoder.decoder_norm(x))

    def take_back(self, counts: Int[np.ndarray, " lanes"]) -> None:
        """Forgets the given number of last tokens in each lane."""
        self.lengths -= counts

    def _cache_rows(self, place: Int[Tensor, "sequences width"]) -> Int[Tensor, " entries"]:
        """Where a step's keys and values go, in a cache viewed as a table of the vectors of single heads."""
        cache = self._self[0]
        heads = torch.arange(2 * cache[0].shape[:3].numel(), device=self._device) * cache.shape[-2]
        heads = heads.view(2, -1, 1, cache.shape[3])[:, : len(place)]
        return (heads + place[:, :, None]).flatten()

    def _layer(self, index: int, x: Tensor, where: _Place) -> Tensor:
        weights, network = self.stepper.layers[index], self.stepper.network
        x = x + self._attend_to_tokens(index, _normed(x), where)
        x = x + self._attend_to_frames(weights, _normed(x))
        gates = _linear(_normed(x), weights.mlp_in).chunk(len(network.mlp_activations), dim=-1)
        product = ACTIVATIONS[network.mlp_activations[0]](gates[0])
        for gate, activation in zip(gates[1:], network.mlp_activations[1:], strict=True):
            product = product * ACTIVATIONS[activation](gate)
        return x + _linear(product, weights.mlp_out)

    def _attend_to_tokens(self, index: int, y: Tensor, where: _Place) -> Tensor:
        weights, network = self.stepper.layers[index], self.stepper.network
        joined = _linear(y, weights.self_query_key_value).view(len(y), 3, network.num_heads, network.head_dim)
        joined = joined.transpose(0, 1).contiguous()
        query, new = joined[0], joined[1:].view(-1, network.head_dim)
        self._self[index].view(-1, network.head_dim).index_copy_(0, where.cache_rows, new)
        keys, values = self._self[index].flatten(1, 2)
        query = query.view(len(where.mask), -1, *query.shape[1:]).transpose(1, 2)
        attended = [
            F.scaled_dot_product_attention(
                query[rows],
                keys[rows, :, :length],
                values[rows, :, :length],
                attn_mask=where.mask[rows, ..., :length],
                scale=1.0,
            )
            for rows, length in where.groups
        ]
        return _linear(torch.cat(attended).transpose(1, 2).reshape(len(y), -1), weights.self_out)

    def _attend_to_frames(self, weights: StepWeights, y: Tensor) -> Tensor:
        network = self.stepper.network
        query = _linear(y, weights.cross_query).unflatten(-1, (network.num_heads, network.head_dim))
        query = torch.bmm(query.transpose(0, 1), weights.cross_key).transpose(0, 1)
        # All rows and heads of a lane attend to its frames together.
        query = query.reshape(len(self.lengths), 1, -1, network.emb_dim)
        frames = self._encoded[: len(self.lengths), None]
        mean = F.scaled_dot_product_attention(query, frames, frames, scale=1.0)
        mean = mean.reshape(len(y), network.num_heads, network.emb_dim)
        attended = torch.bmm(mean.transpose(0, 1), weights.cross_value).transpose(0, 1)
        return _linear(attended.reshape(len(y), -1), weights.cross_out)

    def _groups(self) -> list[tuple[slice, int]]:
        """Slices of sequences that have read about equally many tokens, and how many: each slice is one attention."""
        if self._device.type != "cpu":  # elsewhere a call costs more than it saves
            return [(slice(0, len(self.lengths) * self.num_beams), int(self.lengths.max()))]
        starts = [0]
        for lane in range(1, len(self.lengths)):
            if not _are_alike(self.lengths[lane], self.lengths[starts[-1]]):
                starts.append(lane)
        ends = [*starts[1:], len(self.lengths)]
        return [
            (slice(start * self.num_beams, end * self.num_beams), int(self.lengths[start:end].max()))
            for start, end in zip(starts, ends, strict=True)
        ]

    def _reserve(self, length: int) -> None:
        if length <= self._capacity:
            return
        old, self._capacity = self._capacity, min(-(-length // CAPACITY_STEP) * CAPACITY_STEP, self.max_tokens)
        for index, cache in enumerate(self._self):
            self._self[index] = self._empty(cache.shape[1])
            self._self[index][..., :old, :] = cache

    def _empty(self, num_lanes: int) -> Float[Tensor, "2 lanes beams heads positions head_dim"]:
        network = self.stepper.network
        shape = (2, num_lanes, self.num_beams, network.num_heads, self._capacity, network.head_dim)
        return self._zeros(*shape)

    def _zeros(self, *shape: int) -> Tensor:
        """In float32, whatever the caller's default is."""
        return torch.zeros(shape, dtype=torch.float32, device=self._device)


@dataclass(frozen=True)
class _Place:
    """The positions of a step's tokens, the same for all layers."""

    cache_rows: Int[Tensor, " entries"]
    mask: Float[Tensor, "sequences 1 width positions"]
    groups: list[tuple[slice, int]]


def in_full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within a caller's `torch.autocast` the results would depend on the caller."""
    is_lowered = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if is_lowered else contextlib.nullcontext()


def _are_alike(length: np.ndarray, longer: np.ndarray) -> np.ndarray:
    return np.maximum(length, SHORT_TOKENS) >= GROUP_SHARE * longer


def _normed(x: Float[Tensor, "rows emb"]) -> Float[Tensor, "rows emb"]:
    """The norm without its scale and the square root of `emb`, which are part of the next map."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * torch.rsqrt(length * length + x.shape[-1] * NORM_EPSILON)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    if x.device.type == "cpu" and len(x) in TRANSPOSED_ROWS:
        return torch.mm(weight, x.t()).t()
    return F.linear(x, weight)


def _prepare(layer: DecoderLayer) -> StepWeights:
    own, cross, mlp = layer.self_attention, layer.encoder_decoder_attention, layer.mlp
    heads = (cross.num_heads, cross.head_dim)

    def after(norm: nn.RMSNorm, *maps: nn.Linear) -> Tensor:
        return torch.cat([linear.weight for linear in maps]) * (norm.weight * len(norm.weight) ** 0.5)

    return StepWeights(
        self_query_key_value=after(layer.pre_self_attention_layer_norm, own.query, own.key, own.value),
        self_out=own.out.weight,
        cross_query=after(layer.pre_cross_attention_layer_norm, cross.query),
        cross_key=cross.key.weight.unflatten(0, heads),
        cross_value=cross.value.weight.unflatten(0, heads).transpose(1, 2),
        cross_out=cross.out.weight,
        mlp_in=after(layer.pre_mlp_layer_norm, *[getattr(mlp, gate) for gate in mlp.gates]),
        mlp_out=mlp.wo.weight,
    )
