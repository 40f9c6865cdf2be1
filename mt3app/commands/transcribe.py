"""`mt3 transcribe`: checks everything that is cheap to check, loads the model once, then works through the files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mt3app.backend import choose_backend, choose_decoding, load_transcriber
from mt3app.formats import FORMATS, known_format, save
from mt3app.inputs import STDIN, read_stdin
from mt3app.outputs import Job, PartFile, check_writable, parse_formats, parse_shard, plan
from mt3app.progress import Reporter, writing_stdout
from mt3app.sonification import with_sounds, write_sounds
from mt3core.audio.stream import seconds_text
from mt3core.errors import MT3Error, UsageError
from mt3core.transcription import jsonl_line

if TYPE_CHECKING:
    from mt3app.cli import TranscribeOptions
    from mt3core.audio.files import Damaged
    from mt3core.notes.choosing import Excerpt, NoteChoice
    from mt3core.notes.table import Note
    from mt3core.notes.tempo_map import TempoMap
    from mt3core.transcription import Transcription
    from mt3decode.streams import NoteStream
    from mt3decode.transcriber import BaseTranscriber
    from mt3music.tempo import TempoChoice

STRETCH_SECONDS = 5  # named where no tempo says what the bars are
EARLY_BEATS = 0.1
MOST_STRETCHES = 3


def transcribe_files(options: TranscribeOptions, reporter: Reporter) -> int:
    """Transcribes all files that are not finished yet; returns the exit code, 1 if a file failed."""
    formats = parse_formats(options.formats) if options.formats is not None else None
    backend = choose_backend(options.backend)
    decoding = choose_decoding(
        options.decoding,
        options.num_beams,
        options.grammar is not False,
        options.instruments,
        options.exclude,
        options.quality or "auto",
        options.continuous,
    )
    if options.continuous and options.quality == "best":
        reporter.line("--continuous wins over --quality best: segments follow one another and do not overlap.")
    excerpt, choice, tempo = _choose_excerpt(options), _choose_notes(options), _choose_tempo(options, formats)
    # Every process plans for all recordings, so that the names of the results do not depend on the shares.
    share = parse_shard(options.shard) if options.shard is not None else slice(None)
    planned = plan(options.inputs, options.output, formats, options.overwrite)
    jobs = with_sounds(planned.jobs, options.sonify, options.compare, options.overwrite)[share]
    if not jobs:
        reporter.line(f"The share {options.shard} of {len(planned.jobs)} recordings is empty.")
    check_writable(output.path for job in jobs for output in (*job.outputs, *job.sounds))
    for remark in planned.remarks:
        reporter.line(remark)
    _refuse_binary_on_terminal(jobs, options, formats)

    for job in jobs:
        if job.is_finished:
            names = ", ".join(map(str, job.finished))
            reporter.line(f"{job.name}: skipped, {names} exists (--overwrite replaces it)")
    batch = Batch(
        reporter,
        stdout_format=(formats or ("mid",))[0],
        names_recordings=len(planned.jobs) > 1,
        track=options.track,
        damaged=_choose_damaged(options.damaged),
        excerpt=excerpt,
        choice=choice,
        names_uncertain=options.uncertain,
        tempo=tempo,
    )
    with closing(batch):
        pending = batch.probe([job for job in jobs if not job.is_finished])
        if pending:
            transcriber = load_transcriber(
                options.model,
                backend,
                options.device,
                decoding,
                reporter,
                options.batch_size,
                options.workers,
                options.precision,
            )
            with closing(transcriber):
                batch.run(transcriber, pending)
    return batch.finish(len(jobs))


class Batch:
    """Works through jobs; a failed file does not stop the others."""

    def __init__(
        self,
        reporter: Reporter,
        stdout_format: str,
        names_recordings: bool,
        track: int | None = None,
        damaged: Damaged = "refuse",
        excerpt: Excerpt | None = None,
        choice: NoteChoice | None = None,
        names_uncertain: bool = False,
        tempo: TempoChoice | None = None,
    ) -> None:
        self.reporter = reporter
        self.tempo = tempo
        self.names_uncertain = names_uncertain
        self.excerpt, self.choice = excerpt, choice
        self.track, self.damaged = track, damaged
        self.stdout_format = stdout_format
        # Several recordings on standard output can only be distinguished by a name on every line.
        self.names_recordings = names_recordings
        self._stdin: BinaryIO | None = None  # once read
        self.failures: list[tuple[Job, Exception]] = []
        self.num_written, self.heard_seconds = 0, 0.0  # of files, and of their audio

    def probe(self, jobs: list[Job]) -> list[tuple[Job, float]]:
        """The jobs whose audio can be opened, each with the seconds of it that are to be transcribed."""
        from mt3core.audio.load import probe_audio

        readable = []
        for job in jobs:
            try:
                info = probe_audio(self._source(job), self.track, self.damaged)
                readable.append((job, self._wanted_seconds(job, info.duration_seconds)))
            except MT3Error as error:
                self._fail(job, error)
        return readable

    def run(self, transcriber: BaseTranscriber, jobs: list[tuple[Job, float]]) -> None:
        """Transcribes and writes, one file after the other; if possible, those that follow are decoded meanwhile."""
        segment_seconds = transcriber.config.segment_samples / transcriber.config.spectrogram.sample_rate_hz
        segment_seconds /= transcriber.decoding.overlap  # which is what each window adds
        durations = [duration for _, duration in jobs]
        done_seconds = [0.0] * len(jobs)
        name = ""
        is_together = transcriber.decodes_together and len(jobs) > 1
        with self.reporter.audio_bar() as show:

            def progress(number: int, done: int, total: int) -> None:
                durations[number] = total * segment_seconds  # some files do not say how long they are
                done_seconds[number] = done * segment_seconds
                show(sum(done_seconds), sum(durations), name)

            streams = transcriber.stream_many(
                (self._source(job) for job, _ in jobs),
                progress,
                track=self.track,
                damaged=self.damaged,
                start_seconds=None if self.excerpt is None else self.excerpt.start_seconds,
                end_seconds=None if self.excerpt is None else self.excerpt.end_seconds,
                choice=self.choice,
            )
            started, compiled_before = time.perf_counter(), transcriber.compile_seconds
            with closing(streams):
                for number, ((job, _), stream) in enumerate(zip(jobs, streams, strict=False)):
                    name = f"{number + 1}/{len(jobs)} {Path(job.name).name}" if len(jobs) > 1 else Path(job.name).name
                    show(sum(done_seconds), sum(durations), name)
                    try:
                        self._transcribe(transcriber, job, stream, is_together)
                    except BrokenPipeError:
                        raise
                    except Exception as error:
                        self._fail(job, error)
            if is_together and self.num_written > 1:
                compile_seconds = transcriber.compile_seconds - compiled_before
                self._summarise_all(time.perf_counter() - started - compile_seconds)

    def close(self) -> None:
        if self._stdin is not None:
            self._stdin.close()

    def finish(self, num_jobs: int) -> int:
        """Names the failures of a batch again, and returns the exit code."""
        if self.failures and num_jobs > 1:
            names = ", ".join(job.name for job, _ in self.failures)
            print(f"mt3: {len(self.failures)} of {num_jobs} files failed: {names}", file=sys.stderr)
        return 1 if self.failures else 0

    def _is_written(self, job: Job) -> bool:
        """Whether notes are printed while others are still being decoded."""
        return job.is_printed and self.stdout_format == "jsonl" and self._is_final_at_once

    @property
    def _is_final_at_once(self) -> bool:
        """Notes on a grid are known at the end."""
        return self.tempo is None or self.tempo.grid is None

    @contextmanager
    def _growing(self, job: Job, stream: NoteStream) -> Iterator[Callable[[Note], None]]:
        """Writes the notes of a job while others are decoded: to standard output, or beside the files to be written.

        If the job does not come to its end, what there is remains, and a line says so.
        """
        parts = [PartFile(one.path) for one in job.outputs if one.format == "jsonl" and self._is_final_at_once]
        num_printed = 0

        def write(note: Note) -> None:
            nonlocal num_printed
            if self._is_written(job):
                self._print_note(note, job)
                num_printed += 1
            for part in parts:
                part.add(note)

        try:
            yield write
        except BaseException as error:
            places = [str(part.path) for part in parts if part.keep()]
            if num_printed and not isinstance(error, BrokenPipeError):
                places.append("standard output")
            if places:
                upto = seconds_text(stream.final_seconds)
                self.reporter.failure(
                    f"{job.name} -> {', '.join(places)}: not the whole, but all notes that start before {upto}"
                )
            raise
        for part in parts:
            part.remove()

    def _transcribe(self, transcriber: BaseTranscriber, job: Job, stream: NoteStream, is_together: bool) -> None:
        started, compiled_before = time.perf_counter(), transcriber.compile_seconds
        with stream, self._growing(job, stream) as write_note:
            for note in stream:
                write_note(note)
            assert stream.result is not None
            # JAX compiles once per shape, which would distort the factor of the first file.
            compile_seconds = transcriber.compile_seconds - compiled_before
            # Of those decoded together none has a time of its own.
            seconds = None if is_together else time.perf_counter() - started - compile_seconds
            self._write(job, stream.result, seconds)
        if compile_seconds:
            self.reporter.detail(f"Compilation took {compile_seconds:.1f} s (once, not counted above).")

    def _write(self, job: Job, result: Transcription, seconds: float | None = None) -> None:
        """Writes a result and says so, with the speed if the `seconds` that it took are known."""
        if self.tempo is not None:
            from mt3music.tempo import with_tempo

            result = with_tempo(result, self.tempo, self._source(job), track=self.track, damaged=self.damaged)
        if job.is_stdin:
            result = replace(result, audio=STDIN)
        for output in job.outputs:
            save(result, output.path, output.format, self._recording(job))
        if job.is_printed and not self._is_written(job):
            self._print(result, self._recording(job))
        sound = write_sounds(job, result, self._source(job), self.track, self.damaged) if job.sounds else ""
        self._summarise(job, result, seconds)
        if sound:
            self.reporter.detail(f"Played by {sound}.")
        for remark in result.remark.splitlines():
            self.reporter.line(f"{job.name}: {remark}")
        if result.tempo is not None:
            self.reporter.line(f"{job.name}: {result.tempo.in_words}")
        if self.names_uncertain and (places := least_certain(result.notes, result.tempo)):
            self.reporter.line(f"{job.name}: The least certain places are {places}.")

    def _wanted_seconds(self, job: Job, duration_seconds: float | None) -> float:
        """How much of a recording is transcribed; raises `AudioError` if nothing is. 0 if its length is unknown."""
        from mt3core.audio.load import load_audio

        if duration_seconds is None or self.excerpt is None:
            return duration_seconds or 0.0
        if self.excerpt.start_seconds >= duration_seconds:  # it says; some files have to be read to know
            rate_hz = 16_000
            samples = load_audio(self._source(job), rate_hz, track=self.track, damaged=self.damaged)
            duration_seconds = len(samples) / rate_hz
        part = self.excerpt.part_of(duration_seconds, job.name)
        return _seconds_of(part, duration_seconds)

    def _source(self, job: Job) -> Path | BinaryIO:
        if not job.is_stdin:
            return job.audio
        if self._stdin is None:
            self._stdin = read_stdin()
        self._stdin.seek(0)
        return self._stdin

    def _recording(self, job: Job) -> Path | None:
        return None if job.is_stdin else job.audio

    def _print_note(self, note: Note, job: Job) -> None:
        """Writes a note while others are still being decoded."""
        name = STDIN if job.is_stdin else str(job.audio)
        with writing_stdout():
            sys.stdout.buffer.write(jsonl_line(note, name if self.names_recordings else None).encode())
            sys.stdout.flush()

    def _print(self, result: Transcription, recording: Path | None) -> None:
        with writing_stdout():
            sys.stdout.buffer.write(FORMATS[self.stdout_format].write(result, recording))
            sys.stdout.flush()

    def _summarise(self, job: Job, result: Transcription, seconds: float | None) -> None:
        names = [str(output.path) for output in (*job.outputs, *job.sounds)]
        targets = ", ".join([*(["standard output"] if job.is_printed else []), *names])
        heard_seconds = _seconds_of(result.excerpt, result.duration_seconds)
        self.num_written += 1
        self.heard_seconds += heard_seconds
        of_all = f" of {result.duration_seconds:.1f} s" if result.excerpt else ""
        speed = "" if seconds is None else f" {_speed(heard_seconds, seconds)}"
        self.reporter.line(f"{job.name} -> {targets}: {len(result.notes)} notes, {heard_seconds:.1f} s{of_all}{speed}")

    def _summarise_all(self, seconds: float) -> None:
        heard_seconds = self.heard_seconds
        self.reporter.line(f"{self.num_written} files: {heard_seconds:.1f} s {_speed(heard_seconds, seconds)}")

    def _fail(self, job: Job, error: Exception) -> None:
        self.failures.append((job, error))
        self.reporter.problem(error)


def _speed(heard_seconds: float, seconds: float) -> str:
    return f"in {seconds:.1f} s ({heard_seconds / max(seconds, 1e-3):.1f}x real time)"


def least_certain(notes: Sequence[Note], tempo: TempoMap | None = None) -> str:
    """The places with the least mean confidence, least first; empty without confidences.

    Places are bars if there is a tempo, numbered from the first whole one, else stretches of a few seconds.
    """
    sure = [(note.onset, note.confidence.note) for note in notes if note.confidence is not None]
    places: dict[int, list[float]] = {}
    for number, (_, confidence) in zip(_places([onset for onset, _ in sure], tempo), sure, strict=True):
        places.setdefault(number, []).append(confidence)
    least = sorted(places, key=lambda number: (sum(places[number]) / len(places[number]), number))
    return ", ".join(
        f"{_place_name(number, tempo)} ({len(found)} note{'s' if len(found) > 1 else ''}, "
        f"mean confidence {sum(found) / len(found):.2f})"
        for number in least[:MOST_STRETCHES]
        for found in [places[number]]
    )


def _places(onsets: list[float], tempo: TempoMap | None) -> list[int]:
    if tempo is None or not onsets:
        return [int(onset // STRETCH_SECONDS) for onset in onsets]
    import numpy as np

    # A note belongs to the beat that it is at, even if it is heard a moment before.
    beats = tempo.beats_at(np.asarray(onsets)) - tempo.first_downbeat + EARLY_BEATS
    return (np.floor(beats / tempo.time_signature.beats_per_bar) + 1).astype(int).tolist()


def _place_name(number: int, tempo: TempoMap | None) -> str:
    if tempo is not None:
        return f"bar {number}" if number > 0 else "the pick-up"
    return f"{number * STRETCH_SECONDS} to {(number + 1) * STRETCH_SECONDS} s"


def _refuse_binary_on_terminal(jobs: list[Job], options: TranscribeOptions, formats: tuple[str, ...] | None) -> None:
    chosen = (formats or ("mid",))[0]
    if options.output == "-" and not FORMATS[chosen].is_text and sys.stdout.isatty():
        name = {"mid": "MIDI"}.get(chosen, chosen.upper())
        raise UsageError(
            f"{name} cannot be shown in a terminal.", f"Redirect it (> song.{chosen}), or use --format jsonl."
        )


def _choose_damaged(text: str) -> Damaged:
    if text == "keep":
        return "keep"
    if text == "refuse":
        return "refuse"
    raise UsageError(f"--damaged {text} is not known.", "Use --damaged refuse or --damaged keep.")


def _choose_excerpt(options: TranscribeOptions) -> Excerpt | None:
    from mt3core.notes.choosing import Excerpt, parse_seconds

    if options.start is None and options.end is None:
        return None
    start = 0.0 if options.start is None else parse_seconds(options.start, "--start")
    end = None if options.end is None else parse_seconds(options.end, "--end")
    if end is not None and end <= start:
        raise UsageError(f"--end {options.end} is not after --start {options.start or 0}.", "Choose a later end.")
    return Excerpt(start, end)


def _choose_notes(options: TranscribeOptions) -> NoteChoice | None:
    from mt3core.notes.choosing import ALL_PITCHES, NoteChoice, parse_pitch_range

    pitch_range = ALL_PITCHES if options.pitch_range is None else parse_pitch_range(options.pitch_range)
    choice = NoteChoice(
        options.min_note, options.merge_gap, pitch_range, options.merge, options.min_confidence, options.velocity
    )
    return None if choice.is_everything else choice


def _choose_tempo(options: TranscribeOptions, formats: tuple[str, ...] | None) -> TempoChoice | None:
    chosen = [FORMATS[name] for name in formats or _format_of(options.output)]
    for one in chosen:
        one.check()
    has_bars = any(one.has_bars for one in chosen)
    if not has_bars and options.tempo is options.time_signature is options.quantise is None:
        return None
    from mt3music.tempo import TempoChoice

    tempo = TempoChoice.parse(options.tempo, options.time_signature, options.quantise)
    tempo.check()
    return tempo


def _format_of(output: str | None) -> tuple[str, ...]:
    """The format of a file by its suffix, if there is one."""
    name = known_format(Path(output).suffix) if output else None
    return () if name is None else (name,)


def _seconds_of(excerpt: Excerpt | None, duration_seconds: float) -> float:
    if excerpt is None or excerpt.end_seconds is None:
        return duration_seconds
    return excerpt.end_seconds - excerpt.start_seconds
