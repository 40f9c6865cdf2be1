"""The forms in which the command line and the page write a transcription: one registry for both.

Those of `mt3core.transcription` need nothing but the notes; others are made here, from a result and its recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mt3core.errors import MT3Error
from mt3core.files import atomic_output
from mt3core.transcription import FORMATS as CORE_FORMATS
from mt3core.transcription import known_format as known_core_format

if TYPE_CHECKING:
    from mt3core.transcription import Transcription

# Makes the file's content from the result and the recording, if that is a file.
Write = Callable[["Transcription", Path | None], bytes]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Format:
    """A form of the result: its name is its suffix, `label` what the page calls it; `about` says what it is good for.

    Of a form that `has_bars`, the tempo is found first. `check` raises an error if something is missing that it needs,
    before anything slow starts.
    """

    name: str
    label: str
    media_type: str
    about: str
    write: Write
    is_text: bool = True
    has_bars: bool = False
    check: Callable[[], None] = _nothing


def _core(name: str) -> Write:
    return lambda result, _: result.to_bytes(name)


def _html(result: Transcription, recording: Path | None) -> bytes:
    from mt3page.piece_page import Piece, piece_page
    from mt3page.recordings import embedded_recording

    title = Path(result.audio).name if result.audio and recording is not None else "Transcription"
    audio = None if recording is None else embedded_recording(recording)
    return piece_page(Piece(title, result.notes, result.duration_seconds, audio, about(result), result.tempo))


def _musicxml(result: Transcription, recording: Path | None) -> bytes:
    from mt3music.musicxml import musicxml_bytes

    return musicxml_bytes(_with_bars(result))


def _pdf(result: Transcription, recording: Path | None) -> bytes:
    from mt3music.musescore import pdf_bytes

    return pdf_bytes(_with_bars(result))


def _with_bars(result: Transcription) -> Transcription:
    """Bars by the notes alone, if nobody looked for them in the recording."""
    from mt3music import add_tempo

    return result if result.tempo is not None else add_tempo(result)


def _check_pdf() -> None:
    from mt3music.musescore import find_musescore

    find_musescore()


FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("mid", "MIDI", "audio/midi", "MIDI, for every music program", _core("mid"), is_text=False),
        Format("json", "Everything (JSON)", "application/json", "everything, exact", _core("json")),
        Format("jsonl", "Notes as lines (JSONL)", "application/jsonl", "one note per line", _core("jsonl")),
        Format("csv", "Table (CSV)", "text/csv", "one note per row", _core("csv")),
        Format("html", "This view as a file (HTML)", "text/html", "a page with piano roll and player", _html),
        Format(
            "musicxml",
            "Sheet (MusicXML)",
            "application/vnd.recordare.musicxml+xml",
            "sheet music, for notation programs",
            _musicxml,
            has_bars=True,
        ),
        Format(
            "pdf",
            "Sheet (PDF)",
            "application/pdf",
            "sheet music by MuseScore",
            _pdf,
            False,
            has_bars=True,
            check=_check_pdf,
        ),
    )
}
assert set(CORE_FORMATS) <= set(FORMATS)
# What the page offers: no form that needs another program, and those whose program is there.
FORMATS_OF_PAGE = {name: one for name, one in FORMATS.items() if one.check is _nothing}


def formats_of_page() -> dict[str, Format]:
    """`FORMATS_OF_PAGE` and the forms whose program is installed."""
    return {name: one for name, one in FORMATS.items() if name in FORMATS_OF_PAGE or _is_possible(one)}


def _is_possible(one: Format) -> bool:
    try:
        one.check()
    except MT3Error:
        return False
    return True


def known_format(format: str) -> str | None:
    """The name in `FORMATS`, or None; `midi` is `mid`, `xml` is `musicxml`; neither case nor a leading dot matters."""
    name = format.strip().lower().removeprefix(".")
    name = {"xml": "musicxml"}.get(name, name)  # as notation programs also call it
    return known_core_format(name) or (name if name in FORMATS else None)


def save(result: Transcription, path: Path, format: str, recording: Path | None) -> None:
    """Writes a file, completely or not at all. Raises `OutputError`."""
    content = FORMATS[format].write(result, recording)
    with atomic_output(path) as temporary:
        temporary.write_bytes(content)


def about(result: Transcription) -> str:
    """A line about a result: how many notes of how many instruments, how long, by which model."""
    instruments = len({(note.is_drum, 0 if note.is_drum else note.program) for note in result.notes})
    seconds = result.duration_seconds or max((note.offset for note in result.notes), default=0.0)
    minutes = f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    by = f" Transcribed with {result.model}." if result.model else ""
    notes, kinds = (
        f"{number:,} {word}{'s' * (number != 1)}"
        for number, word in ((len(result.notes), "note"), (instruments, "instrument"))
    )
    return f"{notes}, {kinds}, {minutes}.{by}"
