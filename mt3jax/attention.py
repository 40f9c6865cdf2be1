"""Attention of heads that are already split, computed by XLA or by cuDNN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mt3jax.products import wide_matmul

# What a place that may not be seen scores before the softmax, as in Magenta's masks; finite, so that nothing is NaN.
MASKED_SCORE = -1e10
# cuDNN's fused attention: multiples of 8 up to 128 on every GPU that has it, which are those from Ampere on.
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
    """Values weighted by the softmax of unscaled scores, which are float32 at least.

    `xla` is written out, and so differs from `jax.nn.dot_product_attention` in nothing but float64, which that rounds.
    `cudnn` never has all scores in memory and takes bfloat16 only. `is_causal` says of a mask that no query sees a
    later key, so that cuDNN can leave out what the mask would hide.
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
    """`xla` or `cudnn`; `auto` takes cuDNN's where this machine's GPU and the numbers allow it."""
    if asked != "auto":
        return asked
    device = jax.devices()[0]
    try:
        capability = float(getattr(device, "compute_capability", "0"))  # AMD's is a name
    except ValueError:
        capability = 0.0
    fits = dtype == "bfloat16" and head_dim in CUDNN_HEAD_DIMS and capability >= CUDNN_CAPABILITY
    return "cudnn" if fits else "xla"
