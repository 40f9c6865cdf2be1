"""T5X's beam search (`t5x/decoding.py`, `beam_search`), each lane at its own step; bookkeeping in NumPy.

Each step looks at the 2K best continuations of K running sequences. Those that end compete for K places of
finished sequences by score, log probability over brevity penalty; the best K others continue.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from mt3core.decoding import END_TOKEN, START_TOKEN, Decoding, Generated, brevity_penalty
from mt3torch.legal import LegalTokens
from mt3torch.search import Search

# T5X's stand-in for minus infinity.
NEGATIVE_INFINITY = -1.0e7


class BeamSearch(Search):
    """With one beam it is `t5x`."""

    def __init__(self, decoding: Decoding, num_lanes: int, legal: LegalTokens | None = None) -> None:
        super().__init__(decoding, num_lanes, legal)
        beams = decoding.num_beams
        self.num_beams = beams
        self.num_candidates = 2 * beams
        self._tokens = np.zeros((num_lanes, beams, decoding.max_tokens), np.int32)
        self._token_log_probs = np.zeros((num_lanes, beams, decoding.max_tokens), np.float32)
        self._log_probs = np.zeros((num_lanes, beams))
        self._finished_tokens = np.zeros((num_lanes, beams, decoding.max_tokens), np.int32)
        self._finished_log_probs = np.zeros((num_lanes, beams, decoding.max_tokens), np.float32)
        self._finished_lengths = np.zeros((num_lanes, beams), np.int64)
        self._finished_scores = np.zeros((num_lanes, beams))

    def add(self, num_segments: int) -> None:
        new = slice(self.count, self.count + num_segments)
        self.lengths[new] = 0
        # All beams start alike, so only the first one may continue at the first step.
        self._log_probs[new] = NEGATIVE_INFINITY
        self._log_probs[new, 0] = 0.0
        self._finished_lengths[new] = 0
        self._finished_scores[new] = NEGATIVE_INFINITY
        self.count += num_segments

    def last_tokens(self) -> Int[np.ndarray, "lanes beams"]:
        lengths = self.lengths[: self.count]
        last = self._tokens[np.arange(self.count), :, lengths - 1]
        return np.where(lengths[:, None] > 0, last, START_TOKEN)

    def advance(
        self,
        tokens: Int[np.ndarray, "lanes beams candidates"],
        log_probs: Float[np.ndarray, "lanes beams candidates"],
    ) -> tuple[Int[np.ndarray, "lanes beams"] | None, Bool[np.ndarray, " lanes"]]:
        occupied = slice(0, self.count)
        tokens, log_probs = self._with_given(tokens, log_probs, np.arange(self.count))
        lanes = np.arange(self.count)[:, None]
        self.lengths[occupied] += 1
        lengths = self.lengths[occupied]

        totals = (self._log_probs[occupied, :, None] + log_probs).reshape(self.count, -1)
        best = _best(totals, self.num_candidates)
        parents = best // self.num_candidates
        totals, chosen = totals[lanes, best], tokens.reshape(self.count, -1)[lanes, best]
        chosen_log_probs = log_probs.reshape(self.count, -1)[lanes, best]
        is_end = chosen == END_TOKEN

        self._finish(parents, np.where(is_end, totals, NEGATIVE_INFINITY), is_end, chosen_log_probs)
        running = _best(np.where(is_end, NEGATIVE_INFINITY, totals), self.num_beams)
        parents = parents[lanes, running]
        self._tokens[occupied] = self._tokens[lanes, parents]
        self._tokens[lanes[:, 0], :, lengths - 1] = chosen[lanes, running]
        self._token_log_probs[occupied] = self._token_log_probs[lanes, parents]
        self._token_log_probs[lanes[:, 0], :, lengths - 1] = chosen_log_probs[lanes, running]
        self._log_probs[occupied] = totals[lanes, running]

        full = (self._finished_lengths[occupied] > 0).all(axis=1)
        worst = self._finished_scores[occupied].min(axis=1)
        over = full & (worst > self._log_probs[occupied, 0] / self._last_penalty)
        return parents, over | (lengths >= self._decoding.max_tokens)

    def _finish(
        self,
        parents: Int[np.ndarray, "lanes candidates"],
        totals: Float[np.ndarray, "lanes candidates"],
        is_end: Bool[np.ndarray, "lanes candidates"],
        end_log_probs: Float[np.ndarray, "lanes candidates"],
    ) -> None:
        """Lets the sequences that end now compete with those that finished before."""
        if not is_end.any():
            return
        occupied = slice(0, self.count)
        lanes = np.arange(self.count)[:, None]
        lengths = self.lengths[occupied]
        tokens = self._tokens[lanes, parents]
        tokens[lanes[:, 0], :, lengths - 1] = END_TOKEN
        log_probs = self._token_log_probs[lanes, parents]
        log_probs[lanes[:, 0], :, lengths - 1] = end_log_probs
        scores = totals / brevity_penalty(self._decoding.length_penalty, lengths)[:, None]
        scores = np.concatenate([self._finished_scores[occupied], scores], axis=1)
        new_lengths = np.where(is_end, lengths[:, None], 0)
        all_lengths = np.concatenate([self._finished_lengths[occupied], new_lengths], axis=1)
        # Sequences that have not ended only fill places, after all that have.
        scores = np.where(all_lengths > 0, scores, NEGATIVE_INFINITY)
        kept = _best(scores, self.num_beams)
        for finished, new in ((self._finished_tokens, tokens), (self._finished_log_probs, log_probs)):
            finished[occupied] = np.concatenate([finished[occupied], new], axis=1)[lanes, kept]
        self._finished_scores[occupied] = scores[lanes, kept]
        self._finished_lengths[occupied] = all_lengths[lanes, kept]

    def result(self, lane: int) -> Generated:
        length = self._finished_lengths[lane, 0]
        if length > 0:
            tokens, score = self._finished_tokens[lane, 0], self._finished_scores[lane, 0]
            log_probs = self._finished_log_probs[lane, 0]
        else:
            length = self.lengths[lane]
            penalty = brevity_penalty(self._decoding.length_penalty, length)
            tokens, score = self._tokens[lane, 0], self._log_probs[lane, 0] / penalty
            log_probs = self._token_log_probs[lane, 0]
        return Generated(tokens[:length].copy(), float(score), log_probs[:length].copy())

    def keep(self, kept: Int[np.ndarray, " kept"]) -> None:
        self.count = len(kept)
        for state in (
            self.lengths,
            self._tokens,
            self._token_log_probs,
            self._log_probs,
            self._finished_tokens,
            self._finished_log_probs,
            self._finished_lengths,
            self._finished_scores,
        ):
            state[: self.count] = state[kept]


def _best(scores: Float[np.ndarray, "lanes all"], number: int) -> Int[np.ndarray, "lanes number"]:
    """Indices of the largest, best first; of equal ones the first comes first, as in `jax.lax.top_k`."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :number]
