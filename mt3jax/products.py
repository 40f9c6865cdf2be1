"""Matrix products as accelerators want them: short numbers summed in float32, and products instead of scatters."""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Shaped


def wide_matmul(left: Array, right: Array) -> Array:
    """The product, summed and returned in float32 even for bfloat16, in which its gradient is also computed."""
    is_short = left.dtype == jnp.bfloat16
    precision = jax.lax.DotAlgorithmPreset.BF16_BF16_F32 if is_short else None
    return jnp.matmul(left, right, precision=precision, preferred_element_type=jnp.promote_types(left.dtype, "float32"))


def matmul_in_parts(left: Array, right: Array, num_parts: int) -> Array:
    """Like `wide_matmul`, with the sum over this many parts of the inner axis kept separate."""
    parts = zip(jnp.array_split(left, num_parts, axis=-1), jnp.array_split(right, num_parts), strict=True)
    return functools.reduce(operator.add, (wide_matmul(part, rows) for part, rows in parts))


def matmul_together(left: Array, rights: list[Array]) -> list[Array]:
    """`left` times each matrix, as one product, so that it is read once."""
    return jnp.split(left @ jnp.concatenate(rights, axis=1), len(rights), axis=-1)


def take_rows(table: Shaped[Array, "items ..."], numbers: Int[Array, "*places"]) -> Shaped[Array, "*places ..."]:
    """The items with these numbers, each of which must exist: `table[numbers]`.

    Its gradient is a product with the one-hot numbers, summed in at least float32. JAX's own, a scatter, adds in the
    type of the table, which loses small terms in the large sums of common tokens in bfloat16; and adding to the same
    place is slow on accelerators.
    """
    return _take_rows(table.shape[0], table, numbers)


@jax.custom_vjp
def rearrange(
    x: Shaped[Array, items * rest], sources: Int[Array, " places"], targets: Int[Array, " items"]
) -> Shaped[Array, places * rest]:
    """Each item moved to another place: place p has item `sources[p]`, and item i goes to place `targets[i]`.

    The two must agree. A number that is too large stands for none: such places are 0, such items are dropped.
    The gradient is therefore the inverse move, where JAX's own would be a scatter.
    """
    return x.at[sources].get(mode="fill", fill_value=0)


rearrange.defvjp(
    lambda x, sources, targets: (rearrange(x, sources, targets), (sources, targets)),
    lambda ways, gradient: (rearrange(gradient, ways[1], ways[0]), None, None),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _take_rows(num_items: int, table: Array, numbers: Array) -> Array:
    return table.at[numbers].get(mode="promise_in_bounds")


def _forward(num_items: int, table: Array, numbers: Array) -> tuple[Array, Array]:
    return _take_rows(num_items, table, numbers), numbers


def _backward(num_items: int, numbers: Array, gradient: Array) -> tuple[Array, None]:
    is_taken = jax.nn.one_hot(numbers.reshape(-1), num_items, dtype=gradient.dtype)
    summed = wide_matmul(is_taken.T, gradient.reshape(numbers.size, -1))
    return summed.reshape(num_items, *gradient.shape[numbers.ndim :]).astype(gradient.dtype), None


_take_rows.defvjp(_forward, _backward)
