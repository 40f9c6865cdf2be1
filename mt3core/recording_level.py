"""How loud a recording is, and the warning if it is silent, very quiet or clipped, or gave few or no notes.

Levels are in dB of full scale (dBFS): 0 is a sample of 1.0, and for an average the root of the mean square of a
constant 1.0. The average is taken over the blocks that are not silent, so that pauses do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mt3core.notes.table import Note

SILENT_DBFS = -60.0  # a recording whose peak is below this is silence with some noise
QUIET_DBFS = -40.0  # below this peak, music is very quiet; the quietest of 17 real recordings of all kinds has -25
CLIPPED_SHARE = 1e-3  # of the samples at full scale; of the same recordings, the worst (a drum kit) has a third of that
LOUD_DBFS = -50.0  # a block whose average is above this is not silent; music played quietly is about -40
BLOCK_SECONDS = 0.5
# Almost nothing: fewer notes than one in this many seconds of sound, lasting a smaller share of it than this. A
# drone is few notes that last long; a tune that was missed is neither.
SECONDS_A_NOTE = 10.0
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class RecordingLevel:
    """Level of a whole recording: `average_dbfs` over the `sounding_seconds` that are loud, or over all if none are."""

    peak_dbfs: float
    average_dbfs: float
    sounding_seconds: float

    @property
    def is_silent(self) -> bool:
        return self.peak_dbfs < SILENT_DBFS


class LevelMeter:
    """Measures mono audio while it arrives; besides the latest samples it needs one value per block."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz, self._length = sample_rate_hz, round(BLOCK_SECONDS * sample_rate_hz)
        self._rest = np.zeros(0, np.float32)
        self._energies: list[float] = []  # of whole blocks
        self._peak = 0.0

    def add(self, samples: Float[np.ndarray, " samples"]) -> None:
        waiting = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(waiting) - len(waiting) % self._length
        for first in range(0, whole, self._length):
            self._energies.append(self._measure(waiting[first : first + self._length]))
        self._rest = waiting[whole:].copy()  # not a view, which would keep all of it

    @property
    def level(self) -> RecordingLevel:
        """Of all audio so far."""
        rest = [self._measure(self._rest)] if len(self._rest) else []
        energies = np.array([*self._energies, *rest])
        lengths = np.array([*[self._length] * len(self._energies), *[len(self._rest)] * len(rest)], np.int64)
        sounding = energies > lengths * 10 ** (LOUD_DBFS / 10)
        counted = sounding if sounding.any() else np.ones(len(energies), bool)
        average = energies[counted].sum() / max(lengths[counted].sum(), 1)
        sounding_seconds = float(lengths[sounding].sum() / self._rate_hz)
        return RecordingLevel(_dbfs(self._peak), _dbfs(math.sqrt(average)), sounding_seconds)

    def _measure(self, block: Float[np.ndarray, " samples"]) -> float:
        self._peak = max(self._peak, float(np.abs(block).max()))
        return float(np.dot(block, block))


def measure_level(samples: Float[np.ndarray, " samples"], sample_rate_hz: int) -> RecordingLevel:
    """The level of mono audio that is there as a whole."""
    meter = LevelMeter(sample_rate_hz)
    meter.add(samples)
    return meter.level


def remark_on(level: RecordingLevel, notes: Sequence[Note], name: str = "recording") -> str:
    """A sentence for the user if the recording is silent or very quiet, or gave (almost) no notes; else empty.

    `name` is what it is called there.
    """
    if level.is_silent:
        invented = f"; the {_counted(notes)} found in it may be an invention" if notes else ""
        return f"The {name} is silent: {_peak(level)}{invented}."
    if notes and not _is_next_to_nothing(level, notes):
        is_quiet = level.peak_dbfs < QUIET_DBFS
        return f"The {name} is very quiet: {_peak(level)}. Notes may be missing; raise its level." if is_quiet else ""
    found = f"Only {_counted(notes)} found" if notes else "No notes were found"
    if not level.sounding_seconds:
        return (
            f"{found}; the {name} is very quiet: {round(level.average_dbfs)} dBFS on average, {_peak(level)}. "
            "Raise its level."
        )
    return (
        f"{found}, although the {name} is loud enough: {round(level.average_dbfs)} dBFS on average over "
        f"{level.sounding_seconds:.1f} s, {_peak(level)}. Listen whether there is music in it, or try another model."
    )


def clipping_remark(full_scale_share: float) -> str:
    """A sentence for the user if so many samples of the source are at full scale that it is clipped; else empty."""
    if full_scale_share < CLIPPED_SHARE:
        return ""
    percent = f"{100 * full_scale_share:.1f} %"
    return (
        f"The recording is clipped: {percent} of its samples are at full scale, 0 dBFS. Notes may be wrong or missing; "
        "record it at a lower level."
    )


def _is_next_to_nothing(level: RecordingLevel, notes: Sequence[Note]) -> bool:
    if len(notes) * SECONDS_A_NOTE >= level.sounding_seconds:
        return False
    return _covered_seconds(notes) < LEAST_SHARE * level.sounding_seconds


def _covered_seconds(notes: Sequence[Note]) -> float:
    """How long at least one note sounds."""
    total, until = 0.0, 0.0
    for onset, offset in sorted((note.onset, note.offset) for note in notes):
        total += max(0.0, offset - max(onset, until))
        until = max(until, offset)
    return total


def _counted(notes: Sequence[Note]) -> str:
    return f"{len(notes)} note{'s' * (len(notes) != 1)}"


def _peak(level: RecordingLevel) -> str:
    return "all samples are 0" if level.peak_dbfs == -math.inf else f"its peak is {round(level.peak_dbfs)} dBFS"


def _dbfs(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
