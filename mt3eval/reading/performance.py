"""One side of a comparison, and the error raised when a protocol has no value for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from mt3core.errors import MT3Error
from mt3core.notes.table import NoteTable, validate_notes


class NotDefinedError(MT3Error):
    """The published program fails for such notes, so the protocol has no value for them."""


def no_controls() -> Float[np.ndarray, "controls 3"]:
    """The table of control changes of a performance without any."""
    return np.zeros((0, 3))


@dataclass(frozen=True, eq=False)
class Performance:
    """The notes of a reference or an estimate and its control changes.

    `notes` keep the order in which they were given: which of several possible partners a note gets depends on
    it. `controls` has rows (time in seconds, controller number, value); controller 64 is the sustain pedal.
    `confidences` (0 to 1, one per note) are there if the system that made the estimate gave them.
    Raises `MidiError` naming the first note that is impossible, such as one with a negative time.
    """

    notes: NoteTable
    controls: Float[np.ndarray, "controls 3"] = field(default_factory=no_controls)
    name: str = ""
    confidences: Float[np.ndarray, " _notes"] | None = None

    def __post_init__(self) -> None:
        validate_notes(self.notes)

    def part(self, keep: Bool[np.ndarray, " _notes"]) -> Performance:
        """The notes where `keep` is true, in their order, with the same control changes."""
        confidences = None if self.confidences is None else self.confidences[keep]
        return Performance(self.notes[keep], self.controls, self.name, confidences)

    def pitched(self) -> Performance:
        """The notes that are not drum hits."""
        return self.part(~self.notes["is_drum"])

    def drums(self) -> Performance:
        """The drum hits."""
        return self.part(self.notes["is_drum"])
