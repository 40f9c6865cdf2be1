"""Errors that a user can act on: one sentence that says what is wrong, and the next step."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

MOST_NAMED = 10
MOST_QUOTED = 80  # characters


class MT3Error(Exception):
    """What went wrong and what to do now; the command line prints both and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, problem: str, next_step: str = "") -> None:
        super().__init__(f"{problem} {next_step}".strip())
        self.problem = problem
        self.next_step = next_step


def listed(names: Collection[object], most: int = MOST_NAMED) -> str:
    """Names for a sentence: `a, b, c`, and of more than `most` the first and a count: `a, b and 137 more`."""
    shown = [str(name) for name, _ in zip(names, range(most), strict=False)]
    more = len(names) - len(shown)
    return f"{', '.join(shown)} and {more} more" if more else ", ".join(shown)


def quoted(value: object) -> str:
    """A value from a file for a sentence, as Python writes it; of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}..."


@contextlib.contextmanager
def reading(what: object, error: type[MT3Error], next_step: str, *causes: type[Exception]) -> Iterator[None]:
    """Around reading a file: makes an `error`, "... cannot be read: reason.", of `OSError` and of `causes`."""
    kinds: tuple[type[Exception], ...] = (OSError, *causes)
    try:
        yield
    except kinds as cause:
        raise error(f"{what} cannot be read: {getattr(cause, 'strerror', None) or cause}.", next_step) from cause


class AudioError(MT3Error):
    """An audio file or array that cannot be transcribed."""


class MidiError(MT3Error):
    """A MIDI file that cannot be read, or notes that cannot be written as MIDI."""


class DatasetError(MT3Error):
    """A data set that cannot be found or read, or a prepared one that is incomplete or damaged."""


class ModelError(MT3Error):
    """A model that is missing, incomplete, damaged or of another kind."""


class DecodingError(MT3Error):
    """Decoding that failed for an outside reason, such as a killed process."""


class TrainingError(MT3Error):
    """A training run that cannot continue, or a checkpoint of one that cannot be used."""


class ProcessError(MT3Error):
    """Work in several processes that failed because one of them was killed."""


class OutputError(MT3Error):
    """A result that cannot be written at the requested path."""


class MissingExtraError(MT3Error):
    """A package of an extra is not installed; the next step names the extra."""


class UsageError(MT3Error):
    """Options that cannot be combined, or values out of range."""

    exit_code = 2
