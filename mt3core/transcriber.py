"""From audio to notes, without the network: the part that both transcribers share.

A subclass defines how a stream of log-mel segments becomes a stream of token sequences, in any order. Here
the audio is cut, spectrograms are computed as they are requested, and tokens become notes as soon as
all earlier segments are decoded: besides the audio and the notes, nothing grows with the recording.
"""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import overload

import numpy as np

from mt3core.audio.files import Damaged
from mt3core.audio.load import AudioSource, read_audio
from mt3core.config.model import ModelConfig
from mt3core.decoding import Decoding, Generated
from mt3core.errors import AudioError
from mt3core.grammar import last_steps
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.instrument_choice import Instruments, for_model
from mt3core.notes.instruments import PITCHED_CHANNELS
from mt3core.notes.table import Note, to_notes
from mt3core.recording_level import clipping_remark, measure_level, remark_on
from mt3core.segments import AudioSegment, segments
from mt3core.spectrogram import log_mel_segments
from mt3core.transcription import SegmentTokens, Transcription

# Called with the number of segments done and the total.
Progress = Callable[[int, int], None]


class BaseTranscriber(abc.ABC):
    """Turns audio into a `Transcription` with a network that a subclass holds.

    Without a `decoding` it is the original's, with as many tokens per segment as the network was trained on. Raises
    `UsageError` if a decoding chooses instruments and the model does not tell them apart.
    """

    def __init__(self, config: ModelConfig, decoding: Decoding | None) -> None:
        self.config = config
        given = decoding or default_decoding(config)
        # Instruments are chosen by program; a model may know their classes only.
        fitting, self._choice_remark = for_model(Instruments(given.programs, given.drums), config.vocabulary)
        self.decoding = replace(given, programs=fitting.programs, drums=fitting.drums)

    @abc.abstractmethod
    def generate_stream(
        self, log_mels: Iterable[np.ndarray], last_steps: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        """Reads log-mel segments (frames, mel), yields (number of the segment, its tokens) in any order.

        For the grammar, `last_steps` are the segments' last steps (`grammar.last_steps`).
        """

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling since this transcriber was made; they are included in its running time."""
        return 0.0

    def close(self) -> None:  # noqa: B027 - most need no closing
        """Releases resources outside this object, such as other processes."""

    @overload
    def transcribe(
        self,
        audio: list[AudioSource],
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
    ) -> list[Transcription]: ...

    @overload
    def transcribe(
        self,
        audio: AudioSource,
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
    ) -> Transcription: ...

    def transcribe(
        self,
        audio: AudioSource | list[AudioSource],
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
    ) -> Transcription | list[Transcription]:
        """Transcribes a file, its bytes, an open binary file, `(samples, sample_rate_hz)`, or a list of these.

        All forms of audio, `track` and `damaged` are those of `read_audio`, whose remarks precede those on the result.
        A list gives a list, one result for each, in order. Raises `AudioError` for audio that cannot be used; for a
        list it says the number of the recording.
        """
        if not isinstance(audio, list):
            return self._transcribe_one(audio, progress, track, damaged)
        results = []
        for number, one in enumerate(audio, 1):
            try:
                results.append(self._transcribe_one(one, progress, track, damaged))
            except AudioError as error:
                raise AudioError(f"Recording {number} of {len(audio)}: {error.problem}", error.next_step) from error
        return results

    def _transcribe_one(
        self, audio: AudioSource, progress: Progress | None, track: int | None, damaged: Damaged
    ) -> Transcription:
        loaded = read_audio(audio, self.config.spectrogram.sample_rate_hz, track=track, damaged=damaged)
        result = self.transcribe_samples(loaded.samples, _name_of(audio), progress)
        remarks = (*loaded.remarks, self._choice_remark, clipping_remark(loaded.full_scale_share), result.remark)
        return replace(result, remark="\n".join(filter(None, remarks)))

    def transcribe_samples(
        self, samples: np.ndarray, name: str = "", progress: Progress | None = None
    ) -> Transcription:
        """The same for mono float32 samples at the model's own rate; `name` goes into the result."""
        pieces = segments(len(samples), self.config)
        log_mels = (log_mel_segments(samples, [piece], self.config)[0] for piece in pieces)
        ready: dict[int, Generated] = {}
        decoder = NoteDecoder(self.config.vocabulary, is_grammatical=self.decoding.grammar)
        written: list[SegmentTokens] = []
        stream = self.generate_stream(log_mels, last_steps(pieces, self.config))
        # Closed immediately if something fails, not when the error, and this frame with it, is forgotten.
        with closing(stream) if isinstance(stream, Generator) else nullcontext():
            for index, generated in stream:
                ready[index] = generated
                while len(written) in ready:
                    written.append(self._decode_notes(decoder, pieces, len(written), ready.pop(len(written))))
                if progress is not None:
                    progress(len(written) + len(ready), len(pieces))
        notes, rate_hz = to_notes(decoder.finish()), self.config.spectrogram.sample_rate_hz
        return Transcription(
            notes=notes,
            segments=written,
            duration_seconds=len(samples) / rate_hz,
            model=self.config.name,
            audio=name,
            remark="\n".join(filter(None, (remark_on(measure_level(samples, rate_hz), notes), _remark_on_midi(notes)))),
        )

    def _decode_notes(
        self, decoder: NoteDecoder, pieces: list[AudioSegment], index: int, generated: Generated
    ) -> SegmentTokens:
        start = pieces[index].start_seconds
        end = pieces[index + 1].start_seconds if index + 1 < len(pieces) else None
        invalid, dropped = decoder.add_segment(start, generated.tokens, end)
        return SegmentTokens(start, generated.tokens.tolist(), invalid, dropped)


def default_decoding(config: ModelConfig) -> Decoding:
    """The original's, with as many tokens per segment as the network was trained on."""
    return Decoding(max_tokens=config.network.max_target_tokens)


def _name_of(audio: AudioSource) -> str:
    """The path or the name of a recording that has one."""
    name = audio.get("path") if isinstance(audio, Mapping) else getattr(audio, "name", None)
    if isinstance(audio, str | os.PathLike):
        name = os.fspath(audio)
    return name if isinstance(name, str) and not name.startswith("<") else ""


def _remark_on_midi(notes: list[Note]) -> str:
    if len({note.program for note in notes}) <= PITCHED_CHANNELS:
        return ""
    from mt3core.notes.midi_writing import sharing_remark  # brings pretty_midi, which text formats do not need

    return sharing_remark(notes)
