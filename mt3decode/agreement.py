"""Agreement: where four windows hear every moment, those onsets are believed on which enough of them agree.

A window's network is surest about its own middle, so `windows.py` believes that one alone. But the others know
something too: what only one of four hears is mostly wrong, what all of them hear mostly right. Here the windows' onsets
of one pitch within `SAME_SECONDS` become one candidate, and a small network gives the probability that it is right:
from who hears it and how surely, from what else is heard at the same time (octaves and neighbours are the usual
mistakes), from how well the windows agree around it, and from the sound itself (`sound.py`). One layer of hidden units
is enough, and a line too little: what a level means depends on the others. The numbers belong to the model
(`ModelConfig.agreement`; `benchmarks/agreement.py` fits them to pieces with known notes).

Windows that hear the same sounds make the same mistakes. So every other one hears the music a semitone higher
(`SEMITONES`): its mistakes are others, and what both hear is more often right. Such a window hears a
little more than a window's length; there nobody asks it.

The expected F1 of a choice from notes of known probability is highest if everything above a threshold is kept, which is
half of that F1 (Lipton, Elkan and Naryanaswamy 2014, arXiv:1402.1892). So the threshold adapts to the music: it is the
best one for the candidates of the last moments, if `FOUND_SHARE` of what sounds is among them.

Windows also give a note different ends. One of the earlier ends is taken (`END_RANK`), and a note sounds on into the
next part if `STILL_SHARE` of the windows say so.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from mt3core.config.model import AGREEMENT_NUMBERS, ModelConfig
from mt3core.decoding import Generated
from mt3core.notes.encoding import SegmentEncoder
from mt3core.segments import AudioSegment
from mt3decode.sound import FRAMES_AFTER, FRAMES_BEFORE, NUM_DRUM_FEATURES, NUM_PITCHED_FEATURES, SoundSoFar
from mt3decode.windows import DRUMS, NEAR_SECONDS, Heard, Hit, Key, MiddleParts, Parts

OVERLAP = 4  # windows that hear every moment, for which the networks are fitted
SEMITONES = (0, 1)  # by which the windows hear the music higher than it is, in turn
SAME_SECONDS = 0.06
CONTEXT = 0.5  # of a window's length, before and after a candidate: what is heard at the same time
MEMORY = 2.0  # window lengths: the candidates before it that decide about the threshold
MARGIN = 6.0  # window lengths around a part: no window farther away matters to it
FOUND_SHARE = 0.8
# By the F1 of onsets and offsets on rendered pieces that `small` has not learned from.
STILL_SHARE = 0.75  # of the windows that must hear a note sound on
END_RANK = 0.34  # among the ends that the windows give a note, from the earliest (0) to the latest (1)
_CHORD_SECONDS, _REPEAT_SECONDS = 0.045, 0.12
_INTERVALS = (-24, -19, -12, -1, 1, 12, 19)
_LEAST_LOG_PROBABILITY = -10.0
_GREATEST = 600.0  # number whose exponential is finite
NUM_HEARD_FEATURES = 2 * OVERLAP + 10 + 2 * len(_INTERVALS) + 10
NUM_FEATURES = NUM_HEARD_FEATURES + NUM_PITCHED_FEATURES, NUM_HEARD_FEATURES + NUM_DRUM_FEATURES
NUM_HIDDEN = 32, 16
for _features, _hidden, _numbers in zip(NUM_FEATURES, NUM_HIDDEN, AGREEMENT_NUMBERS, strict=True):
    assert _numbers == _hidden * (_features + 2) + 1


@dataclass(frozen=True)
class Sounding:
    """A pitched note as one window hears it, in steps of the recording: it may begin before the window or end after."""

    pitch: int
    start: float
    end: float


@dataclass(frozen=True)
class Window:
    """Its first step, the one after its last, where its kept part starts, and what it hears."""

    first: int
    after: int
    start: int
    notes: list[Sounding]
    num_ignored: int

    def hears(self, step: int) -> bool:
        return self.first <= step < self.after

    def depth(self, step: int) -> int:
        """Steps from the nearer border."""
        return min(step - self.first, self.after - step)


@dataclass
class Candidate:
    """Onsets of one pitch (or one drum) that are taken for the same, by the number of the window; filled in order."""

    key: Key  # DRUMS or 0, and the pitch: other programs are the same candidate
    hits: dict[int, Hit]
    first_step: int
    step: int = 0  # of the window in whose middle it is
    center: int = 0  # that window
    share: float = 0.0  # of the windows that hear this moment
    own: list[float] = field(default_factory=list)  # the features that need no other candidate
    probability: float | None = None

    @property
    def order(self) -> tuple[int, Key]:
        return self.step, self.key


class AgreedParts(Parts):
    """Rewrites the tokens of windows as those of their kept parts, with the onsets on which the windows agree.

    Nothing else than the windows within `MARGIN` of their length matters to a part.
    """

    def __init__(self, config: ModelConfig, is_grammatical: bool = False) -> None:
        super().__init__()
        self._middle = MiddleParts(config, is_grammatical)
        self._networks = [Weighing.of(numbers, kind) for kind, numbers in enumerate(config.agreement)]
        self._encoder = SegmentEncoder(config.vocabulary, config.spectrogram.frames_per_second)
        self._per_second = config.vocabulary.steps_per_second
        self._frames_per_step = config.spectrogram.frames_per_second / self._per_second
        self._length = self._encoder.frame_step(config.network.input_frames)
        self._near = round(NEAR_SECONDS * self._per_second)
        self._same = math.ceil(SAME_SECONDS * self._per_second)
        self._context, self._memory = round(CONTEXT * self._length), round(MEMORY * self._length)
        self._chord, self._repeat = (round(seconds * self._per_second) for seconds in (_CHORD_SECONDS, _REPEAT_SECONDS))
        self._windows: dict[int, Window] = {}  # that a part can still need
        self._sound = SoundSoFar()
        self._waiting: list[tuple[int, int, Hit]] = []
        self._growing: dict[Key, Candidate] = {}
        self._candidates: list[Candidate] = []
        self._complete = 0.0  # all onsets before this step are known
        self._is_closed = False

    def add(self, heard: Heard) -> None:
        """Raises `ValueError` for a window without levels."""
        number, window, following, generated = self.num_heard, heard.piece, heard.following, heard.generated
        if heard.levels is None:
            raise ValueError("Windows are weighed with the levels of the recording.")
        super().add(heard)
        self._sound.add(heard.levels)
        ties, hits, num_ignored = self._middle.read(window, generated)
        first, start = self._encoder.frame_step(window.first_frame), round(window.start_seconds * self._per_second)
        after = self._encoder.frame_step(window.first_frame + round(window.num_frames * window.pace))
        if window.semitones:
            ties, hits = as_played(ties, hits, window, first)
        self._windows[number] = Window(first, after, start, notes_of(ties, hits), num_ignored)
        self._waiting += [(hit.step, number, hit) for hit in hits if hit.velocity]
        self._is_closed = following is None
        # A window that is still to come begins later than this one.
        self._sort_out(math.inf if self._is_closed else first)

    def _sort_out(self, complete: float) -> None:
        """Makes candidates of the onsets before a step, which no later window can add to."""
        self._complete = complete
        self._waiting.sort(key=lambda one: one[:2])
        split = bisect.bisect_left([step for step, _, _ in self._waiting], complete)
        for step, window, hit in self._waiting[:split]:
            key = (DRUMS if hit.program == DRUMS else 0), hit.pitch
            growing = self._growing.get(key)
            if growing is None or step - growing.first_step > self._same or window in growing.hits:
                self._close(key)
                self._growing[key] = Candidate(key, {window: hit}, step)
            else:
                growing.hits[window] = hit
        del self._waiting[:split]
        for key in [key for key, one in self._growing.items() if complete - one.first_step > self._same]:
            self._close(key)

    def is_known(self, number: int) -> bool:
        if number + 1 >= self.num_heard:
            return self._is_closed and number < self.num_heard
        # Those that decide about a candidate's threshold are up to a context ahead of it. They look a context ahead
        # themselves, and at the levels there: of every frame before a complete step, these are known.
        ahead = max(self._context, math.ceil(FRAMES_AFTER / self._frames_per_step))
        return self._end(number) + self._context + ahead + 2 * self._same < self._complete

    def _rewritten(self, number: int, heard: Heard, sounding: Iterable[Key]) -> tuple[Generated, int]:
        window, end = self._windows[number], self._end(number)
        start = window.start
        onsets = [self._onset(one) for one in self._believed(start, end)]
        tied = {key for key in sounding if self._still_sounds(key[1], number)}
        kept = sorted([*onsets, *self._ends(number, onsets, tied)], key=lambda hit: (hit.step, hit.velocity > 0))
        tokens = self._middle.written(start, kept, tied)
        log_probs = self._middle.log_probabilities(tokens, kept)
        self._forget(number)
        return Generated(tokens, heard.generated.score, log_probs), window.num_ignored

    def candidates(self) -> list[tuple[Candidate, np.ndarray]]:
        """All candidates of a recording whose windows were all added, with their features: for fitting."""
        return [(one, self._features(one)) for one in self._candidates]

    # ---- Candidates

    def _close(self, key: Key) -> None:
        """The growing candidate has all its onsets: what follows from them alone, and its place among the others."""
        candidate = self._growing.pop(key, None)
        if candidate is None:
            return
        hits = candidate.hits
        candidate.center = max(hits, key=lambda number: (self._windows[number].depth(hits[number].step), -number))
        step = candidate.step = hits[candidate.center].step
        hearing = [
            number for number in self._around(candidate.center) if self._windows[number].hears(step) or number in hits
        ]
        hearing.sort(key=lambda number: (-self._windows[number].depth(step), number))
        candidate.share = len(hits) / len(hearing)
        candidate.own = self._own_features(candidate, hearing[:OVERLAP])
        bisect.insort(self._candidates, candidate, key=lambda one: one.order)

    def _around(self, number: int) -> list[int]:
        """The windows that overlap with one, and it."""
        return [one for one in range(number - OVERLAP, number + OVERLAP) if one in self._windows]

    def _own_features(self, candidate: Candidate, hearing: list[int]) -> list[float]:
        hits = candidate.hits
        sureness = {window: max(sum(hit.log_probs[:2]), _LEAST_LOG_PROBABILITY) for window, hit in hits.items()}
        values: list[float] = []
        for rank in range(OVERLAP):
            window = hearing[rank] if rank < len(hearing) else None
            values += [1.0, sureness[window]] if window in hits else [0.0, 0.0]
        of_programs = [max(hit.log_probs[2], _LEAST_LOG_PROBABILITY) for hit in hits.values()]
        distances = [abs(hit.step - candidate.step) / self._near for hit in hits.values()]
        pitch = candidate.key[1] / 64 - 1
        return [
            *values,
            candidate.share**2,
            float(len(hits) == 1),
            float(candidate.share == 1),
            float(len(hearing) < OVERLAP),
            max(sureness.values()),
            float(np.mean(of_programs)),
            pitch,
            pitch**2,
            float(np.mean(distances)),
            self._held(candidate, hearing),
        ]

    def _held(self, candidate: Candidate, hearing: list[int]) -> float:
        """The share of the windows that hear the pitch sound from before."""
        if candidate.key[0] == DRUMS:
            return 0.0
        pitch, step = candidate.key[1], candidate.step - self._near
        return sum(bool(self._ends_of(number, pitch, step)) for number in hearing) / len(hearing)

    def _features(self, candidate: Candidate) -> np.ndarray:
        is_drum, pitch = candidate.key
        shares: dict[int, float] = {}
        repeated, before, after, around = 0.0, 0.0, 0.0, []
        for other in self._between(candidate.step - self._context, candidate.step + self._context + 1):
            around.append(other.share)
            distance = abs(other.step - candidate.step)
            if other is candidate or other.key[0] != is_drum:
                continue
            if distance <= self._chord:
                shares[other.key[1]] = max(shares.get(other.key[1], 0.0), other.share)
            if other.key[1] == pitch:
                if distance < self._repeat:
                    repeated = max(repeated, other.share)
                if other.step < candidate.step:
                    before = max(before, other.share)
                else:
                    after = max(after, other.share)
        frame = round(candidate.step * self._frames_per_step)
        levels = self._sound.drum(frame, pitch) if is_drum else self._sound.pitched(frame, pitch)
        share, level = candidate.share, sum(around) / len(around)
        others = [shares.get(pitch + interval, 0.0) for interval in _INTERVALS]
        return np.array([
            *candidate.own,
            *others,
            *(share * other for other in others),
            sum(shares.values()) / 4,
            repeated,
            level,
            len(around) / 10,
            share * level,
            share * level**2,
            before,
            after,
            share * before,
            share * after,
            *levels,
        ])  # fmt: skip

    def _between(self, first_step: int, end_step: float) -> list[Candidate]:
        low = bisect.bisect_left(self._candidates, first_step, key=lambda one: one.step)
        return self._candidates[low : bisect.bisect_left(self._candidates, end_step, key=lambda one: one.step)]

    def _probability(self, candidate: Candidate) -> float:
        if candidate.probability is None:
            network = self._networks[int(candidate.key[0] == DRUMS)]
            candidate.probability = network(self._features(candidate))
        return candidate.probability

    # ---- Which are believed

    def _believed(self, start: int, end: float) -> list[Candidate]:
        found = []
        for candidate in self._between(start, end):
            # Of several that are nearly the same, the most probable.
            rivals = self._between(candidate.step - self._near, candidate.step + self._near + 1)
            best = max(
                (one for one in rivals if one.key == candidate.key),
                key=lambda one: (self._probability(one), -one.step),
            )
            if best is candidate and self._probability(candidate) >= self._threshold(candidate):
                found.append(candidate)
        return found

    def _threshold(self, candidate: Candidate) -> float:
        around = self._between(candidate.step - self._memory, candidate.step + self._context + 1)
        is_drum = candidate.key[0]
        return best_threshold(np.array([self._probability(one) for one in around if one.key[0] == is_drum]))

    def _onset(self, candidate: Candidate) -> Hit:
        """With the program that its windows favour together, and the rest from the window in whose middle it is."""
        hits = candidate.hits
        center = hits[candidate.center]
        votes: dict[int, float] = {}
        for hit in hits.values():
            votes[hit.program] = votes.get(hit.program, 0.0) + math.exp(hit.log_probs[2])
        program = max(votes, key=lambda one: (votes[one], one == center.program, -one))
        of_program = max(hit.log_probs[2] for hit in hits.values() if hit.program == program)
        return replace(center, program=program, log_probs=(*center.log_probs[:2], of_program))

    # ---- Ends and ties

    def _hearing(self, step: int, number: int) -> list[int]:
        """The windows around part `number` that hear a moment."""
        return [one for one in self._around(number) if self._windows[one].hears(step)]

    def _still_sounds(self, pitch: int, number: int) -> bool:
        """Whether enough of the windows that hear the start of a part hear this pitch there."""
        start = self._windows[number].start
        hearing = self._hearing(start, number)
        return sum(bool(self._ends_of(one, pitch, start)) for one in hearing) >= STILL_SHARE * len(hearing)

    def _ends_of(self, number: int, pitch: int, step: int) -> list[float]:
        """When a pitched note that sounds at a step, or begins nearly then, ends in a window; nothing if none does."""
        notes = self._windows[number].notes
        return [one.end for one in notes if one.pitch == pitch and one.start <= step + self._near and one.end > step]

    def _ends(self, number: int, onsets: list[Hit], tied: set[Key]) -> list[Hit]:
        """The ends in a part of the notes that are tied into it or begin in it."""
        start, end = self._windows[number].start, self._end(number)
        begun = [(key, start) for key in tied] + [(hit.key, hit.step) for hit in onsets if hit.program != DRUMS]
        ends = []
        for key, step in begun:
            found = self._ending(key[1], step, number)
            struck_again = min((hit.step for hit in onsets if hit.key == key and hit.step > step), default=math.inf)
            if step < found < min(end, struck_again):
                ends.append(Hit(int(found), *key, 0))
        return ends

    def _ending(self, pitch: int, step: int, number: int) -> float:
        """The end of a note that sounds from a step on; infinite if unknown."""
        ends = sorted(max(found) for one in self._hearing(step, number) if (found := self._ends_of(one, pitch, step)))
        return ends[int((len(ends) - 1) * END_RANK)] if ends else math.inf

    def _end(self, number: int) -> float:
        return math.inf if number + 1 == self.num_heard else self._windows[number + 1].start

    def _forget(self, number: int) -> None:
        """What no later part needs."""
        self._windows.pop(number - OVERLAP, None)
        oldest = self._windows[number].start - self._memory - self._context - self._near
        self._sound.forget(int(oldest * self._frames_per_step) - FRAMES_BEFORE)
        del self._candidates[: bisect.bisect_left(self._candidates, oldest, key=lambda one: one.step)]


def as_played(
    ties: Iterable[Key], hits: Iterable[Hit], window: AudioSegment, first: int
) -> tuple[list[Key], list[Hit]]:
    """What a window hears from its `first` step on, played faster, at the pitches and steps of the recording."""

    def pitch(key: Key) -> int:
        return key[1] if key[0] == DRUMS else key[1] - window.semitones

    def step(hit: Hit) -> int:
        return first + round((hit.step - first) * window.pace)

    # No recording has what would be heard beyond MIDI's pitches.
    played = [replace(hit, step=step(hit), pitch=pitch(hit.key)) for hit in hits if 0 <= pitch(hit.key) <= 127]
    return [(key[0], pitch(key)) for key in ties if 0 <= pitch(key) <= 127], played


def notes_of(ties: Iterable[Key], hits: Iterable[Hit]) -> list[Sounding]:
    """The pitched notes that a window hears."""
    notes: list[Sounding] = []
    begun: dict[Key, float] = dict.fromkeys(ties, -math.inf)
    for hit in hits:
        if hit.program == DRUMS:
            continue
        if hit.key in begun:
            notes.append(Sounding(hit.pitch, begun.pop(hit.key), hit.step))
        if hit.velocity:
            begun[hit.key] = hit.step
    return [*notes, *(Sounding(pitch, start, math.inf) for (_, pitch), start in begun.items())]


@dataclass(frozen=True)
class Weighing:
    """A network with one hidden layer, from the features of an onset to the probability that it is right.

    `hidden` (units, 1 + features) and `last` (1 + units) begin with the constants; the units are SiLU.
    """

    hidden: Float[np.ndarray, "units inputs"]
    last: Float[np.ndarray, " inputs"]

    @classmethod
    def of(cls, numbers: Sequence[float], kind: int) -> Weighing:
        """From `ModelConfig.agreement`: first `hidden`, row by row, then `last`; kind 1 is that of drum hits."""
        split = NUM_HIDDEN[kind] * (1 + NUM_FEATURES[kind])
        return cls(np.array(numbers[:split]).reshape(NUM_HIDDEN[kind], -1), np.array(numbers[split:]))

    def numbers(self) -> tuple[float, ...]:
        """The inverse of `of`, with four digits."""
        return tuple(float(f"{number:.4g}") for number in (*self.hidden.ravel(), *self.last))

    def __call__(self, features: Float[np.ndarray, " features"]) -> float:
        # Beyond these bounds a unit is zero, and a probability 0 or 1, as far as numbers can tell.
        sums = np.maximum(self.hidden[:, 0] + self.hidden[:, 1:] @ features, -_GREATEST)
        total = self.last[0] + float(self.last[1:] @ (sums / (1 + np.exp(-sums))))
        return 1 / (1 + math.exp(min(-total, _GREATEST)))


def best_threshold(probabilities: np.ndarray, found_share: float = FOUND_SHARE) -> float:
    """The lowest probability that is kept if the expected F1 is as high as possible; (candidates,), at least one."""
    falling = np.sort(probabilities)[::-1]
    right = np.cumsum(falling)
    expected_f1 = 2 * right / (np.arange(1, len(falling) + 1) + right[-1] / found_share)
    return float(falling[np.argmax(expected_f1)])
