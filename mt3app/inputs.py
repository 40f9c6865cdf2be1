"""Which recordings are meant by the names on the command line: files, patterns, folders, standard input.

In a folder every file with an audio stream counts, whatever its name. What has the suffix of an audio format is always
a recording, so that a damaged one fails with a sentence of its own instead of being passed over.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import url2pathname

from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import AudioError, UsageError
from mt3core.files import expanded

STDIN = "-"
_STDIN_NAME = Path("stdin")
# Two letters at least, because C:// is a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|www\.|(music\.|m\.)?youtube\.com/|youtu\.be/", re.I)
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

    Raises `UsageError` for an address, `AudioError` for a folder without audio and a pattern that matches nothing.
    """
    found, seen = Found(), set[Path]()
    for given in inputs:
        for recording in _recordings(os.fspath(given), found):
            real = _STDIN_NAME if recording.is_stdin else _real_path(recording.path)
            if real not in seen:
                seen.add(real)
                found.recordings.append(recording)
    return found


def describe_passed_over(files: Sequence[tuple[Path, str]]) -> str:
    """How many files were passed over, and why, as in "passed over 3 files: 2 without audio (.jpg, .txt); ..."."""
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for path, reason in files:
        names[reason][path.suffix.lower() or path.name] += 1
    parts = []
    for reason, counts in sorted(names.items(), key=lambda item: -item[1].total()):
        shown = [name for name, _ in counts.most_common(_MOST_NAMES)]
        more = ", ..." if len(counts) > _MOST_NAMES else ""
        parts.append(f"{counts.total()} {reason} ({', '.join(shown)}{more})")
    return f"passed over {len(files)} file{'s' * (len(files) != 1)}: {'; '.join(parts)}"


def _recordings(text: str, found: Found) -> Iterator[Recording]:
    if text == STDIN:
        yield Recording(Path(STDIN), _STDIN_NAME, is_stdin=True)
        return
    for path in _paths(text):
        if not os.path.isdir(path):
            yield Recording(path, Path(path.name))
            continue
        below, passed_over = _audio_below(path)
        if not below:
            what = describe_passed_over(passed_over).capitalize() if passed_over else "It contains no files"
            raise AudioError(f"There is no audio in {path}.", f"{what}.")
        found.folders.append((path, passed_over))
        yield from (Recording(one, one.relative_to(path)) for one in below)


def _paths(text: str) -> list[Path]:
    """A path, or those that match a pattern which no shell has replaced (those of Windows never do)."""
    address = _ADDRESS.match(text)
    if address and (address[1] or "").lower() == "file":
        return [Path(url2pathname(text.split("://", 1)[1].removeprefix("localhost")))]
    path = expanded(text)
    if address and not os.path.lexists(path):
        raise UsageError(
            f"{text} is an address, and mt3 transcribe reads files.", "Download it first, and pass the file."
        )
    if not glob.has_magic(text) or os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise AudioError(f"No file matches {text}.", "Check the pattern and the folder.")
    return [Path(match) for match in matches]


def _audio_below(top: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The recordings in a folder and all folders below, sorted, and what was passed over. Hidden files are neither."""
    recordings: list[Path] = []
    passed_over: list[tuple[Path, str]] = []
    for path in _files_below(top, passed_over):
        reason = None if path.suffix.lower() in AUDIO_SUFFIXES else _passed_over_because(path)
        if reason is None:
            recordings.append(path)
        else:
            passed_over.append((path, reason))
    return sorted(recordings), passed_over


def _files_below(top: Path, passed_over: list[tuple[Path, str]]) -> Iterator[Path]:
    """Every file once, and where it really is: links come after all folders, and only if they do not lead into them."""
    entered, known = set[Path](), set[Path]()
    folders, linked_folders, linked_files = [top], list[Path](), list[Path]()
    while folders or linked_folders:
        folder = folders.pop() if folders else linked_folders.pop(0)
        real_folder = _real_path(folder)
        if real_folder in entered:
            continue
        entered.add(real_folder)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            passed_over.append((folder, "not readable"))
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (linked_folders if entry.is_symlink() else folders).append(path)
            elif not entry.is_file():
                passed_over.append((path, "linked to nothing" if entry.is_symlink() else "of a special kind"))
            elif entry.is_symlink():
                linked_files.append(path)
            else:
                known.add(real_folder / entry.name)
                yield path
    yield from (path for path in linked_files if _real_path(path) not in known)


def _passed_over_because(path: Path) -> str | None:
    from mt3core.audio.load import probe_audio

    try:
        probe_audio(path)
    except AudioError:
        return "without audio"
    return None


def _real_path(path: Path) -> Path:
    return Path(os.path.realpath(path))
