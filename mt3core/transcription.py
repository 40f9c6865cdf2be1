"""The result of a transcription, and the forms in which it is stored.

mid     MIDI (`midi_writing.py`): notes only, on a grid of 1 ms
json    everything, exact; `Transcription.load` reads it back
jsonl   one note per line, times rounded to microseconds
csv     the same as a table with a header
"""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mt3core.errors import MT3Error, OutputError
from mt3core.files import atomic_output
from mt3core.notes.table import Note

if TYPE_CHECKING:
    from pretty_midi import PrettyMIDI

SCHEMA_VERSION = 1
FORMATS = ("mid", "json", "jsonl", "csv")
NOTE_COLUMNS = ("onset", "offset", "pitch", "velocity", "program", "is_drum")


@dataclass(frozen=True)
class SegmentTokens:
    """What the network wrote for one segment, and how many of its events made no sense or came too late."""

    start_seconds: float
    tokens: list[int]
    invalid_events: int = 0
    dropped_events: int = 0


@dataclass(frozen=True)
class Transcription:
    """The notes of a recording, with the tokens they came from. Times are in seconds.

    `remark` has a line for everything odd about the audio (`read_audio`), and one if the recording is silent, or few or
    no notes were found in it (`recording_level.py`).
    """

    notes: list[Note]
    segments: list[SegmentTokens] = field(default_factory=list)
    duration_seconds: float = 0.0
    model: str = ""
    audio: str = ""
    remark: str = ""

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Writes the result to a file, completely or not at all, in the format of its suffix unless `format` is given.

        Raises `OutputError` for an unknown format or a path that cannot be written.
        """
        data = self.to_bytes(_known_format(Path(path).suffix[1:] if format is None else format, path))
        with atomic_output(path) as temporary:
            temporary.write_bytes(data)

    def write(self, stream: IO[Any], format: str) -> None:
        """Writes the result to an open binary or text stream; MIDI goes to the bytes beneath a text stream."""
        data = self.to_bytes(format)
        if not isinstance(stream, io.TextIOBase):
            stream.write(data)
        elif _known_format(format) != "mid":
            stream.write(data.decode())
        elif isinstance(stream, io.TextIOWrapper):
            stream.flush()
            stream.buffer.write(data)
        else:
            raise OutputError(
                "MIDI cannot be written to a text stream.", "Open it for bytes, or choose another format."
            )

    def to_bytes(self, format: str) -> bytes:
        """The result in one of `FORMATS`, text as UTF-8; the same result gives the same bytes."""
        format = _known_format(format)
        if format == "mid":
            from mt3core.notes.midi_writing import midi_bytes  # brings pretty_midi; text formats do not need it

            return midi_bytes(self.notes)
        if format == "json":
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
            # Names of files need not be UTF-8; JSON must escape the characters that Python uses for such bytes.
            return f"{text}\n".encode(errors="backslashreplace")
        if format == "jsonl":
            return "".join(json.dumps(_rounded(note), allow_nan=False) + "\n" for note in self.notes).encode()
        table = io.StringIO()
        writer = csv.DictWriter(table, NOTE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**_rounded(note), "is_drum": int(note.is_drum)} for note in self.notes)
        return table.getvalue().encode()

    def to_pretty_midi(self) -> PrettyMIDI:
        """The notes as they are saved in a MIDI file, as a `pretty_midi.PrettyMIDI` to edit, plot or play."""
        from mt3core.notes.midi_writing import pretty_midi_of

        return pretty_midi_of(self.notes)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary of everything; `version` is that of this schema, an empty `remark` is left out."""
        return {
            "version": SCHEMA_VERSION,
            "model": self.model,
            "audio": self.audio,
            "duration_seconds": self.duration_seconds,
            **({"remark": self.remark} if self.remark else {}),
            "notes": [asdict(note) for note in self.notes],
            "segments": [asdict(segment) for segment in self.segments],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Transcription:
        """The inverse of `to_json`. Raises `MT3Error` for another version or missing entries."""
        try:
            version = values["version"]
            if version != SCHEMA_VERSION:
                raise MT3Error(
                    f"The transcription has version {version!r}; this mt3kit reads {SCHEMA_VERSION}.",
                    "Install a newer release of mt3kit, or transcribe again.",
                )
            return cls(
                notes=[Note(**note) for note in values["notes"]],
                segments=[SegmentTokens(**segment) for segment in values["segments"]],
                duration_seconds=values["duration_seconds"],
                model=values["model"],
                audio=values["audio"],
                remark=values.get("remark", ""),
            )
        except (KeyError, TypeError) as error:
            raise MT3Error(
                f"The transcription has missing or unknown entries: {error}.", "Transcribe the recording again."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transcription:
        """Reads a file that `save` wrote as JSON. Raises `MT3Error` if it cannot be read."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise MT3Error(f"{path} cannot be read: {error.strerror or error}.", "Check the name.") from error
        except ValueError as error:  # not JSON, or not UTF-8
            raise MT3Error(
                f"{path} is not a transcription in JSON: {error}.", "Use a .json file written by mt3 transcribe."
            ) from error
        return cls.from_json(values)


def _rounded(note: Note) -> dict[str, Any]:
    return {**asdict(note), "onset": round(note.onset, 6), "offset": round(note.offset, 6)}


def _known_format(format: str, path: str | os.PathLike[str] | None = None) -> str:
    """The name in `FORMATS`; `midi` counts as `mid`, and case does not matter."""
    name = format.lower().lstrip(".")
    name = "mid" if name == "midi" else name
    if name not in FORMATS:
        what = f"The format {format!r}" if path is None or format else f"A name without a suffix ({str(path)!r})"
        raise OutputError(f"{what} is not a supported output format.", f"Choose from {', '.join(FORMATS)}.")
    return name
