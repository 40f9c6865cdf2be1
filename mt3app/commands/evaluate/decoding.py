"""Decodes the recordings of an evaluation with one backend, and keeps the results so that it is done only once.

OUTPUT/VARIANT/NAME_TRACK.mid                      the decoded notes, for listening (ticks of 1 ms)
OUTPUT/VARIANT/NAME_notes/BACKEND/TRACK.json       the exact notes and tokens, how they were made, and how long it took
OUTPUT/VARIANT/NAME_notes/reference/TRACK.json     the true notes

A piece is decoded again if its recording, the model, the decoding or the length used has changed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt3app.backend import choose_decoding, load_transcriber
from mt3app.progress import Reporter, describe
from mt3core.config.evaluation import EvaluationConfig
from mt3core.errors import DatasetError, MT3Error
from mt3core.files import atomic_output
from mt3core.notes.table import NoteTable, to_notes
from mt3core.transcription import Transcription
from mt3eval.reading.dataset_pieces import EvaluationPiece, first_notes

if TYPE_CHECKING:
    from mt3decode.transcriber import BaseTranscriber

REFERENCE = "reference"


@dataclass(frozen=True)
class Decoded:
    """A decoded piece: where its exact notes are, their counts, and the time it took."""

    notes: Path
    reference: Path
    num_notes: int
    invalid_events: int
    dropped_events: int
    audio_seconds: float
    seconds: float  # including reading the audio, excluding compilation
    compile_seconds: float
    is_new: bool  # decoded by this run


@dataclass(frozen=True)
class Place:
    """Where the files of a piece go. With two backends the second one's MIDI has its name in it."""

    midi: Path
    notes: Path
    reference: Path

    @classmethod
    def of(cls, piece: EvaluationPiece, config: EvaluationConfig, backend: str, is_first: bool) -> Place:
        folder = Path(config.output) / piece.variant
        exact = folder / f"{config.name}_notes"
        midi = f"{config.name}_{piece.name}{'' if is_first else f'.{backend}'}.mid"
        name = f"{piece.name}.json"
        return cls(folder / midi, exact / backend / name, exact / REFERENCE / name)


class SetDecoder:
    """Decodes pieces with one backend. `failures` has a sentence for each that could not be decoded."""

    def __init__(self, config: EvaluationConfig, source: str, backend: str, is_first: bool, reporter: Reporter) -> None:
        self.config, self.backend, self.is_first, self.reporter = config, backend, is_first, reporter
        self.source = source
        self.decoding = choose_decoding(config.decoding.method, config.decoding.num_beams)
        self.failures: dict[tuple[str, str], str] = {}
        self.loading_seconds = 0.0
        self._model_state = model_state(source)

    def run(self, pieces: Sequence[EvaluationPiece]) -> dict[tuple[str, str], Decoded]:
        """All pieces by (variant, name) except those that fail; pieces already decoded with equal settings are read."""
        found: dict[tuple[str, str], Decoded] = {}
        pending = []
        changed: dict[str, None] = {}
        for piece in pieces:
            stored = self._stored(piece, changed)
            if stored is None:
                pending.append(piece)
            else:
                try:
                    found[piece.variant, piece.name] = self._keep(piece, *stored, is_new=False)
                except MT3Error as error:
                    self._fail(piece, error)
        if found:
            self.reporter.line(f"{self.backend}: {len(found)} of {len(pieces)} pieces are already decoded.")
        if changed:
            self.reporter.line(
                f"{self.backend}: pieces decoded with other settings ({', '.join(changed)}) are decoded again."
            )
        if pending:
            found |= self._decode_all(pending)
        return found

    def settings(self, piece: EvaluationPiece) -> dict[str, Any]:
        """What determines the notes of a piece."""
        return {
            "backend": self.backend,
            "model": self._model_state,
            "method": self.decoding.method,
            "num_beams": self.decoding.num_beams,
            "most_seconds": self.config.data.most_seconds,
            "audio": piece.audio.name,
            "audio_bytes": piece.audio.stat().st_size,
            "mt3kit": version("mt3kit"),
        }

    def _decode_all(self, pieces: list[EvaluationPiece]) -> dict[tuple[str, str], Decoded]:
        lengths = self._lengths(pieces)
        pieces = [piece for piece in pieces if piece in lengths]
        if not pieces:
            return {}
        started = time.perf_counter()
        compute = self.config.compute
        workers = compute.processes if self.backend == "torch" else None
        transcriber = load_transcriber(
            self.source, self.backend, compute.device, self.decoding, self.reporter, compute.batch_size, workers
        )
        self.loading_seconds = time.perf_counter() - started
        found: dict[tuple[str, str], Decoded] = {}
        total = sum(lengths.values())
        done = 0.0
        try:
            with self.reporter.audio_bar() as show:
                for number, piece in enumerate(pieces, 1):
                    name = f"{self.backend} {piece.variant} {piece.name}"

                    def progress(ready: int, of: int, before: float = done, name: str = name, piece=piece) -> None:
                        show(before + lengths[piece] * ready / max(of, 1), total, name)

                    show(done, total, name)
                    try:
                        decoded = self._decode(transcriber, piece, progress)
                    except Exception as error:  # one recording must not stop hundreds of others
                        self._fail(piece, error)
                    else:
                        found[piece.variant, piece.name] = decoded
                        self._tell(f"{number}/{len(pieces)} {name}", decoded)
                    done += lengths[piece]
        finally:
            transcriber.close()
        return found

    def _decode(self, transcriber: BaseTranscriber, piece: EvaluationPiece, progress: Any) -> Decoded:
        from mt3core.audio.load import read_audio

        started, compiled_before = time.perf_counter(), transcriber.compile_seconds
        rate_hz = transcriber.config.spectrogram.sample_rate_hz
        loaded = read_audio(piece.audio, rate_hz)
        for remark in loaded.remarks:
            self.reporter.line(f"{piece.audio}: {remark}")
        samples = loaded.samples
        if self.config.data.most_seconds is not None:
            samples = samples[: max(1, round(self.config.data.most_seconds * rate_hz))]
        if not samples.any():
            raise DatasetError(f"{piece.audio} is silent but has notes.", "It is left out.")
        result = transcriber.transcribe_samples(samples, str(piece.audio), progress)
        compile_seconds = transcriber.compile_seconds - compiled_before
        made = {
            "settings": self.settings(piece),
            "seconds": time.perf_counter() - started - compile_seconds,
            "compile_seconds": compile_seconds,
        }
        return self._keep(piece, result, made, is_new=True)

    def _keep(self, piece: EvaluationPiece, result: Transcription, made: dict[str, Any], is_new: bool) -> Decoded:
        """Writes missing files, the MIDI file last, so that if it exists, all of them do."""
        place = Place.of(piece, self.config, self.backend, self.is_first)
        if is_new:
            _write(place.notes, _json({**result.to_json(), "decoded": made}))
        reference = reference_notes(piece, result.duration_seconds, self.config.data.most_seconds)
        truth = Transcription(to_notes(reference), [], result.duration_seconds, "", str(piece.audio))
        _write(place.reference, truth.to_bytes("json"))
        _write(place.midi, result.to_bytes("mid"))
        return Decoded(
            place.notes,
            place.reference,
            len(result.notes),
            sum(segment.invalid_events for segment in result.segments),
            sum(segment.dropped_events for segment in result.segments),
            result.duration_seconds,
            made["seconds"],
            made["compile_seconds"],
            is_new,
        )

    def _stored(self, piece: EvaluationPiece, changed: dict[str, None]) -> tuple[Transcription, dict[str, Any]] | None:
        """What was already decoded with these settings; adds the settings that differ to `changed`."""
        path = Place.of(piece, self.config, self.backend, self.is_first).notes
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            result, made = Transcription.from_json(values), values["decoded"]
            before, now = made["settings"], self.settings(piece)
        except (OSError, ValueError, KeyError, TypeError, MT3Error):
            self.reporter.line(f"{path} cannot be read; the piece is decoded again.")
            return None
        differing = [name for name in now if before.get(name) != now[name]]
        changed |= dict.fromkeys(differing)
        return None if differing else (result, made)

    def _lengths(self, pieces: Iterable[EvaluationPiece]) -> dict[EvaluationPiece, float]:
        """Seconds of audio of the pieces that can be opened."""
        from mt3core.audio.load import probe_audio

        lengths = {}
        for piece in pieces:
            try:
                seconds = probe_audio(piece.audio).duration_seconds or 0.0
            except MT3Error as error:
                self._fail(piece, error)
                continue
            lengths[piece] = min(seconds, self.config.data.most_seconds or seconds)
        return lengths

    def _tell(self, name: str, decoded: Decoded) -> None:
        factor = decoded.audio_seconds / max(decoded.seconds, 1e-3)
        self.reporter.line(
            f"{name}: {decoded.num_notes} notes, {decoded.audio_seconds:.1f} s in {decoded.seconds:.1f} s "
            f"({factor:.1f}x real time)"
        )

    def _fail(self, piece: EvaluationPiece, error: Exception) -> None:
        self.failures[piece.variant, piece.name] = describe(error)
        self.reporter.problem(error)


def reference_notes(piece: EvaluationPiece, audio_seconds: float, most_seconds: float | None) -> NoteTable:
    """The true notes that start within the audio; if only its beginning was used, they end with it.

    Raises `DatasetError` if there are none, as such a piece cannot be scored.
    """
    notes = piece.reference()
    notes = notes[notes["onset"] < audio_seconds] if most_seconds is None else first_notes(notes, audio_seconds)
    if not len(notes):
        raise DatasetError(f"{piece.name} has no notes within its first {audio_seconds:.1f} s.", "It is left out.")
    return notes


def model_state(source: str) -> str:
    """A digest that shows whether a model was changed: of the names, sizes and times of its files."""
    path = Path(source)
    described = [source]
    if path.exists():
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        described = [
            f"{file.relative_to(path)} {file.stat().st_size} {file.stat().st_mtime_ns}"
            for file in files
            if file.is_file()
        ]
    return hashlib.sha256("\n".join(described).encode(errors="backslashreplace")).hexdigest()[:16]


def _json(values: dict[str, Any]) -> bytes:
    return f"{json.dumps(values, ensure_ascii=False, allow_nan=False)}\n".encode(errors="backslashreplace")


def _write(path: Path, data: bytes) -> None:
    """Written completely or not at all; not if the file exists."""
    if path.is_file() and path.read_bytes() == data:
        return
    with atomic_output(path) as temporary:
        temporary.write_bytes(data)
