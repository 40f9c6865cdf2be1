"""Weight files of the existing PyTorch ports of MT3: reading and writing.

kunato/mt3-pytorch, gudgud96/MR-MT3 and mt3-infer have the network as Hugging Face's T5 with three changes: an input
projection `proj`, an embedding `decoder_embed_tokens` (both also registered as `embed_tokens` of their stacks), and
fixed positions `pos_emb.inv_freq`. Names as in their `models/t5.py` and `tools/convert_weight.py`; a Lightning
checkpoint has the same under `state_dict` with the prefix `model.`; such wrappings are taken off by `state_dict.py`.
A file with our own names is read as well.

Their positions use the frequencies 10000^(-i/256); Magenta's are 10000^(-i/255). The table is not read: weights that
were converted from Magenta's work correctly with ours. `write_port` stores Magenta's frequencies, so that the ports,
which load them with the weights, also work correctly.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mt3convert.recognise import guess_note, recognise_config
from mt3convert.state_dict import find_network, read_tensors, rounded
from mt3convert.weight_files import Tensor, import_torch, read_weight_file
from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError
from mt3core.files import atomic_output
from mt3core.json_text import read_json
from mt3core.model.parameters import check_arrays, check_weights, parameters, torch_shapes

POSITION_NAMES = ("encoder.pos_emb.inv_freq", "decoder.pos_emb.inv_freq")

_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}
# Our path (`N`: the layer, `*`: the last part) -> the port's path and its other names for the same array.
_NAMES: dict[str, tuple[str, ...]] = {
    "encoder.continuous_inputs_projection": ("proj", "encoder.embed_tokens"),
    "encoder.layers.N.pre_attention_layer_norm": ("encoder.block.N.layer.0.layer_norm",),
    "encoder.layers.N.attention.*": ("encoder.block.N.layer.0.SelfAttention.*",),
    "encoder.layers.N.pre_mlp_layer_norm": ("encoder.block.N.layer.1.layer_norm",),
    "encoder.layers.N.mlp.*": ("encoder.block.N.layer.1.DenseReluDense.*",),
    "encoder.encoder_norm": ("encoder.final_layer_norm",),
    "decoder.token_embedder": ("decoder_embed_tokens", "decoder.embed_tokens", "shared"),
    "decoder.layers.N.pre_self_attention_layer_norm": ("decoder.block.N.layer.0.layer_norm",),
    "decoder.layers.N.self_attention.*": ("decoder.block.N.layer.0.SelfAttention.*",),
    "decoder.layers.N.pre_cross_attention_layer_norm": ("decoder.block.N.layer.1.layer_norm",),
    "decoder.layers.N.encoder_decoder_attention.*": ("decoder.block.N.layer.1.EncDecAttention.*",),
    "decoder.layers.N.pre_mlp_layer_norm": ("decoder.block.N.layer.2.layer_norm",),
    "decoder.layers.N.mlp.*": ("decoder.block.N.layer.2.DenseReluDense.*",),
    "decoder.decoder_norm": ("decoder.final_layer_norm",),
    "decoder.logits_dense": ("lm_head",),
}
# Written so that the port loads the file strictly; `shared` is only Hugging Face's own name.
_NOT_WRITTEN = ("shared.weight",)


def port_names(torch_name: str) -> tuple[str, ...]:
    """The port's name of an array given by ours, and its other names for the same array, if any."""
    path = torch_name.removesuffix(".weight")
    layer = re.search(r"\.(\d+)\.", path)
    last = path.rpartition(".")[2]
    pattern = re.sub(r"\.\d+\.", ".N.", path)
    names = _NAMES.get(pattern) or _NAMES[re.sub(r"[^.]+$", "*", pattern)]
    filled = (name.replace("*", _ATTENTION.get(last, last)) for name in names)
    return tuple(f"{name.replace('.N.', f'.{layer[1]}.') if layer else name}.weight" for name in filled)


def our_name(name: str) -> str | None:
    """Our name of an array given by any name of the port or by our own; None for an unknown one.

    The names of the position tables are their own.
    """
    if name in POSITION_NAMES:
        return name
    for pattern, ours in _patterns():
        if found := pattern.fullmatch(name):
            parts = found.groupdict()
            last = {short: long for long, short in _ATTENTION.items()}.get(parts.get("last", ""), parts.get("last"))
            return f"{ours.replace('N', parts.get('layer', 'N')).replace('*', last or '*')}.weight"
    return None


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Every name of the port, and every one of ours, as a pattern, with our path."""
    found = []
    for ours, names in _NAMES.items():
        for name in (*names, ours):
            escaped = re.escape(f"{name}.weight").replace(r"\.N\.", r"\.(?P<layer>\d+)\.")
            found.append((re.compile(escaped.replace(r"\*", r"(?P<last>\w+)")), ours))
    return found


def read_port(path: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, np.ndarray], list[str]]:
    """Configuration, weights (PyTorch names and shapes, float32), and notes for the user.

    The configuration comes from a JSON file of the same name or `config.json` next to it (ours, or the port's, which
    has heads and activation), else from the arrays. Raises `ModelError` for a file that needs pickle code,
    is damaged, or does not contain exactly one network.
    """
    path = Path(path)
    found = find_network(read_weight_file(path), our_name, path)
    notes = list(found.notes)
    tables = {name: found.tensors.pop(name) for name in POSITION_NAMES if name in found.tensors}
    if tables:
        notes.append(_position_note({name: tensors[0][1] for name, tensors in tables.items()}))
    shapes = {ours: tensors[0][1].shape for ours, tensors in found.tensors.items()}
    shapes |= {name: tensor.shape for name, tensor in found.unknown.items()}
    config, guess = _config_beside(path, shapes)
    check_arrays(torch_shapes(config.network), shapes, str(path))
    return config, read_tensors(found, path), notes + ([guess] if guess else [])


def write_port(path: str | os.PathLike[str], config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file that the ports load strictly, and the configuration as JSON of the same name next to it.

    Expects all arrays of the network by PyTorch's name, in PyTorch's shape.
    """
    path = Path(path)
    torch = import_torch()
    table = parameters(config.network)
    check_weights(config.network, arrays, "the weights")
    state = {}
    for parameter in table:
        # One tensor under all its names; torch stores it once.
        tensor = torch.from_numpy(np.array(arrays[parameter.torch_name], np.float32))
        state.update({name: tensor for name in port_names(parameter.torch_name) if name not in _NOT_WRITTEN})
    state.update({name: torch.from_numpy(_frequencies(config.network.emb_dim)) for name in POSITION_NAMES})
    with atomic_output(path.with_suffix(".json")) as beside, atomic_output(path) as temporary:
        beside.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
        torch.save(state, temporary)


def _frequencies(emb_dim: int) -> np.ndarray:
    """Magenta's: 10000^(-i / (half - 1)), computed in float64 as `mt3core.model.positions` does."""
    half = emb_dim // 2
    return (10_000.0 ** (-np.arange(half) / (half - 1))).astype(np.float32)


def _position_note(tables: Mapping[str, Tensor]) -> str:
    listed = " and ".join(tables)
    values = {name: table.read() for name, table in tables.items()}
    if all(_are_magentas(values[name], table.kind) for name, table in tables.items()):
        return f"The position frequencies in the file ({listed}) are Magenta's, the same as ours."
    if not all(np.isfinite(value).all() for value in values.values()):
        return f"The position frequencies in the file ({listed}) contain NaN or infinity; ours are used instead."
    return (
        f"The port's position frequencies ({listed}) differ from Magenta's and are ignored (docs/differences.md). "
        "Weights converted from Magenta's now transcribe correctly, unlike in the port; weights trained in the "
        "port (MR-MT3) learned its table and will transcribe worse."
    )


def _are_magentas(table: np.ndarray, kind: str) -> bool:
    """At the precision of the file, or a lower one that the weights were once stored with.

    The port's own frequencies differ by up to 3.7 %, many times the 0.4 % to which bfloat16 rounds.
    """
    if table.ndim != 1 or table.size < 2:
        return False
    expected = _frequencies(2 * table.size)
    return any(
        np.allclose(table, rounded(expected, precision), rtol=tolerance, atol=0)
        for precision, tolerance in ((kind, 1e-5), ("float16", 1e-3), ("bfloat16", 8e-3))
    )


def _config_beside(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[ModelConfig, str]:
    """The configuration, and a note on what of it was guessed. `shapes` are PyTorch's, by our names."""
    flax_shapes = dict(_flax_form(name, shape) for name, shape in shapes.items())
    for beside in (path.with_suffix(".json"), path.parent / "config.json"):
        if not beside.is_file():
            continue
        try:
            values = read_json(beside)
            if "format_version" in values:
                return ModelConfig.from_dict(values), ""
            if "d_kv" in values:
                config = _with_port_settings(flax_shapes, values, path)
                return config, guess_note(config, heads_are_known=True)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{beside} is not a configuration ({error}).", "Correct or remove it.") from error
    config = recognise_config(flax_shapes, str(path))
    return config, guess_note(config)


def _flax_form(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Flax's name and shape of an array that may match no network, judged by its name alone."""
    path = name.removesuffix(".weight")
    if path.endswith("norm"):
        return f"{path}.scale", shape
    if path.endswith("token_embedder"):
        return f"{path}.embedding", shape
    return f"{path}.kernel", shape[::-1]


def _with_port_settings(flax_shapes: Mapping[str, tuple[int, ...]], values: Mapping, path: Path) -> ModelConfig:
    """Heads and activation as Hugging Face's T5Config has them: `num_heads`, `d_kv`, `feed_forward_proj`."""
    config = recognise_config(flax_shapes, str(path), head_dim=int(values["d_kv"]))
    gate, _, activation = str(values.get("feed_forward_proj", "gated-gelu")).rpartition("-")
    activations = (activation, "linear") if gate else (activation,)
    if activations == config.network.mlp_activations:
        return config
    return dataclasses.replace(config, network=dataclasses.replace(config.network, mlp_activations=activations))
