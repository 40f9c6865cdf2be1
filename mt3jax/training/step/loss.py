"""The loss of a batch, as sums over its target tokens: cross entropy plus a little of logsumexp squared.

If there are many rows, logits are computed for some tokens of every row at a time, and again for the gradient, so
that those of all tokens are never in memory: for 256 rows of 1024 tokens they would be 1.6 GB.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from mt3core.config.model import VocabularyConfig
from mt3core.config.training import TrainingConfig
from mt3core.notes.vocabulary import EOS_ID, NUM_SPECIAL_TOKENS, Vocabulary
from mt3core.notes.vocabulary import EVENT_TYPES as VOCABULARY_TYPES
from mt3core.spectrogram import segment_log_mel
from mt3data.prepare.chunks import FULL_SCALE
from mt3jax.attention import choose_implementation
from mt3jax.model import Decoder, Transformer
from mt3jax.packing import Packing
from mt3jax.row_packing import PLACES
from mt3jax.training.step.sharding import EXAMPLES

EVENT_TYPES = (*VOCABULARY_TYPES, "end")
CHUNK_PLACES = 1 << 16  # their logits are 0.4 GB with 1,536 tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSums:
    """Sums over target tokens, float32, to be added up over microbatches and devices.

    `loss` is `cross_entropy` + `z_loss`, which already includes its weight. `count` is the number of targets of each
    of the `EVENT_TYPES`, `correct` that of those that scored highest.
    """

    loss: Float[Array, ""]
    cross_entropy: Float[Array, ""]
    z_loss: Float[Array, ""]
    num_tokens: Float[Array, ""]
    correct: Float[Array, " types"]
    count: Float[Array, " types"]


def loss_sums(
    model: Transformer,
    part: Mapping[str, Array],
    config: TrainingConfig,
    num_groups: int = 1,
    dropout_key: Key[Array, ""] | None = None,
    mesh: Mesh | None = None,
) -> LossSums:
    """The loss of one microbatch, to be differentiated by `.loss`.

    Args:
        model: with float32 parameters. It is not changed; a copy computes in `config.compute.dtype`.
        part: one microbatch of `mt3jax.row_packing.split_batch`, without the axis of microbatches.
        num_groups: number of groups that the microbatch was packed in.
        dropout_key: None for no dropout.
        mesh: the devices that the microbatch is spread over; None for one device.
    """
    dtype = jnp.dtype(config.compute.dtype)
    model = for_training(model, config)
    keys = (None, None) if dropout_key is None else tuple(jax.random.split(dropout_key))
    encoded = model.encode(network_input(part, config, mesh).astype(dtype), dropout_key=keys[0])
    places: dict[str, Any] = {name: part[name] for name in PLACES}
    packing = Packing(**places, num_examples=encoded.shape[0], num_groups=num_groups)
    hidden = model.decode_packed(encoded, part["decoder_inputs"], packing, keys[1])
    return sums_of_hidden(model.decoder, hidden, part["targets"], config, num_groups)


def for_training(model: Transformer, config: TrainingConfig) -> Transformer:
    """A copy that computes as `config.compute` says; gradients pass through the rounding of its parameters."""
    compute = config.compute
    graph, params = nnx.split(model)
    copy = nnx.merge(graph, jax.tree.map(lambda array: array.astype(compute.dtype), params))
    implementation = choose_implementation(compute.attention, compute.dtype, config.model.network.head_dim)
    # Logits in one part: the extra precision of several parts is lost in gradients.
    copy.set_attributes(implementation=implementation, remat=compute.remat, logit_parts=1, joins_gates=True)
    for layer in copy.decoder.layers:
        layer.self_attention.is_causal = True
    return copy


def network_input(
    part: Mapping[str, Array], config: TrainingConfig, mesh: Mesh | None = None
) -> Float[Array, "examples frames bands"]:
    """The log-mel of a microbatch, float32, computed here from audio that comes as int16 or float32.

    Over a mesh each device gets its own examples: XLA does not split Fourier transforms and would send the audio of
    all examples to all devices.
    """
    if "log_mel" in part:
        return part["log_mel"]

    def transform(audio: Array, num_frames: Array) -> Array:
        samples = audio * np.float32(1 / FULL_SCALE) if audio.dtype == jnp.int16 else audio
        # By default accelerators use eight bits for float32 products. Before bfloat16, which rounds
        # the logarithm to eight, the ten of TF32 and the three passes of TPUs are enough, and ten times faster.
        with jax.default_matmul_precision("high" if config.compute.dtype == "bfloat16" else "highest"):
            return segment_log_mel(samples, num_frames, config.model.spectrogram)

    if mesh is not None and mesh.size > 1:
        transform = jax.shard_map(transform, mesh=mesh, in_specs=EXAMPLES, out_specs=EXAMPLES)
    return transform(part["audio"], part["num_frames"])


def chunk_tokens(config: TrainingConfig, rows: int) -> int:
    """Tokens of every row whose logits are computed at a time, with this many rows on a device."""
    length = config.model.network.max_target_tokens
    asked = config.loss.chunk_tokens
    return min(asked, length) if asked else -(-length // -(-rows * length // CHUNK_PLACES))


def sums_of_hidden(
    decoder: Decoder,
    hidden: Float[Array, "rows tokens emb"],
    targets: Int[Array, "rows tokens"],
    config: TrainingConfig,
    num_groups: int = 1,
) -> LossSums:
    """The loss of the decoder's last activations, for `chunk_tokens` tokens of every row at a time."""
    length, chunk = targets.shape[1], chunk_tokens(config, targets.shape[0] // num_groups)
    num_chunks = -(-length // chunk)
    types = jnp.asarray(types_of_tokens(config.model.vocabulary, config.model.network.vocab_size))

    def chunks(array: Array) -> Array:
        """(chunks, rows, chunk, ...): only the tokens are split, since the rows are spread over devices."""
        padded = jnp.pad(array, [(0, 0), (0, num_chunks * chunk - length), *[(0, 0)] * (array.ndim - 2)])
        return padded.reshape(array.shape[0], num_chunks, chunk, *array.shape[2:]).swapaxes(0, 1)

    if num_chunks == 1:  # its logits may be kept for the gradient
        return sums_of_logits(decoder.logits(hidden), targets, types, config.loss.z_loss)

    @jax.checkpoint
    def add_chunk(sums: LossSums, inputs: tuple[Array, Array]) -> tuple[LossSums, None]:
        here = sums_of_logits(decoder.logits(inputs[0]), inputs[1], types, config.loss.z_loss)
        return jax.tree.map(jnp.add, sums, here), None

    zero = jnp.zeros((), jnp.promote_types(hidden.dtype, jnp.float32))
    count, counts = jnp.zeros((), jnp.float32), jnp.zeros(len(EVENT_TYPES), jnp.float32)
    start = LossSums(zero, zero, zero, count, counts, counts)
    return jax.lax.scan(add_chunk, start, (chunks(hidden), chunks(targets)))[0]


def sums_of_logits(
    logits: Float[Array, "rows tokens vocab"],
    targets: Int[Array, "rows tokens"],
    types: Int[Array, " vocab"],
    z_weight: float,
) -> LossSums:
    """The same for logits; targets 0 do not count."""
    is_target = targets > 0
    logsumexp = jax.nn.logsumexp(logits, axis=-1)
    # A sum of one term, whose gradient is not a scatter.
    chosen = jnp.sum(jnp.where(targets[..., None] == jnp.arange(logits.shape[-1]), logits, 0.0), axis=-1)
    cross_entropy = jnp.sum(jnp.where(is_target, logsumexp - chosen, 0.0))
    z_loss = jnp.sum(jnp.where(is_target, z_weight * logsumexp**2, 0.0))
    is_type = is_target[..., None] & (types[targets][..., None] == jnp.arange(len(EVENT_TYPES)))
    is_correct = (jnp.argmax(logits, axis=-1) == targets)[..., None] & is_type
    return LossSums(
        loss=cross_entropy + z_loss,
        cross_entropy=cross_entropy,
        z_loss=z_loss,
        num_tokens=jnp.sum(is_target, dtype=jnp.float32),
        correct=jnp.sum(is_correct, axis=(0, 1), dtype=jnp.float32),
        count=jnp.sum(is_type, axis=(0, 1), dtype=jnp.float32),
    )


@functools.lru_cache(maxsize=8)
def types_of_tokens(config: VocabularyConfig, vocab_size: int) -> Int[np.ndarray, " vocab"]:
    """The place in `EVENT_TYPES` of every token; -1 for tokens without a type."""
    types = np.full(vocab_size, -1, np.int32)
    for place, (first, last) in enumerate(Vocabulary(config).event_ranges.values()):
        types[NUM_SPECIAL_TOKENS + first : NUM_SPECIAL_TOKENS + last + 1] = place
    types[EOS_ID] = EVENT_TYPES.index("end")
    return types
