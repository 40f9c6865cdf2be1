"""Which files are transcribed, and where each result goes: determined before any weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import AudioError, UsageError
from mt3core.files import OTHER_PATH, check_output
from mt3core.transcription import FORMATS, known_format

STDOUT = "-"


@dataclass(frozen=True)
class Output:
    """A file to write, and its format."""

    path: Path
    format: str


@dataclass(frozen=True)
class Job:
    """One recording and the files to write from it; no files if the result goes to standard output."""

    audio: Path
    outputs: tuple[Output, ...]
    finished: tuple[Path, ...] = ()

    @property
    def is_finished(self) -> bool:
        return bool(self.finished) and not self.outputs


def parse_formats(text: str) -> tuple[str, ...]:
    """`"mid,json"` as a tuple without repetitions. Raises `UsageError` for an unknown format."""
    formats = [known_format(part) for part in text.split(",") if part.strip()]
    if None in formats or not formats:
        raise UsageError(f"Unknown format {text!r}.", f"Choose from {', '.join(FORMATS)}, separated by commas.")
    return tuple(dict.fromkeys(name for name in formats if name is not None))


def plan(inputs: Sequence[Path], output: str | None, formats: tuple[str, ...] | None, overwrite: bool) -> list[Job]:
    """One job per recording, in the order given; folders are searched for audio, sorted by name.

    Args:
        inputs: files and folders. That the files exist is not checked here.
        output: None for next to each recording, `-` for standard output, otherwise a file or a folder.
        formats: None if none was given: the suffix of `output`, or MIDI.
        overwrite: if false, existing files are removed from `outputs` and named in `finished`.

    Raises `UsageError` if two recordings would write the same file, or a recording would be overwritten;
    `AudioError` if a folder contains no audio.
    """
    found = list(_recordings(inputs))
    if output == STDOUT:
        return _to_stdout(found, formats or ("mid",))
    is_single = len(inputs) == 1 and not inputs[0].is_dir()
    jobs = [Job(audio, _outputs(audio, inside, output, formats, is_single)) for audio, inside in found]
    _refuse_collisions(jobs)
    return jobs if overwrite else [_without_finished(job) for job in jobs]


def check_writable(outputs: Iterable[Path], next_step: str = OTHER_PATH) -> None:
    """Raises `OutputError` naming the first file that cannot be written, see `check_output`."""
    for path in outputs:
        check_output(path, next_step)


def _recordings(inputs: Sequence[Path]) -> Iterable[tuple[Path, Path]]:
    """Every recording once, with its path relative to the folder it was found in."""
    seen: set[Path] = set()
    for given in inputs:
        below = _audio_below(given) if given.is_dir() else [given]
        if not below:
            raise AudioError(
                f"There is no audio in {given}.",
                f"Looked for {' '.join(sorted(AUDIO_SUFFIXES))} in all folders below it.",
            )
        for path in below:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path, path.relative_to(given) if given.is_dir() else Path(path.name)


def _audio_below(folder: Path) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _to_stdout(found: list[tuple[Path, Path]], formats: tuple[str, ...]) -> list[Job]:
    if len(formats) != 1:
        raise UsageError("Standard output can have only one format.", f"Choose one of {', '.join(formats)}.")
    if len(found) > 1 and formats[0] != "jsonl":
        raise UsageError(
            f"{len(found)} recordings cannot share standard output as {formats[0]}.",
            "Use --format jsonl, or a folder with -o.",
        )
    return [Job(audio, ()) for audio, _ in found]


def _outputs(
    audio: Path, inside: Path, output: str | None, formats: tuple[str, ...] | None, is_single: bool
) -> tuple[Output, ...]:
    if output is None:
        return _with_suffixes(audio, formats or ("mid",))
    target = Path(output)
    is_folder = target.is_dir() or output.endswith(("/", os.sep)) or not target.suffix
    if is_folder:
        return _with_suffixes(target / inside, formats or ("mid",))
    if not is_single:
        raise UsageError(
            f"-o {output} is one file, but there may be several recordings.", f"Use a folder: -o {output}/"
        )
    named = known_format(target.suffix)
    if formats is None and named is None:
        raise UsageError(
            f"{target.suffix} is not a supported output format.",
            f"Choose {', '.join(FORMATS)} with --format, or use a folder: -o {output}/",
        )
    if formats is None or len(formats) == 1:
        return (Output(target, formats[0] if formats else named or ""),)
    return _with_suffixes(target, formats)


def _with_suffixes(path: Path, formats: tuple[str, ...]) -> tuple[Output, ...]:
    return tuple(Output(path.with_suffix(f".{name}"), name) for name in formats)


def _refuse_collisions(jobs: list[Job]) -> None:
    recordings = {job.audio.resolve() for job in jobs}
    written: dict[Path, Path] = {}
    for job in jobs:
        for output in job.outputs:
            place = output.path.resolve()
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


def _without_finished(job: Job) -> Job:
    finished = tuple(output.path for output in job.outputs if output.path.exists())
    pending = tuple(output for output in job.outputs if output.path not in finished)
    return replace(job, outputs=pending, finished=finished)
