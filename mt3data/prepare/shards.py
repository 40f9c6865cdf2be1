"""One unit becomes one shard: reading, cutting, writing. The unit is finished when its report is there.

The report is a small JSON file next to the shard, written last. It has the manifest's rows in short form, sentences
on what was left out, and the digest of the unit and the size of the shard, which show what it belongs to.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.audio.load import read_audio
from mt3core.errors import OutputError
from mt3core.files import atomic_output
from mt3core.json_text import read_json
from mt3core.notes.table import DRUM_PROGRAM, NoteTable
from mt3data.prepare.chunks import CHUNK_SAMPLES, SAMPLE_RATE_HZ, cut_chunks, encode_chunk, notes_between, to_int16
from mt3data.prepare.effects import change_audio, change_notes
from mt3data.prepare.manifest import SHARD_OPTIONS, array_record_module
from mt3data.readers.defects import defect, in_order
from mt3data.readers.file_names import printable
from mt3data.readers.labels import ODD_MIDI, Labels, stem_labels, track_labels
from mt3data.readers.tracks import MIX, Defect
from mt3data.readers.units import Recording, Settings, Unit

_SHARD_SUFFIX, _REPORT_SUFFIX = ".array_record", ".json"
_UNREADABLE, _CLIPPED, _PAST_AUDIO, _SILENT = "unreadable", "clipped", "notes_past_audio", "silent"
_ODD_AUDIO = "odd_audio"
_FOUND_HERE = (_CLIPPED, _PAST_AUDIO, _SILENT, ODD_MIDI, _ODD_AUDIO)

_LARGEST_INT32, _LARGEST_UINT32 = (1 << 31) - 1, (1 << 32) - 1  # of the manifest's columns
_TEXTS = ("split", "track", "stem", "instrument_class", "defects", "licence")
# Of a recording in a report: the types of its entries.
_REPORTED = {
    **dict.fromkeys(_TEXTS, str),
    **dict.fromkeys(("program", "samples", "first"), int),
    **{"is_drum": bool, "chunks": list},
}


@dataclass(frozen=True)
class Report:
    """The result of a unit. `recordings` are the manifest's rows in short form: see `manifest_rows`."""

    unit: str
    digest: str
    shard_bytes: int
    recordings: tuple[dict[str, Any], ...]
    left_out: tuple[Defect, ...]
    used: tuple[Defect, ...] = ()  # odd, but not left out

    @property
    def failures(self) -> tuple[Defect, ...]:
        """What was left out because it could not be read; the next run tries it again."""
        return tuple(one for one in self.left_out if one.kind == _UNREADABLE)

    @property
    def seconds(self) -> float:
        return sum(recording["samples"] for recording in self.recordings) / SAMPLE_RATE_HZ


def write_unit(unit: Unit, settings: Settings, folder: Path) -> Report:
    """Prepares a unit into `folder`. Unreadable files are left out and named in the report; so are silent recordings
    with notes, which would teach the network to hear notes in silence.

    The same unit gives the same bytes. Keeps the audio of one recording in memory at a time. Raises `OutputError` if
    the shard cannot be written; then no part of it remains.
    """
    shard, report_path = shard_path(folder, unit.name), folder / (unit.name + _REPORT_SUFFIX)
    remove_leftovers(folder, unit)
    report_path.unlink(missing_ok=True)
    recordings: list[dict[str, Any]] = []
    left_out: list[Defect] = []
    used: list[Defect] = []
    with atomic_output(shard) as temporary:
        writer = _ShardWriter(temporary, shard)
        for recording in unit.recordings:
            try:
                found = _read_labels(recording, settings)
                audio, notes, words, odd = _read(recording, settings, found)
            except Exception as error:  # one file must not stop thousands of others
                left_out.append(defect(recording.track.name, recording.stem_name, _UNREADABLE, error))
                continue
            if len(notes) and not audio.any():
                problem = f"{recording.audio} is silent throughout but has {len(notes)} notes."
                left_out.append(defect(recording.track.name, recording.stem_name, _SILENT, problem))
                continue
            recordings.append(_describe(recording, len(audio), words, writer.num_records))
            used += [*found.defects, *odd]
            recordings[-1]["chunks"] = [writer.write(chunk, settings.flac) for chunk in cut_chunks(audio, notes)]
        writer.close()
        shard_bytes = temporary.stat().st_size
    report = Report(unit.name, unit.digest, shard_bytes, tuple(recordings), tuple(left_out), in_order(used))
    with atomic_output(report_path) as temporary, _writing(report_path):
        temporary.write_text(json.dumps(asdict(report), ensure_ascii=True) + "\n", encoding="utf-8")
    return report


def read_report(unit_name: str, folder: Path) -> Report | None:
    """The report of a unit whose shard exists in its full size; None otherwise."""
    try:
        content = read_json(folder / (unit_name + _REPORT_SUFFIX))
        for name in {"left_out", "used"} & set(content):  # reports of earlier releases lack the second
            content[name] = tuple(Defect(**one) for one in content[name])
        for recording in content["recordings"]:
            _check_recording(recording)
        report = Report(**{**content, "recordings": tuple(content["recordings"])})
        return report if shard_path(folder, unit_name).stat().st_size == report.shard_bytes else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _check_recording(recording: dict[str, Any]) -> None:
    """Raises `ValueError` unless a recording is described as `_describe` does it, with all its chunks."""
    chunks = recording["chunks"]
    largest = {"samples": _LARGEST_INT32, "first": _LARGEST_INT32 - len(chunks)}
    numbers = [(recording[name], most) for name, most in largest.items()]
    for num_notes, checksum in chunks:
        numbers += [(num_notes, _LARGEST_INT32), (checksum, _LARGEST_UINT32)]
    found = {name: type(value) for name, value in recording.items()}
    if found != _REPORTED or recording["program"] not in range(-1, DRUM_PROGRAM + 1):
        raise ValueError("a recording is not described as it was")
    if not all(type(number) is int and 0 <= number <= most for number, most in numbers):
        raise ValueError("a number is not one")
    if len(chunks) != -(-recording["samples"] // CHUNK_SAMPLES):
        raise ValueError("a recording has chunks for another length")
    "".join(value for value in recording.values() if isinstance(value, str)).encode()  # UnicodeEncodeError


def remove_leftovers(folder: Path, unit: Unit) -> None:
    """What a killed process left of this unit: the hidden folders of `atomic_output`."""
    for suffix in (_SHARD_SUFFIX, _REPORT_SUFFIX):
        for leftover in folder.glob(f".{unit.name}{suffix}.*"):
            shutil.rmtree(leftover, ignore_errors=True)


def shard_path(folder: Path, unit_name: str) -> Path:
    return folder / (unit_name + _SHARD_SUFFIX)


def manifest_rows(report: Report, settings: Settings) -> Iterator[dict[str, Any]]:
    """The manifest's rows of a finished unit, one per chunk, in the order of the shard's records."""
    shard = f"{settings.name}/{report.unit}{_SHARD_SUFFIX}"
    for recording in report.recordings:
        shared = {name: value for name, value in recording.items() if name not in ("samples", "first", "chunks")}
        for number, (num_notes, checksum) in enumerate(recording["chunks"]):
            start = number * CHUNK_SAMPLES
            yield {
                **shared,
                "dataset": settings.name,
                "shard": shard,
                "index": recording["first"] + number,
                "start_seconds": start / SAMPLE_RATE_HZ,
                "duration_seconds": min(CHUNK_SAMPLES, recording["samples"] - start) / SAMPLE_RATE_HZ,
                "num_notes": num_notes,
                "checksum": checksum,
            }


def _read_labels(recording: Recording, settings: Settings) -> Labels:
    if recording.stem is None:
        return track_labels(recording.track, apply_sustain=settings.sustain)
    return stem_labels(recording.track, recording.stem, apply_sustain=settings.sustain)


def _read(
    recording: Recording, settings: Settings, labels: Labels
) -> tuple[np.ndarray, NoteTable, list[str], list[Defect]]:
    """Audio, notes, the words for what is wrong with them, and what was odd about the audio.

    Notes that start after the audio are left out and counted; one that lasts past the end keeps its offset.
    """
    notes = labels.notes
    loaded = read_audio(recording.audio, SAMPLE_RATE_HZ)
    sound = loaded.samples
    if settings.changes_sound:
        change = settings.pitch_semitones, settings.stretch
        sound, notes = change_audio(sound, SAMPLE_RATE_HZ, *change), change_notes(notes, *change)
    audio, num_clipped = to_int16(sound)
    heard = notes[notes["onset"] < len(audio) / SAMPLE_RATE_HZ]
    words = [word for word in recording.defects if word not in _FOUND_HERE]
    if labels.defects:
        words.append(ODD_MIDI)
    if loaded.remarks:
        words.append(_ODD_AUDIO)
    if num_clipped:
        words.append(f"{_CLIPPED}:{num_clipped}")
    if len(heard) < len(notes):
        words.append(f"{_PAST_AUDIO}:{len(notes) - len(heard)}")
    if not audio.any():
        words.append(_SILENT)
    names = recording.track.name, recording.stem_name
    odd = [defect(*names, _ODD_AUDIO, f"{recording.audio}: {remark}", skips=False) for remark in loaded.remarks]
    return audio, heard, words, odd


def _describe(recording: Recording, num_samples: int, words: list[str], first: int) -> dict[str, Any]:
    track, stem = recording.track, recording.stem
    return {
        "split": track.split,
        "track": printable(track.name),
        "stem": MIX if stem is None else printable(stem.name),
        "program": -1 if stem is None else stem.program,
        "is_drum": stem is not None and stem.is_drum,
        "instrument_class": "" if stem is None else printable(stem.instrument_class),
        "defects": " ".join(words),
        "licence": track.licence,
        "samples": num_samples,
        "first": first,
    }


class _ShardWriter:
    """Writes records; whatever goes wrong with the disk becomes one sentence that names the shard."""

    def __init__(self, temporary: Path, shard: Path) -> None:
        self._shard = shard
        self._path = temporary
        self.num_records = 0

    @cached_property
    def _writer(self) -> Any:
        return array_record_module().ArrayRecordWriter(str(self._path), SHARD_OPTIONS)

    def write(self, chunk: Any, flac: bool) -> tuple[int, int]:
        """Appends a chunk; returns how many notes sound in it and the record's checksum."""
        record = encode_chunk(chunk.audio, chunk.piece_notes, flac, chunk.start_sample)
        with _writing(self._shard):
            self._writer.write(record)
            if not self._writer.ok():
                self._writer.close()  # says why
        self.num_records += 1
        end_seconds = chunk.start_seconds + len(chunk.audio) / SAMPLE_RATE_HZ
        return len(notes_between(chunk.piece_notes, chunk.start_seconds, end_seconds)), zlib.crc32(record)

    def close(self) -> None:
        with _writing(self._shard):
            self._writer.close()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:
        if "No space left" in str(error):
            raise OutputError(
                f"The disk is full: {path} could not be written.",
                "Free some space and run again; finished shards are kept, and --flac makes the others smaller.",
            ) from error
        # The library appends its position in its source; the first words are the reason.
        reason = str(error).split(";")[0].rstrip(".")
        next_step = "Fix that and run again; finished shards are kept."
        raise OutputError(f"{path} cannot be written: {reason}.", next_step) from error
