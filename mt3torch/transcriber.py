"""Audio to notes with the PyTorch network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from mt3core.decoding import Decoding, Generated
from mt3core.transcriber import BaseTranscriber
from mt3torch.decoding import generate_stream
from mt3torch.loading import load_model
from mt3torch.model import Transformer
from mt3torch.stepper import Stepper


class Transcriber(BaseTranscriber):
    """Transcribes with a network on CPU, CUDA or MPS.

    `batch_size` is the number of segments decoded side by side; by default it suits the device.
    """

    def __init__(self, model: Transformer, decoding: Decoding = Decoding(), batch_size: int | None = None) -> None:
        super().__init__(model.config, decoding)
        self.model = model
        self.batch_size = batch_size
        self._stepper = Stepper(model)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        device: str = "auto",
        decoding: Decoding = Decoding(),
        batch_size: int | None = None,
    ) -> Transcriber:
        """Loads a model directory. Raises `ModelError` where it is none, `UsageError` for an unknown device."""
        return cls(load_model(directory, device), decoding, batch_size)

    def generate_stream(self, log_mels: Iterable[np.ndarray]) -> Iterator[tuple[int, Generated]]:
        return generate_stream(self._stepper, log_mels, self.decoding, self.batch_size)
