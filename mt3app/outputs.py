"""Where the result of each recording goes: determined before any weights are loaded.

A result is named like its recording, without the suffix of an audio or video format; any other dot belongs to the
name. Recordings that would share an output, such as song.wav and song.mp3, each keep their suffix. A recording that
was written under such a name before, when another one was beside it, is finished.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mt3app.formats import FORMATS, known_format
from mt3app.inputs import Found, Recording, describe_passed_over, find_recordings
from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import UsageError
from mt3core.files import OTHER_PATH, check_output, expanded, writing
from mt3core.transcription import jsonl_line

if TYPE_CHECKING:
    from mt3core.notes.table import Note

STDOUT = "-"
# What is taken off a recording's name, besides the suffixes by which recordings are known.
_OTHER_SUFFIXES = (
    *(".mp4", ".m4v", ".m4b", ".m4r", ".mov", ".mkv", ".mka", ".webm", ".weba", ".avi", ".flv", ".f4v", ".ts", ".mts"),
    *(".m2ts", ".mpg", ".mpeg", ".mpe", ".vob", ".mxf", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ogx", ".ogm", ".spx"),
    *(".ac3", ".eac3", ".ec3", ".dts", ".amr", ".awb", ".mp1", ".mp2", ".mpa", ".mpga", ".snd", ".dsf", ".dff", ".tak"),
    *(".ra", ".rm", ".rmvb", ".voc", ".gsm", ".mpc", ".oma", ".shn", ".adts", ".rf64", ".bwf", ".iff", ".8svx"),
)
_KNOWN_SUFFIXES = {*AUDIO_SUFFIXES, *_OTHER_SUFFIXES}
# What looks like the suffix of a file format: short, one word, and not a number ("Sonata No.2 - I. Allegro").
_SUFFIX = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,5}")
_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_MOST_NAMES = 4  # in a remark
_PART_SUFFIX = ".part"


@dataclass(frozen=True)
class Output:
    """A file to write, and its format."""

    path: Path
    format: str


@dataclass(frozen=True)
class Job:
    """One recording and the files to write from it; no files if the result goes to standard output.

    `finished` exist already; `sounds` are to listen to (`sonification.py`). `inside` is the name of results in a
    folder, without their suffix: that of the recording, in the folders in which it was found.
    """

    audio: Path
    outputs: tuple[Output, ...]
    finished: tuple[Path, ...] = ()
    is_stdin: bool = False
    sounds: tuple[Output, ...] = ()
    inside: Path = Path()

    @property
    def is_finished(self) -> bool:
        return bool(self.finished) and not self.outputs and not self.sounds

    @property
    def is_printed(self) -> bool:
        """Whether the notes go to standard output."""
        return not self.outputs and not self.finished

    @property
    def name(self) -> str:
        return "standard input" if self.is_stdin else str(self.audio)


@dataclass(frozen=True)
class Plan:
    """One job per recording, and sentences for the user."""

    jobs: tuple[Job, ...]
    remarks: tuple[str, ...] = ()


def parse_formats(text: str) -> tuple[str, ...]:
    """`"mid,json"` as a tuple without repetitions. Raises `UsageError` for an unknown format."""
    formats = [known_format(part) for part in text.split(",") if part.strip()]
    if None in formats or not formats:
        raise UsageError(f"Unknown format {text!r}.", f"Choose from {', '.join(FORMATS)}, separated by commas.")
    return tuple(dict.fromkeys(name for name in formats if name is not None))


def parse_shard(text: str) -> slice:
    """`"2/8"`, the second of eight shares, as every eighth from the second on. Raises `UsageError`."""
    found = _SHARD.fullmatch(text.strip())
    number, shards = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= shards:
        raise UsageError(f"--shard {text} is not known.", "Use 1/8 to 8/8 for the shares of eight processes.")
    return slice(number - 1, None, shards)


def plan(
    inputs: Sequence[str | os.PathLike[str]], output: str | None, formats: tuple[str, ...] | None, overwrite: bool
) -> Plan:
    """One job per recording, in the order given; folders are searched for audio, sorted by name.

    Args:
        inputs: files, patterns, folders, and `-` for standard input. That files exist is not checked here.
        output: None for next to each recording, `-` for standard output, otherwise a file or a folder.
        formats: None if none was given: the suffix of `output`, or MIDI.
        overwrite: if false, existing files are removed from `outputs` and named in `finished`.

    Raises `UsageError` if two recordings would write the same file, or a recording would be overwritten, and what
    `find_recordings` raises.
    """
    _real_folder.cache_clear()  # links may have changed since the last call
    found = find_recordings(inputs)
    if output == STDOUT:
        jobs = _to_stdout(found.recordings, formats or ("mid",))
        return Plan(tuple(jobs), _remarks_on_folders(found, set()))
    is_single = len(found.recordings) == 1 and not found.folders
    places = [_Place.of(recording, output, formats, is_single) for recording in found.recordings]
    kept = _keep_suffixes(places)
    jobs = [
        Job(place.recording.path, place.outputs(), (), place.recording.is_stdin, inside=place.inside())
        for place in places
    ]
    _refuse_collisions(jobs)
    written = {one.path for job in jobs for one in job.outputs}
    remarks = _remarks_on_folders(found, written)
    if not overwrite:
        jobs = [_without_finished(job, place, written) for job, place in zip(jobs, places, strict=True)]
    if any(place in kept and not job.is_finished for job, place in zip(jobs, places, strict=True)):
        remarks += (_remark_on_suffixes(kept),)
    return Plan(tuple(jobs), remarks)


def check_writable(outputs: Iterable[Path], next_step: str = OTHER_PATH) -> None:
    """Raises `OutputError` naming the first file that cannot be written, see `check_output`."""
    for path in outputs:
        check_output(path, next_step)


class PartFile:
    """The notes so far of a file that is being decoded, as `song.jsonl.part` beside `song.jsonl`, which is written as a
    whole at the end. It replaces that of an earlier attempt."""

    def __init__(self, target: Path) -> None:
        whole = expanded(target)
        self.path = whole.with_name(whole.name + _PART_SUFFIX)
        self._file: IO[bytes] | None = None

    def add(self, note: Note) -> None:
        """Writes a line, which others can read at once. Raises `OutputError`."""
        with writing(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb")
            self._file.write(jsonl_line(note).encode())
            self._file.flush()

    def keep(self) -> bool:
        """Ends it; whether there is anything in it."""
        if self._file is None:
            return False
        with writing(self.path):
            self._file.close()
        return True

    def remove(self) -> None:
        if self.keep():
            with writing(self.path):
                self.path.unlink(missing_ok=True)


@dataclass
class _Place:
    """Where a recording's results go: `stem` with the suffix of each format, or one file that was named itself."""

    recording: Recording
    stem: Path
    formats: tuple[str, ...]
    file: Path | None = None
    keeps_suffix: bool = False

    @classmethod
    def of(cls, recording: Recording, output: str | None, formats: tuple[str, ...] | None, is_single: bool) -> _Place:
        formats_or_midi = formats or ("mid",)
        if output is None:
            if recording.is_stdin:
                raise UsageError("Standard input has no name.", "Name the result, as in -o song.mid, or use -o -.")
            return cls(recording, _without_suffix(recording.path), formats_or_midi)
        target, suffix = expanded(output), _suffix(Path(output))
        if os.path.isdir(target) or output.endswith(("/", os.sep)) or not suffix:
            return cls(recording, target / _without_suffix(recording.inside), formats_or_midi)
        if not is_single:
            raise UsageError(
                f"-o {output} is one file, but there may be several recordings.", f"Use a folder: -o {output}/"
            )
        named = known_format(suffix)
        if formats is None and named is None:
            if suffix.lower() in _KNOWN_SUFFIXES:
                raise UsageError(
                    f"{suffix} is sound, and -o is for notes.",
                    f"To hear them, use --sonify {output.removesuffix(suffix)}.wav.",
                )
            if suffix.lower() == ".mxl":
                raise UsageError(
                    "Compressed MusicXML is not written.", f"Use -o {output.removesuffix(suffix)}.musicxml."
                )
            raise UsageError(
                f"{suffix} is not a supported output format.",
                f"Choose {', '.join(FORMATS)} with --format, or use a folder: -o {output}/",
            )
        if formats is not None and len(formats) > 1:
            return cls(recording, target.with_name(target.name.removesuffix(suffix)), formats)
        return cls(recording, target, formats or (named or "",), file=target)

    def inside(self) -> Path:
        inside = self.recording.inside
        return inside if self.keeps_suffix else _without_suffix(inside)

    def outputs(self) -> tuple[Output, ...]:
        return self._outputs(self.keeps_suffix)

    def long_outputs(self) -> tuple[Output, ...]:
        """What is written if the recording keeps its suffix."""
        return self._outputs(keeps_suffix=True)

    def _outputs(self, keeps_suffix: bool) -> tuple[Output, ...]:
        if self.file is not None:
            return (Output(self.file, self.formats[0]),)
        name = self.recording.path.name if keeps_suffix and not self.recording.is_stdin else self.stem.name
        return tuple(Output(self.stem.with_name(f"{name}.{format}"), format) for format in self.formats)


def _without_suffix(path: Path) -> Path:
    return path.with_name(path.stem) if path.suffix.lower() in _KNOWN_SUFFIXES else path


def _suffix(path: Path) -> str:
    return path.suffix if is_suffix(path.suffix) else ""


def is_suffix(text: str) -> bool:
    """Whether the end of a name, with its dot, is that of a file format: `.mp3`, but not `.2 - I`."""
    return bool(_SUFFIX.fullmatch(text) or known_format(text))


def _keep_suffixes(places: Sequence[_Place]) -> list[_Place]:
    """Where several recordings would write the same file, each keeps its suffix; returns those that do.

    Once more for those that meet a recording whose own name is like that, such as song.wav.wav.
    """
    while True:
        counts = Counter(_identity(one.path) for place in places for one in place.outputs())
        colliding = [place for place in places if any(counts[_identity(one.path)] > 1 for one in place.outputs())]
        changed = [place for place in colliding if not place.keeps_suffix and place.outputs() != place.long_outputs()]
        if not changed:
            return [place for place in places if place.keeps_suffix]
        for place in changed:
            place.keeps_suffix = True


def _remark_on_suffixes(kept: Sequence[_Place]) -> str:
    names = [str(place.outputs()[0].path) for place in kept]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (
        "Recordings that differ only in their suffix would be written to the same file, so they keep it: "
        f"{', '.join(names[:_MOST_NAMES])}{more}."
    )


def _remarks_on_folders(found: Found, written: set[Path]) -> tuple[str, ...]:
    """A line for each folder in which files were passed over, other than results of these recordings."""
    remarks = []
    for folder, files in found.folders:
        others = [(path, reason) for path, reason in files if path not in written]
        if others:
            remarks.append(describe_passed_over(folder, others))
    return tuple(remarks)


def _to_stdout(recordings: Sequence[Recording], formats: tuple[str, ...]) -> list[Job]:
    if len(formats) != 1:
        raise UsageError("Standard output can have only one format.", f"Choose one of {', '.join(formats)}.")
    if len(recordings) > 1 and formats[0] != "jsonl":
        raise UsageError(
            f"{len(recordings)} recordings cannot share standard output as {formats[0]}.",
            "Use --format jsonl, or a folder with -o.",
        )
    return [
        Job(recording.path, (), is_stdin=recording.is_stdin, inside=_without_suffix(recording.inside))
        for recording in recordings
    ]


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    recordings = {_identity(job.audio) for job in jobs if not job.is_stdin}
    written: dict[str, Path] = {}
    for job in jobs:
        for output in job.outputs:
            place = _identity(output.path)
            if place in recordings:
                raise UsageError(
                    f"{output.path} is a recording and would be overwritten.", "Choose another path with -o."
                )
            if place in written:
                other = written[place]
                raise UsageError(
                    f"{other} and {job.audio} would both be written to {output.path}.",
                    "Rename one of them, or transcribe them one at a time with -o."
                    if other.parent == job.audio.parent
                    else "Pass the folder with both (its structure is kept), or transcribe them one at a time.",
                )
            written[place] = job.audio


def _identity(path: Path) -> str:
    """The same for two names of one file, also where a file system does not tell capitals or forms of accents apart.

    A link is a place of its own: writing replaces the link and not what it leads to.
    """
    real = os.path.join(_real_folder(path.parent), path.name)
    return unicodedata.normalize("NFC", real).casefold() if sys.platform in ("darwin", "win32") else real


@lru_cache(maxsize=4096)  # for thousands of files in few folders
def _real_folder(folder: Path) -> str:
    return os.path.realpath(folder)


def _without_finished(job: Job, place: _Place, written: set[Path]) -> Job:
    """Leaves out what exists, under its name of today or under the one it had when another recording was beside it."""
    finished, pending = [], []
    for output, long in zip(job.outputs, place.long_outputs(), strict=True):
        if os.path.isfile(output.path):
            finished.append(output.path)
        elif long.path not in written and os.path.isfile(long.path):
            finished.append(long.path)
        else:
            pending.append(output)
    return replace(job, outputs=tuple(pending), finished=tuple(finished))
