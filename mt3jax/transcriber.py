"""Audio to notes with the Flax network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import jax
from flax import nnx

from mt3core.config.model import NetworkConfig
from mt3core.decoding import Decoding, Generated
from mt3core.notes.instrument_choice import with_instruments
from mt3decode.ahead import ReadAhead
from mt3decode.stretches import LogMels, Stretches
from mt3decode.transcriber import BaseTranscriber, default_decoding, files_read_for_accelerators
from mt3jax.compilation import compile_seconds
from mt3jax.decoding import generate_stream
from mt3jax.lanes import MIN_POSITIONS
from mt3jax.loading import Device, load_model
from mt3jax.model import Transformer

# Segments decoded at a time. On a CPU more lanes cost as much time as they save; a GPU is idle with few.
BATCH_SIZES = {"cpu": 16, "gpu": 128, "tpu": 128}
MOST_LANES = 512
# The share of an accelerator's memory for keys and values in the lanes; longer lanes and the encoder need some as well.
LANES_SHARE = 0.3


class Transcriber(BaseTranscriber):
    """`Transcriber.from_pretrained("small").transcribe("song.mp3").save("song.mid")`

    `batch_size` is the number of segments decoded at a time (`default_batch_size`). A thread reads audio ahead. On an
    accelerator log-mels are made on it; `on_device` says so for tests on a CPU.
    """

    decodes_together = True

    def __init__(
        self,
        model: Transformer,
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(model.config, decoding)
        self.model = model
        device = jax.tree.leaves(nnx.state(model))[0].device
        self.batch_size = batch_size or default_batch_size(device, model.config.network)
        self.takes_samples = device.platform != "cpu" if on_device is None else on_device
        if self.takes_samples:
            self.num_read_ahead = files_read_for_accelerators()
        self._compile_seconds_before = compile_seconds()

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        instruments: str | Iterable[str | int] | None = None,
    ) -> Transcriber:
        """Loads a model by its name, such as `small`, its path or its address; without one, the default of `mt3`.

        `device` is `auto` (as is None), `cpu`, `cuda`, `cuda:1` or `tpu`, or a `jax.Device`. With `instruments`,
        such as "piano,bass,drums", only these are written (`choose_instruments`). Raises `ModelError`, `UsageError`.
        """
        loaded = load_model(model, device)
        if instruments is not None:
            decoding = with_instruments(decoding or default_decoding(loaded.config), instruments)
        return cls(loaded, decoding, batch_size)

    @property
    def compile_seconds(self) -> float:
        return compile_seconds() - self._compile_seconds_before

    def generate_stream(
        self, log_mels: LogMels, last_steps: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        if isinstance(log_mels, Stretches):
            yield from generate_stream(self.model, log_mels, self.decoding, self.batch_size, last_steps)
            return
        with closing(ReadAhead(log_mels, self.batch_size)) as ahead:
            yield from generate_stream(self.model, ahead, self.decoding, self.batch_size, last_steps)


def default_batch_size(device: Any, network: NetworkConfig) -> int:
    """Lanes by the kind of device (`jax.Device`), and on accelerators by the memory that the program may use there."""
    least = BATCH_SIZES.get(device.platform, BATCH_SIZES["cpu"])
    limit = (device.memory_stats() or {}).get("bytes_limit", 0) if device.platform in ("gpu", "tpu") else 0
    lanes = least
    while lanes < MOST_LANES and 2 * lanes * lane_bytes(network) <= LANES_SHARE * limit:
        lanes *= 2
    return lanes


def lane_bytes(network: NetworkConfig) -> int:
    """Keys and values of one lane, float32: those of the encoder's frames and of `MIN_POSITIONS` tokens."""
    values = network.num_decoder_layers * 2 * network.num_heads * network.head_dim
    return 4 * values * (network.input_frames + MIN_POSITIONS)
