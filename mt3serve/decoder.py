"""A transcriber, as the server uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mt3core.decoding import in_quality
from mt3core.notes.instrument_choice import with_instruments
from mt3decode.streams import NoteStream
from mt3decode.transcriber import BaseTranscriber

_WARM_UP_SECONDS = 4


class TranscriberDecoder:
    """See `jobs.Decoder`. `at_once` is how many threads may use the transcriber at the same time."""

    def __init__(self, transcriber: BaseTranscriber, at_once: int = 1) -> None:
        self.model, self.at_once = transcriber.config.name, at_once
        self.usual_quality = "best" if transcriber.decoding.overlap > 1 else "fast"
        self._transcriber = transcriber

    def warm_up(self) -> None:
        """Decodes a little silence: the first recording pays for memory and for the order of the weights."""
        rate_hz = self._transcriber.config.spectrogram.sample_rate_hz
        self._transcriber.transcribe((np.zeros(_WARM_UP_SECONDS * rate_hz, np.float32), rate_hz))

    @contextmanager
    def stream(self, recording: Path, instruments: str | None, quality: str) -> Iterator[NoteStream]:
        """The notes of a recording, of these instruments only; in a quality of `mt3 transcribe --quality`."""
        transcriber = self._transcriber
        decoding = transcriber.decoding if quality == self.usual_quality else in_quality(transcriber.decoding, quality)
        if instruments is not None:
            decoding = with_instruments(decoding, instruments)
        if decoding != transcriber.decoding:
            transcriber = transcriber.with_decoding(decoding)
        try:
            with transcriber.stream(recording, damaged="keep") as notes:
                yield notes
        finally:
            if transcriber is not self._transcriber:
                transcriber.close()
