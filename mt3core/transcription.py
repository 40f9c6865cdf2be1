"""The result of a transcription, and the forms in which it is stored.

mid     MIDI (`midi_writing.py`): notes on a grid of 1 ms, and the tempo if it is known; `midi` is another name for it
json    everything, exact; `Transcription.load` reads it back
jsonl   one note per line, times rounded to microseconds
csv     the same as a table with a header

In all of them notes are in order of onset, and text names the instrument beside its program number. Where a model wrote
the notes, text says how sure it was: JSON of all parts of a note (`Confidence`), the others of the note as a whole.
"""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mt3core.decoding import Decoding
from mt3core.errors import MT3Error, OutputError, UsageError, quoted
from mt3core.files import atomic_output
from mt3core.notes.choosing import Excerpt, NoteChoice
from mt3core.notes.instruments import instrument_name
from mt3core.notes.table import Confidence, Note
from mt3core.notes.tempo_map import TempoMap

if TYPE_CHECKING:
    from pretty_midi import PrettyMIDI

SCHEMA_VERSION = 3  # of what is written
# In version 2 notes had no `confidence`; in version 1 they had no `instrument` either, and were in order of their ends.
READ_VERSIONS = (1, 2, 3)
_LARGEST = 2**31 - 1  # of the whole numbers in note tables
FORMATS = ("mid", "json", "jsonl", "csv")
# What is younger comes last, so that whoever reads columns by their place finds them where they were.
NOTE_COLUMNS = ("onset", "offset", "pitch", "velocity", "program", "is_drum", "instrument", "confidence")


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

    `notes` are put in order of onset; of equal onset: pitched before drums, by program, by pitch. `remark` has a line
    for everything that the user should know: what was odd about the audio (`read_audio`), whether it is silent, very
    quiet or clipped, or few or no notes were found in it (`recording_level.py`), and whether MIDI has too few channels.
    `duration_seconds` is that of the whole recording. If only a part was transcribed, `excerpt` is that part, and if
    not all notes that were found are here as they were found, `choice` says why. `decoding` has the options with which
    the network wrote them, the instruments chosen among them. `tempo` has beats and bars if they were asked for, and
    `grid` is the note value to which notes were moved ("1/16").
    """

    notes: list[Note]
    segments: list[SegmentTokens] = field(default_factory=list)
    duration_seconds: float = 0.0
    model: str = ""
    audio: str = ""
    remark: str = ""
    excerpt: Excerpt | None = None
    choice: NoteChoice | None = None
    decoding: Decoding | None = None
    tempo: TempoMap | None = None
    grid: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", sorted(self.notes, key=place_in_time))

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Writes the result to a file, completely or not at all, in the format of its suffix unless `format` is given.

        A `~` at the start of the path is the home folder. Raises `OutputError` for an unknown format or a path that
        cannot be written.
        """
        data = self.to_bytes(_required_format(Path(path).suffix[1:] if format is None else format, path))
        with atomic_output(path) as temporary:
            temporary.write_bytes(data)

    def write(self, stream: IO[Any], format: str) -> None:
        """Writes the result to an open binary or text stream; MIDI goes to the bytes beneath a text stream."""
        data = self.to_bytes(format)
        if not isinstance(stream, io.TextIOBase):
            stream.write(data)
        elif _required_format(format) != "mid":
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
        format = _required_format(format)
        if format == "mid":
            from mt3core.notes.midi_writing import midi_bytes  # brings pretty_midi; text formats do not need it

            return midi_bytes(self.notes, self.tempo)
        if format == "json":
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
            # Names of files need not be UTF-8; JSON must escape the characters that Python uses for such bytes.
            return f"{text}\n".encode(errors="backslashreplace")
        if format == "jsonl":
            return "".join(map(jsonl_line, self.notes)).encode()
        table = io.StringIO()
        writer = csv.DictWriter(table, NOTE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**_rounded(note), "is_drum": int(note.is_drum)} for note in self.notes)
        return table.getvalue().encode()

    def to_pretty_midi(self) -> PrettyMIDI:
        """The notes as they are saved in a MIDI file, as a `pretty_midi.PrettyMIDI` to edit, plot or play."""
        from mt3core.notes.midi_writing import pretty_midi_of

        return pretty_midi_of(self.notes, self.tempo)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary of everything; `version` is that of this schema.

        An empty `remark`, an `excerpt` that is the whole recording, a `choice` of all notes, a `decoding` by default,
        an unknown `tempo` and no `grid` are left out.
        """
        return {
            "version": SCHEMA_VERSION,
            "model": self.model,
            "audio": self.audio,
            "duration_seconds": self.duration_seconds,
            **({"remark": self.remark} if self.remark else {}),
            **({"excerpt": asdict(self.excerpt)} if self.excerpt else {}),
            **({"choice": self.choice.to_json()} if self.choice else {}),
            **({"decoding": self.decoding.to_json()} if self.decoding else {}),
            **({"tempo": self.tempo.to_json()} if self.tempo else {}),
            **({"grid": self.grid} if self.grid else {}),
            "notes": [_named(note) for note in self.notes],
            "segments": [asdict(segment) for segment in self.segments],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Transcription:
        """The inverse of `to_json`. Raises `MT3Error` for another version or missing entries."""
        try:
            version = values["version"]
            if version not in READ_VERSIONS:
                raise MT3Error(
                    f"The transcription has version {quoted(version)}; this mt3kit reads {SCHEMA_VERSION} and earlier.",
                    "Install a newer release of mt3kit, or transcribe again.",
                )
            return cls(
                notes=[_checked_note(note) for note in values["notes"]],
                segments=[_checked_segment(segment) for segment in values["segments"]],
                duration_seconds=_seconds(values["duration_seconds"]),
                model=_text(values["model"]),
                audio=_text(values["audio"]),
                remark=_text(values.get("remark", "")),
                excerpt=Excerpt(**values["excerpt"]) if "excerpt" in values else None,
                choice=NoteChoice.from_json(values["choice"]) if "choice" in values else None,
                decoding=Decoding.from_json(values["decoding"]) if "decoding" in values else None,
                tempo=TempoMap.from_json(values["tempo"]) if "tempo" in values else None,
                grid=_text(values.get("grid", "")),
            )
        except (KeyError, TypeError, AttributeError, UsageError) as error:
            raise MT3Error(
                f"The transcription has missing or unknown entries: {str(error)[:100]}.",
                "Transcribe the recording again.",
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transcription:
        """Reads a file that `save` wrote as JSON. Raises `MT3Error` if it cannot be read."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise MT3Error(f"{path} cannot be read: {error.strerror or error}.", "Check the name.") from error
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or lists in lists in lists
            raise MT3Error(
                f"{path} is not a transcription in JSON: {error}.", "Use a .json file written by mt3 transcribe."
            ) from error
        return cls.from_json(values)


def jsonl_line(note: Note, audio: str | None = None) -> str:
    """A note as a line of JSON, with the name of its recording in front if that is given."""
    named = {} if audio is None else {"audio": audio}
    return json.dumps({**named, **_rounded(note)}, allow_nan=False) + "\n"


def place_in_time(note: Note) -> tuple[float, bool, int, int]:
    """The order of notes: of equal onset, pitched before drums, by program, by pitch."""
    return note.onset, note.is_drum, note.program, note.pitch


def _named(note: Note) -> dict[str, Any]:
    values = asdict(note) | {"instrument": instrument_name(note.program, note.is_drum)}
    sureness = values.pop("confidence")
    return values | ({"confidence": {name: round(one, 4) for name, one in sureness.items()}} if sureness else {})


def _checked_note(values: dict[str, Any]) -> Note:
    """The inverse of `_named`. Raises `TypeError` for anything that `to_json` does not write."""
    given = {**values}
    given.pop("instrument", None)
    sureness = given.pop("confidence", None)
    note = Note(**given, confidence=None if sureness is None else Confidence(**sureness))
    for value in () if note.confidence is None else astuple(note.confidence):
        if not 0 <= _seconds(value) <= 1:
            raise TypeError(f"the confidence {value!r}")
    for value in (note.onset, note.offset):
        _seconds(value)
    for value in (note.pitch, note.velocity, note.program):
        _whole(value)
    if not isinstance(note.is_drum, bool):
        raise TypeError(f"is_drum {note.is_drum!r}")
    return note


def _checked_segment(values: dict[str, Any]) -> SegmentTokens:
    segment = SegmentTokens(**values)
    _seconds(segment.start_seconds)
    if not isinstance(segment.tokens, list):
        raise TypeError(f"tokens {segment.tokens!r}")
    for value in (*segment.tokens, segment.invalid_events, segment.dropped_events):
        _whole(value)
    return segment


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise TypeError(f"the time {value!r}")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise TypeError(f"the number {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the text {value!r}")
    return value


def _rounded(note: Note) -> dict[str, Any]:
    values = {**_named(note), "onset": round(note.onset, 6), "offset": round(note.offset, 6)}
    return values | ({"confidence": round(note.confidence.note, 4)} if note.confidence else {})


def known_format(format: str) -> str | None:
    """The name in `FORMATS`; `midi` counts as `mid`, and neither case nor a leading dot matters. None if unknown."""
    name = format.strip().lower().removeprefix(".")
    name = {"midi": "mid"}.get(name, name)
    return name if name in FORMATS else None


def _required_format(format: str, path: str | os.PathLike[str] | None = None) -> str:
    name = known_format(format)
    if name is None:
        what = f"The format {format!r}" if path is None or format else f"A name without a suffix ({str(path)!r})"
        raise OutputError(f"{what} is not a supported output format.", f"Choose from {', '.join(FORMATS)}.")
    return name
