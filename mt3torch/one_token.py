"""A decoder step in which every sequence gets one more token, on a CPU: all layers in one call.

A step is hundreds of operations of some microseconds each. Called one by one from Python, two threads wait for each
other at every one, since only one of them has the interpreter at a time. So all layers are one function, which
TorchScript runs without the interpreter from its beginning to its end; where that fails, Python runs the same function.

It computes what `Stepper` does layer by layer with plain attention to frames. Means of values, and products of single
queries with keys of frames, are sums of rows (`value_sums.py`), faster than PyTorch's products of many small matrices
with one row or column each. Rows are padded once for all maps.
"""

# What TorchScript compiles has to be written simply: annotations of types, no `strict` in `zip`.
# ruff: noqa: B905

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mt3core.config.model import NetworkConfig
from mt3torch.linear_maps import LinearMap, PackedMap, linear_map, padding_for
from mt3torch.model import NORM_EPSILON
from mt3torch.token_attention import Places, TokenCache
from mt3torch.value_sums import Bags, are_bags_fast, sums

CPU = torch.device("cpu")


class OneToken:
    """All layers of a network. `maps` are those of each layer, in the order of `all_layers`."""

    def __init__(self, network: NetworkConfig, maps: Sequence[Sequence[PackedMap]], is_query_first: bool) -> None:
        self._network, self._is_query_first = network, is_query_first
        self._activations = list(network.mlp_activations)
        self._weights = [[one.weight for one in layer] for layer in maps]
        self._run = compiled()
        self._bags: dict[tuple[int, int, int], Bags] = {}  # by the number of tables, of rows in each, of empty bags

    @classmethod
    def of(cls, network: NetworkConfig, maps: Sequence[Sequence[LinearMap]], is_query_first: bool) -> OneToken | None:
        """None where the weights are not packed, or sums of rows are slow."""
        packed = [[one for one in layer if isinstance(one, PackedMap)] for layer in maps]
        if not are_bags_fast(CPU) or list(map(len, packed)) != list(map(len, maps)):
            return None
        return cls(network, packed, is_query_first)

    def __call__(
        self, x: Tensor, caches: Sequence[TokenCache], cross: Sequence[Tensor], num_lanes: int, places: Places
    ) -> Tensor:
        """`x` (sequences, emb) after all layers, with padding, in float32. Keys and values go into the `caches`.

        There are equally many sequences in each of the lanes.
        """
        num_sequences, heads, head_dim = len(x), self._network.num_heads, self._network.head_dim
        padding, capacity = padding_for(num_sequences), caches[0].keys.shape[-2]
        if padding:
            x = F.pad(x, (0, 0, 0, padding))
        groups, tensors = [], []
        for group in places.groups:
            first, end = group.sequences.start * heads, group.sequences.stop * heads
            empty = padding * heads if group is places.groups[-1] else 0
            bags = Bags.of(end - first, group.length, capacity, first, empty)
            groups.append((first, end, group.length))
            tensors.append((group.mask, bags.rows, bags.starts))
        count, num_frames = num_sequences * heads, cross[1].shape[-2]
        keys, values = self._bags_of(count, head_dim), self._bags_of(count, num_frames, padding * heads)
        return self._run(
            x,
            self._weights,
            [list(one) for one in caches],
            [list(cross[index : index + 2]) for index in range(0, len(cross), 2)],
            places.cache_rows,
            groups,
            tensors,
            [keys.rows, keys.starts, values.rows, values.starts],
            self._activations,
            num_lanes,
            heads,
            head_dim,
            self._is_query_first,
            NORM_EPSILON,
        )

    def _bags_of(self, count: int, rows: int, num_empty: int = 0) -> Bags:
        """A bag for each of `count` tables, of all its rows, and empty ones."""
        bags = self._bags.get((count, rows, num_empty))
        if bags is None:
            power = 1 << (count - 1).bit_length()  # others share these rows
            shared = self._bags.get((power, rows, 0)) or Bags.of(power, rows, rows)
            bags = Bags(shared.rows[: count * rows], Bags.starts_of(count, rows, num_empty))
            self._bags |= {(power, rows, 0): shared, (count, rows, num_empty): bags}
        return bags


@functools.cache
def compiled() -> Callable[..., Tensor]:
    """`all_layers`, compiled by TorchScript where that works. PyTorch no longer develops it, so it may end."""
    # Whatever the caller has set up.
    with warnings.catch_warnings(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")
        try:
            run: Callable[..., Tensor] = torch.jit.script(all_layers)
            return run if _is_right(run) else all_layers
        except Exception:  # whatever a later version raises; also without the source code
            return all_layers


@torch.inference_mode()
def _is_right(run: Callable[..., Tensor]) -> bool:
    """On a tiny case, three times: TorchScript optimises a function in its first runs."""
    numbers = torch.linspace(-1.0, 1.0, 4 * 12 * 4, dtype=torch.float32, device="cpu")
    shapes = [(12, 4), (4, 4), (4, 4), (4, 4), (16, 4), (4, 8)]
    maps = [linear_map(numbers[: rows * columns].view(rows, columns)) for rows, columns in shapes]
    weights = [[one.weight for one in maps if isinstance(one, PackedMap)]]
    tokens, frames = numbers[:64].view(2, 2, 8, 2), [numbers[:24].view(2, 2, 2, 3), numbers[:24].view(2, 2, 3, 2)]
    own, keys, values = Bags.of(4, 5, 8), Bags.of(4, 2, 2), Bags.of(4, 3, 3)
    groups, bags = [(0, 4, 5)], [keys.rows, keys.starts, values.rows, values.starts]
    tensors = [(torch.zeros((4, 1, 5), dtype=torch.float32, device="cpu"), own.rows, own.starts)]
    places = torch.arange(4, 32, 8, device="cpu")

    def result(function: Callable[..., Tensor]) -> Tensor:
        caches, x = [[tokens.clone(), tokens.clone()]], numbers[:8].view(2, 4)
        options = (["gelu", "linear"], 2, 2, 2, True, NORM_EPSILON)
        return function(x, weights, caches, [frames], places, groups, tensors, bags, *options)

    expected = result(all_layers)
    return all(torch.allclose(result(run), expected, atol=1e-5) for _ in range(3))


def all_layers(
    x: Tensor,
    weights: list[list[Tensor]],
    caches: list[list[Tensor]],
    cross: list[list[Tensor]],
    cache_rows: Tensor,
    groups: list[tuple[int, int, int]],
    tensors: list[tuple[Tensor, Tensor, Tensor]],
    bags: list[Tensor],
    activations: list[str],
    num_lanes: int,
    num_heads: int,
    head_dim: int,
    is_query_first: bool,
    epsilon: float,
) -> Tensor:
    """The rows of `x` after all layers.

    Args:
        x: float32 (sequences and padding, emb).
        weights: of each layer packed ones to queries, keys and values of tokens and from their mean, to queries of
            frames and from the mean, to the gates and from their product.
        caches: of each layer keys and values of tokens, (lanes, *, heads, positions, head_dim).
        cross: of frames, (lanes, heads, head_dim, frames) and (lanes, heads, frames, head_dim).
        cache_rows: where the new keys and values go.
        groups: of each group of sequences its first head, the one after its last, and its length in tokens.
        tensors: of each its mask, and rows and starts of its bags.
        bags: rows and starts of those of keys of frames and of those of values; if there is one sequence in a lane.
    """
    dtype = weights[0][0].dtype
    num_queries = groups[-1][1]
    for own, tokens, frames in zip(weights, caches, cross):
        joined = multiplied(normed(x, epsilon, dtype), own[0]).view(-1, 3, head_dim)[:num_queries].float()
        query, key, value = joined.unbind(1)
        table = tokens[1].view(-1, head_dim)
        tokens[0].view(-1, head_dim).index_copy_(0, cache_rows, key)
        table.index_copy_(0, cache_rows, value)
        keys = tokens[0].view(-1, tokens[0].shape[-2], head_dim)
        means: list[Tensor] = []
        for (first, end, length), (mask, rows, starts) in zip(groups, tensors):
            one = query[first:end].unsqueeze(1)
            scores = scores_of(one, keys[first:end, :length], mask, is_query_first)
            means.append(sums(table, rows, starts, scores.softmax(-1)))
        mean = torch.cat(means).view(-1, num_heads * head_dim).to(dtype)
        x = x + multiplied(mean, own[1])

        query = multiplied(normed(x, epsilon, dtype), own[2])
        if num_queries == num_lanes * num_heads:
            query = query.view(-1, head_dim)[:num_queries]
            mean = attended_frames(query, frames[0], frames[1], bags).view(-1, num_heads * head_dim)
        else:
            beams = query[: num_queries // num_heads].view(num_lanes, -1, num_heads, head_dim).transpose(1, 2)
            scores = torch.matmul(beams, frames[0][:num_lanes])
            mean = torch.matmul(scores.softmax(-1, torch.float32).to(dtype), frames[1][:num_lanes])
            mean = mean.transpose(1, 2).reshape(-1, num_heads * head_dim)
            mean = F.pad(mean, [0, 0, 0, len(x) - len(mean)])
        x = x + multiplied(mean, own[3])

        gates = multiplied(normed(x, epsilon, dtype), own[4]).chunk(len(activations), -1)
        product = activated(gates[0], activations[0])
        for gate, activation in zip(gates[1:], activations[1:]):
            product = product * activated(gate, activation)
        x = x + multiplied(product, own[5])
    return x


def scores_of(query: Tensor, keys: Tensor, mask: Tensor, is_query_first: bool) -> Tensor:
    """The logarithms of the weights of tokens, (rows, length), of `query` (rows, 1, head_dim), `keys` (rows, length,
    head_dim) and `mask` (rows, 1, length).

    Which factor is the first does not matter to the result, and halves or doubles the time, differently on different
    processors (`tuning.py`).
    """
    if is_query_first:
        return torch.baddbmm(mask, query, keys.transpose(1, 2)).squeeze(1)
    return torch.baddbmm(mask.transpose(1, 2), keys, query.transpose(1, 2)).squeeze(2)


def attended_frames(query: Tensor, keys: Tensor, values: Tensor, bags: list[Tensor]) -> Tensor:
    """The mean values, (rows and padding, head_dim), of `query` (rows, head_dim), and keys and values as in `cross`."""
    scores = sums(keys.view(-1, keys.shape[-1]), bags[0], bags[1], query)
    weights = scores.softmax(-1, torch.float32).to(values.dtype)
    return sums(values.view(-1, values.shape[-1]), bags[2], bags[3], weights)


def multiplied(x: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product


def normed(x: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """The norm before a map, which includes its scale and the square root of `emb`."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return (x * torch.rsqrt(length * length + x.shape[-1] * epsilon)).to(dtype)


def activated(x: Tensor, name: str) -> Tensor:
    """As `model.ACTIVATIONS`."""
    if name == "gelu":
        return F.gelu(x, approximate="tanh")
    if name == "relu":
        return x.relu()
    if name == "silu":
        return F.silu(x)
    assert name == "linear"
    return x
