"""`mt3 view`: notes, and their recording if there is one, as one page with a piano roll and a player."""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.formats import about
from mt3app.outputs import check_writable
from mt3app.progress import Reporter
from mt3core.errors import OutputError, UsageError
from mt3core.files import atomic_output, expanded

if TYPE_CHECKING:
    from mt3app.cli_page import ViewOptions
    from mt3core.transcription import Transcription

_MIDI_SUFFIXES = {".mid", ".midi", ".kar"}
_LARGE_BYTES = 50_000_000  # of a page; browsers get slow


def view(options: ViewOptions, reporter: Reporter) -> int:
    """Writes the page, and opens it if that was asked for. Raises `MT3Error`."""
    from mt3page.assembly import audio_address
    from mt3page.piece_page import Piece, piece_page
    from mt3page.recordings import embedded_recording

    notes = Path(expanded(options.notes))
    page = Path(expanded(options.output)) if options.output is not None else notes.with_suffix(".html")
    _refuse_as_page(page, notes, "the notes")
    if page.exists() and not options.overwrite:
        raise OutputError(f"{page} exists.", "Use --overwrite, or name another file with -o.")
    check_writable([page])
    result = read_notes(notes)
    recording = _recording(options, notes, result)
    if recording is not None:
        _refuse_as_page(page, recording, "the recording")
    audio, seconds = None, result.duration_seconds
    if recording is not None:
        from mt3core.audio.load import probe_audio

        seconds = probe_audio(recording, damaged="keep").duration_seconds or seconds
        link = options.link
        audio = audio_address(recording, page, False, "Correct the path.") if link else embedded_recording(recording)
    title = (recording or notes).name
    result = replace(result, duration_seconds=seconds)
    content = piece_page(Piece(title, result.notes, seconds, audio, about(result), result.tempo))
    with atomic_output(page) as temporary:
        temporary.write_bytes(content)
    size = f"{len(content) / 1e6:.1f} MB"
    reporter.line(f"{notes} -> {page}: {about(result).split(', ')[0]}, {size}. Open it in a browser.")
    if len(content) > _LARGE_BYTES:
        reporter.line("With --link the recording stays outside the page.")
    if options.open:
        webbrowser.open(page.resolve().as_uri())
    return 0


def read_notes(path: Path) -> Transcription:
    """Notes from a MIDI file, as long as they sound, or from JSON of `mt3 transcribe`. Raises `MT3Error`."""
    from mt3core.notes.midi_reading import read_midi
    from mt3core.notes.table import to_notes
    from mt3core.transcription import Transcription

    if path.suffix.lower() == ".json":
        return Transcription.load(path)
    if path.suffix.lower() in _MIDI_SUFFIXES:
        return Transcription(to_notes(read_midi(path, sustain=True)))
    raise UsageError(f"{path} is neither MIDI nor JSON.", "Transcribe a recording first: mt3 transcribe song.mp3")


def _refuse_as_page(page: Path, source: Path, what: str) -> None:
    """Raises `UsageError` if the page would be written over what it is made from, even with --overwrite."""
    if page.resolve() == source.resolve():
        raise UsageError(f"{page} is the file of {what} and would be overwritten.", "Choose another name with -o.")


def _recording(options: ViewOptions, notes: Path, result: Transcription) -> Path | None:
    """The recording that is named, or the one that JSON names if it is there."""
    if options.recording is not None:
        return Path(expanded(options.recording))
    places = [Path(result.audio), notes.parent / Path(result.audio).name] if result.audio else []
    return next((place for place in places if place.is_file()), None)
