"""PDF of a score by MuseScore, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from mt3core.errors import OutputError
from mt3core.transcription import Transcription
from mt3music.musicxml import musicxml_bytes

# What the program is called by its packages for Linux, macOS and Windows.
PROGRAMS = ("mscore", "musescore", "mscore4portable", "musescore4", "MuseScore4", "musescore3", "mscore3", "MuseScore3")
_MOST_SECONDS = 600
_RUNNING = threading.Lock()  # it keeps settings in one place, and takes a processor
# Without the staves of instruments that rest for a whole system: a band is not readable otherwise.
_STYLE = '<museScore version="3.01"><Style><hideEmptyStaves>1</hideEmptyStaves></Style></museScore>\n'


def find_musescore() -> str:
    """The path of the program. Raises `OutputError` if it is not installed."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise OutputError(
        "PDF is made by MuseScore, which is not installed.",
        "Install it from musescore.org, or use --format musicxml and open that in any notation program.",
    )


def pdf_bytes(result: Transcription) -> bytes:
    """The score of `musicxml_bytes` as pages. Raises `OutputError` if MuseScore is missing or fails."""
    program = find_musescore()
    score = musicxml_bytes(result)
    with _RUNNING, tempfile.TemporaryDirectory(prefix="mt3-score-") as folder:
        written, styled, pages, style = (Path(folder) / f"score.{name}" for name in ("musicxml", "mscz", "pdf", "mss"))
        written.write_bytes(score)
        if score.count(b"<score-part ") > 1:
            # Staves are hidden only in a file of its own that is opened with the style in it.
            style.write_text(_STYLE)
            _run([program, "-S", str(style), "-o", str(styled), str(written)], styled)
        else:
            styled = written
        _run([program, "-o", str(pages), str(styled)], pages)
        return pages.read_bytes()


def _run(command: list[str], written: Path) -> None:
    environment = {"QT_QPA_PLATFORM": "offscreen", **os.environ}  # it needs no display to write a file
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=_MOST_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OutputError(f"MuseScore failed: {error}.", "Use --format musicxml.") from error
    if done.returncode or not written.exists():
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise OutputError(
            f"MuseScore failed with exit code {done.returncode}: {said[-1] if said else 'it said nothing'}.",
            "Use --format musicxml.",
        )
