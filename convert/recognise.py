"""Finds the network that a set of arrays belongs to, from their names and shapes alone.

Foreign checkpoints have no readable configuration. Two things do not show in the arrays and are taken
from the published models: heads are 64 wide, and the activation is tanh GELU in gated and ReLU in ungated MLPs.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping

from mt3core.config.model import ISMIR2021, MT3, PRESETS, ModelConfig
from mt3core.errors import ModelError
from mt3core.model.parameters import parameters

# All of Magenta's MT3 configurations have it (model.gin); the arrays only show the product with the number of heads.
HEAD_DIM = 64
# Rows of the token table (a multiple of 128) of the two published vocabularies.
_VARIANT = "-variant"
_BY_VOCAB_SIZE = {1536: MT3, 1664: ISMIR2021}
_DIMENSIONS = {
    r"encoder\.continuous_inputs_projection\.kernel": ("input_bands", "emb_dim"),
    r"decoder\.token_embedder\.embedding": ("vocab_size", "emb_dim"),
    r"decoder\.logits_dense\.kernel": ("emb_dim", "vocab_size"),
    r".*attention\.(query|key|value)\.kernel": ("emb_dim", "joined_heads"),
    r".*attention\.out\.kernel": ("joined_heads", "emb_dim"),
    r".*\.mlp\.wi(_\d+)?\.kernel": ("emb_dim", "mlp_dim"),
    r".*\.mlp\.wo\.kernel": ("mlp_dim", "emb_dim"),
    r".*norm\.scale": ("emb_dim",),
}


def recognise_config(shapes: Mapping[str, tuple[int, ...]], where: str, head_dim: int = HEAD_DIM) -> ModelConfig:
    """The preset whose network has these arrays, or the nearest one with its sizes changed.

    Args:
        shapes: Flax names (`decoder.layers.0.mlp.wi_0.kernel`) and Flax shapes, possibly with a few arrays missing
            or misshapen: every size is the one most arrays have, so that the caller's check can then name the odd ones.
        where: the source, for messages.
        head_dim: width of a head, if the source gives it.

    Raises `ModelError` if no array shows a size, or if the vocabulary is not one of the published ones.
    """
    for preset in PRESETS.values():
        table = {p.flax_name: p.shape for p in parameters(preset.network)}
        if table == dict(shapes) and preset.network.head_dim == head_dim:
            return preset
    sizes = _majority_sizes(shapes, where)
    joined = sizes.pop("joined_heads")
    if joined % head_dim:
        raise ModelError(
            f"The attention of {where} has width {joined}, not a multiple of {head_dim}, so the number of heads "
            "is unknown.",
            "Put the model's config.json next to the weights.",
        )
    base = _BY_VOCAB_SIZE.get(sizes["vocab_size"])
    if base is None:
        raise ModelError(
            f"{where} has {sizes['vocab_size']} tokens; the known vocabularies have "
            f"{' or '.join(map(str, _BY_VOCAB_SIZE))}.",
            "Put the model's config.json next to the weights.",
        )
    network = dataclasses.replace(
        base.network,
        **sizes,
        num_heads=joined // head_dim,
        head_dim=head_dim,
        num_encoder_layers=_count(shapes, r"encoder\.layers\.(\d+)\."),
        num_decoder_layers=_count(shapes, r"decoder\.layers\.(\d+)\."),
        mlp_activations=_activations(shapes),
        logits_via_embedding="decoder.logits_dense.kernel" not in shapes,
    )
    if network == base.network:
        return base
    spectrogram = dataclasses.replace(base.spectrogram, mel_bands=network.input_bands)
    return dataclasses.replace(base, name=f"{base.name}{_VARIANT}", network=network, spectrogram=spectrogram)


def guess_note(config: ModelConfig, heads_are_known: bool = False) -> str:
    """A sentence for the user: which settings of a recognised configuration the arrays do not show."""
    network = config.network
    seconds = network.input_frames / config.spectrogram.frames_per_second
    heads = f"heads of {network.head_dim} ({network.num_heads}), the activation {network.mlp_activations[0]}, "
    model = config.name.removesuffix(_VARIANT)
    return (
        f"The file does not have all settings; guessed from the published {model}: "
        f"{'' if heads_are_known else heads}segments of {seconds:.2f} s, and the meaning of the tokens. "
        "If that is wrong, put the model's config.json next to the weights."
    )


def _majority_sizes(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, int]:
    votes: dict[str, Counter[int]] = {name: Counter() for names in _DIMENSIONS.values() for name in names}
    for name, shape in shapes.items():
        for pattern, dimensions in _DIMENSIONS.items():
            if re.fullmatch(pattern, name) and len(shape) == len(dimensions):
                for dimension, size in zip(dimensions, shape, strict=True):
                    votes[dimension][size] += 1
                break
    unknown = [name for name, counter in votes.items() if not counter]
    if unknown:
        raise ModelError(f"{where} is not an MT3 network: no array gives its {', '.join(unknown)}.")
    return {name: counter.most_common(1)[0][0] for name, counter in votes.items()}


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return 1 + max((int(found[1]) for name in shapes if (found := re.match(pattern, name))), default=-1)


def _activations(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    gates = _count(shapes, r".*\.mlp\.wi_(\d+)\.kernel")
    return ("gelu",) + ("linear",) * (gates - 1) if gates else ("relu",)
