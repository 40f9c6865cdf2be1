"""The clock of a MIDI file: ticks, tempo events and time signatures that put the bars of a `TempoMap` where they sound.

A file begins at tick 0 and second 0 with a bar line or a pick-up. The time before the first beat therefore becomes
whole beats of their own tempo, about as long as the first one; they and the pick-up of the map make a first bar that
may be shorter, with a time signature of its own. Ticks last at most a millisecond, and notes are placed by the tempos
that are written, whole microseconds per quarter, so no time in the file is more than half a millisecond off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mt3core.errors import MidiError
from mt3core.notes.tempo_map import NEAR_START_SECONDS, TempoMap

_QUARTERS_PER_MINUTE = 120.0
# 1, 5 and 10 ms; the first that keeps a piece below the number of ticks above which pretty_midi refuses a file.
_TICKS_PER_QUARTER = (500, 100, 50)
_MOST_TICKS = 9_000_000
# With a tempo map: the first whose ticks last at most a millisecond. 480 is what most sequencers write; all can be
# divided by 3, for beats of a compound time signature.
_TICKS_PER_QUARTER_OF_MAP = (480, 960, 1920, 3840)
_COARSE_TICKS_PER_QUARTER = (240, 120, 48)
_SAME_TEMPO_SECONDS = 0.0005  # beats this close to where one tempo has them do not need another
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, eq=False)
class MidiClock:
    """Ticks per quarter; from which tick on a quarter lasts how many microseconds; from which tick on which signature.

    `signatures` has (tick, numerator, denominator). Without a tempo map there are none, and one tempo.
    """

    ticks_per_quarter: int
    tempo_ticks: Int[np.ndarray, " tempos"]
    quarter_microseconds: Int[np.ndarray, " tempos"]
    signatures: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def plain(cls, end_seconds: float) -> MidiClock:
        """120 quarters per minute, for a piece of this length. Raises `MidiError` if it is too long."""
        quarter_seconds = 60.0 / _QUARTERS_PER_MINUTE
        for ticks_per_quarter in _TICKS_PER_QUARTER:
            if end_seconds / quarter_seconds * ticks_per_quarter < _MOST_TICKS:
                microseconds = round(quarter_seconds * _MICROSECONDS)
                return cls(ticks_per_quarter, np.zeros(1, np.int64), np.array([microseconds]))
        raise _too_long(end_seconds)

    @classmethod
    def of(cls, tempo: TempoMap, end_seconds: float) -> MidiClock:
        """The clock of a map, for a piece of this length. Raises `MidiError` if it is too long or too slow."""
        beats, pick_up = _beats_from_start(tempo)
        quarters_per_beat = float(tempo.time_signature.beat_quarters)
        quarters = np.diff(beats) / quarters_per_beat
        num_quarters = (len(quarters) + max(end_seconds - beats[-1], 0.0) / np.diff(beats)[-1]) * quarters_per_beat
        fine = [one for one in _TICKS_PER_QUARTER_OF_MAP if one * 0.001 >= quarters.max() - 1e-9]
        choices = [*fine[:1], *reversed(_TICKS_PER_QUARTER_OF_MAP), *_COARSE_TICKS_PER_QUARTER]
        fitting = [one for one in choices if num_quarters * one < _MOST_TICKS]
        if not fitting or quarters.max() >= 16.7:  # 24 bits of microseconds
            raise _too_long(end_seconds)
        runs = _runs(beats, quarters_per_beat)
        ticks_per_beat = round(quarters_per_beat * fitting[0])
        places, microseconds = (np.array(column, dtype=np.int64) for column in zip(*runs, strict=True))
        signatures = _signatures(tempo, pick_up, ticks_per_beat)
        return cls(fitting[0], places * ticks_per_beat, microseconds, signatures)

    @property
    def tick_seconds(self) -> Float[np.ndarray, " tempos"]:
        """How long a tick lasts from each of `tempo_ticks` on."""
        return self.quarter_microseconds / (_MICROSECONDS * self.ticks_per_quarter)

    def ticks(self, seconds: Float[np.ndarray, " times"]) -> Int[np.ndarray, " times"]:
        """The nearest ticks."""
        starts = self._starts()
        place = np.clip(np.searchsorted(starts, seconds, side="right") - 1, 0, None)
        return self.tempo_ticks[place] + np.rint((seconds - starts[place]) / self.tick_seconds[place]).astype(np.int64)

    def seconds(self, ticks: Int[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """When ticks are."""
        place = np.searchsorted(self.tempo_ticks, ticks, side="right") - 1
        return self._starts()[place] + (ticks - self.tempo_ticks[place]) * self.tick_seconds[place]

    def _starts(self) -> Float[np.ndarray, " tempos"]:
        return np.concatenate([[0.0], np.cumsum(np.diff(self.tempo_ticks) * self.tick_seconds[:-1])])


def _beats_from_start(tempo: TempoMap) -> tuple[Float[np.ndarray, " beats"], int]:
    """The beats from second 0 on, and how many there are before the first bar line."""
    beats = np.asarray(tempo.beat_seconds)
    if beats[0] < NEAR_START_SECONDS:
        return np.concatenate([[0.0], beats[1:]]), tempo.first_downbeat
    # An even number of seconds would be nicer to read, but the bars must be where they sound.
    count = max(1, round(beats[0] / (beats[1] - beats[0])))
    lead_in = np.arange(count) * beats[0] / count
    return np.concatenate([lead_in, beats]), count + tempo.first_downbeat


def _runs(beats: Float[np.ndarray, " beats"], quarters_per_beat: float) -> list[tuple[int, int]]:
    """(beat, microseconds per quarter from there on) of each stretch of one tempo, as few as reach every beat.

    A stretch begins where the one before ends in whole microseconds, so that rounding does not add up.
    """
    runs: list[tuple[int, int]] = []
    begin, begin_seconds = 0, float(beats[0])
    while begin < len(beats) - 1:
        slowest, fastest, end = np.inf, 0.0, begin
        while end < len(beats) - 1:
            count = end + 1 - begin
            distance = beats[end + 1] - begin_seconds
            low, high = (distance - _SAME_TEMPO_SECONDS) / count, (distance + _SAME_TEMPO_SECONDS) / count
            if max(fastest, low) > min(slowest, high):
                break
            fastest, slowest, end = max(fastest, low), min(slowest, high), end + 1
        wanted = min(max((beats[end] - begin_seconds) / (end - begin), fastest), slowest)
        microseconds = max(1, round(wanted / quarters_per_beat * _MICROSECONDS))
        runs.append((begin, microseconds))
        begin_seconds += (end - begin) * microseconds * quarters_per_beat / _MICROSECONDS
        begin = end
    return runs


def _signatures(tempo: TempoMap, pick_up: int, ticks_per_beat: int) -> tuple[tuple[int, int, int], ...]:
    signature = tempo.time_signature
    whole = (signature.numerator, signature.denominator)
    short = pick_up % signature.beats_per_bar
    if not short:
        return ((0, *whole),)
    notes_per_beat = signature.numerator // signature.beats_per_bar
    return ((0, short * notes_per_beat, signature.denominator), (short * ticks_per_beat, *whole))


def _too_long(end_seconds: float) -> MidiError:
    return MidiError(f"The notes last {end_seconds:.0f} s, too long for a MIDI file.", "Transcribe it in parts.")
