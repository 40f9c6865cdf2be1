"""mir_eval's own scores of notes, with its defaults: `mir_eval_notes_*`, `mir_eval_velocity_*`, `mir_eval_counts_*`.

The rule. A note is found if the estimate has one of the same pitch (50 cents) whose onset is within
50 ms and, unless the name ends in `_no_offset`, whose offset is within max(50 ms, 20 % of the reference note's
length); the largest one-to-one matching is used. `Onset_*` and `Offset_*` compare one end alone and no pitches.
The velocity scores keep a found note if its velocity, after fitting a least-squares line over all found notes, is
within 0.1 of the reference's on a scale of the reference's range. Programs are ignored.

`nondrum` scores the pitched notes, `drum` the drum hits (read their `_no_offset` and `Onset_` values), `all` both
pooled by pitch. An empty side scores 0; notes without length are an error of the library. `counts` gives the
numbers of pairs behind the scores, leaving out what the library cannot count (velocities without a reference, offsets
if a reference note has no length).

Source: mir_eval 0.8.2, `mir_eval.transcription.evaluate` and `mir_eval.transcription_velocity.evaluate`. Ours
differs only in how the pairs are found (`matching.py`), which does not change them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from mt3core.notes.table import NoteTable
from mt3eval.matching.matching import OFFSET_RATIO, count_offsets, count_onsets
from mt3eval.matching.note_scores import Comparison, Score, require_lengths, scored_notes, share_scores
from mt3eval.protocol import Protocol, Scores
from mt3eval.reading.performance import Performance

SOURCE = "mir_eval 0.8.2 (craffel/mir_eval), mir_eval.transcription and mir_eval.transcription_velocity"


def notes_scores(reference: NoteTable, estimate: NoteTable) -> Scores:
    """`mir_eval.transcription.evaluate` with its defaults, under its names."""
    require_lengths(reference, estimate)
    comparison = Comparison(scored_notes(reference), scored_notes(estimate))
    onsets, offsets = _end_scores(comparison)
    return {
        **_named(comparison.score(), ""),
        **_named(comparison.score(offset_ratio=None), "_no_offset"),
        **{f"Onset_{name}": value for name, value in zip(_SHARES, onsets, strict=False)},
        **{f"Offset_{name}": value for name, value in zip(_SHARES, offsets, strict=False)},
    }


def velocity_scores(reference: NoteTable, estimate: NoteTable) -> Scores:
    """`mir_eval.transcription_velocity.evaluate` with its defaults, under its names."""
    require_lengths(reference, estimate)
    return velocity_scores_of(Comparison(scored_notes(reference), scored_notes(estimate)))


def velocity_scores_of(comparison: Comparison) -> Scores:
    """The same for two lists of notes in mir_eval's form."""
    with_offset, without = comparison.velocity_score(), comparison.velocity_score(offset_ratio=None)
    return {**_named(with_offset, ""), **_named(without, "_no_offset")}


def pair_counts(reference: NoteTable, estimate: NoteTable, with_velocity: bool = True) -> Scores:
    """The numbers of pairs behind the scores, and of notes."""
    comparison = Comparison(scored_notes(reference), scored_notes(estimate))
    ratios: dict[str, float | None] = {"pairs onset": None}
    if (reference["offset"] > reference["onset"]).all():
        ratios["pairs onset+offset"] = OFFSET_RATIO
    counts = {name: comparison.count(ratio) for name, ratio in ratios.items()}
    if with_velocity and len(reference):
        counts |= {f"{name}+velocity": len(comparison.velocity_pairs(ratio)) for name, ratio in ratios.items()}
    return {**counts, "reference notes": len(reference), "estimated notes": len(estimate)}


_SHARES = ("Precision", "Recall", "F-measure")


def _named(score: Score, suffix: str) -> Scores:
    return {f"{name}{suffix}": value for name, value in zip((*_SHARES, "Average_Overlap_Ratio"), score, strict=True)}


def _end_scores(comparison: Comparison) -> tuple[Score, Score]:
    reference, estimate = comparison.reference.intervals, comparison.estimate.intervals
    lengths = len(reference), len(estimate)
    onsets, offsets = count_onsets(reference, estimate), count_offsets(reference, estimate)
    return share_scores(onsets, *lengths), share_scores(offsets, *lengths)


# What is scored, and which values of `is_drum` that has.
_PARTS = {
    "nondrum": ("pitched notes, programs ignored", [False]),
    "drum": ("drum hits", [True]),
    "all": ("pitched notes and drum hits pooled by pitch", [False, True]),
}


def _protocol(kind: str, part: str, about: str, score: Callable[[NoteTable, NoteTable], Scores]) -> Protocol:
    what, flags = _PARTS[part]

    def score_part(*sides: Performance) -> Scores:
        return score(*(side.notes[np.isin(side.notes["is_drum"], flags)] for side in sides))

    return Protocol(f"mir_eval_{kind}_{part}", f"{about}: {what}", SOURCE, score_part)


_NOTES = "mir_eval's note scores with and without offsets, and of onsets and offsets alone"
_VELOCITY = "mir_eval's note scores that also require the velocity, with and without offsets"
_COUNTS = "how many pairs mir_eval finds, by what must agree"

PROTOCOLS: tuple[Protocol, ...] = (
    _protocol("notes", "nondrum", _NOTES, notes_scores),
    _protocol("velocity", "nondrum", _VELOCITY, velocity_scores),
    _protocol("counts", "nondrum", _COUNTS, pair_counts),
    _protocol("notes", "drum", _NOTES, notes_scores),
    _protocol("counts", "drum", _COUNTS, partial(pair_counts, with_velocity=False)),
    _protocol("notes", "all", _NOTES, notes_scores),
    _protocol("velocity", "all", _VELOCITY, velocity_scores),
    _protocol("counts", "all", _COUNTS, pair_counts),
)
