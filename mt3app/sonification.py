"""`mt3 transcribe --sonify` and `--compare`: which sound files belong to which recording, and their making."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mt3app.outputs import Job, Output, is_suffix
from mt3core.errors import UsageError
from mt3core.files import expanded

if TYPE_CHECKING:
    from mt3core.audio.files import Damaged
    from mt3core.transcription import Transcription

TRANSCRIBED, COMPARED = "transcribed", "compared"  # also the ends of their names in a folder
_OPTIONS = {TRANSCRIBED: "--sonify", COMPARED: "--compare"}


def with_sounds(jobs: Sequence[Job], sonify: str | None, compare: str | None, overwrite: bool) -> list[Job]:
    """The jobs with their sound files. Those that exist are finished, unless they are to be replaced.

    Raises `UsageError` for one file of several recordings, the same file twice, and a recording that would be
    overwritten.
    """
    changed = list(jobs)
    written: set[Path] = set()
    for kind, given in ((TRANSCRIBED, sonify), (COMPARED, compare)):
        for number, job in enumerate(changed if given is not None else ()):
            path = _path(str(given), kind, job, is_single=len(jobs) == 1)
            if path.resolve() in {path.resolve() for path in (other.audio for other in jobs)}:
                raise UsageError(f"{path} is a recording and would be overwritten.", "Choose another name.")
            if path.resolve() in written:
                raise UsageError(f"{path} would be written twice.", f"Choose another name with {_OPTIONS[kind]}.")
            written.add(path.resolve())
            if path.exists() and not overwrite:
                changed[number] = replace(job, finished=(*job.finished, path))
            else:
                changed[number] = replace(job, sounds=(*job.sounds, Output(path, kind)))
    return changed


def write_sounds(job: Job, result: Transcription, source: Path | BinaryIO, track: int | None, damaged: Damaged) -> str:
    """Writes the sound files of a job; returns what played the notes. Raises `OutputError`, `AudioError`."""
    from mt3render.listening import sonify, write_comparison

    paths = {sound.format: sound.path for sound in job.sounds}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mt3-sonify-") as folder:
        transcribed = paths.get(TRANSCRIBED, Path(folder, "transcribed.wav"))
        played = sonify(result.notes, transcribed)
        if COMPARED in paths:
            write_comparison(source, transcribed, paths[COMPARED], track, damaged)
    return played.sound


def _path(given: str, kind: str, job: Job, is_single: bool) -> Path:
    path = Path(expanded(given))
    is_wav = path.suffix.lower() == ".wav"
    # Another suffix is a misunderstanding, and no wish for a folder of that name.
    has_other_suffix = given == "-" or (is_suffix(path.suffix) and not is_wav)
    if has_other_suffix and not path.is_dir() and not given.endswith(("/", os.sep)):
        raise UsageError(
            f"{_OPTIONS[kind]} {given} is not a WAV file.", f"Use {_OPTIONS[kind]} song.wav, or the name of a folder."
        )
    if not is_wav or path.is_dir():
        return path / job.inside.with_name(f"{job.inside.name}_{kind}.wav")
    if not is_single:
        raise UsageError(
            f"{_OPTIONS[kind]} {given} is one file, but there are several recordings.", "Name a folder instead."
        )
    return path
