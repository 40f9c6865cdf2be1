"""Where the beats and bars of a recording are: the bridge between seconds and musical time.

A `TempoMap` is a list of beats in seconds and one time signature. Between two beats time runs evenly; before the first
and after the last it runs on as in the nearest beat. Positions are counted in beats from the first one of the list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3core.errors import UsageError
from mt3core.notes.table import MOST_SECONDS

_DENOMINATORS = (2, 4, 8)
_MOST_BEATS = 32  # in a bar
# A first beat this little away from the start of the recording is moved there in a MIDI file: a beat of its own before
# it would be faster than the 960 beats per minute that sequencers accept.
NEAR_START_SECONDS = 1 / 16


@dataclass(frozen=True)
class TimeSignature:
    """How many notes of which value fill a bar. In 6/8, 9/8 and 12/8 a beat has three of them, otherwise one.

    Raises `UsageError` for a value other than 2, 4 or 8, and for bars of no or more than 32 notes.
    """

    numerator: int = 4
    denominator: int = 4

    def __post_init__(self) -> None:
        if self.denominator not in _DENOMINATORS or not 1 <= self.numerator <= _MOST_BEATS:
            raise UsageError(
                f"{self.numerator}/{self.denominator} is not a time signature that can be written.",
                f"Use 1 to {_MOST_BEATS} halves, quarters or eighths, as in 4/4, 3/4 or 6/8.",
            )

    @classmethod
    def parse(cls, text: str) -> TimeSignature:
        """`"3/4"` as a time signature. Raises `UsageError`."""
        found = re.fullmatch(r"\s*(\d{1,3})\s*/\s*(\d{1,3})\s*", text)
        if not found:
            raise UsageError(f"{text!r} is not a time signature.", "Write it as 4/4, 3/4 or 6/8.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.numerator}/{self.denominator}"

    @property
    def is_compound(self) -> bool:
        return self.denominator == 8 and self.numerator % 3 == 0 and self.numerator > 3

    @property
    def beats_per_bar(self) -> int:
        return self.numerator // 3 if self.is_compound else self.numerator

    @property
    def beat_quarters(self) -> Fraction:
        """The length of a beat in quarter notes."""
        return Fraction(3, 2) if self.is_compound else Fraction(4, self.denominator)


@dataclass(frozen=True)
class TempoMap:
    """Beats in seconds, at least two, and the bars that they make.

    `first_downbeat` is the number of the first beat that begins a bar; the beats before it are a pick-up. The first
    beat lies at or (by up to a sixteenth of a second) before the start of the recording, or later. Raises `UsageError`
    for beats that are not in order, and for a first downbeat beyond the first bar.
    """

    beat_seconds: tuple[float, ...]
    time_signature: TimeSignature = TimeSignature()
    first_downbeat: int = 0

    def __post_init__(self) -> None:
        beats = np.asarray(self.beat_seconds, dtype=np.float64)
        is_usable = beats.ndim == 1 and len(beats) >= 2 and bool(np.isfinite(beats).all())
        if not is_usable or (np.diff(beats) <= 0).any() or beats[0] < -NEAR_START_SECONDS or beats[-1] > MOST_SECONDS:
            raise UsageError(
                "The beats are not two or more times in order, from the start of the recording on.",
                "Give each beat once, in seconds.",
            )
        if not 0 <= self.first_downbeat < self.time_signature.beats_per_bar:
            raise UsageError(
                f"The first bar would begin at beat {self.first_downbeat} of the pick-up.",
                f"A pick-up in {self.time_signature} has fewer than {self.time_signature.beats_per_bar} beats.",
            )
        object.__setattr__(self, "beat_seconds", tuple(beats.tolist()))

    @classmethod
    def steady(
        cls,
        beats_per_minute: float,
        end_seconds: float,
        start_seconds: float = 0.0,
        time_signature: TimeSignature | None = None,
        first_downbeat: int = 0,
    ) -> TempoMap:
        """Beats of one tempo from `start_seconds` to beyond `end_seconds`."""
        period = 60.0 / beats_per_minute
        count = max(int(np.ceil((end_seconds - start_seconds) / period)) + 1, 2)
        beats = tuple((start_seconds + period * np.arange(count)).tolist())
        return cls(beats, time_signature or TimeSignature(), first_downbeat)

    def beats_at(self, seconds: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Positions in beats of times in seconds."""
        beats = np.asarray(self.beat_seconds)
        place = np.clip(np.searchsorted(beats, seconds, side="right") - 1, 0, len(beats) - 2)
        return place + (seconds - beats[place]) / (beats[place + 1] - beats[place])

    def seconds_at(self, positions: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """Times in seconds of positions in beats."""
        beats = np.asarray(self.beat_seconds)
        place = np.clip(np.floor(positions).astype(np.int64), 0, len(beats) - 2)
        return beats[place] + (positions - place) * (beats[place + 1] - beats[place])

    @property
    def beats_per_minute(self) -> float:
        """The mean tempo."""
        return 60.0 * (len(self.beat_seconds) - 1) / (self.beat_seconds[-1] - self.beat_seconds[0])

    @property
    def is_steady(self) -> bool:
        """Whether all beats lie within 2 ms of one tempo."""
        beats = np.asarray(self.beat_seconds)
        even = np.linspace(beats[0], beats[-1], len(beats))
        return bool(np.abs(beats - even).max() <= 0.002)

    @property
    def in_words(self) -> str:
        """A sentence for the user."""
        about = "" if self.is_steady else " on average"
        bar = self.beat_seconds[min(self.first_downbeat, len(self.beat_seconds) - 1)]
        tempo = f"{self.beats_per_minute:.2f}".rstrip("0").rstrip(".")
        return f"{tempo} beats a minute{about}, {self.time_signature}, the first bar at {max(bar, 0.0):.2f} s."

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, times rounded to microseconds."""
        return {
            "time_signature": str(self.time_signature),
            "first_downbeat": self.first_downbeat,
            "beat_seconds": [round(beat, 6) for beat in self.beat_seconds],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TempoMap:
        """The inverse. Raises `KeyError`, `TypeError` or `UsageError` for anything else."""
        beats, downbeat = values["beat_seconds"], values["first_downbeat"]
        if not isinstance(beats, list) or any(isinstance(one, bool | str) for one in beats):
            raise TypeError("beat_seconds")
        if isinstance(downbeat, bool) or not isinstance(downbeat, int) or not isinstance(values["time_signature"], str):
            raise TypeError("first_downbeat")
        return cls(tuple(map(float, beats)), TimeSignature.parse(values["time_signature"]), downbeat)
