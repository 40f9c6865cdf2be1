"""The network as two ONNX graphs: the encoder, and one step of the decoder with its cache as inputs and outputs.

Both are traced from the code of `model.py`. The encoder gives the keys and values of the frames for every decoder
layer, which a step reads under the same names. The cache of tokens has as many positions as the program gives it, and
can be lengthened with zeros at any time, since a step reads nothing behind a row's own position.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mt3core.config.model import ModelConfig, NetworkConfig
from mt3core.decoding import END_TOKEN, START_TOKEN
from mt3core.errors import MT3Error
from mt3core.extras import needed, require
from mt3core.model.directory import CARD_FILE, CONFIG_FILE
from mt3torch.model import Cache, Transformer

ENCODER_FILE = "encoder.onnx"
STEP_FILE = "decoder_step.onnx"
OPSET = 18  # the first in which reductions take their axes as an input; every runtime since 2023 has it
# Of the inputs with which a graph is traced: different from each other and from 1, which would be taken for fixed.
_ROWS, _LENGTH = 3, 5


class ExportError(MT3Error):
    """The exporter wrote something other than it was asked for."""


class EncoderGraph(nn.Module):
    """From log-mel to the keys and values of the frames, by layers of the decoder."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, log_mel: Float[Tensor, "batch frames mel"]) -> tuple[Tensor, ...]:
        encoded = self.model.encode(log_mel)
        cache = self.model.start_cache(encoded, 1)
        return tuple(one for pair in zip(cache.cross_keys, cache.cross_values, strict=True) for one in pair)


class StepGraph(nn.Module):
    """One more token in every row: the logits of the next, and the cache of tokens with this one in it."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Int[Tensor, " batch"], positions: Int[Tensor, " batch"], cross: list[Tensor], own: list[Tensor]
    ) -> tuple[Tensor, ...]:
        own = [one.clone() for one in own]  # the step writes into its cache, and the inputs of a graph are constant
        logits, _ = self.model.decode_step(tokens, positions, Cache(own[::2], own[1::2], cross[::2], cross[1::2]))
        return logits, *own


def cross_names(network: NetworkConfig) -> list[str]:
    """Outputs of the encoder and inputs of a step, (batch, heads, frames, head_dim) each."""
    return _names("cross", network)


def self_names(network: NetworkConfig) -> list[str]:
    """Inputs of a step, (batch, heads, cache_length, head_dim) each; the outputs have `next_` before these names."""
    return _names("self", network)


def write_graphs(model: Transformer, folder: Path) -> None:
    """Writes both graphs, `config.json` and a README with all inputs and outputs into an empty folder.

    The network must be on the CPU. Raises `MissingExtraError` without the packages of the extra `onnx`.
    """
    require("onnx", "The export", ("onnx", "onnxscript"))
    config = model.config
    (folder / ENCODER_FILE).write_bytes(encoder_graph(model))
    (folder / STEP_FILE).write_bytes(step_graph(model))
    (folder / CONFIG_FILE).write_text(config.to_text(), encoding="utf-8")
    (folder / CARD_FILE).write_text(_readme(config), encoding="utf-8")


def encoder_graph(model: Transformer) -> bytes:
    """Input `log_mel`, outputs `cross_names`; the size of the batch is free."""
    network = model.config.network
    log_mel = torch.zeros(_ROWS, network.input_frames, network.input_bands)
    shapes = {"log_mel": {0: torch.export.Dim("batch")}}
    return _traced(EncoderGraph(model), (log_mel,), ["log_mel"], cross_names(network), shapes)


def step_graph(model: Transformer) -> bytes:
    """Inputs `tokens`, `positions`, `cross_names`, `self_names`; outputs `logits` and the new cache.

    The size of the batch and the length of the cache are free.
    """
    network = model.config.network
    count = 2 * network.num_decoder_layers
    heads, head_dim = network.num_heads, network.head_dim
    # Tensors of their own for each input: one that is given twice would be traced as a single input.
    tokens, positions = (torch.zeros(_ROWS, dtype=torch.int64) for _ in range(2))
    cross = [torch.zeros(_ROWS, heads, network.input_frames, head_dim) for _ in range(count)]
    own = [torch.zeros(_ROWS, heads, _LENGTH, head_dim) for _ in range(count)]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("cache_length")
    shapes = {
        "tokens": {0: batch},
        "positions": {0: batch},
        "cross": [{0: batch}] * count,
        "own": [{0: batch, 2: length}] * count,
    }
    inputs = ["tokens", "positions", *cross_names(network), *self_names(network)]
    outputs = ["logits", *(f"next_{name}" for name in self_names(network))]
    return _traced(StepGraph(model), (tokens, positions, cross, own), inputs, outputs, shapes)


def _names(which: str, network: NetworkConfig) -> list[str]:
    return [f"{which}_{kind}.{layer}" for layer in range(network.num_decoder_layers) for kind in ("keys", "values")]


def _traced(
    graph: nn.Module, example: tuple[Any, ...], inputs: list[str], outputs: list[str], shapes: dict[str, Any]
) -> bytes:
    """The graph as the bytes of an ONNX file."""
    with needed("onnx", "The export"), _without_remarks():
        program = torch.onnx.export(
            graph.eval(),
            example,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # as no file was named
    proto = program.model_proto
    for one in proto.graph.input:
        # The exporter says nothing when it finds that a size must be that of the example.
        if not one.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(f"PyTorch {torch.__version__} fixed the size of the batch.", "Install another release.")
    # What the exporter notes of its own work, with the paths of source files.
    for one in (
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.input,
        *proto.graph.output,
    ):
        one.ClearField("metadata_props")
        one.ClearField("doc_string")
    return proto.SerializeToString(deterministic=True)


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Not shown: which optional packages the exporter lacks, and what is deprecated within it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _readme(config: ModelConfig) -> str:
    network, spectrogram = config.network, config.spectrogram
    frames = f"(batch, {network.num_heads}, {network.input_frames}, {network.head_dim})"
    tokens = f"(batch, {network.num_heads}, cache_length, {network.head_dim})"
    last = network.num_decoder_layers - 1
    return f"""# {config.name} as ONNX

Written by `mt3 export`. All numbers are float32, tokens and positions int64; `batch` and `cache_length` are free.
`LAYER` is 0 to {last}. What the numbers mean (spectrogram, vocabulary) is in `{CONFIG_FILE}`.

| `{ENCODER_FILE}` | name | shape |
| --- | --- | --- |
| input | `log_mel` | (batch, {network.input_frames}, {network.input_bands}) |
| outputs | `cross_keys.LAYER`, `cross_values.LAYER` | {frames} |

| `{STEP_FILE}` | name | shape |
| --- | --- | --- |
| inputs | `tokens`, the latest token of each row | (batch,) |
| | `positions`, how many tokens each row has read before | (batch,) |
| | `cross_keys.LAYER`, `cross_values.LAYER` of the encoder | {frames} |
| | `self_keys.LAYER`, `self_values.LAYER`, the cache | {tokens} |
| outputs | `logits` of the next token | (batch, {network.vocab_size}) |
| | `next_self_keys.LAYER`, `next_self_values.LAYER`, the cache for the next step | {tokens} |

1. A segment is {network.input_frames} frames of {spectrogram.hop_samples} samples at {spectrogram.sample_rate_hz} Hz.
   `mt3core.segments` and `mt3core.spectrogram` make its log-mel, with 0.0 in the rows after the end of the recording.
2. Run the encoder once for each batch of segments.
3. Begin with token {START_TOKEN} at position 0 and an empty cache: zeros. `cache_length` must be greater than every
   position; a longer cache costs time, and it can be lengthened with zeros between steps.
4. The token with the greatest logit is the next one, at the next position. Stop a row at token {END_TOKEN}, or after
   {network.max_target_tokens} tokens. Rows do not depend on each other, and may be at different positions.
5. `mt3core.notes.decoding` makes notes of the tokens. `examples/transcribe_onnx.py` of mt3kit does all of this.
"""
