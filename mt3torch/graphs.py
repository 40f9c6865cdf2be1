"""A function of tensors at fixed addresses, captured once for each shape as a CUDA graph, and then replayed.

A decoder step is some hundreds of kernels, which take longer to launch one by one than to run. A graph launches them
together. What is captured must not depend on values that the host knows, may not wait for the device, and leaves its
results in tensors that existed before. Where there are no graphs the function is called instead, so that all else is
the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

import torch

# Captures a function without running it; what is returned runs it.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


class Graphs:
    """Functions by shape. The tensors that they use stay where they are, until `forget`."""

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture
        self._known: dict[Hashable, Callable[[], None]] = {}
        self._seen: set[Hashable] = set()

    @classmethod
    def on(cls, device: torch.device, is_wanted: bool = True) -> Graphs:
        return cls(_capture_on_cuda(device) if is_wanted and device.type == "cuda" else None)

    def run(self, shape: Hashable, function: Callable[[], None]) -> None:
        """Runs a function, always the same one for a shape. If it cannot be captured, that is logged once."""
        if self._capture is None:
            function()
            return
        if shape not in self._seen:  # libraries prepare themselves at the first call, which cannot be captured
            self._seen.add(shape)
            function()
            return
        if shape not in self._known:
            try:
                self._known[shape] = self._capture(function)
            except RuntimeError as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logging.getLogger(__name__).warning("Decoding without CUDA graphs, which is slower: %s", reason)
                self._capture = None
                self._known.clear()
                function()
                return
        self._known[shape]()

    def forget(self) -> None:
        """Forgets what was captured, since tensors have moved."""
        self._known.clear()


def _capture_on_cuda(device: torch.device) -> Capture:
    # Everything in a graph's own memory is used up within it, so all graphs of a decoding can share it.
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def capture(function: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        mode = "thread_local"
        with torch.cuda.device(device), torch.cuda.graph(graph, pool, stream, capture_error_mode=mode):
            function()
        return graph.replay

    return capture
