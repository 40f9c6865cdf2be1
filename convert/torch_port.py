"""Weight files of the existing PyTorch ports of MT3: reading and writing.

kunato/mt3-pytorch, gudgud96/MR-MT3 and mt3-infer have the network as Hugging Face's T5 with three changes: an input
projection `proj`, an embedding `decoder_embed_tokens` (both also registered as `embed_tokens` of their stacks), and
fixed positions `pos_emb.inv_freq`. Names as in their `models/t5.py` and `tools/convert_weight.py`; a Lightning
checkpoint has the same under `state_dict` with the prefix `model.`. A file with our own names is read as well.

Their positions use the frequencies 10000^(-i/256); Magenta's are 10000^(-i/255). The table is not read: weights that
were converted from Magenta's work correctly with ours. `write_port` stores Magenta's frequencies, so that the ports,
which load them with the weights, also work correctly.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from mt3convert.recognise import recognise_config
from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError
from mt3core.extras import needed
from mt3core.files import atomic_output
from mt3core.model.parameters import check_weights, parameters

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
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


def our_name(port_name: str) -> str | None:
    """The inverse of `port_names`: our name of an array given by any name of the port; None for an unknown one."""
    for ours, names in _NAMES.items():
        for name in names:
            pattern = (
                re.escape(f"{name}.weight").replace(r"\.N\.", r"\.(?P<layer>\d+)\.").replace(r"\*", r"(?P<last>\w+)")
            )
            if found := re.fullmatch(pattern, port_name):
                parts = found.groupdict()
                last = {short: long for long, short in _ATTENTION.items()}.get(parts.get("last", ""), parts.get("last"))
                return f"{ours.replace('N', parts.get('layer', 'N')).replace('*', last or '*')}.weight"
    return None


def read_port(path: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, np.ndarray], list[str]]:
    """Configuration, weights (PyTorch names and shapes, float32), and notes for the user.

    The configuration comes from a JSON file of the same name or `config.json` next to it (ours, or the port's, which
    has heads and activation), else from the arrays. Raises `ModelError` for a file that needs pickle code,
    is damaged, or does not contain exactly one network.
    """
    path = Path(path)
    state = _unwrap(_read_state(path), path)
    positions = [name for name in POSITION_NAMES if name in state]
    notes = [_position_note([state.pop(name) for name in positions], positions)] if positions else []
    arrays = _rename(state, path)
    config = _config_beside(path, arrays)
    check_weights(config.network, arrays, str(path))
    return config, arrays, notes


def write_port(path: str | os.PathLike[str], config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a file that the ports load strictly, and the configuration as JSON of the same name next to it.

    Expects all arrays of the network by PyTorch's name, in PyTorch's shape.
    """
    path = Path(path)
    torch = _import_torch()
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


def _position_note(tables: list[np.ndarray], names: list[str]) -> str:
    listed = " and ".join(names)
    if all(table.size > 1 and np.allclose(table, _frequencies(2 * table.size), rtol=1e-5) for table in tables):
        return f"The position frequencies in the file ({listed}) are Magenta's, the same as ours."
    return (
        f"The port's position frequencies ({listed}) differ from Magenta's and are ignored (docs/differences.md). "
        "Weights converted from Magenta's now transcribe correctly, unlike in the port; weights trained in the "
        "port (MR-MT3) learned its table and will transcribe worse."
    )


def _import_torch() -> Any:
    with needed("torch", "A file of a PyTorch port"):
        import torch
    return torch


def _read_state(path: Path) -> Any:
    """The content of the file; nothing in it is executed."""
    if not path.is_file():
        raise ModelError(f"There is no file {path}.", "Check the path.")
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged or truncated: {error}.", "Download or copy it again.") from error
    torch = _import_torch()
    try:
        with warnings.catch_warnings():  # about newer pickle protocols, which it then refuses
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says the same about pickles with code and about files that are not pickles.
        if not zipfile.is_zipfile(path) and path.read_bytes()[:1] != pickle.PROTO:
            raise ModelError(f"{path} is damaged or not a PyTorch file.", "Download or copy it again.") from error
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise ModelError(
            f"{path} contains more than tensors{f' ({named[1]})' if named else ''}: reading it would run code from the "
            "file (pickle), which mt3 never does.",
            "If you trust it, load it in the program that wrote it and save only its state_dict().",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is damaged or truncated: {reason}.", "Download or copy it again.") from error


def _unwrap(loaded: Any, path: Path) -> dict[str, np.ndarray]:
    """The state dictionary as float32 arrays: taken out of a training checkpoint, without prefixes of wrappers."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded or not all(hasattr(value, "shape") for value in loaded.values()):
        raise ModelError(f"{path} contains no state dictionary (names and tensors).", "Save the model's state_dict().")
    for prefix in ("module.", "model."):
        if all(str(name).startswith(prefix) for name in loaded):
            loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    return {str(name): _to_numpy(value) for name, value in loaded.items()}


def _to_numpy(value: Any) -> np.ndarray:
    return value.astype(np.float32) if isinstance(value, np.ndarray) else value.detach().float().numpy()


def _rename(state: Mapping[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """By our names; a file that already has them stays unchanged. Two names of one array must have the same values."""
    if "encoder.continuous_inputs_projection.weight" in state:
        return dict(state)
    arrays: dict[str, np.ndarray] = {}
    for name, array in state.items():
        # An unknown name is kept: the check against the network then lists it as surplus.
        ours = our_name(name) or name
        if ours in arrays and not np.array_equal(arrays[ours], array):
            raise ModelError(f"{path} contains two different arrays for {ours}: {' and '.join(port_names(ours))}.")
        arrays[ours] = array
    return arrays


def _config_beside(path: Path, arrays: Mapping[str, np.ndarray]) -> ModelConfig:
    flax_shapes = dict(_flax_form(name, array.shape) for name, array in arrays.items())
    for beside in (path.with_suffix(".json"), path.parent / "config.json"):
        if not beside.is_file():
            continue
        try:
            values = json.loads(beside.read_text(encoding="utf-8"))
            if "format_version" in values:
                return ModelConfig.from_dict(values)
            if "d_kv" in values:
                return _with_port_settings(flax_shapes, values, path)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{beside} is not a configuration ({error}).", "Correct or remove it.") from error
    return recognise_config(flax_shapes, str(path))


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
