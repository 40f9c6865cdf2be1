"""Work of an accelerator beside its other work: a stream of its own on CUDA, elsewhere simply one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor


class Mark:
    """A place in a stream. What was asked of the stream before has been done when it `is_reached`."""

    def __init__(self, event: torch.cuda.Event | None = None) -> None:
        self._event = event

    @property
    def is_reached(self) -> bool:
        return self._event is None or self._event.query()

    def wait(self, tensors: Sequence[Tensor]) -> None:
        """Lets the current stream, not the host, wait, and use tensors that were made in the other stream."""
        if self._event is None:
            return
        current = torch.cuda.current_stream(tensors[0].device)
        current.wait_event(self._event)
        for tensor in tensors:
            tensor.record_stream(current)  # so that their memory is not used again too early


class SideStream:
    """Its work begins after what was asked of the current stream when it is made."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def entered(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def mark(self) -> Mark:
        return Mark(None if self._stream is None else self._stream.record_event())
