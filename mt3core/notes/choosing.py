"""Which part of a recording is wanted, and which of its notes.

An `Excerpt` is a stretch of time, a `NoteChoice` says what is done to the notes that were found. Both do nothing to
notes that already are as they want them: applied twice, they give what they give once.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from typing import Any

import numpy as np

from mt3core.errors import AudioError, UsageError
from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.table import Note
from mt3core.notes.vocabulary import MAX_MIDI_VALUE

SAME_SECONDS = 1e-6  # times closer than this are equal: text formats round to it, and sums of 10 ms are not exact
LEAST_CUT_SECONDS = 1e-3  # a note of which less is left at the end of an excerpt is left out; MIDI has steps of 1 ms
_MOST_SECONDS = 1e9
ALL_PITCHES = (0, MAX_MIDI_VALUE)
MERGES = ("class",)
VELOCITIES = ("confidence",)
_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_PITCH = r"([A-Ga-g])([#♯]{0,2}|[b♭]{0,2})(-?\d{1,2})|(\d{1,9})"
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True)
class Excerpt:
    """The time of a recording that is transcribed, in seconds from its beginning; until its end if that is None.

    Raises `UsageError` for times that are negative or not finite, and for an end that is not after the start.
    """

    start_seconds: float = 0.0
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        next_step = "Count the seconds from the beginning of the recording."
        object.__setattr__(self, "start_seconds", _seconds(self.start_seconds, "The start of the excerpt", next_step))
        if self.end_seconds is None:
            return
        object.__setattr__(self, "end_seconds", _seconds(self.end_seconds, "The end of the excerpt", next_step))
        if self.end_seconds <= self.start_seconds:
            raise UsageError(
                f"The excerpt would start at {plain(self.start_seconds)} s and end at {plain(self.end_seconds)} s.",
                "Choose an end after the start.",
            )

    def part_of(self, duration_seconds: float, name: str = "") -> Excerpt | None:
        """The same with the end that it has in a recording of this length; None if it is all of the recording.

        Raises `AudioError`, with the `name` of the recording, if nothing of the recording is left.
        """
        if 0 < self.start_seconds >= duration_seconds:
            raise AudioError(
                f"{name or 'The recording'} is {plain(duration_seconds)} s long; the excerpt would start at "
                f"{plain(self.start_seconds)} s.",
                "Choose an earlier start.",
            )
        is_until_the_end = self.end_seconds is None or self.end_seconds >= duration_seconds
        if is_until_the_end and not self.start_seconds:
            return None
        return replace(self, end_seconds=duration_seconds) if is_until_the_end else self

    def remark_on(self, duration_seconds: float) -> str:
        """What the user should know: how much was transcribed, and whether the end lies beyond the recording's."""
        part, sentences = self.part_of(duration_seconds), []
        if part is not None and part.end_seconds is not None:
            span = f"{plain(part.start_seconds)} s to {plain(part.end_seconds)} s"
            sentences.append(f"Only {span} of {plain(duration_seconds)} s were transcribed.")
        if self.end_seconds is not None and self.end_seconds > duration_seconds:
            end = f"ends at {plain(duration_seconds)} s, before the end that was asked for, {plain(self.end_seconds)} s"
            sentences.append(f"The recording {end}.")
        return " ".join(sentences)

    def cut(self, notes: Iterable[Note]) -> list[Note]:
        """The notes that start in the excerpt; those that sound at its end are ended there."""
        end = math.inf if self.end_seconds is None else self.end_seconds
        return [
            replace(note, onset=max(note.onset, self.start_seconds), offset=min(note.offset, end))
            for note in notes
            if self.start_seconds - SAME_SECONDS <= note.onset <= end - LEAST_CUT_SECONDS
        ]


@dataclass(frozen=True)
class NoteChoice:
    """What is done to the notes that were found, in this order. Drum hits are changed by confidence only.

    min_confidence      notes of which the model was less sure are left out (0 to 1, `Confidence.note`)
    pitch_range         only notes from the lowest to the highest of these pitches (MIDI, 60 is C4)
    merge               "class": the instruments of one class of General MIDI become one, the one with the most notes
                        (of equals, the one of lowest number); its notes of one pitch that overlap become one
    merge_gap_seconds   notes of one pitch and instrument with a shorter gap between them become one
    min_note_seconds    shorter notes are left out
    velocity            "confidence": that becomes the velocity, from 1 to 127

    Raises `UsageError` for values that are negative, not finite or unknown, and for an empty range.
    """

    min_note_seconds: float = 0.0
    merge_gap_seconds: float = 0.0
    pitch_range: tuple[int, int] = ALL_PITCHES
    merge: str | None = None
    min_confidence: float = 0.0
    velocity: str | None = None

    def __post_init__(self) -> None:
        next_step = "Give it in seconds, as in 0.05."
        shortest = _seconds(self.min_note_seconds, "The shortest length of a note", next_step)
        object.__setattr__(self, "min_note_seconds", shortest)
        gap = _seconds(self.merge_gap_seconds, "The gap between notes that become one", next_step)
        object.__setattr__(self, "merge_gap_seconds", gap)
        object.__setattr__(self, "pitch_range", _checked_range(self.pitch_range))
        if self.merge is not None and self.merge not in MERGES:
            raise UsageError(f"Instruments cannot be merged by {self.merge!r}.", "The only choice is class.")
        if not _is_number(self.min_confidence) or not 0 <= self.min_confidence <= 1:
            raise UsageError(
                f"A confidence cannot be {self.min_confidence!r}.", "Give a number from 0 to 1, as in 0.5."
            )
        object.__setattr__(self, "min_confidence", float(self.min_confidence))
        if self.velocity is not None and self.velocity not in VELOCITIES:
            raise UsageError(f"Velocities cannot be taken from {self.velocity!r}.", "The only choice is confidence.")

    @property
    def is_everything(self) -> bool:
        """Whether all notes stay as they are."""
        return self == NoteChoice()

    def apply(self, notes: Iterable[Note]) -> list[Note]:
        """The chosen notes, in order of onset; a joined note has the confidence of its first.

        Raises `UsageError` if notes are chosen by a confidence that they do not have.
        """
        low, high = self.pitch_range
        drums, pitched = [], []
        for note in notes:
            if self.min_confidence and _sureness(note) < self.min_confidence:
                continue
            if note.is_drum:
                drums.append(note)
            elif low <= note.pitch <= high:
                pitched.append(note)
        if self.merge == "class":
            pitched = _joined(_of_one_program_a_class(pitched), 0.0)
        if self.merge_gap_seconds:
            pitched = _joined(pitched, self.merge_gap_seconds)
        pitched = [note for note in pitched if note.offset - note.onset > self.min_note_seconds - SAME_SECONDS]
        found = [*pitched, *drums]
        if self.velocity == "confidence":
            found = [replace(note, velocity=1 + round((MAX_MIDI_VALUE - 1) * _sureness(note))) for note in found]
        return sorted(found, key=lambda note: (note.onset, note.is_drum, note.program, note.pitch))

    def remark_on(self, before: Sequence[Note], after: Sequence[Note]) -> str:
        """What the user should know: what was done, and how many notes are left."""
        done = []
        if self.min_confidence:
            left_out = sum(_sureness(note) < self.min_confidence for note in before)
            done.append(f"no notes of a confidence below {plain(self.min_confidence)} ({left_out} left out)")
        if self.pitch_range != ALL_PITCHES:
            done.append("pitches {} to {} only".format(*self.pitch_range))
        if self.merge:
            done.append("one instrument of each class")
        if self.merge_gap_seconds:
            done.append(f"gaps below {plain(self.merge_gap_seconds)} s closed")
        if self.min_note_seconds:
            done.append(f"no notes below {plain(self.min_note_seconds)} s")
        if self.velocity:
            done.append("the confidence as velocity")
        return f"As asked, {', '.join(done)}: {len(after)} of {len(before)} notes." if done else ""

    def to_json(self) -> dict[str, Any]:
        """What is chosen, without what is not."""
        defaults = NoteChoice()
        return {name: value for name, value in asdict(self).items() if value != getattr(defaults, name)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NoteChoice:
        """The inverse of `to_json`. Raises `TypeError` or `UsageError` for anything that it does not write."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise TypeError(f"the choices {sorted(unknown)!r}")
        return cls(**values)


def _of_one_program_a_class(notes: list[Note]) -> list[Note]:
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for note in notes:
        counts[note.program // PROGRAMS_PER_CLASS][note.program] += 1
    chosen = {number: min(programs, key=lambda one: (-programs[one], one)) for number, programs in counts.items()}
    return [replace(note, program=chosen[note.program // PROGRAMS_PER_CLASS]) for note in notes]


def _joined(notes: list[Note], gap_seconds: float) -> list[Note]:
    """Makes one note, as loud as the loudest, of those of one pitch and program with gaps below `gap_seconds`."""
    latest: dict[tuple[int, int], Note] = {}
    finished = []
    for note in sorted(notes, key=lambda one: (one.onset, one.offset, one.velocity)):
        key = note.program, note.pitch
        before = latest.get(key)
        if before is not None and note.onset - before.offset < gap_seconds - SAME_SECONDS:
            offset, velocity = max(before.offset, note.offset), max(before.velocity, note.velocity)
            latest[key] = replace(before, offset=offset, velocity=velocity)
            continue
        if before is not None:
            finished.append(before)
        latest[key] = note
    return [*finished, *latest.values()]


def parse_seconds(text: str, what: str) -> float:
    """The seconds in "83.5", "1:23.5" (minutes) or "1:02:03" (hours). Raises `UsageError`, naming `what` it is."""
    match = _TIME.fullmatch(text.strip())
    next_step = "Write seconds, as in 83.5, or minutes and seconds, as in 1:23.5."
    if match is None:
        is_negative = text.strip().startswith("-") and _TIME.fullmatch(text.strip()[1:])
        problem = "lies before the beginning of the recording" if is_negative else "is not a time"
        raise UsageError(f"{what} {text} {problem}.", next_step)
    hours, minutes, seconds = match.groups()
    if (minutes is not None and float(seconds) >= 60) or (hours is not None and int(minutes) >= 60):
        raise UsageError(f"{what} {text} is not a time: 60 or more after a colon.", next_step)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def parse_pitch_range(text: str) -> tuple[int, int]:
    """The lowest and the highest MIDI pitch of "C2-C7", "Bb1-F#5" or "36-96"; C4 is 60. Raises `UsageError`."""
    match = re.fullmatch(rf"\s*(?:{_PITCH})\s*[-–]\s*(?:{_PITCH})\s*", text)
    if match is None:
        raise UsageError(f"{text!r} is not a range of pitches.", "Write two note names, as in C2-C7, or 36-96.")
    groups = match.groups()
    return _checked_range((_pitch(*groups[:4]), _pitch(*groups[4:])))


def _pitch(letter: str | None, accidentals: str, octave: str, number: str | None) -> int:
    if letter is None:
        return int(number or 0)
    sharps = sum((mark in "#♯") - (mark in "b♭") for mark in accidentals)
    return 12 * (int(octave) + 1) + _SEMITONES[letter.lower()] + sharps


def _checked_range(pitches: Any) -> tuple[int, int]:
    if not isinstance(pitches, tuple | list) or len(pitches) != 2:
        raise UsageError(f"{pitches!r} is not a range of pitches.", "Give the lowest and the highest, as in (36, 96).")
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in pitches):
        raise UsageError(f"{pitches!r} are not pitches.", "Give whole numbers, as in (36, 96).")
    low, high = map(int, pitches)
    if not 0 <= min(low, high) <= max(low, high) <= MAX_MIDI_VALUE:
        next_step = "Pitches are numbered from 0 (C-1) to 127 (G9)."
        raise UsageError(f"The pitches {low} to {high} are not all pitches of MIDI.", next_step)
    if low > high:
        raise UsageError(f"There is no pitch from {low} up to {high}.", "Give the lowest first, then the highest.")
    return low, high


def _seconds(value: Any, what: str, next_step: str) -> float:
    if not _is_number(value) or not 0 <= value <= _MOST_SECONDS:
        raise UsageError(f"{what} cannot be {value!r} s.", next_step)
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _sureness(note: Note) -> float:
    if note.confidence is None:
        raise UsageError("There are notes without a confidence.", "Choose them by something else, or transcribe again.")
    return note.confidence.note


def plain(seconds: float) -> str:
    """A number for a sentence, seconds to the millisecond, without zeros at the end."""
    text = f"{seconds:.3f}"
    return text.rstrip("0").rstrip(".")
