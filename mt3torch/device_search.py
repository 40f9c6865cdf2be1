"""Greedy search and the original's rule (`t5x`) beside an accelerator: `SingleSearch` without the host.

All state is in tensors, lanes first; lanes that are done stay as they are, so the host need not know of them at once.
Numbers are those of `SingleSearch`, in float64 where the device has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, Generated, brevity_penalty
from mt3core.notes.vocabulary import PAD_ID
from mt3decode.grammar import Grammar, GrammarState
from mt3decode.stretches import MOST_GIVEN, Start
from mt3torch.search import Kept, generated

_GRAMMAR_FIELDS = tuple(field.name for field in dataclasses.fields(GrammarState))


class DeviceSearch:
    """The running sequences of `num_lanes` lanes. Methods for `num_lanes` lanes mean the first ones."""

    def __init__(self, decoding: Decoding, grammar: Grammar, num_lanes: int, device: torch.device) -> None:
        self._decoding, self._grammar, self._device = decoding, grammar, device
        self.num_lanes = num_lanes
        self._num_candidates = 1 if decoding.method == "greedy" else 2
        most = decoding.max_tokens
        exact = torch.float32 if device.type == "mps" else torch.float64  # Macs have no float64
        self._state = {
            # One column more than there are tokens, into which lanes that are done write.
            "tokens": self._zeros((num_lanes, most + 1), torch.int64),
            "token_log_probs": self._zeros((num_lanes, most + 1), torch.float32),
            "lengths": self._zeros((num_lanes,), torch.int64),
            "log_probs": self._zeros((num_lanes,), exact),
            "kept_lengths": self._zeros((num_lanes,), torch.int64),
            "kept_scores": self._zeros((num_lanes,), exact),
            "kept_end_log_probs": self._zeros((num_lanes,), torch.float32),
            "given": self._zeros((num_lanes, MOST_GIVEN), torch.int64),
            "num_given": self._zeros((num_lanes,), torch.int64),
            "is_active": self._zeros((num_lanes,), torch.bool),
        }
        if decoding.grammar:
            start = grammar.start_all([0], decoding)
            self._start = {name: torch.from_numpy(getattr(start, name)).to(device) for name in _GRAMMAR_FIELDS}
            for name, row in self._start.items():
                self._state[name] = row.repeat(num_lanes, *[1] * (row.ndim - 1))
        penalties = [brevity_penalty(decoding.length_penalty, length) for length in range(most + 2)]
        self._last_penalty = float(penalties[-1])
        self._penalties = torch.tensor(penalties, dtype=exact, device=device)
        self._certain = torch.full((1, self._num_candidates), -torch.inf, device=device)
        self._certain[0, 0] = 0.0

    def grow(self, num_lanes: int) -> None:
        for name, old in self._state.items():
            new = torch.zeros((num_lanes, *old.shape[1:]), dtype=old.dtype, device=self._device)
            new[: self.num_lanes] = old
            self._state[name] = new
        self.num_lanes = num_lanes

    def start(self, first_lane: int, last_steps: Sequence[int], starts: Sequence[Start]) -> None:
        """Starts segments in the lanes from `first_lane` on; `last_steps` are those that still belong to them."""
        new, state = slice(first_lane, first_lane + len(starts)), self._state
        for name in ("lengths", "log_probs", "kept_lengths", "kept_end_log_probs", "num_given"):
            state[name][new] = 0
        state["kept_scores"][new] = -torch.inf
        state["is_active"][new] = True
        if any(len(start.given) for start in starts):
            given = np.zeros((len(starts), MOST_GIVEN), np.int64)
            for number, start in enumerate(starts):
                given[number, : len(start.given)] = start.given
            state["given"][new] = torch.from_numpy(given).to(self._device)
            state["num_given"][new] = torch.tensor([len(start.given) for start in starts], device=self._device)
        if self._decoding.grammar:
            for name, row in self._start.items():
                state[name][new] = row
            state["limit"][new] = torch.tensor(last_steps, dtype=state["limit"].dtype, device=self._device)

    def move(self, sources: Int[Tensor, " moved"], targets: Int[Tensor, " moved"]) -> None:
        for state in self._state.values():
            state[targets] = state[sources]

    def end(self, first_lane: int) -> None:
        """Ends whatever is in the lanes from `first_lane` on."""
        self._state["is_active"][first_lane:] = False

    def next(self, num_lanes: int) -> tuple[Int[Tensor, " lanes"], Int[Tensor, " lanes"]]:
        """The tokens that the network reads next, and their positions."""
        tokens, lengths = self._state["tokens"][:num_lanes], self._state["lengths"][:num_lanes]
        last = tokens.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        positions = lengths.clamp(max=self._decoding.max_tokens - 1)  # lanes that are done may have no more room
        return torch.where(lengths > 0, last, torch.full_like(last, START_TOKEN)), positions

    def advance(self, logits: Float[Tensor, "lanes vocab"]) -> None:
        """One more token in each lane that is not done. Waits for nothing, and changes all state in place."""
        state = {name: tensor[: len(logits)] for name, tensor in self._state.items()}
        was_active, lengths = state["is_active"].clone(), state["lengths"]
        tokens, log_probs = self._candidates(state, logits)
        totals = state["log_probs"][:, None] + log_probs
        new_lengths = lengths + 1

        is_end = tokens == END_TOKEN
        no_score = torch.full_like(totals, -torch.inf)
        penalties = self._penalties[new_lengths.clamp(max=self._decoding.max_tokens)]
        scores = torch.where(is_end, totals, no_score).amax(dim=1) / penalties
        kept = was_active & (scores > state["kept_scores"])
        end_log_probs = torch.where(is_end, log_probs, no_score.to(log_probs.dtype)).amax(dim=1)
        for name, new in (("scores", scores), ("lengths", new_lengths), ("end_log_probs", end_log_probs)):
            old = state[f"kept_{name}"]
            old.copy_(torch.where(kept, new, old))

        # Greedy search sees one continuation only, and is done if that is the end.
        chosen = is_end[:, :1].to(torch.int64) * (self._num_candidates - 1)
        token, log_prob, total = (one.gather(1, chosen)[:, 0] for one in (tokens, log_probs, totals))
        column = torch.where(was_active, lengths, torch.full_like(lengths, self._decoding.max_tokens))[:, None]
        state["tokens"].scatter_(1, column, token[:, None])
        state["token_log_probs"].scatter_(1, column, log_prob[:, None])
        state["log_probs"].copy_(torch.where(was_active, total, state["log_probs"]))
        lengths.copy_(torch.where(was_active, new_lengths, lengths))
        done = lengths >= self._decoding.max_tokens
        if self._num_candidates == 1:
            done = done | is_end[:, 0]
        else:
            done = done | (state["kept_scores"] > state["log_probs"] / self._last_penalty)
        state["is_active"].logical_and_(~done)
        if self._decoding.grammar:
            self._follow(state, torch.where(was_active, token, torch.full_like(token, PAD_ID)))

    def is_active(self, num_lanes: int) -> Bool[np.ndarray, " lanes"]:
        """Which lanes are not done. Waits for the device."""
        return self._state["is_active"][:num_lanes].cpu().numpy()

    def results(self, lanes: Int[np.ndarray, " lanes"]) -> list[Generated]:
        """The results of lanes. Waits for the device."""
        state, index = self._state, torch.from_numpy(lanes).to(self._device)
        names = ("lengths", "log_probs", "kept_lengths", "kept_scores", "kept_end_log_probs")
        exact = state["log_probs"].dtype
        numbers = torch.stack([state[name][index].to(exact) for name in names], dim=1).cpu().numpy()
        longest = int(numbers[:, [0, 2]].max(initial=0))
        tokens = state["tokens"][:, :longest][index].to(torch.int32).cpu().numpy()
        token_log_probs = state["token_log_probs"][:, :longest][index].cpu().numpy()
        return [
            generated(
                self._decoding, own, log_probs, int(row[0]), float(row[1]), Kept(int(row[2]), float(row[3]), row[4])
            )
            for row, own, log_probs in zip(numbers, tokens, token_log_probs, strict=True)
        ]

    def _candidates(
        self, state: dict[str, Tensor], logits: Float[Tensor, "lanes vocab"]
    ) -> tuple[Int[Tensor, "lanes candidates"], Float[Tensor, "lanes candidates"]]:
        """The best next tokens and their log probabilities among those that are legal; where one is given, it alone."""
        lengths = state["lengths"]
        if self._decoding.grammar:
            is_last = lengths + 1 >= self._decoding.max_tokens
            allowed = self._grammar.allowed(self._grammar_state(state), is_last)
            logits = logits.masked_fill(~allowed, -torch.inf)
        top = logits.topk(self._num_candidates, dim=-1)
        log_probs = top.values - logits.logsumexp(dim=-1, keepdim=True)
        is_given = (lengths < state["num_given"])[:, None]
        given = state["given"].gather(1, lengths.clamp(max=MOST_GIVEN - 1)[:, None])
        return torch.where(is_given, given, top.indices), torch.where(is_given, self._certain, log_probs)

    def _follow(self, state: dict[str, Tensor], tokens: Int[Tensor, " lanes"]) -> None:
        new = self._grammar.advance(self._grammar_state(state), tokens)
        for name in _GRAMMAR_FIELDS:
            if getattr(new, name) is not state[name]:
                state[name].copy_(getattr(new, name))

    def _grammar_state(self, state: dict[str, Tensor]) -> GrammarState:
        return GrammarState(**{name: state[name] for name in _GRAMMAR_FIELDS})

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)
