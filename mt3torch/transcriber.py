"""Audio to notes with the PyTorch network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch

from mt3core.decoding import Decoding, Generated
from mt3core.errors import UsageError
from mt3core.notes.instrument_choice import with_instruments
from mt3core.processors import num_processors
from mt3decode.stretches import LogMels
from mt3decode.transcriber import BaseTranscriber, default_decoding, files_read_for_accelerators
from mt3torch.decoding import default_batch_size
from mt3torch.device_loop import DeviceLoop
from mt3torch.engine import Engine
from mt3torch.loading import Device, load_model
from mt3torch.model import Transformer
from mt3torch.precision import Precision, dtype_of
from mt3torch.stepper import Stepper
from mt3torch.tuning import fastest_forms

# More have not been measured.
MOST_WORKERS = 4


class Transcriber(BaseTranscriber):
    """Transcribes with a network on CPU, CUDA or MPS, for any number of threads at the same time.

    `batch_size` is the number of segments that each worker decodes at a time; by default it suits device and network.
    On a CPU there is a worker for each processor, up to four, unless `workers` says otherwise (`engine.py`). They start
    with the first recording and end with `close`, or with the transcriber. Raises `UsageError` for fewer than one.
    `loop` says how an accelerator is used, by default as suits it (`device_loop.py`).
    """

    serves_threads = True
    decodes_together = True

    def __init__(
        self,
        model: Transformer,
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        precision: Precision = "float32",
        loop: DeviceLoop | None = None,
    ) -> None:
        super().__init__(model.config, decoding)
        for name, number in (("batch_size", batch_size), ("workers", workers)):
            if number is not None and number < 1:
                raise UsageError(f"{name} is {number}.", "Use at least 1, or leave it out.")
        self.model = model
        self.batch_size = batch_size
        dtype = dtype_of(precision, model.decoder.positions.device)
        forms = fastest_forms(model, dtype)
        self._stepper = Stepper(model, dtype, forms.is_folded, is_query_first=forms.is_query_first)
        self._loop = loop or DeviceLoop.of(self._stepper.device)
        self.workers = workers or default_workers(self._stepper.device)
        self.num_read_ahead = 1 if self._stepper.device.type == "cpu" else files_read_for_accelerators()
        self._engine: Engine | None = None
        self._chosen: tuple[Decoding, int | None, int] | None = None  # of the engine
        self._lock = threading.Lock()
        self._origin: Transcriber | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        instruments: str | Iterable[str | int] | None = None,
        precision: Precision = "float32",
    ) -> Transcriber:
        """Loads a model by its name, such as `small`, its path or its address; without one, the default of `mt3`.

        `device` is `auto` (as is None), `cpu`, `cuda`, `cuda:1` or `mps`, or a `torch.device`. With `instruments`, such
        as "piano,bass,drums", only these are written (`choose_instruments`). `precision` is `float32`, `bfloat16`
        or `auto` (`precision.py`). Raises `ModelError` if there is no such model, `UsageError` for an unknown device or
        instrument, and for a precision that the device does not have.
        """
        loaded = load_model(model, device)
        if instruments is not None:
            decoding = with_instruments(decoding or default_decoding(loaded.config), instruments)
        return cls(loaded, decoding, batch_size, workers, precision)

    @property
    def takes_samples(self) -> bool:  # type: ignore[override]
        """Whether log-mels are made by PyTorch, on the device."""
        if self._loop is None:
            return self._stepper.device.type == "cpu"
        return self._loop.makes_log_mels and self.decoding.method != "beam"

    def generate_stream(
        self, log_mels: LogMels, last_steps: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        return self._current_engine().generate_stream(log_mels, last_steps)

    def with_decoding(self, decoding: Decoding) -> Self:
        """One that shares the prepared weights; its requests go to this one's engine unless that decodes otherwise.

        How windows overlap does not matter to an engine; which instruments are written does. Closing it leaves this
        one's engine as it is.
        """
        made = super().with_decoding(decoding)
        made._engine, made._chosen, made._lock, made._origin = None, None, threading.Lock(), self
        return made

    def _settings(self) -> tuple[Decoding, int | None, int]:
        return replace(self.decoding, overlap=1, agreement=False), self.batch_size, self.workers

    def _current_engine(self) -> Engine:
        chosen = self._settings()
        if self._origin is not None and self._origin._settings() == chosen:
            return self._origin._current_engine()
        with self._lock:
            if self._engine is None or not self._engine.is_open or self._chosen != chosen:
                lanes = self.batch_size or default_batch_size(self._stepper, self.decoding, self.workers)
                # One that still decodes for others ends with the last of them.
                self._engine, self._chosen = self._new_engine(lanes), chosen
            return self._engine

    def _new_engine(self, lanes: int) -> Engine:
        return Engine(self._stepper, self.decoding, lanes, self.workers, self._loop)

    def close(self) -> None:
        """Ends the engine's threads; the next request starts new ones."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()


def default_workers(device: torch.device) -> int:
    return min(num_processors(), MOST_WORKERS) if device.type == "cpu" else 1
