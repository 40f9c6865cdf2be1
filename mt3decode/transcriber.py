"""From audio to notes, without the network: the part that both transcribers share.

A subclass defines how a stream of log-mel segments becomes a stream of token sequences, in any order. Here
audio is read, cut and made into spectrograms as they are requested (`arriving.py`), and tokens become notes as soon as
all earlier segments are decoded: besides the result, nothing grows with the recording.
"""

from __future__ import annotations

import abc
import copy
import functools
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self, overload

import numpy as np

from mt3core.audio.files import Damaged
from mt3core.audio.load import AudioReader, AudioSource
from mt3core.audio.stream import check_rate
from mt3core.config.model import ModelConfig
from mt3core.decoding import Decoding, Generated
from mt3core.errors import AudioError, UsageError
from mt3core.notes.choosing import Excerpt, NoteChoice
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.instrument_choice import Instruments, for_model
from mt3core.notes.instruments import PITCHED_CHANNELS
from mt3core.notes.table import Note
from mt3core.processors import num_processors
from mt3core.recording_level import clipping_remark, remark_on
from mt3core.segments import AudioSegment
from mt3core.transcription import SegmentTokens, Transcription
from mt3decode.agreement import MARGIN, OVERLAP, SEMITONES, AgreedParts
from mt3decode.ahead import ReadAhead
from mt3decode.arriving import ArrivingSegments, mono_blocks
from mt3decode.many import Numbered, SharedSegments
from mt3decode.streams import NoteStream, Segments, Step, chosen, closing_if_possible
from mt3decode.stretches import LogMels, Stretches
from mt3decode.windows import Heard, MiddleParts, Parts, WholeParts

# Called with the number of segments done and the total.
Progress = Callable[[int, int], None]
# At the same time, beside an accelerator, which would wait for one processor that reads.
MOST_FILES_READ = 8
# Blocks of audio, of about a megabyte before they are resampled, that wait for each file that is read ahead.
BLOCKS_AHEAD = 4


class BaseTranscriber(abc.ABC):
    """Turns audio into a `Transcription` with a network that a subclass holds.

    Without a `decoding` it is the original's, with as many tokens per segment as the network was trained on. Raises
    `UsageError` if a decoding chooses instruments and the model does not tell them apart, or if it is continuous and
    the model has no ties.
    """

    # Whether several threads may use it at the same time, and share the network's lanes.
    serves_threads = False
    # Whether recordings that are given together are decoded as one stream of segments, and how many of them are read at
    # the same time.
    decodes_together = False
    num_read_ahead = 1
    # Whether `generate_stream` reads samples and makes log-mels itself (`stretches.network_input`).
    takes_samples = False

    def __init__(self, config: ModelConfig, decoding: Decoding | None) -> None:
        self.config = config
        given = decoding or default_decoding(config)
        if given.agreement:
            known = {"overlap": OVERLAP} if config.agreement else {"agreement": False}
            given = replace(given, **known)
        # Instruments are chosen by program; a model may know their classes only.
        fitting, self._choice_remark = for_model(Instruments(given.programs, given.drums), config.vocabulary)
        self.decoding = replace(given, programs=fitting.programs, drums=fitting.drums)
        if given.continuous and (config.vocabulary.onsets_only or not config.vocabulary.ties):
            raise UsageError(f"{config.name} does not know which notes sound on.", "Leave out --continuous.")

    def with_decoding(self, decoding: Decoding) -> Self:
        """Another transcriber with the same network, which decodes otherwise. Raises `UsageError` as for a new one."""
        made = copy.copy(self)
        BaseTranscriber.__init__(made, self.config, decoding)
        return made

    @abc.abstractmethod
    def generate_stream(
        self, log_mels: LogMels, last_steps: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Generated]]:
        """Reads log-mel segments (frames, mel), yields (number of the segment, its tokens) in any order.

        For the grammar, `last_steps` are the segments' last steps (`grammar.last_steps`).
        """

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling since this transcriber was made; they are included in its running time."""
        return 0.0

    def close(self) -> None:  # noqa: B027 - most need no closing
        """Releases resources outside this object, such as threads."""

    @overload
    def transcribe(
        self,
        audio: list[AudioSource],
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        choice: NoteChoice | None = None,
    ) -> list[Transcription]: ...

    @overload
    def transcribe(
        self,
        audio: AudioSource,
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        choice: NoteChoice | None = None,
    ) -> Transcription: ...

    def transcribe(
        self,
        audio: AudioSource | list[AudioSource],
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        choice: NoteChoice | None = None,
    ) -> Transcription | list[Transcription]:
        """Transcribes a file, its bytes, an open binary file, `(samples, sample_rate_hz)`, or a list of these.

        All forms of audio, `track` and `damaged` are those of `read_audio`, whose remarks precede those on the result.
        With `start_seconds` or `end_seconds` only that part is transcribed: notes that start in it, at the times that
        they have in the whole recording; those that sound at its end are ended there. `choice` says which notes are
        wanted (`NoteChoice`).

        A list gives a list, one result for each, in order. Raises `AudioError` for audio that cannot be used; for a
        list it says the number of the recording. Raises `UsageError` for times that are not in order.

        Those of a list are decoded together (`stream_many`).
        """
        excerpt = _excerpt(start_seconds, end_seconds)
        if not isinstance(audio, list):
            opened = self._opened(audio, track, damaged, excerpt)
            return _finished(NoteStream(self._transcribe_one(opened, progress, choice)))
        results = []

        def report(_: int, done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)

        with closing(self._stream_many(audio, report, track, damaged, excerpt, choice)) as streams:
            for number, stream in enumerate(streams, 1):
                try:
                    results.append(_finished(stream))
                except AudioError as error:
                    raise AudioError(f"Recording {number} of {len(audio)}: {error.problem}", error.next_step) from error
        return results

    def stream_many(
        self,
        audio: Iterable[AudioSource],
        progress: Callable[[int, int, int], None] = lambda number, done, total: None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        choice: NoteChoice | None = None,
    ) -> Generator[NoteStream, None, None]:
        """The streams of recordings (`stream`), in order, decoded together: the network goes on to the next ones while
        the notes of one are taken. So `audio` is read ahead, which must not wait for results.

        A stream is closed when the next one is asked for; an error is raised by the stream of its recording, and the
        others go on. `progress` is called with the number of the recording, from 0, and its segments, done and in all.
        """
        excerpt = _excerpt(start_seconds, end_seconds)
        return self._stream_many(audio, progress, track, damaged, excerpt, choice)

    def _stream_many(
        self,
        audio: Iterable[AudioSource],
        progress: Callable[[int, int, int], None],
        track: int | None,
        damaged: Damaged,
        excerpt: Excerpt | None,
        choice: NoteChoice | None,
    ) -> Generator[NoteStream, None, None]:
        is_together = self.decodes_together and not self.decoding.continuous
        num_read_ahead = self.num_read_ahead if is_together else 1
        sources = Numbered(audio)

        def opened_from(first: int) -> Iterator[_Opened]:
            for number in itertools.count(first):
                if (source := sources.get(number)) is None:
                    return
                yield self._opened(source, track, damaged, excerpt, is_ahead=num_read_ahead > 1)

        first, recordings = 0, Numbered(opened_from(0))
        shared: SharedSegments | None = None

        def close() -> None:
            if shared is not None:
                shared.close()
            for opened in recordings.found:
                opened.arriving.close()

        try:
            for number in itertools.count():
                if sources.get(number) is None:
                    return
                if is_together and (shared is None or shared.is_broken):
                    close()
                    first, recordings = number, Numbered(opened_from(number))
                    shared = SharedSegments(_arriving_in(recordings), self.generate_stream, num_read_ahead)
                opened = recordings.get(number - first)
                assert opened is not None
                generate = None if shared is None else shared.of(opened.arriving)
                report = functools.partial(progress, number)
                with NoteStream(self._transcribe_one(opened, report, choice, generate)) as stream:
                    yield stream
                recordings.forget(number - first)
                sources.forget(number)
        finally:
            close()

    def stream(
        self,
        audio: AudioSource | Iterable[np.ndarray],
        sample_rate_hz: float | None = None,
        progress: Progress | None = None,
        *,
        track: int | None = None,
        damaged: Damaged = "refuse",
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        choice: NoteChoice | None = None,
    ) -> NoteStream:
        """The notes that `transcribe` finds, in the same order, each as soon as it and all before it are final.

        With `sample_rate_hz`, `audio` is an iterable of arrays, (samples,) or (samples, channels), that follow one
        another at this rate and arrive when they like; what has been read is forgotten, so it may go on for ever.
        There, channels are averaged, and neither continuous decoding nor excerpts are possible. Continuous decoding
        reads a file as a whole first; otherwise files are read while they are decoded.

        A choice that joins notes (`merge`, `merge_gap_seconds`) gives them all at the end. Raises what `transcribe`
        raises, some of it while the notes are read. Use `with`, or `close`, to stop early.
        """
        excerpt = _excerpt(start_seconds, end_seconds)
        if sample_rate_hz is None:
            given: Any = audio
            return NoteStream(self._transcribe_one(self._opened(given, track, damaged, excerpt), progress, choice))
        if self.decoding.continuous or excerpt is not None:
            raise UsageError(
                "Continuous decoding and excerpts need the whole recording.", "Leave them out, or pass a file."
            )
        check_rate("The audio", sample_rate_hz)
        pieces: Any = audio
        blocks = mono_blocks(pieces, sample_rate_hz, self.config.spectrogram.sample_rate_hz)
        arriving = self._arriving(blocks, is_live=True)
        return NoteStream(self._decode(arriving, "", progress, None, choice, is_kept=False))

    def _opened(
        self, audio: AudioSource, track: int | None, damaged: Damaged, excerpt: Excerpt | None, is_ahead: bool = False
    ) -> _Opened:
        reader = AudioReader(audio, self.config.spectrogram.sample_rate_hz, track=track, damaged=damaged)
        blocks = ReadAhead(reader, BLOCKS_AHEAD) if is_ahead else reader
        name = _name_of(audio)
        arriving = self._arriving(blocks, excerpt, name, announced_seconds=lambda: reader.announced_seconds)
        return _Opened(reader, arriving, name, excerpt)

    def _transcribe_one(
        self, opened: _Opened, progress: Progress | None, choice: NoteChoice | None, segments: Segments | None = None
    ) -> Generator[Step, None, Transcription]:
        """`segments` are those that are decoded for it, if not those of a `generate_stream` of its own."""
        reader = opened.reader
        result = yield from self._decode(
            opened.arriving, opened.name, progress, opened.excerpt, choice, segments=segments
        )
        remarks = (*reader.remarks, self._choice_remark, clipping_remark(reader.full_scale_share), result.remark)
        return replace(result, remark="\n".join(filter(None, remarks)))

    def transcribe_samples(
        self,
        samples: np.ndarray,
        name: str = "",
        progress: Progress | None = None,
        excerpt: Excerpt | None = None,
        choice: NoteChoice | None = None,
    ) -> Transcription:
        """The same for mono float32 samples at the model's own rate; `name` goes into the result."""
        seconds = len(samples) / self.config.spectrogram.sample_rate_hz
        arriving = self._arriving([samples], excerpt, name, announced_seconds=lambda: seconds)
        return _finished(NoteStream(self._decode(arriving, name, progress, excerpt, choice)))

    def _arriving(
        self, blocks: Iterable[np.ndarray], excerpt: Excerpt | None = None, name: str = "", **options: Any
    ) -> ArrivingSegments:
        decoding = self.decoding
        options["takes_samples"] = self.takes_samples
        if decoding.agreement:
            seconds = self.config.network.input_frames / self.config.spectrogram.frames_per_second
            options |= {"margin_seconds": MARGIN * seconds, "semitones": SEMITONES, "gives_levels": True}
        return ArrivingSegments(blocks, self.config, decoding.overlap, excerpt, name, **options)

    def _decode(
        self,
        arriving: ArrivingSegments,
        name: str,
        progress: Progress | None,
        excerpt: Excerpt | None,
        choice: NoteChoice | None,
        is_kept: bool = True,
        segments: Segments | None = None,
    ) -> Generator[Step, None, Any]:
        """The result is a `Transcription`; None if nothing `is_kept` that grows with the audio."""
        wanted = excerpt or Excerpt()
        decoder = NoteDecoder(self.config.vocabulary, is_grammatical=self.decoding.grammar)
        parts = self._parts()
        ready: dict[int, Generated] = {}
        written: list[SegmentTokens] = []
        found: list[Note] = []
        held: list[Note] = []
        done = 0
        # Closed immediately if something fails, not when the error, and this frame with it, is forgotten.
        with closing(arriving):
            log_mels: LogMels = arriving.stretches(self.decoding) if self.decoding.continuous else iter(arriving)
            stream = self.generate_stream(log_mels, arriving.last_steps) if segments is None else segments
            with closing_if_possible(stream):
                yield stream
                for index, generated in stream:
                    ready[index] = generated
                    while parts.num_heard in ready:
                        number = parts.num_heard
                        parts.add(Heard(*arriving.take(number), ready.pop(number), arriving.levels(number)))
                    while parts.is_known(done):
                        if isinstance(log_mels, Stretches) and done in log_mels.firsts:
                            decoder.forget()
                        piece, following, kept, num_ignored = parts.take(done, decoder.sounding)
                        tokens = _decode_notes(decoder, piece, following, kept, num_ignored)
                        done += 1
                        final = decoder.final_seconds((following or piece).start_seconds)
                        new = wanted.cut(decoder.take(final, self.config.confidence))
                        if is_kept:
                            written.append(tokens)
                            found += new
                        yield chosen(new, choice, held), final
                    if progress is not None:
                        progress(parts.num_heard + len(ready), arriving.expected_count)
            # Not when it was cancelled: the rest may be an hour. An error in reading is raised here.
            if done == arriving.count or arriving.error is not None:
                arriving.finish()
        # Notes that sound where decoding was broken off sound to the end of the excerpt.
        end_seconds = (wanted.end_seconds or 0.0) if arriving.is_cut else 0.0
        last = wanted.cut(decoder.finish_notes(end_seconds, self.config.confidence))
        found += last
        duration_seconds = arriving.seconds
        yield chosen(last, choice, held, is_last=True), duration_seconds
        if not is_kept:
            return None
        part = wanted.part_of(duration_seconds, name)
        notes = found if choice is None else choice.apply(found)
        remarks = (
            wanted.remark_on(duration_seconds),
            remark_on(arriving.level, found, "recording" if part is None else "excerpt"),
            "" if choice is None else choice.remark_on(found, notes),
            _remark_on_midi(notes),
        )
        return Transcription(
            notes=notes,
            segments=written,
            duration_seconds=duration_seconds,
            model=self.config.name,
            audio=name,
            remark="\n".join(filter(None, remarks)),
            excerpt=part,
            choice=None if choice is None or choice.is_everything else choice,
            decoding=None if self.decoding == default_decoding(self.config) else self.decoding,
        )

    def _parts(self) -> Parts:
        """What becomes of the segments before their tokens become notes."""
        if self.decoding.agreement:
            return AgreedParts(self.config, self.decoding.grammar)
        return WholeParts() if self.decoding.overlap == 1 else MiddleParts(self.config, self.decoding.grammar)


def _decode_notes(
    decoder: NoteDecoder, piece: AudioSegment, following: AudioSegment | None, part: Generated, num_ignored: int
) -> SegmentTokens:
    end = None if following is None else following.start_seconds
    invalid, dropped = decoder.add_segment(piece.start_seconds, part.tokens, end, part.log_probabilities)
    return SegmentTokens(piece.start_seconds, part.tokens.tolist(), invalid + num_ignored, dropped)


@dataclass(frozen=True)
class _Opened:
    """A recording that is about to be read."""

    reader: AudioReader
    arriving: ArrivingSegments
    name: str
    excerpt: Excerpt | None


def _arriving_in(recordings: Numbered[_Opened]) -> Callable[[int], ArrivingSegments | None]:
    def get(number: int) -> ArrivingSegments | None:
        opened = recordings.get(number)
        return None if opened is None else opened.arriving

    return get


def _finished(stream: NoteStream) -> Transcription:
    result = stream.finish()
    assert result is not None
    return result


def files_read_for_accelerators() -> int:
    return min(num_processors(), MOST_FILES_READ)


def default_decoding(config: ModelConfig) -> Decoding:
    """The original's, with as many tokens per segment as the network was trained on."""
    return Decoding(max_tokens=config.network.max_target_tokens)


def _excerpt(start_seconds: float | None, end_seconds: float | None) -> Excerpt | None:
    if start_seconds is None and end_seconds is None:
        return None
    return Excerpt(0.0 if start_seconds is None else start_seconds, end_seconds)


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
