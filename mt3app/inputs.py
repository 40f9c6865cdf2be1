"""Which recordings are meant by the names on the command line: files, patterns, folders, standard input.

In a folder every file with an audio stream counts, whatever its name. What has the suffix of an audio format is a
recording without a look into it, so that a damaged one fails with a sentence of its own instead of being passed over.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast
from urllib.request import url2pathname

from mt3core.audio import AUDIO_SUFFIXES
from mt3core.audio.source import refuse_address
from mt3core.errors import AudioError, UsageError, reading
from mt3core.files import expanded, folders_below

STDIN = "-"
_STDIN_NAME = Path("stdin")
_OF_VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm"}  # which may have no sound
_BYTES_IN_MEMORY = 64 << 20  # of standard input; what is longer goes to a temporary file
_LEADING_VERB = re.compile(r"^(is( an?)?|has) ")
_MOST_NAMES = 3  # named for each reason why files are passed over


@dataclass(frozen=True)
class Recording:
    """A recording; `inside` is its path in the folder in which it was found, and its place below an output folder."""

    path: Path
    inside: Path
    is_stdin: bool = False


@dataclass
class Found:
    """All recordings, each once, and the folders that were searched, with the files passed over and why."""

    recordings: list[Recording] = field(default_factory=list)
    folders: list[tuple[Path, list[tuple[Path, str]]]] = field(default_factory=list)


def find_recordings(inputs: Sequence[str | os.PathLike[str]]) -> Found:
    """Recordings in the order given, those of a folder sorted by name. That named files exist is not checked here.

    Raises `AudioError` for an address, a folder without audio and a pattern that matches nothing.
    """
    found, seen = Found(), set[Path]()
    for given in inputs:
        for recording in _recordings(os.fspath(given), found):
            real = _STDIN_NAME if recording.is_stdin else _real_path(recording.path)
            if real not in seen:
                seen.add(real)
                found.recordings.append(recording)
    return found


def describe_passed_over(folder: Path, files: Sequence[tuple[Path, str]]) -> str:
    """One line: "Passed over 3 files in music: text file (2: .txt, README); no audio stream (1: .mp4)."."""
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for path, reason in files:
        names[_LEADING_VERB.sub("", reason)][path.suffix.lower() or path.name] += 1
    parts = []
    for reason, counts in sorted(names.items(), key=lambda item: -item[1].total()):
        shown = [name for name, _ in counts.most_common(_MOST_NAMES)]
        more = ", ..." if len(counts) > _MOST_NAMES else ""
        parts.append(f"{reason} ({counts.total()}: {', '.join(shown)}{more})")
    return f"Passed over {len(files)} file{'s' * (len(files) != 1)} in {folder}: {'; '.join(parts)}."


def _recordings(text: str, found: Found) -> Iterator[Recording]:
    if text == STDIN:
        yield Recording(Path(STDIN), _STDIN_NAME, is_stdin=True)
        return
    for path in _paths(text):
        if not os.path.isdir(path):
            yield Recording(path, Path(path.name))
            continue
        if not _is_open(path):
            raise AudioError(f"{path} cannot be entered: permission denied.", "Check its permissions.")
        below, passed_over = _audio_below(path)
        if not below:
            what = describe_passed_over(path, passed_over) if passed_over else "It contains no files."
            raise AudioError(f"There is no audio in {path}.", what)
        found.folders.append((path, passed_over))
        yield from (Recording(one, one.relative_to(path)) for one in below)


def _paths(text: str) -> list[Path]:
    """A path, or those that match a pattern which no shell has replaced (those of Windows never do)."""
    if text.lower().startswith("file://"):
        return [Path(url2pathname(text[len("file://") :].removeprefix("localhost")))]
    refuse_address(text)
    path = expanded(text)
    if not glob.has_magic(text) or os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise AudioError(f"No file matches {text}.", "Check the pattern and the folder.")
    return [Path(match) for match in matches]


def _audio_below(top: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The recordings in a folder and all folders below, sorted, and what was passed over. Hidden files are neither."""
    from mt3core.audio.recognise import NO_AUDIO_STREAM, audio_problem

    recordings: list[Path] = []
    passed_over: list[tuple[Path, str]] = []
    for path in _files_below(top, passed_over):
        suffix = path.suffix.lower()
        reason = None if suffix in AUDIO_SUFFIXES and suffix not in _OF_VIDEOS else audio_problem(path)
        if suffix in _OF_VIDEOS and reason != NO_AUDIO_STREAM:
            reason = None
        if reason is None:
            recordings.append(path)
        else:
            passed_over.append((path, reason))
    return sorted(recordings), passed_over


def _files_below(top: Path, passed_over: list[tuple[Path, str]]) -> Iterator[Path]:
    """Every file once, and where it really is: linked ones come last, and only if their file is in no other folder."""
    known, links = set[Path](), list[Path]()
    for folder in folders_below(top):
        real_folder = _real_path(folder)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(path):  # which a link to itself is not; the entry would raise
                if not _is_open(path):  # and then not among the folders
                    passed_over.append((path, "folder that cannot be entered"))
            elif not os.path.isfile(path):
                passed_over.append((path, "link to nothing" if entry.is_symlink() else "no regular file"))
            elif entry.is_symlink():
                links.append(path)
            else:
                known.add(real_folder / entry.name)
                yield path
    yield from (path for path in links if _real_path(path) not in known)


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _real_path(path: Path) -> Path:
    return Path(os.path.realpath(path))


def read_stdin() -> BinaryIO:
    """All of standard input as a file to seek in, of the name by which readers know it. Raises `UsageError` if nothing
    is sent, so that nobody waits for it."""
    if sys.stdin.isatty():
        raise UsageError(
            "Nothing is sent to standard input.", "Send a recording, as in: mt3 transcribe - -o a.mid < a.mp3"
        )
    copied = _StandardInput(max_size=_BYTES_IN_MEMORY)
    with reading("Standard input", AudioError, "Save the recording to a file first."):
        shutil.copyfileobj(sys.stdin.buffer, copied, 1 << 20)
    return cast(BinaryIO, copied)


class _StandardInput(tempfile.SpooledTemporaryFile[bytes]):
    name = "<stdin>"
