"""Segments decoded in order, each beginning with the notes that the one before left sounding (`Decoding.continuous`).

A recording is cut into stretches where it is silent: nothing sounds there, so a segment that starts in silence does not
need the one before. The segments of a stretch follow one another, and different stretches are decoded side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mt3core.config.model import ModelConfig
from mt3core.decoding import Decoding
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.encoding import SegmentEncoder, SegmentEvents, tie_keys
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS
from mt3core.recording_level import BLOCK_SECONDS, measure_level
from mt3core.segments import AudioSegment, segment_samples
from mt3core.spectrogram import log_mel_segments

# The longest prologue in tokens, nearly a hundred notes; what does not fit ends. JAX's lanes have at least 256 places.
MOST_GIVEN = 200


@dataclass(frozen=True)
class Start:
    """A segment that can be decoded now; `given` are its first tokens, if they are known."""

    number: int
    log_mel: Float[np.ndarray, "frames mel"]
    given: Int[np.ndarray, " given"] | tuple[()] = ()


class Stretches:
    """The segments of a recording: `take` those that can be started, and `give` each one's tokens when it is decoded.

    `silences` says which segments start in silence; `firsts` are the first ones of the stretches. What sounds before
    the recording's first segment, if it does not start in silence, is unknown: there the network writes the prologue.
    """

    def __init__(
        self,
        config: ModelConfig,
        decoding: Decoding,
        pieces: Sequence[AudioSegment],
        silences: Sequence[bool],
        log_mel: Callable[[AudioSegment], np.ndarray],
    ) -> None:
        self._config, self._pieces, self._log_mel = config.vocabulary, pieces, log_mel
        self._most_given = min(MOST_GIVEN, min(decoding.max_tokens, config.network.max_positions) // 2)
        self._encoder = SegmentEncoder(config.vocabulary, config.spectrogram.frames_per_second)
        self._is_known = silences[0]
        self.firsts = firsts = [number for number in range(len(pieces)) if number == 0 or silences[number]]
        self._ends = dict(zip(firsts, [*firsts[1:], len(pieces)], strict=True))  # of the stretches that wait or run
        self._decoders = {first: NoteDecoder(config.vocabulary) for first in firsts}
        # The longest first, so that it is not left alone in the end.
        self._ready = [(first - end, first) for first, end in self._ends.items()]
        heapq.heapify(self._ready)

    @classmethod
    def of(
        cls,
        samples: Float[np.ndarray, " samples"],
        pieces: Sequence[AudioSegment],
        config: ModelConfig,
        decoding: Decoding,
        takes_samples: bool = False,
    ) -> Stretches:
        """Some segments of a recording. Silent is a start after half a second whose peak is below `SILENT_DBFS`.

        What the network reads of them is made when they are taken (`network_input`).
        """
        rate_hz, hop = config.spectrogram.sample_rate_hz, config.spectrogram.hop_samples
        silences = []
        for piece in pieces:
            end = piece.first_frame * hop
            before = samples[max(0, end - round(BLOCK_SECONDS * rate_hz)) : end]
            silences.append(measure_level(before, rate_hz).is_silent)
        return cls(
            config, decoding, pieces, silences, lambda piece: network_input(samples, piece, config, takes_samples)
        )

    @property
    def is_finished(self) -> bool:
        """Whether the tokens of all segments have been given."""
        return not self._ends

    def take(self, most: int) -> list[Start]:
        """Up to `most` segments that can be started; none may be ready until others have been given."""
        return [self._start(heapq.heappop(self._ready)[1]) for _ in range(min(most, len(self._ready)))]

    def give(self, number: int, tokens: Int[np.ndarray, " tokens"]) -> None:
        """Takes a segment's tokens, and makes the next one of its stretch ready."""
        decoder, end, following = self._decoders.pop(number), self._ends.pop(number), number + 1
        start = self._pieces[number].start_seconds
        if number == 0 and not self._is_known:
            self._believe(decoder, start, tokens)
        until = self._pieces[following].start_seconds if following < len(self._pieces) else None
        decoder.add_segment(start, tokens, until)
        if following < end:
            self._decoders[following], self._ends[following] = decoder, end
            heapq.heappush(self._ready, (following - end, following))

    def _start(self, number: int) -> Start:
        piece, decoder = self._pieces[number], self._decoders[number]
        log_mel = self._log_mel(piece)
        if number == 0 and not self._is_known:
            return Start(number, log_mel)
        sounding = decoder.sounding
        while len(given := prologue(self._encoder, sounding)) > self._most_given:
            sounding.pop()
        return Start(number, log_mel, given)

    def _believe(self, decoder: NoteDecoder, start: float, tokens: Int[np.ndarray, " tokens"]) -> None:
        """Lets the notes sound that the network's own prologue names."""
        vocabulary = decoder.vocabulary
        tie, loud = vocabulary.event_id("tie", 0), vocabulary.event_id("velocity", self._config.velocity_bins)
        events = (np.asarray(tokens) - NUM_SPECIAL_TOKENS).tolist()
        if tie in events:
            decoder.add_events(start, np.array([tie, loud, *events[: events.index(tie)]]), None)


def network_input(
    samples: Float[np.ndarray, " samples"], piece: AudioSegment, config: ModelConfig, takes_samples: bool
) -> np.ndarray:
    """A segment's log-mel, float32 (frames, mel); for a network that makes it itself the samples of whole frames."""
    if takes_samples:
        return segment_samples(samples, piece, config)[: piece.num_frames * config.spectrogram.hop_samples]
    log_mel: np.ndarray = log_mel_segments(samples, [piece], config)[0]
    return log_mel


def prologue(encoder: SegmentEncoder, sounding: Iterable[tuple[int, int]]) -> Int[np.ndarray, " tokens"]:
    """The tie section as it is taught: for notes (program, pitch) in ascending order, with the tie event."""
    nothing = SegmentEvents(np.zeros(0, np.int64), np.zeros((0, 3), np.int64), tie_keys(sounding))
    return encoder.tokens(nothing)[:-1]  # without the end token


LogMels = Iterable[Float[np.ndarray, "frames mel"]] | Stretches
