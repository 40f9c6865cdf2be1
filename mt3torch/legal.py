"""The grammar's masks for the lanes of a decoding: beside the processor in NumPy, on other devices in PyTorch.

A step of a small network takes a few milliseconds, and NumPy calls cost a fraction of PyTorch's; a GPU would wait for
every mask that came from the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mt3core.config.model import ModelConfig
from mt3core.decoding import Decoding
from mt3decode.grammar import Grammar, GrammarState


class LegalTokens:
    """Follows the sequences of all occupied lanes, `num_beams` rows each."""

    def __init__(self, config: ModelConfig, decoding: Decoding, device: torch.device) -> None:
        self._grammar = Grammar.of(config)
        self._decoding = decoding
        self._device = device
        self._state = self._put(self._grammar.start_all([], decoding))

    def add(self, limits: Sequence[int]) -> None:
        """Starts segments, whose last steps are `limits`, in the next lanes."""
        rows = [limit for limit in limits for _ in range(self._decoding.num_beams)]
        new = self._put(self._grammar.start_all(rows, self._decoding))
        self._state = _each(_join, self._state, new)

    def keep(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Continues these rows, in this order."""
        if np.array_equal(rows, np.arange(len(self._state.time))):
            return  # as after most steps of a beam search
        chosen = self._array(rows)
        self._state = _each(lambda values: values[chosen], self._state)

    def masked(
        self, logits: Float[Tensor, "rows vocab"], is_last: Bool[np.ndarray, " rows"]
    ) -> Float[Tensor, "rows vocab"]:
        """The logits with minus infinity for all tokens that may not come next."""
        allowed = self._grammar.allowed(self._state, self._array(is_last))
        return logits.masked_fill(~torch.as_tensor(allowed), -torch.inf)

    def advance(self, tokens: Int[np.ndarray, " rows"]) -> None:
        """Follows a token in each row."""
        self._state = self._grammar.advance(self._state, self._array(tokens))

    def _put(self, state: GrammarState) -> GrammarState:
        return _each(self._array, state)

    def _array(self, values: np.ndarray) -> Any:
        return values if self._device.type == "cpu" else torch.as_tensor(values, device=self._device)


def _each(change: Callable[..., Any], *states: GrammarState) -> GrammarState:
    """A state of the fields of states, each changed."""
    names = [field.name for field in dataclasses.fields(GrammarState)]
    return GrammarState(**{name: change(*(getattr(state, name) for state in states)) for name in names})


def _join(old: Any, new: Any) -> Any:
    return np.concatenate([old, new]) if isinstance(old, np.ndarray) else torch.cat([old, new])
