"""The measures for each system, each score with its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mt3core.errors import MT3Error
from mt3eval.intervals import average
from mt3eval.protocol import protocol
from mt3eval.reading.performance import NotDefinedError, Performance
from mt3eval.reading.reading import Reading, read_performance
from systems.clips import DRUMS, OTHER, PIANO, Clip
from systems.registry import System
from systems.running import Outcome

_READING = Reading(drop_empty=True)


def _has_pitched(clip: Clip) -> bool:
    return clip.kind != DRUMS


def _is_piano(clip: Clip) -> bool:
    return clip.kind == PIANO


def _is_other(clip: Clip) -> bool:
    return clip.kind == OTHER


def _has_drums(clip: Clip) -> bool:
    return bool(clip.reference.notes["is_drum"].any())


@dataclass(frozen=True)
class Measure:
    """A row of the table: a value of a protocol, averaged over the clips to which it applies."""

    title: str
    protocol: str
    metric: str
    belongs: Callable[[Clip], bool]
    part: Callable[[Performance], Performance]
    suits: Callable[[System], bool] = lambda system: True


def _as_one_piano(performance: Performance) -> Performance:
    """The pitched notes without the pedal: reference offsets already include it, estimates stay as predicted."""
    return Performance(performance.pitched().notes, name=performance.name)


def _whole(performance: Performance) -> Performance:
    return performance


_NOTES, _TRANSKUN = "mir_eval_notes_nondrum", "transkun_compute_metrics"

MEASURES: tuple[Measure, ...] = (
    Measure("pitched notes: onset F1", _NOTES, "F-measure_no_offset", _has_pitched, _whole),
    Measure("pitched notes: onset + offset F1", _NOTES, "F-measure", _has_pitched, _whole),
    Measure("piano: note F1", _TRANSKUN, "note f1", _is_piano, _as_one_piano),
    Measure("piano: note + offset F1", _TRANSKUN, "note+offset f1", _is_piano, _as_one_piano),
    Measure("piano: note + offset + velocity F1", _TRANSKUN, "note+velocity+offset f1", _is_piano, _as_one_piano),
    Measure("piano: frame F1", _TRANSKUN, "frame f1", _is_piano, _as_one_piano),
    Measure(
        "other than piano: onset + offset + program F1",
        "mt3",
        "Onset + offset + program F1 (midi_class)",
        _is_other,
        _whole,
        lambda system: system.finds_instruments,
    ),
    Measure(
        "drum hits: onset F1",
        "mir_eval_notes_drum",
        "F-measure_no_offset",
        _has_drums,
        _whole,
        lambda system: system.finds_drums,
    ),
)


@dataclass(frozen=True)
class Value:
    """An average over clips with its interval (None with fewer than two clips) and the clips included."""

    mean: float
    interval: tuple[float, float] | None
    by_clip: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """One system's column: its outcome, and a value per measure (None if it does not apply to the system)."""

    system: System
    outcome: Outcome
    values: tuple[Value | None, ...]


def score(system: System, outcome: Outcome, folder: Path, clips: Sequence[Clip]) -> Run:
    """Scores the MIDI files that a system wrote. A file that cannot be read is moved to the failures."""
    estimates: dict[str, Performance] = {}
    for clip in clips:
        if clip.name in outcome.records:
            try:
                estimates[clip.name] = read_performance(folder / f"{clip.name}.mid", _READING)
            except MT3Error as error:
                outcome.failures[clip.name] = str(error)
                del outcome.records[clip.name]
    values = [_value(measure, clips, estimates) if measure.suits(system) else None for measure in MEASURES]
    return Run(system, outcome, tuple(values))


def _value(measure: Measure, clips: Sequence[Clip], estimates: Mapping[str, Performance]) -> Value:
    rule = protocol(measure.protocol)
    files, names = [], []
    for clip in clips:
        if clip.name not in estimates or not measure.belongs(clip):
            continue
        try:
            scores = rule.score(measure.part(clip.reference), measure.part(estimates[clip.name]))
        except NotDefinedError:
            continue  # counted by the table, which gives the number of clips per value
        files.append({measure.metric: scores[measure.metric]})
        names.append(clip.name)
    if not files:
        return Value(math.nan, None, {})
    found = average(rule, files)
    by_clip = {name: one[measure.metric] for name, one in zip(names, files, strict=True)}
    return Value(found.values[measure.metric], found.intervals.get(measure.metric), by_clip)
