"""Choosing tokens with one running sequence per segment: greedy, and the original's rule (`t5x`).

The bookkeeping is NumPy on the host: a few numbers per lane and step. Lanes are places for segments, the
occupied ones first, the oldest first, as in `stepper.py`; every lane counts its own tokens.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, Generated, brevity_penalty
from mt3core.notes.vocabulary import PAD_ID
from mt3decode.stretches import MOST_GIVEN, Start
from mt3torch.legal import LegalTokens
from mt3torch.stepper import Lanes

# With at most this many lanes left, a step also reads guessed tokens: as long as its rows are few, they cost little.
FEW_LANES = 4
MOST_GUESSES = 11
ROWS_OF_GUESSES = 16


class Search(abc.ABC):
    """What the decoding loop requires of a method. Arrays refer to the `count` occupied lanes."""

    num_beams: int
    num_candidates: int  # how many of the best continuations of every sequence it needs

    def __init__(self, decoding: Decoding, num_lanes: int, legal: LegalTokens | None = None) -> None:
        self.count = 0
        self.lengths = np.zeros(num_lanes, np.int64)  # tokens chosen so far
        # The tokens with which a segment begins in any case, and how many they are.
        self._given = np.zeros((num_lanes, MOST_GIVEN), np.int64)
        self._num_given = np.zeros(num_lanes, np.int64)
        self._legal = legal
        self._decoding = decoding
        self._last_penalty = brevity_penalty(decoding.length_penalty, decoding.max_tokens + 1)

    def step(self, lanes: Lanes) -> Bool[np.ndarray, " lanes"]:
        """One more token in every lane, or several; returns which lanes are done."""
        tokens, log_probs = self._candidates(lanes.step(self.last_tokens()))
        shape = (self.count, self.num_beams, self.num_candidates)
        parents, done = self.advance(tokens.reshape(shape), log_probs.reshape(shape))
        if parents is not None:
            lanes.reorder(parents)
        if self._legal is not None:
            if parents is not None:
                self._legal.keep(self._rows(np.arange(self.count), parents))
            self._legal.advance(self.last_tokens().reshape(-1))
        return done

    def start(self, last_steps: Sequence[int], starts: Sequence[Start]) -> None:
        """Starts segments in the next free lanes; `last_steps` are those that still belong to them."""
        for lane, start in enumerate(starts, self.count):
            self._num_given[lane] = len(start.given)
            self._given[lane, : len(start.given)] = start.given
        self.add(len(starts))
        if self._legal is not None:
            self._legal.add(last_steps)

    def free(self, kept: Int[np.ndarray, " kept"]) -> None:
        """Frees all lanes but those named, which are in this order from now on."""
        self.keep(kept)
        for state in (self._given, self._num_given):
            state[: len(kept)] = state[kept]
        if self._legal is not None:
            self._legal.keep(self._rows(kept, np.tile(np.arange(self.num_beams), (len(kept), 1))))

    def _rows(
        self, lanes: Int[np.ndarray, " lanes"], beams: Int[np.ndarray, "lanes beams"]
    ) -> Int[np.ndarray, " rows"]:
        return (lanes[:, None] * self.num_beams + beams).reshape(-1)

    def _candidates(
        self, logits: Float[Tensor, "rows vocab"]
    ) -> tuple[Int[np.ndarray, "rows candidates"], Float[np.ndarray, "rows candidates"]]:
        """The best next tokens of each sequence and their log probabilities, among those that are legal."""
        if self._legal is not None:
            is_last = self.lengths[: self.count] + 1 >= self._decoding.max_tokens
            self._legal.mask(logits, np.repeat(is_last, self.num_beams))
        return _best_tokens(logits, self.num_candidates)

    def _with_given(
        self,
        tokens: Int[np.ndarray, "lanes beams candidates"],
        log_probs: Float[np.ndarray, "lanes beams candidates"],
        lanes: Int[np.ndarray, " lanes"],
    ) -> tuple[Int[np.ndarray, "lanes beams candidates"], Float[np.ndarray, "lanes beams candidates"]]:
        """The continuations of these lanes; where the next token is given, it alone, and it is certain."""
        is_given = self.lengths[lanes] < self._num_given[lanes]
        if not is_given.any():
            return tokens, log_probs
        given = self._given[lanes[is_given], self.lengths[lanes[is_given]]]
        tokens, log_probs = tokens.copy(), log_probs.copy()
        tokens[is_given] = given[:, None, None]
        log_probs[is_given] = -np.inf
        log_probs[is_given, :, 0] = 0.0
        return tokens, log_probs

    @abc.abstractmethod
    def add(self, num_segments: int) -> None:
        """The method's own part of `start`."""

    @abc.abstractmethod
    def last_tokens(self) -> Int[np.ndarray, "lanes beams"]:
        """The tokens that the network reads next."""

    @abc.abstractmethod
    def advance(
        self,
        tokens: Int[np.ndarray, "lanes beams candidates"],
        log_probs: Float[np.ndarray, "lanes beams candidates"],
    ) -> tuple[Int[np.ndarray, "lanes beams"] | None, Bool[np.ndarray, " lanes"]]:
        """Processes the best continuations, best first. Returns the beams that continue (None: all, in the same
        order), and which lanes are done."""

    @abc.abstractmethod
    def result(self, lane: int) -> Generated:
        """The result of a lane."""

    @abc.abstractmethod
    def keep(self, kept: Int[np.ndarray, " kept"]) -> None:
        """The method's own part of `free`."""


class SingleSearch(Search):
    """`greedy` and `t5x`.

    With `t5x` an end token among the two best continuations makes the sequence so far a candidate, kept if its
    score beats the candidate before; the best other continuation continues until it can no longer win.
    """

    num_beams = 1

    def __init__(self, decoding: Decoding, num_lanes: int, legal: LegalTokens | None = None) -> None:
        super().__init__(decoding, num_lanes, legal)
        self.num_candidates = 1 if decoding.method == "greedy" else 2
        self._tokens = np.zeros((num_lanes, decoding.max_tokens), np.int32)
        self._token_log_probs = np.zeros((num_lanes, decoding.max_tokens), np.float32)
        self._log_probs = np.zeros(num_lanes)
        self._kept_lengths = np.zeros(num_lanes, np.int64)
        self._kept_scores = np.zeros(num_lanes)
        self._kept_end_log_probs = np.zeros(num_lanes, np.float32)

    def step(self, lanes: Lanes) -> Bool[np.ndarray, " lanes"]:
        """With few lanes, also reads guessed tokens and keeps those that were right."""
        width = min(MOST_GUESSES, ROWS_OF_GUESSES // self.count - 1)
        guesses = self.guesses(width) if self.count <= FEW_LANES else None
        if guesses is None:
            return super().step(lanes)
        read = np.concatenate([self.last_tokens(), guesses], axis=1)
        logits = lanes.step(read)
        if self._legal is not None:
            is_last = self.lengths[: self.count, None] + np.arange(1, read.shape[1] + 1) >= self._decoding.max_tokens
            self._legal.mask_ahead(logits.view(*read.shape, -1), is_last, guesses)
        tokens, log_probs = _best_tokens(logits, self.num_candidates)
        shape = (*read.shape, 1, self.num_candidates)
        tokens, log_probs = tokens.reshape(shape), log_probs.reshape(shape)
        taken = np.zeros(self.count, np.int64)
        done = np.zeros(self.count, bool)
        right = np.arange(self.count)  # the lanes where all tokens read so far are the chosen ones
        for column in range(read.shape[1]):
            _, done[right] = self.advance(tokens[right, column], log_probs[right, column], right)
            taken[right] += 1
            if self._legal is not None:
                is_right = np.isin(np.arange(self.count), right)
                self._legal.advance(np.where(is_right, self.last_tokens()[:, 0], PAD_ID))
            if column < guesses.shape[1]:
                right = right[~done[right] & (self.last_tokens()[right, 0] == guesses[right, column])]
        lanes.take_back(read.shape[1] - taken)
        return done

    def add(self, num_segments: int) -> None:
        new = slice(self.count, self.count + num_segments)
        self.lengths[new] = 0
        self._log_probs[new] = 0.0
        self._kept_lengths[new] = 0
        self._kept_scores[new] = -np.inf
        self.count += num_segments

    def last_tokens(self) -> Int[np.ndarray, "lanes beams"]:
        lanes = np.arange(self.count)
        lengths = self.lengths[: self.count]
        return np.where(lengths > 0, self._tokens[lanes, lengths - 1], START_TOKEN)[:, None]

    def advance(
        self,
        tokens: Int[np.ndarray, "lanes beams candidates"],
        log_probs: Float[np.ndarray, "lanes beams candidates"],
        lanes: Int[np.ndarray, " lanes"] | None = None,
    ) -> tuple[Int[np.ndarray, "lanes beams"] | None, Bool[np.ndarray, " lanes"]]:
        """As in `Search`; here also for only some of the lanes."""
        lanes = np.arange(self.count) if lanes is None else lanes
        tokens, log_probs = self._with_given(tokens, log_probs, lanes)
        tokens, log_probs = tokens[:, 0], log_probs[:, 0]
        totals = self._log_probs[lanes, None] + log_probs
        self.lengths[lanes] += 1
        lengths = self.lengths[lanes]

        is_end = tokens == END_TOKEN
        scores = np.where(is_end, totals, -np.inf).max(axis=1) / self._penalty(lengths)
        kept = scores > self._kept_scores[lanes]
        self._kept_scores[lanes[kept]] = scores[kept]
        self._kept_lengths[lanes[kept]] = lengths[kept]
        self._kept_end_log_probs[lanes[kept]] = np.where(is_end, log_probs, -np.inf).max(axis=1)[kept]

        # Greedy search sees one continuation only, and is done if that is the end.
        chosen = np.where(is_end[:, 0], self.num_candidates - 1, 0)
        rows = np.arange(len(lanes))
        self._tokens[lanes, lengths - 1] = tokens[rows, chosen]
        self._token_log_probs[lanes, lengths - 1] = log_probs[rows, chosen]
        self._log_probs[lanes] = totals[rows, chosen]
        done = lengths >= self._decoding.max_tokens
        if self.num_candidates == 1:
            return None, done | is_end[:, 0]
        return None, done | (self._kept_scores[lanes] > self._log_probs[lanes] / self._last_penalty)

    def guesses(self, width: int) -> Int[np.ndarray, "lanes width"] | None:
        """Guesses how each lane continues: with what followed when it last wrote its two latest tokens, repeatedly.

        Tokens that are given need no guess. None if no lane has any, and none has written its latest two before, or if
        there is no room for that many tokens.
        """
        if self.lengths[: self.count].max() + width >= self._decoding.max_tokens:
            return None
        guesses = np.full((self.count, width), END_TOKEN, np.int32)
        found = False
        for lane in range(self.count):
            given = self._given[lane, self.lengths[lane] : self._num_given[lane]][:width]
            if len(given):
                guesses[lane, : len(given)] = given
                found = True
                continue
            tokens = self._tokens[lane, : self.lengths[lane]]
            earlier = np.flatnonzero((tokens[1:-1] == tokens[-1:]) & (tokens[:-2] == tokens[-2:-1]))
            if len(earlier):
                guesses[lane] = np.resize(tokens[earlier[-1] + 2 :], width)
                found = True
        return guesses if found else None

    def result(self, lane: int) -> Generated:
        return generated(
            self._decoding,
            self._tokens[lane],
            self._token_log_probs[lane],
            int(self.lengths[lane]),
            float(self._log_probs[lane]),
            Kept(int(self._kept_lengths[lane]), float(self._kept_scores[lane]), float(self._kept_end_log_probs[lane])),
        )

    def keep(self, kept: Int[np.ndarray, " kept"]) -> None:
        self.count = len(kept)
        for state in (
            self.lengths,
            self._tokens,
            self._token_log_probs,
            self._log_probs,
            self._kept_lengths,
            self._kept_scores,
            self._kept_end_log_probs,
        ):
            state[: self.count] = state[kept]

    def _penalty(self, lengths: Int[np.ndarray, " lanes"] | int) -> np.ndarray | float:
        return brevity_penalty(self._decoding.length_penalty, lengths)


class Kept(NamedTuple):
    """The kept candidate: the running sequence's first `length - 1` tokens and the end token; none if it is 0."""

    length: int
    score: float
    end_log_prob: float


def generated(
    decoding: Decoding,
    tokens: Int[np.ndarray, " tokens"],
    log_probs: Float[np.ndarray, " tokens"],
    length: int,
    log_prob: float,
    kept: Kept,
) -> Generated:
    """The result of a running sequence of `length` tokens and probability `exp(log_prob)`, and a kept candidate."""
    if kept.length == 0:
        score = log_prob / brevity_penalty(decoding.length_penalty, length)
        return Generated(tokens[:length].copy(), float(score), log_probs[:length].copy())
    tokens, log_probs = tokens[: kept.length].copy(), log_probs[: kept.length].copy()
    tokens[-1], log_probs[-1] = END_TOKEN, kept.end_log_prob
    return Generated(tokens, kept.score, log_probs)


def _best_tokens(
    logits: Float[Tensor, "rows vocab"], count: int
) -> tuple[Int[np.ndarray, "rows candidates"], Float[np.ndarray, "rows candidates"]]:
    """The best tokens of each row and their log probabilities."""
    top = logits.topk(count, dim=-1)
    # Token numbers are exact in float32, and one transfer from the device is faster than two.
    joined = torch.cat([top.values - logits.logsumexp(dim=-1, keepdim=True), top.indices.float()], dim=-1)
    rows = joined.cpu().numpy()
    return rows[:, count:].astype(np.int64), rows[:, :count]
