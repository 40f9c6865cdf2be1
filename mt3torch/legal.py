"""The grammar's masks for the lanes of a decoding: beside the processor as rows in NumPy, on other devices in PyTorch.

A step of a small network takes a few milliseconds, so that only what changed is computed for it; a GPU would wait for
every mask that came from the host.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mt3core.decoding import Decoding
from mt3decode.grammar import Grammar, GrammarState
from mt3decode.grammar_rows import GrammarRows


class LegalTokens(abc.ABC):
    """Follows the sequences of all occupied lanes, `num_beams` rows each."""

    @staticmethod
    def of(grammar: Grammar, decoding: Decoding, device: torch.device) -> LegalTokens:
        kind = _LegalOnHost if device.type == "cpu" else _LegalOnDevice
        return kind(grammar, decoding, device)

    @abc.abstractmethod
    def add(self, limits: Sequence[int]) -> None:
        """Starts segments, whose last steps are `limits`, in the next lanes."""

    @abc.abstractmethod
    def keep(self, rows: Int[np.ndarray, " rows"]) -> None:
        """Continues these rows, in this order."""

    @abc.abstractmethod
    def mask(self, logits: Float[Tensor, "rows vocab"], is_last: Bool[np.ndarray, " rows"]) -> None:
        """Puts minus infinity in place of the logits of all tokens that may not come next."""

    @abc.abstractmethod
    def advance(self, tokens: Int[np.ndarray, " rows"]) -> None:
        """Follows a token in each row."""

    @abc.abstractmethod
    def copy(self) -> Self:
        """A copy that goes its own way from here on."""

    def mask_ahead(
        self,
        logits: Float[Tensor, "rows columns vocab"],
        is_last: Bool[np.ndarray, "rows columns"],
        guesses: Int[np.ndarray, "rows following"],
    ) -> None:
        """The same for several tokens after one another, if all but the last are those guessed; advances nothing."""
        ahead = self.copy()
        for column in range(logits.shape[1]):
            if column:
                ahead.advance(guesses[:, column - 1])
            ahead.mask(logits[:, column], is_last[:, column])


class _LegalOnHost(LegalTokens):
    def __init__(self, grammar: Grammar, decoding: Decoding, _: torch.device) -> None:
        self._num_beams = decoding.num_beams
        self._rows = GrammarRows(grammar, decoding)

    def add(self, limits: Sequence[int]) -> None:
        self._rows.add([limit for limit in limits for _ in range(self._num_beams)])

    def keep(self, rows: Int[np.ndarray, " rows"]) -> None:
        self._rows.keep(rows)

    def mask(self, logits: Float[Tensor, "rows vocab"], is_last: Bool[np.ndarray, " rows"]) -> None:
        logits += torch.from_numpy(self._rows.rows)
        if is_last.any():
            logits[torch.from_numpy(is_last)] += torch.from_numpy(self._rows.only_end)

    def advance(self, tokens: Int[np.ndarray, " rows"]) -> None:
        self._rows.advance(tokens)

    def copy(self) -> Self:
        new = type(self).__new__(type(self))
        new._num_beams, new._rows = self._num_beams, self._rows.copy()
        return new


class _LegalOnDevice(LegalTokens):
    def __init__(self, grammar: Grammar, decoding: Decoding, device: torch.device) -> None:
        self._grammar = grammar
        self._decoding = decoding
        self._device = device
        self._state = self._put(grammar.start_all([], decoding))

    def add(self, limits: Sequence[int]) -> None:
        rows = [limit for limit in limits for _ in range(self._decoding.num_beams)]
        new = self._put(self._grammar.start_all(rows, self._decoding))
        self._state = _each(lambda *both: torch.cat(both), self._state, new)

    def keep(self, rows: Int[np.ndarray, " rows"]) -> None:
        if np.array_equal(rows, np.arange(len(self._state.time))):
            return  # as after most steps of a beam search
        chosen = self._array(rows)
        self._state = _each(lambda values: values[chosen], self._state)

    def mask(self, logits: Float[Tensor, "rows vocab"], is_last: Bool[np.ndarray, " rows"]) -> None:
        logits.masked_fill_(~self._grammar.allowed(self._state, self._array(is_last)), -torch.inf)

    def advance(self, tokens: Int[np.ndarray, " rows"]) -> None:
        self._state = self._grammar.advance(self._state, self._array(tokens))

    def copy(self) -> Self:
        new = type(self)(self._grammar, self._decoding, self._device)
        new._state = _each(torch.clone, self._state)
        return new

    def _put(self, state: GrammarState) -> GrammarState:
        return _each(self._array, state)

    def _array(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, device=self._device)


def _each(change: Callable[..., Any], *states: GrammarState) -> GrammarState:
    """A state of the fields of states, each changed."""
    names = [field.name for field in dataclasses.fields(GrammarState)]
    return GrammarState(**{name: change(*(getattr(state, name) for state in states)) for name in names})
