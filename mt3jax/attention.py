"""Attention of heads that are already split, computed by XLA or by cuDNN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mt3jax.products import wide_matmul

# The score of a masked position before the softmax, as in Magenta's masks; finite, so that nothing is NaN.
MASKED_SCORE = -1e10
# cuDNN's fused attention: multiples of 8 up to 128 on every GPU that supports it, from Ampere on.
CUDNN_HEAD_DIMS = range(8, 129, 8)
CUDNN_CAPABILITY = 8.0


def attention(
    query: Float[Array, "batch heads queries head_dim"],
    key: Float[Array, "batch heads keys head_dim"],
    value: Float[Array, "batch heads keys head_dim"],
    mask: Bool[Array, "#batch 1 #queries keys"] | None,
    implementation: str = "xla",
    is_causal: bool = False,
) -> Float[Array, "batch heads queries head_dim"]:
    """Values weighted by the softmax of unscaled scores, which are at least float32.

    `xla` is written out, and differs from `jax.nn.dot_product_attention` only for float64, which the latter rounds.
    `cudnn` never has all scores in memory and only accepts bfloat16. `is_causal` promises that the mask hides all
    later keys from a query, so that cuDNN can skip what the mask would hide.
    """
    if implementation == "cudnn":
        query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
        joined = jax.nn.dot_product_attention(
            query, key, value, mask=mask, scale=1.0, is_causal=is_causal, implementation="cudnn"
        )
        return joined.swapaxes(1, 2)
    scores = wide_matmul(query, key.mT)
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED_SCORE)
    return jax.nn.softmax(scores).astype(value.dtype) @ value


def choose_implementation(asked: str, dtype: str, head_dim: int) -> str:
    """`xla` or `cudnn`; `auto` uses cuDNN if this machine's GPU and the dtype and sizes allow it."""
    if asked != "auto":
        return asked
    device = jax.devices()[0]
    try:
        capability = float(getattr(device, "compute_capability", "0"))  # AMD's is a name
    except ValueError:
        capability = 0.0
    fits = dtype == "bfloat16" and head_dim in CUDNN_HEAD_DIMS and capability >= CUDNN_CAPABILITY
    return "cudnn" if fits else "xla"
