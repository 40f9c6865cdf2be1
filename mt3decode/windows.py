"""Overlapping windows: every moment is transcribed from the middle of one, where the network hears what is around it.

A window is as long as a segment, and `overlap` windows hear every moment. Of what the network writes for a window, only
the middle is kept (of the first and the last also the outer ends), rewritten as the tokens of a short segment of its
own: its tie section names what sounds at its start by the window's own account. So everything that reads segments
reads these. The cost is `overlap` times as many segments.

Two windows may place the same onset on either side of their border. One that the window before has written within
`NEAR_SECONDS` is not written again, and one that this window has heard so shortly before the border is written at it
if the window before has not.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mt3core.config.model import ModelConfig, VocabularyConfig
from mt3core.decoding import Generated
from mt3core.notes.encoding import SegmentEncoder, SegmentEvents, tie_keys
from mt3core.notes.vocabulary import Vocabulary
from mt3core.segments import AudioSegment, num_frames
from mt3decode.sound import Levels

NEAR_SECONDS = 0.05  # the tolerance within which onsets count as the same in evaluation
DRUMS = -1  # instead of a program
Key = tuple[int, int]  # program, or DRUMS, and pitch


@dataclass(frozen=True)
class Hit:
    """An onset, or with velocity 0 an end; the step counts from the start of the recording, the velocity is its bin."""

    step: int
    program: int
    pitch: int
    velocity: int
    # The log probabilities of the shifts to it, of its pitch and of the program in force.
    log_probs: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def key(self) -> Key:
        return self.program, self.pitch


def windows(num_samples: int, config: ModelConfig, overlap: int) -> list[AudioSegment]:
    """The windows of a recording, in order; `start_seconds` is where each one's kept part starts.

    The kept part of each ends where that of the next starts. A recording of one segment is one window.
    """
    total = num_frames(num_samples, config.spectrogram.hop_samples)
    length = config.network.input_frames
    hop = window_hop(config, overlap)
    return [
        AudioSegment(index, index * hop, min(length, total - index * hop), window_start_seconds(index, config, overlap))
        for index in range(max(-(-(total - length) // hop), 0) + 1)
    ]


def window_hop(config: ModelConfig, overlap: int) -> int:
    """Frames from the start of one window to the next."""
    return max(config.network.input_frames // overlap, 1)


def window_start_seconds(index: int, config: ModelConfig, overlap: int) -> float:
    """Where the kept part of a window starts."""
    hop = window_hop(config, overlap)
    encoder = _encoder(config.vocabulary, config.spectrogram.frames_per_second)
    # The exact step, not `segment_start_seconds`, which is one step too early for many times on the grid.
    step = encoder.frame_step(index * hop + ((config.network.input_frames - hop) // 2 if index else 0))
    return step / config.vocabulary.steps_per_second


@lru_cache
def _encoder(config: VocabularyConfig, frames_per_second: float) -> SegmentEncoder:
    return SegmentEncoder(config, frames_per_second)


Part = tuple[AudioSegment, AudioSegment | None, Generated, int]


class Heard(NamedTuple):
    """A segment or window, the one that follows (None after the last), and what the network wrote for it.

    Where windows are weighed, also how loud the recording is in it.
    """

    piece: AudioSegment
    following: AudioSegment | None
    generated: Generated
    levels: Levels | None = None


class Parts(abc.ABC):
    """Segments or windows on their way to notes: each is added in order, and taken in order once it `is_known`.

    A part is taken with the segment that it belongs to, the one that follows (None after the last), the tokens of
    its kept part, and how many of its events made no sense.
    """

    def __init__(self) -> None:
        self.num_heard = 0
        self._heard: dict[int, Heard] = {}

    def add(self, heard: Heard) -> None:
        self._heard[self.num_heard] = heard._replace(levels=None)
        self.num_heard += 1

    def is_known(self, number: int) -> bool:
        """Whether a part has been added, and nothing that is added later can change it."""
        return number < self.num_heard

    def take(self, number: int, sounding: Iterable[Key]) -> Part:
        """A part; `sounding` are the notes, as (program, pitch), that sound after the parts before it."""
        heard = self._heard.pop(number)
        return heard.piece, heard.following, *self._rewritten(number, heard, sounding)

    @abc.abstractmethod
    def _rewritten(self, number: int, heard: Heard, sounding: Iterable[Key]) -> tuple[Generated, int]: ...


class WholeParts(Parts):
    """Segments that do not overlap: they are kept as they are."""

    def _rewritten(self, number: int, heard: Heard, sounding: Iterable[Key]) -> tuple[Generated, int]:
        return heard.generated, 0


class MiddleParts(Parts):
    """Rewrites the tokens of windows as those of their kept parts."""

    def __init__(self, config: ModelConfig, is_grammatical: bool = False) -> None:
        super().__init__()
        self._config = config
        # As for the decoder of notes, see there.
        self._may_end_anything = is_grammatical and config.vocabulary.shortest_repeat_seconds > 0
        self._vocabulary = Vocabulary(config.vocabulary)
        self._encoder = SegmentEncoder(config.vocabulary, config.spectrogram.frames_per_second)
        self._near = round(NEAR_SECONDS * config.vocabulary.steps_per_second)
        # The step of each one's latest onset, from the start of the recording; None before the first window.
        self._latest: dict[Key, int] | None = None

    def _rewritten(self, number: int, heard: Heard, sounding: Iterable[Key]) -> tuple[Generated, int]:
        return self.rewrite(heard.piece, heard.following, heard.generated, sounding)

    def rewrite(
        self,
        window: AudioSegment,
        following: AudioSegment | None,
        generated: Generated,
        sounding: Iterable[Key],
    ) -> tuple[Generated, int]:
        """The kept part's tokens with their log probabilities, and how many events of the window made no sense.

        `following` is the next window. `sounding` are the notes, as (program, pitch), that sound after the windows
        before: only those can be tied.
        """
        start = self._step(window.start_seconds)
        end = math.inf if following is None else self._step(following.start_seconds)
        before, latest = self._latest, dict(self._latest or {})
        ties, hits, num_ignored = self.read(window, generated)

        def is_known(key: Key, step: int) -> bool:
            return before is not None and key in before and step - before[key] <= self._near

        # What sounds at the start by the window's account, and onsets just before it that nobody has written.
        held = dict.fromkeys(ties, Hit(0, 0, 0, 0))
        late: dict[Key, Hit] = {}
        for hit in hits:
            if hit.step >= start:
                break
            late.pop(hit.key, None)
            held.pop(hit.key, None)
            if not hit.velocity:
                continue
            if before is not None and start - hit.step <= self._near and not is_known(hit.key, hit.step):
                late[hit.key] = hit
            elif hit.program != DRUMS:
                held[hit.key] = hit
        tied = {key for key in held if key not in late} & set(sounding)
        active = set(tied)
        kept: list[Hit] = []
        for hit in [*(replace(hit, step=start) for hit in late.values()), *hits]:
            if not start <= hit.step < end:
                continue
            if hit.velocity:
                if is_known(hit.key, hit.step):
                    continue
                latest[hit.key] = hit.step
                active.add(hit.key)
            elif hit.key not in active:
                continue
            else:
                active.remove(hit.key)
            kept.append(hit)
        self._latest = latest
        tokens = self.written(start, kept, tied)
        log_probs = None if generated.log_probabilities is None else self.log_probabilities(tokens, kept)
        return Generated(tokens, generated.score, log_probs), num_ignored

    def read(self, window: AudioSegment, generated: Generated) -> tuple[list[Key], list[Hit], int]:
        """The notes of the tie section, and the onsets and ends in order; the number of events that made no sense."""
        config, first = self._config.vocabulary, self._encoder.frame_step(window.first_frame)
        meanings = self._vocabulary.meanings
        in_ties = config.ties and not config.onsets_only
        program, velocity, shifted, time, last = 0, config.velocity_bins, 0, first, first
        ties: list[Key] = []
        hits: list[Hit] = []
        sounds: set[Key] = set()
        num_ignored = 0
        events = self._vocabulary.events_before_end(generated.tokens).tolist()
        known = generated.log_probabilities
        log_probs = [0.0] * len(events) if known is None else known.tolist()
        of_shift, of_program, is_shifting = 0.0, 0.0, False
        for event, log_prob in zip(events, log_probs, strict=False):  # the end token is no event
            if not 0 <= event < len(meanings):
                num_ignored += 1
                continue
            kind, value = meanings[event]
            if kind == "shift":
                of_shift = log_prob + (of_shift if is_shifting else 0.0)
                is_shifting, shifted = True, shifted + value
                time = first + shifted
                continue
            is_shifting, shifted = False, 0
            if time < last and not config.onsets_only:
                num_ignored += 1
                continue
            last = time
            if kind == "program":
                program, of_program = value, log_prob
            elif kind == "velocity":
                velocity = value
            elif kind == "tie":
                num_ignored += not in_ties
                in_ties = False
            elif kind == "pitch" and in_ties:
                ties.append((program, value))
                sounds.add((program, value))
            else:
                sureness = (of_shift, log_prob, 0.0 if kind == "drum" else of_program)
                hit = Hit(time, DRUMS if kind == "drum" else program, value, velocity, sureness)
                is_ignored = not velocity and (kind == "drum" or hit.key not in sounds)
                num_ignored += is_ignored and (kind == "drum" or not self._may_end_anything)
                if not is_ignored:
                    hits.append(hit)
                    (sounds.add if velocity else sounds.discard)(hit.key)
        return ties, sorted(hits, key=lambda hit: hit.step), num_ignored

    def written(self, start: int, hits: list[Hit], tied: Iterable[Key]) -> Int[np.ndarray, " tokens"]:
        config, first_id = self._config.vocabulary, self._vocabulary.first_id
        table = np.full((len(hits), 3), -1, np.int32)
        for row, hit in zip(table, hits, strict=True):
            is_drum = hit.program == DRUMS
            if not config.onsets_only:
                row[1] = first_id("velocity") + hit.velocity
                if not is_drum and config.program_granularity != "flat":
                    row[0] = first_id("program") + hit.program
            row[2] = first_id("drum" if is_drum else "pitch") + hit.pitch
        steps = np.array([hit.step - start for hit in hits], np.int64)
        return self._encoder.tokens(SegmentEvents(steps, table, tie_keys(tied)))

    def log_probabilities(self, tokens: Int[np.ndarray, " tokens"], hits: list[Hit]) -> Float[np.ndarray, " tokens"]:
        """Those of the tokens that were written for the hits, in order; ties, velocities and the end are certain."""
        found = np.zeros(len(tokens), np.float32)
        events = self._vocabulary.tokens_to_events(tokens)
        kinds = {kind: self._vocabulary.is_type(kind, events) for kind in self._vocabulary.event_ranges}
        after_ties = np.cumsum(kinds["tie"]) > 0 if kinds["tie"].any() else np.ones(len(tokens), bool)
        is_hit = (kinds["pitch"] | kinds["drum"]) & after_ties
        # The hit that each token belongs to: the first whose pitch or drum is not before it.
        number = np.minimum(np.cumsum(is_hit) - is_hit, max(len(hits) - 1, 0))
        for part, is_part in enumerate((kinds["shift"], is_hit, kinds["program"] & after_ties)):
            for place in np.flatnonzero(is_part):
                found[place] = hits[number[place]].log_probs[part]
        return found

    def _step(self, seconds: float) -> int:
        return round(seconds * self._config.vocabulary.steps_per_second)
