"""What is done to the notes of a recording once they were found, as often as somebody likes: bars, a grid, fewer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mt3core.errors import UsageError
from mt3core.notes.choosing import NoteChoice
from mt3core.transcription import Transcription
from mt3music.tempo import AUTO, TempoChoice, with_tempo

# A tempo in words of the page. The command line also takes files, which are none of a browser's business.
_NUMBER = re.compile(r"\d{1,5}(\.\d{1,5})?")


@dataclass(frozen=True)
class Arrangement:
    """A wish of the page, as it was said (`asked`), and what it means."""

    asked: Mapping[str, str]
    tempo: TempoChoice | None
    notes: NoteChoice

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Arrangement:
        """Of tempo, signature, grid, least (confidence) and merge. Raises `UsageError` and `MissingExtraError`."""
        names = ("tempo", "signature", "grid", "least", "merge")
        asked = {name: query[name].strip() for name in names if query.get(name, "").strip()}
        tempo, signature, grid = (asked.get(name) for name in names[:3])
        if tempo is not None and tempo != AUTO and not _NUMBER.fullmatch(tempo):
            raise UsageError(f"{tempo[:20]!r} is not a tempo.", "Give beats a minute, as in 97, or auto.")
        least = asked.get("least", "0")
        if not _NUMBER.fullmatch(least):
            raise UsageError(f"{least[:20]!r} is not a confidence.", "Give a number from 0 to 1.")
        choice = None if tempo is signature is grid is None else TempoChoice.parse(tempo, signature, grid)
        if choice is not None:
            choice.check()
        return cls(asked, choice, NoteChoice(min_confidence=float(least), merge=asked.get("merge")))

    def of(self, result: Transcription, recording: Path) -> Transcription:
        """The result with this done to it."""
        if not self.notes.is_everything:
            notes = self.notes.apply(result.notes)
            remarks = (result.remark, self.notes.remark_on(result.notes, notes))
            result = replace(result, notes=notes, choice=self.notes, remark="\n".join(filter(None, remarks)))
        return result if self.tempo is None else with_tempo(result, self.tempo, recording, damaged="keep")
