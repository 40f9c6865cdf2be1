"""Attention of the decoder to the encoder's frames, prepared once for each segment, in one of two forms.

Plain: the keys and values of every layer are formed when a segment begins. Folded: they are never formed, since
`q·(K e) = (Kᵀ q)·e` for an encoder frame e; queries are mapped into the encoder's space, attend there to the frames
themselves, the same for all layers, heads and beams, and the mean frames are mapped to values. A segment of `mt3`
takes 0.5 MB folded and 6.3 MB plain, while plain attention needs an eighth of the arithmetic. Which of them is faster
depends on the processor and on the network, see `tuning.py`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mt3core.config.model import NetworkConfig
from mt3torch.linear_maps import LinearMap, linear_map
from mt3torch.model import MultiHeadAttention


class CrossAttention(abc.ABC):
    """The weights of all layers. States belong to lanes: `empty`, `fill`."""

    def __init__(self, network: NetworkConfig) -> None:
        self.network = network

    @abc.abstractmethod
    def empty(self, num_lanes: int, num_frames: int) -> list[Tensor]:
        """The state of lanes without a segment, lanes first in every tensor."""

    @abc.abstractmethod
    def fill(self, state: list[Tensor], lanes: slice | Tensor, encoded: Float[Tensor, "batch frames emb"]) -> None:
        """Puts segments into these lanes."""

    @abc.abstractmethod
    def attend(
        self, layer: int, state: list[Tensor], num_lanes: int, query: Float[Tensor, "rows joined"]
    ) -> Float[Tensor, "rows joined"]:
        """The mean values of all heads, joined. Rows are as many for each lane, lanes outside."""


class PlainAttention(CrossAttention):
    """In float32, or with keys and values of 16 bits; `softmax` is in float32 in both.

    Keys lie with the frames last, so that products with them can be sums of rows (`one_token.py`).
    """

    def __init__(self, network: NetworkConfig, layers: Sequence[MultiHeadAttention], dtype: torch.dtype) -> None:
        super().__init__(network)
        self._dtype = dtype
        self._device = layers[0].key.weight.device
        self._keys_and_values: list[LinearMap] = [
            linear_map(torch.cat([one.key.weight, one.value.weight]), dtype) for one in layers
        ]

    def empty(self, num_lanes: int, num_frames: int) -> list[Tensor]:
        network = self.network
        keys = (num_lanes, network.num_heads, network.head_dim, num_frames)
        values = (num_lanes, network.num_heads, num_frames, network.head_dim)
        return [
            torch.empty(shape, dtype=self._dtype, device=self._device)
            for _ in self._keys_and_values
            for shape in (keys, values)
        ]

    def fill(self, state: list[Tensor], lanes: slice | Tensor, encoded: Float[Tensor, "batch frames emb"]) -> None:
        batch, frames, _ = encoded.shape
        rows = encoded.flatten(0, 1).to(self._dtype)
        for layer, keys_and_values in enumerate(self._keys_and_values):
            new = keys_and_values(rows).view(batch, frames, 2, self.network.num_heads, self.network.head_dim)
            state[2 * layer][lanes] = new[:, :, 0].permute(0, 2, 3, 1)
            state[2 * layer + 1][lanes] = new[:, :, 1].transpose(1, 2)

    def attend(
        self, layer: int, state: list[Tensor], num_lanes: int, query: Float[Tensor, "rows joined"]
    ) -> Float[Tensor, "rows joined"]:
        heads, head_dim = self.network.num_heads, self.network.head_dim
        keys, values = (one[:num_lanes].flatten(0, 1) for one in state[2 * layer : 2 * layer + 2])
        query = query.view(num_lanes, -1, heads, head_dim).transpose(1, 2)
        query = query.reshape(num_lanes * heads, -1, head_dim)
        weights = torch.bmm(query, keys).softmax(dim=-1, dtype=torch.float32)
        attended = torch.bmm(weights.to(values.dtype), values)
        return attended.view(num_lanes, heads, -1, head_dim).transpose(1, 2).reshape(-1, heads * head_dim)


class FoldedAttention(CrossAttention):
    def __init__(self, network: NetworkConfig, layers: Sequence[MultiHeadAttention], dtype: torch.dtype) -> None:
        super().__init__(network)
        heads = (network.num_heads, network.head_dim)
        self._keys = [one.key.weight.to(dtype).unflatten(0, heads) for one in layers]
        self._values = [one.value.weight.to(dtype).unflatten(0, heads).transpose(1, 2) for one in layers]
        self._is_on_cpu = self._keys[0].device.type == "cpu"
        if not self._is_on_cpu:  # Macs had wrong values for views in several versions of PyTorch
            self._values = [one.contiguous() for one in self._values]

    def empty(self, num_lanes: int, num_frames: int) -> list[Tensor]:
        return [self._keys[0].new_empty((num_lanes, num_frames, self.network.emb_dim))]

    def fill(self, state: list[Tensor], lanes: slice | Tensor, encoded: Float[Tensor, "batch frames emb"]) -> None:
        state[0][lanes] = encoded.to(state[0].dtype)

    def attend(
        self, layer: int, state: list[Tensor], num_lanes: int, query: Float[Tensor, "rows joined"]
    ) -> Float[Tensor, "rows joined"]:
        network = self.network
        by_heads = query.unflatten(-1, (network.num_heads, network.head_dim)).transpose(0, 1)
        mapped = torch.bmm(by_heads, self._keys[layer]).transpose(0, 1)
        # All rows and heads of a lane attend to its frames together.
        mapped = mapped.reshape(num_lanes, 1, -1, network.emb_dim)
        frames = state[0][:num_lanes, None]
        # Elsewhere heads are too wide for the fused kernels of PyTorch.
        if frames.dtype == torch.float32 and self._is_on_cpu:
            mean = F.scaled_dot_product_attention(mapped, frames, frames, scale=1.0)
        else:
            weights = torch.matmul(mapped, frames.transpose(2, 3)).softmax(dim=-1, dtype=torch.float32)
            mean = torch.matmul(weights.to(frames.dtype), frames)
        mean = mean.reshape(len(query), network.num_heads, network.emb_dim)
        return torch.bmm(mean.transpose(0, 1), self._values[layer]).transpose(0, 1).reshape(len(query), -1)
