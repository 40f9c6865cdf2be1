"""Notes of a recording while it is decoded, from any transcriber."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from mt3core.audio.load import load_audio
from mt3core.decoding import Decoding, Generated
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.instrument_choice import with_instruments
from mt3core.notes.table import Note
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3core.transcription import Transcription
from mt3decode.grammar import last_steps
from mt3decode.transcriber import BaseTranscriber
from mt3serve.streams import NoteStream

_FOR_EVER = 1e9  # seconds: notes that sound have no end yet
_MOST_SEGMENTS_UNSEEN = 8  # to look at what there is costs as much as there is


class TranscriberDecoder:
    """A transcriber for the server.

    `build` makes a transcriber with the same network and another decoding, for a choice of instruments; `at_once` is
    how many threads may use the transcriber at the same time.
    """

    def __init__(
        self, transcriber: BaseTranscriber, build: Callable[[Decoding], BaseTranscriber], at_once: int = 1
    ) -> None:
        self.model, self.at_once = transcriber.config.name, at_once
        self._transcriber, self._build = transcriber, build

    @contextmanager
    def stream(self, recording: Path, instruments: str | None) -> Iterator[NoteStream]:
        """See `streams.Decoder`."""
        transcriber = self._transcriber
        if instruments is not None:
            transcriber = self._build(with_instruments(transcriber.decoding, instruments))
        notes = GradualNotes(transcriber, recording)
        try:
            yield notes
        finally:
            notes.close()
            if transcriber is not self._transcriber:
                transcriber.close()


class GradualNotes:
    """The notes of a recording in order of onset, each when it and all before it are final."""

    def __init__(self, transcriber: BaseTranscriber, recording: Path) -> None:
        self._transcriber, self._recording = transcriber, recording
        self._is_closed = False
        self.final_seconds = 0.0
        self.result: Transcription | None = None

    def close(self) -> None:
        """Ends the iteration at the next segment; from any thread."""
        self._is_closed = True

    def __iter__(self) -> Iterator[Note]:
        config = self._transcriber.config
        samples = load_audio(self._recording, config.spectrogram.sample_rate_hz, damaged="keep")
        pieces = segments(len(samples), config)
        log_mels = (log_mel_segments(samples, [piece], config)[0] for piece in pieces)
        decoder = NoteDecoder(config.vocabulary, is_grammatical=self._transcriber.decoding.grammar)
        stream = self._transcriber.generate_stream(log_mels, last_steps(pieces, config))
        ready: dict[int, Generated] = {}
        done = seen = given = 0
        with closing(stream) if isinstance(stream, Generator) else nullcontext():
            for index, generated in stream:
                if self._is_closed:
                    return
                ready[index] = generated
                while done in ready:
                    end = pieces[done + 1].start_seconds if done + 1 < len(pieces) else None
                    one = ready.pop(done)
                    decoder.add_segment(pieces[done].start_seconds, one.tokens, end, one.log_probabilities)
                    done += 1
                if done - seen < min(_MOST_SEGMENTS_UNSEEN, len(pieces) // 50 + 1) or done == len(pieces):
                    continue
                seen = done
                final, self.final_seconds = self._final(decoder, pieces[done].start_seconds)
                yield from self._open(final[given:])
                given = len(final)
        self.final_seconds = len(samples) / config.spectrogram.sample_rate_hz
        last = _in_order(decoder.finish_notes(0.0, config.confidence))
        self.result = Transcription(last, duration_seconds=self.final_seconds, model=config.name)
        yield from self._open(last[given:])

    def _open(self, notes: list[Note]) -> Iterator[Note]:
        """The notes, until this is closed."""
        return itertools.takewhile(lambda _: not self._is_closed, notes)

    def _final(self, decoder: NoteDecoder, decoded_seconds: float) -> tuple[list[Note], float]:
        """The notes that no later segment changes, in order, and until when these are all."""
        found = copy.deepcopy(decoder).finish_notes(_FOR_EVER, self._transcriber.config.confidence)
        sounding = [note.onset for note in found if note.offset >= _FOR_EVER]
        until = min([decoded_seconds, *sounding])
        return _in_order([note for note in found if note.onset < until]), until


def _in_order(notes: list[Note]) -> list[Note]:
    """As they are in a result: by onset."""
    return Transcription(notes).notes
