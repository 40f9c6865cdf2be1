"""Transkun's scores of piano transcription: notes, exact sounding time, pedals.

The rule of `transkun_compute_metrics`, the command with its defaults. The reference is extended by the sustain
pedal, the estimate is not. On both sides a note is cut where the next of its pitch starts, and notes left without
length are dropped. `note`, `note+offset`, `note+velocity` and `note+velocity+offset` are mir_eval's scores with their
average overlap. `frame` counts time, not frames: seconds in which both sides sound over seconds in which each does
(plus 1e-8), pitches 21 to 108; its overlap is intersection over union. `pedal64...` (sustain) and `pedal67...` (soft)
score the intervals of a pedal in the same way, if the reference has any. Deviations are reference minus
estimate in seconds, over notes paired within 0.8 s.
The other names are the command's options: no pedal for the reference, pedal for both, onsets first aligned by the
median deviation; `transkun_compare_transcription` is the underlying function applied to the notes as they are.

Source: Yujia-Yan/Transkun, `transkun/computeMetrics.py`, `Evaluation.py`, `Data.py`, release 2.0.1 (the latter two
as at commit c5cb8370e17b4a1650b5971ba87ee4b0d208e5b6).

Where ours differs: `--onsetTolerance`, which the original accepts and then ignores, is not offered; deviations need
no switch. Control changes are put in order of time first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3core.notes.table import NoteTable
from mt3eval.matching.matching import best_pairs
from mt3eval.matching.note_scores import Comparison, require_lengths, scored_notes
from mt3eval.matching.pedal import (
    Intervals,
    cut_at_next_of_pitch,
    in_time_order,
    one_piano,
    pedal_intervals,
    pedal_notes,
    prolong_to_pedal,
    require_pedal_lengths,
)
from mt3eval.protocol import Protocol, Scores
from mt3eval.reading.performance import NotDefinedError, Performance

PROGRAM = "Transkun's evaluation"
LOWEST_PITCH, HIGHEST_PITCH = 21, 108
SUSTAIN, SOFT = 64, 67
DEVIATION_TOLERANCE_SECONDS = 0.8
_NEVER_ZERO_SECONDS = 1e-8

# name of the score, offset_ratio of mir_eval, whether velocities count
_NOTE_SCORES: tuple[tuple[str, float | None, bool], ...] = (
    ("note", None, False),
    ("note+velocity", None, True),
    ("note+offset", 0.2, False),
    ("note+velocity+offset", 0.2, True),
)


@dataclass(frozen=True, eq=False)
class _Side:
    """Notes ready to be scored and the intervals of each pedal."""

    notes: NoteTable
    pedals: dict[int, Intervals]

    def later(self, seconds: float) -> _Side:
        notes = self.notes.copy()
        notes["onset"] += seconds
        notes["offset"] += seconds
        return _Side(notes, {controller: intervals + seconds for controller, intervals in self.pedals.items()})


def score_compute_metrics(
    reference: Performance,
    estimate: Performance,
    prolong_reference: bool = True,
    prolong_estimate: bool = False,
    align_onsets: bool = False,
) -> Scores:
    """What the command reports for one pair; raises `NotDefinedError` if it fails."""
    truth, found = _parse(reference, "reference", prolong_reference), _parse(estimate, "estimate", prolong_estimate)
    require_lengths(reference.notes, estimate.notes)
    deviations = _deviations(truth.notes, found.notes)
    if align_onsets:
        onset_deviations = deviations[:, 0]
        # The original moves both sides later by the largest deviation, so that no time becomes negative.
        largest = float(np.abs(onset_deviations).max())
        truth = truth.later(largest - float(np.median(onset_deviations)))
        found = found.later(largest)
        deviations = _deviations(truth.notes, found.notes)
    scores = _note_scores(truth.notes, found.notes)
    scores |= {
        "matched within 0.8 s": len(deviations),
        "mean onset deviation": float(np.mean(deviations[:, 0])),
        "mean offset deviation": float(np.mean(deviations[:, 1])),
    }
    for controller in (SUSTAIN, SOFT):
        if len(truth.pedals[controller]):
            scores |= _pedal_scores(f"pedal{controller}", truth.pedals[controller], found.pedals[controller])
    return scores


def score_compare_transcription(reference: Performance, estimate: Performance) -> Scores:
    """The scores of the notes as they are; raises `NotDefinedError` if notes of the same pitch overlap."""
    truth, found = one_piano(reference, PROGRAM), one_piano(estimate, PROGRAM)
    require_lengths(truth, found)
    for side, notes in (("reference", truth), ("estimate", found)):
        ordered = notes[np.lexsort((notes["onset"], notes["pitch"]))]
        same = ordered["pitch"][:-1] == ordered["pitch"][1:]
        overlaps = np.flatnonzero(same & (ordered["offset"][:-1] > ordered["onset"][1:]))
        if len(overlaps):
            pitch, onset = ordered[overlaps[0] + 1][["pitch", "onset"]]
            raise NotDefinedError(
                f"{PROGRAM} fails if notes of the same pitch overlap, as {len(overlaps)} of the {side} do; "
                f"the first is pitch {pitch} at {onset:.3f} s.",
                "Score with transkun_compute_metrics, which cuts them first.",
            )
    return _note_scores(truth, found)


def _parse(performance: Performance, side: str, prolong: bool) -> _Side:
    notes = in_time_order(one_piano(performance, PROGRAM))
    if len(notes) == 0:
        raise NotDefinedError(f"{PROGRAM} fails if either side has no notes; the {side} has none.")
    end = float(notes["offset"].max())
    pedals = {controller: pedal_intervals(performance.controls, end, controller) for controller in (SUSTAIN, SOFT)}
    for intervals in pedals.values():
        require_pedal_lengths(intervals, PROGRAM, side)
    if prolong:
        notes = prolong_to_pedal(notes, pedals[SUSTAIN])
    return _Side(cut_at_next_of_pitch(notes), pedals)


def _deviations(reference: NoteTable, estimate: NoteTable) -> Float[np.ndarray, "pairs 2"]:
    """Onset and offset of the reference minus those of the estimate, in seconds, of the notes paired within 0.8 s."""
    truth, found = scored_notes(reference), scored_notes(estimate)
    comparison = Comparison(truth, found, onset_tolerance=DEVIATION_TOLERANCE_SECONDS)
    pairs = best_pairs(comparison.hits(offset_min_tolerance=DEVIATION_TOLERANCE_SECONDS))
    if len(pairs) == 0:
        raise NotDefinedError(f"{PROGRAM} fails if no two notes are within 0.8 s of each other.")
    return truth.intervals[pairs[:, 0]] - found.intervals[pairs[:, 1]]


def _note_scores(reference: NoteTable, estimate: NoteTable) -> Scores:
    scores = _time_scores("frame", _common_pitches(reference, estimate), _in_range(reference), _in_range(estimate))
    comparison = Comparison(scored_notes(reference), scored_notes(estimate))
    for name, offset_ratio, velocity in _NOTE_SCORES:
        score = comparison.velocity_score(offset_ratio) if velocity else comparison.score(offset_ratio)
        scores |= _named(name, score)
    return scores | {"nGT": len(reference), "nEst": len(estimate)}


def _pedal_scores(name: str, reference: Intervals, estimate: Intervals) -> Scores:
    comparison = Comparison(pedal_notes(reference), pedal_notes(estimate))
    return {
        **_time_scores(f"{name}frame", [(reference, estimate)], reference, estimate),
        **_named(name, comparison.score(None)),
        **_named(f"{name}+offset", comparison.score()),
        f"{name}nGT": len(reference),
        f"{name}nEst": len(estimate),
    }


def _in_range(notes: NoteTable) -> Intervals:
    notes = notes[(notes["pitch"] >= LOWEST_PITCH) & (notes["pitch"] <= HIGHEST_PITCH)]
    return np.stack([notes["onset"], notes["offset"]], axis=1)


def _common_pitches(reference: NoteTable, estimate: NoteTable) -> Iterable[tuple[Intervals, Intervals]]:
    """The intervals of both sides, in order of time, for each pitch in range that both have."""
    reference, estimate = in_time_order(reference), in_time_order(estimate)
    for pitch in np.intersect1d(reference["pitch"], estimate["pitch"]):
        yield _in_range(reference[reference["pitch"] == pitch]), _in_range(estimate[estimate["pitch"] == pitch])


def _time_scores(
    name: str, lanes: Iterable[tuple[Intervals, Intervals]], reference: Intervals, estimate: Intervals
) -> Scores:
    """Precision, recall, F1 and overlap of time: `lanes` pairs the intervals that may sound together."""
    both = sum(_shared_seconds(*lane) for lane in lanes)
    in_reference, in_estimate = float(np.sum(np.diff(reference))), float(np.sum(np.diff(estimate)))
    shares = (
        both / (in_estimate + _NEVER_ZERO_SECONDS),
        both / (in_reference + _NEVER_ZERO_SECONDS),
        2 * both / (in_estimate + in_reference + _NEVER_ZERO_SECONDS),
        both / (in_estimate + in_reference - both + _NEVER_ZERO_SECONDS),
    )
    return _named(name, shares)


def _shared_seconds(first: Intervals, second: Intervals) -> float:
    """How long two lists of intervals, each in order and without overlaps, are on at the same time."""
    if len(first) == 0 or len(second) == 0:
        return 0.0
    lengths = np.diff(second)[:, 0]
    until_end = np.cumsum(lengths)
    on_before = np.stack([until_end - lengths, until_end], axis=1)
    on_until = np.interp(first, second.ravel(), on_before.ravel())
    return float(np.sum(np.diff(on_until)))


def _named(name: str, values: Iterable[float]) -> Scores:
    metrics = ("precision", "recall", "f1", "overlap")
    return {f"{name} {metric}": value for metric, value in zip(metrics, values, strict=True)}


_SOURCE = "Yan, Cwitkowitz and Duan 2021; github.com/Yujia-Yan/Transkun, release 2.0.1 (Evaluation.py as at c5cb837)"


def _command(ending: str, about: str, **switches: Any) -> Protocol:
    score = partial(score_compute_metrics, **switches)
    return Protocol(f"transkun_compute_metrics{ending}", f"Transkun, piano: {about}", _SOURCE, score)


_AS_IT_IS = "as transkun_compute_metrics"
PROTOCOLS = (
    _command("", "reference notes extended by the pedal, exact sounding time, pedals"),
    _command("_no_extension", f"{_AS_IT_IS}, but neither side is extended by the pedal", prolong_reference=False),
    _command("_extend_both", f"{_AS_IT_IS}, but both sides are extended by the pedal", prolong_estimate=True),
    _command("_align_onset", f"{_AS_IT_IS}, after removing the median onset deviation", align_onsets=True),
    Protocol(
        "transkun_compare_transcription",
        "Transkun, piano: the notes as they are, without pedal; not defined if notes of the same pitch overlap",
        _SOURCE,
        score_compare_transcription,
    ),
)
