"""Audio to notes with the Flax network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import jax
from flax import nnx

from mt3core.decoding import Decoding, Generated
from mt3core.notes.instrument_choice import with_instruments
from mt3decode.stretches import LogMels
from mt3decode.transcriber import BaseTranscriber, default_decoding
from mt3jax.compilation import compile_seconds
from mt3jax.decoding import generate_stream
from mt3jax.loading import Device, load_model
from mt3jax.model import Transformer

# Segments decoded at a time. On a CPU more lanes cost as much time as they save; a GPU is idle with few.
BATCH_SIZES = {"cpu": 16, "gpu": 128, "tpu": 128}


class Transcriber(BaseTranscriber):
    """`Transcriber.from_pretrained("small").transcribe("song.mp3").save("song.mid")`"""

    decodes_together = True

    def __init__(self, model: Transformer, decoding: Decoding | None = None, batch_size: int | None = None) -> None:
        super().__init__(model.config, decoding)
        self.model = model
        platform = jax.tree.leaves(nnx.state(model))[0].device.platform
        self.batch_size = batch_size or BATCH_SIZES.get(platform, BATCH_SIZES["cpu"])
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
        return generate_stream(self.model, log_mels, self.decoding, self.batch_size, last_steps)
