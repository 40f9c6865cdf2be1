"""Audio to notes with the PyTorch network."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence

from mt3core.decoding import Decoding, Generated
from mt3core.errors import MT3Error
from mt3core.notes.instrument_choice import with_instruments
from mt3decode.stretches import LogMels, Stretches
from mt3decode.transcriber import BaseTranscriber, default_decoding
from mt3torch.decoding import default_batch_size, generate_stream
from mt3torch.loading import Device, load_model
from mt3torch.model import Transformer
from mt3torch.processes import Processes
from mt3torch.stepper import Stepper

# Segments of the shortest recording (a little over two minutes for `mt3`) for which it is worth starting processes.
LEAST_SEGMENTS_FOR_PROCESSES = 64


class Transcriber(BaseTranscriber):
    """Transcribes with a network on CPU, CUDA or MPS.

    `batch_size` is the number of segments decoded at a time (in each process); by default it suits the device.
    With `processes` above 1 and on a CPU, long recordings are decoded in that many processes, which start with
    the first one and end with `close`, or with the transcriber. Continuous decoding uses one process.
    """

    def __init__(
        self,
        model: Transformer,
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        processes: int = 1,
    ) -> None:
        super().__init__(model.config, decoding)
        self.model = model
        self.batch_size = batch_size
        self.processes = processes
        self._stepper = Stepper(model)
        self._started: Processes | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        device: Device = "auto",
        decoding: Decoding | None = None,
        batch_size: int | None = None,
        processes: int = 1,
        instruments: str | Iterable[str | int] | None = None,
    ) -> Transcriber:
        """Loads a model by its name, such as `small`, its path or its address; without one, the default of `mt3`.

        `device` is `auto` (as is None), `cpu`, `cuda`, `cuda:1` or `mps`, or a `torch.device`. With `instruments`, such
        as "piano,bass,drums", only these are written (`choose_instruments`). Raises `ModelError` if there is no such
        model, `UsageError` for an unknown device or instrument.
        """
        loaded = load_model(model, device)
        if instruments is not None:
            decoding = with_instruments(decoding or default_decoding(loaded.config), instruments)
        return cls(loaded, decoding, batch_size, processes)

    def generate_stream(
        self, log_mels: LogMels, last_steps: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        if isinstance(log_mels, Stretches):
            return generate_stream(self._stepper, log_mels, self.decoding, self.batch_size, last_steps)
        if self._started is not None and self._started.is_open:
            return self._started.generate_stream(log_mels, last_steps)
        segments = iter(log_mels)
        if self.processes > 1 and self._stepper.device.type == "cpu":
            first = list(itertools.islice(segments, LEAST_SEGMENTS_FOR_PROCESSES))
            segments = itertools.chain(first, segments)
            if len(first) == LEAST_SEGMENTS_FOR_PROCESSES and (started := self._start_processes_if_possible()):
                return started.generate_stream(segments, last_steps)
        return generate_stream(self._stepper, segments, self.decoding, self.batch_size, last_steps)

    def start_processes(self) -> Processes:
        """Starts the processes if they are not running, so that they get ready in the meantime."""
        if self._started is None or not self._started.is_open:
            lanes = self.batch_size or default_batch_size(
                self._stepper.device, self.decoding.num_beams, self.config.network
            )
            self._started = Processes(self.model, self.decoding, self.processes, lanes)
        return self._started

    def _start_processes_if_possible(self) -> Processes | None:
        try:
            return self.start_processes()
        except (OSError, MT3Error) as error:
            warnings.warn(
                f"Decoding in one process: others could not be started ({error})", RuntimeWarning, stacklevel=2
            )
            self.processes = 1
            return None

    def close(self) -> None:
        """Ends the processes, if there are any."""
        if self._started is not None:
            self._started.close()
