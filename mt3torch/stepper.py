"""One decoder step for many segments at once, each at its own position: the fast form of `Decoder.step`.

The weights are a `Transformer`'s own, joined where several maps read the same input, so that a step is few
and large multiplications. Lanes are places for segments; the occupied ones are always the first ones, so
every operation works on a leading slice of the caches and none is spent on empty places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mt3torch.model import ACTIVATIONS, NORM_EPSILON, DecoderLayer, Transformer

# Room for tokens at the start; most segments need fewer. It doubles when a segment needs more.
FIRST_CAPACITY = 256


@dataclass(frozen=True)
class StepWeights:
    """One decoder layer's weights, (out, in) each, prepared for single steps."""

    self_norm: Tensor
    self_query_key_value: Tensor
    self_out: Tensor
    cross_norm: Tensor
    cross_query: Tensor
    cross_key_value: Tensor
    cross_out: Tensor
    mlp_norm: Tensor
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
        return self.model.encode(torch.as_tensor(log_mel, dtype=torch.float32, device=self.device))


class Lanes:
    """The caches of up to `num_lanes` segments in work, `num_beams` sequences each."""

    def __init__(self, stepper: Stepper, num_lanes: int, num_beams: int, num_frames: int, max_tokens: int) -> None:
        network = stepper.network
        self.stepper = stepper
        self.num_beams = num_beams
        self.max_tokens = max_tokens
        self.count = 0
        self._capacity = min(FIRST_CAPACITY, max_tokens)
        self._device = stepper.device
        self._embedding = stepper.model.decoder.token_embedder.weight
        self._positions = stepper.model.decoder.positions
        # Zeros, not uninitialised: what a mask hides must still be finite.
        self._self = [self._empty(num_lanes, num_beams, self._capacity) for _ in stepper.layers]
        shape = (2, num_lanes, network.num_heads, num_frames, network.head_dim)
        self._cross = [torch.zeros(shape, device=self._device) for _ in stepper.layers]

    def add(self, encoded: Float[Tensor, "batch frames emb"]) -> None:
        """Puts segments into the next free lanes."""
        first, last = self.count, self.count + encoded.shape[0]
        for weights, cache in zip(self.stepper.layers, self._cross, strict=True):
            joined = F.linear(encoded, weights.cross_key_value)
            heads = joined.unflatten(-1, (2, self.stepper.network.num_heads, self.stepper.network.head_dim))
            cache[:, first:last] = heads.permute(2, 0, 3, 1, 4)
        self.count = last

    def remove(self, lane: int) -> None:
        """Frees a lane; the last occupied lane moves there."""
        self.count -= 1
        if lane != self.count:
            for cache in (*self._self, *self._cross):
                cache[:, lane] = cache[:, self.count]

    def reorder(self, parents: Int[np.ndarray, "lanes beams"], num_tokens: int) -> None:
        """Continues the sequences named by `parents` within each lane; only `num_tokens` positions are in use."""
        lane = torch.arange(self.count, device=self._device)[:, None]
        chosen = torch.as_tensor(parents, device=self._device)
        for cache in self._self:
            used = cache[:, : self.count, :, :, :num_tokens]
            used.copy_(used[:, lane, chosen])

    def step(
        self, tokens: Int[np.ndarray, "lanes beams"], positions: Int[np.ndarray, " lanes"]
    ) -> Float[Tensor, "rows vocab"]:
        """Logits after one more token; `positions` tells how many tokens each lane has had before.

        Rows are lanes times beams, beams inside.
        """
        length = int(positions.max()) + 1
        self._reserve(length)
        place = torch.as_tensor(np.repeat(positions, self.num_beams)).to(self._device)
        hidden = torch.arange(length, device=self._device) > place[:, None]
        mask = torch.zeros(hidden.shape, device=self._device).masked_fill_(hidden, -torch.inf)[:, None, None, :]
        rows = torch.arange(len(place), device=self._device)
        x = F.embedding(torch.as_tensor(tokens.reshape(-1)).to(self._device), self._embedding)
        x = x + F.embedding(place, self._positions)
        for index in range(len(self.stepper.layers)):
            x = self._layer(index, x, rows, place, mask)
        return self.stepper.model.decoder.logits(self.stepper.model.decoder.decoder_norm(x))

    def _layer(self, index: int, x: Tensor, rows: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        weights, network = self.stepper.layers[index], self.stepper.network
        heads = (network.num_heads, network.head_dim)
        joined = F.linear(_norm(x, weights.self_norm), weights.self_query_key_value).unflatten(-1, (3, *heads))
        cache = self._self[index][:, : self.count].flatten(1, 2)
        cache[:, rows, :, place] = joined[:, 1:].transpose(0, 1).transpose(0, 1)
        keys, values = cache[..., : mask.shape[-1], :]
        attended = F.scaled_dot_product_attention(joined[:, 0, :, None], keys, values, attn_mask=mask, scale=1.0)
        x = x + F.linear(attended.flatten(1), weights.self_out)

        query = F.linear(_norm(x, weights.cross_norm), weights.cross_query).unflatten(-1, heads)
        keys, values = self._cross[index][:, : self.count]
        query = query.unflatten(0, (self.count, self.num_beams)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(query, keys, values, scale=1.0).transpose(1, 2)
        x = x + F.linear(attended.reshape(len(x), -1), weights.cross_out)

        gates = F.linear(_norm(x, weights.mlp_norm), weights.mlp_in).chunk(len(network.mlp_activations), dim=-1)
        product = ACTIVATIONS[network.mlp_activations[0]](gates[0])
        for gate, activation in zip(gates[1:], network.mlp_activations[1:], strict=True):
            product = product * ACTIVATIONS[activation](gate)
        return x + F.linear(product, weights.mlp_out)

    def _reserve(self, length: int) -> None:
        if length <= self._capacity:
            return
        old, self._capacity = self._capacity, min(max(2 * self._capacity, length), self.max_tokens)
        for index, cache in enumerate(self._self):
            self._self[index] = self._empty(cache.shape[1], cache.shape[2], self._capacity)
            self._self[index][..., :old, :] = cache

    def _empty(self, num_lanes: int, num_beams: int, capacity: int) -> Tensor:
        network = self.stepper.network
        return torch.zeros(
            (2, num_lanes, num_beams, network.num_heads, capacity, network.head_dim), device=self._device
        )


def _norm(x: Tensor, scale: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), scale, NORM_EPSILON)


def _prepare(layer: DecoderLayer) -> StepWeights:
    own, cross, mlp = layer.self_attention, layer.encoder_decoder_attention, layer.mlp
    return StepWeights(
        self_norm=layer.pre_self_attention_layer_norm.weight,
        self_query_key_value=torch.cat([own.query.weight, own.key.weight, own.value.weight]),
        self_out=own.out.weight,
        cross_norm=layer.pre_cross_attention_layer_norm.weight,
        cross_query=cross.query.weight,
        cross_key_value=torch.cat([cross.key.weight, cross.value.weight]),
        cross_out=cross.out.weight,
        mlp_norm=layer.pre_mlp_layer_norm.weight,
        mlp_in=torch.cat([getattr(mlp, gate).weight for gate in mlp.gates]),
        mlp_out=mlp.wo.weight,
    )
