"""An analysis in numbers: categories by instrument, drum and pitch range, confusions, deviations of time.

"Found" are pairs whose onset, pitch and instrument agree, whatever their offset and velocity; of a split or merged
note one part counts. Precision is found notes over estimated, recall over reference notes; None (null in JSON) where
there are no notes to divide by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mt3core.evaluation.calibration import calibrate
from mt3core.evaluation.errors import CATEGORIES, NEAR_ONSET_SECONDS, Analysis
from mt3core.evaluation.note_scores import f1
from mt3core.evaluation.program_groups import FAMILY_PROGRAMS
from mt3core.notes import NoteTable

NO_PARTNER = "no partner"
HISTOGRAM_BIN_MILLISECONDS = 10
_OFFSET_HISTOGRAM_MILLISECONDS = 500

_MOST_GROUPS = 128

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Grouping:
    """Notes put into at most 128 groups: the number of each note's group, and the name of a group."""

    codes: Callable[[NoteTable], Int[np.ndarray, " _notes"]]
    name: Callable[[int], str]


def _family_name(number: int) -> str:
    import pretty_midi

    return pretty_midi.program_to_instrument_class(FAMILY_PROGRAMS * number)


def _drum_name(pitch: int) -> str:
    import pretty_midi

    return pretty_midi.note_number_to_drum_name(pitch) or f"Key {pitch}"


INSTRUMENTS = Grouping(lambda table: table["program"] // FAMILY_PROGRAMS, _family_name)  # General MIDI families
DRUMS = Grouping(lambda table: table["pitch"], _drum_name)
OCTAVES = Grouping(lambda table: table["pitch"] // 12, lambda number: f"C{number - 1} to B{number - 1}")  # 60 is C4


def summary(analysis: Analysis) -> dict[str, Any]:
    """Everything, in plain values for JSON.

    `pitched` and `drums`: category -> notes of the reference and of the estimate, which add up to all notes of the
    side. `by_instrument`, `by_pitch_range` (pitched notes), `by_drum`: a list of `{name, reference_notes,
    estimated_notes, found, precision, recall, f1, categories}`, a note being counted where its own side puts it.
    `confusion`, `drum_confusion`: `{labels, counts}`, see `confusion`. `onset_deviations`, `offset_deviations`: see
    `deviations`. `calibration`: None without confidences, otherwise see `calibration.Calibration`.
    """
    calibration = None
    if analysis.confidences is not None:
        is_right = np.zeros(len(analysis.estimate), dtype=bool)
        is_right[analysis.found_pairs()[:, 1]] = True
        calibration = calibrate(analysis.confidences, is_right)
    return {
        "reference_notes": len(analysis.reference),
        "estimated_notes": len(analysis.estimate),
        "velocities_compared": dict(zip(("pitched", "drums"), analysis.velocities_compared, strict=True)),
        "pitched": categories(analysis, drums=False),
        "drums": categories(analysis, drums=True),
        "by_instrument": by_label(analysis, INSTRUMENTS, drums=False),
        "by_pitch_range": by_label(analysis, OCTAVES, drums=False),
        "by_drum": by_label(analysis, DRUMS, drums=True),
        "confusion": confusion(analysis, INSTRUMENTS, drums=False),
        "drum_confusion": confusion(analysis, DRUMS, drums=True),
        "onset_deviations": deviations(analysis, "onset", 1000 * NEAR_ONSET_SECONDS),
        "offset_deviations": deviations(analysis, "offset", _OFFSET_HISTOGRAM_MILLISECONDS),
        "calibration": None if calibration is None else calibration.to_json(),
    }


def categories(analysis: Analysis, drums: bool) -> Counts:
    """How many notes of either side are in each category, of the pitched notes or of the drum hits."""
    return _named(*(np.bincount(codes, minlength=len(CATEGORIES)).tolist() for _, codes in _sides(analysis, drums)))


def by_label(analysis: Analysis, grouping: Grouping, drums: bool) -> list[dict[str, Any]]:
    """The counts and scores of the notes of each group, in the order of pitch or program."""
    reference, estimate = _sides(analysis, drums)
    found = analysis.found_pairs()
    expected = analysis.reference[found[:, 0]]
    found_counts = np.bincount(grouping.codes(expected[expected["is_drum"] == drums]), minlength=_MOST_GROUPS)
    tallies = [
        np.bincount(grouping.codes(table) * len(CATEGORIES) + codes, minlength=_MOST_GROUPS * len(CATEGORIES)).reshape(
            _MOST_GROUPS, len(CATEGORIES)
        )
        for table, codes in (reference, estimate)
    ]
    result = []
    for group in _groups(grouping, reference[0], estimate[0]).tolist():
        mine, theirs, pairs = (int(counts[group].sum()) for counts in (*tallies, found_counts))
        precision = pairs / theirs if theirs else None
        recall = pairs / mine if mine else None
        result.append(
            {
                "name": grouping.name(group),
                "reference_notes": mine,
                "estimated_notes": theirs,
                "found": pairs,
                "precision": precision,
                "recall": recall,
                "f1": None if precision is None or recall is None else f1(precision, recall),
                "categories": _named(*(tally[group].tolist() for tally in tallies)),
            }
        )
    return result


def confusion(analysis: Analysis, grouping: Grouping, drums: bool) -> dict[str, Any]:
    """Which instrument (or drum) of the reference was taken for which of the estimate.

    `counts[i][j]`: pairs of a reference note of label i and an estimated one of label j. The last label, "no
    partner", takes the rest, so a row adds up to the reference notes of its label and a column to the estimated.
    """
    groups = _groups(grouping, *(table for table, _ in _sides(analysis, drums)))
    size = len(groups) + 1
    partners = [np.full(len(table), size - 1) for table in (analysis.reference, analysis.estimate)]
    places = [np.searchsorted(groups, grouping.codes(table)) for table in (analysis.reference, analysis.estimate)]
    for side, (mine, theirs) in enumerate((analysis.pairs.T, analysis.pairs.T[::-1])):
        partners[side][mine] = places[1 - side][theirs]
    counts = np.zeros((size, size), dtype=int)
    is_part = analysis.reference["is_drum"] == drums
    np.add.at(counts, (places[0][is_part], partners[0][is_part]), 1)
    alone = analysis.estimate["is_drum"] == drums
    alone[analysis.pairs[:, 1]] = False
    np.add.at(counts, (size - 1, places[1][alone]), 1)
    return {"labels": [*(grouping.name(group) for group in groups.tolist()), NO_PARTNER], "counts": counts.tolist()}


def deviations(analysis: Analysis, end: str, reach_milliseconds: float) -> dict[str, Any]:
    """Estimated minus reference times of all pairs in milliseconds: `end` is "onset" or "offset".

    Drum hits have no offsets that mean anything and are left out there. `{notes, mean, standard_deviation, median,
    percentile_5, percentile_95, low, bin, counts}`: `counts[i]` is the number of deviations in the i-th bin of width
    `bin` from `low` up, the first and last bin with all beyond. The figures are None without pairs.
    """
    one, other = analysis.reference[analysis.pairs[:, 0]], analysis.estimate[analysis.pairs[:, 1]]
    values = 1000 * (other[end] - one[end])
    if end == "offset":
        values = values[~one["is_drum"]]
    half = int(reach_milliseconds // HISTOGRAM_BIN_MILLISECONDS)
    places = np.floor(np.round(values, 6) / HISTOGRAM_BIN_MILLISECONDS).astype(int)
    counts = np.bincount(np.clip(places + half, 0, 2 * half - 1), minlength=2 * half)
    return {
        "notes": len(values),
        **_figures(values),
        "low": -half * HISTOGRAM_BIN_MILLISECONDS,
        "bin": HISTOGRAM_BIN_MILLISECONDS,
        "counts": counts.tolist(),
    }


def _sides(analysis: Analysis, drums: bool) -> list[tuple[NoteTable, np.ndarray]]:
    """The pitched notes or the drum hits of both sides with their categories."""
    both = (analysis.reference, analysis.reference_categories), (analysis.estimate, analysis.estimate_categories)
    return [(table[table["is_drum"] == drums], codes[table["is_drum"] == drums]) for table, codes in both]


def _groups(grouping: Grouping, reference: NoteTable, estimate: NoteTable) -> Int[np.ndarray, " groups"]:
    """The groups on either side, sorted."""
    return np.union1d(grouping.codes(reference), grouping.codes(estimate))


def _named(reference: list[int], estimate: list[int]) -> Counts:
    return {
        name: {"reference": one, "estimate": other}
        for name, one, other in zip(CATEGORIES, reference, estimate, strict=True)
    }


def _figures(values: Float[np.ndarray, " pairs"]) -> dict[str, float | None]:
    names = ("mean", "standard_deviation", "median", "percentile_5", "percentile_95")
    if len(values) == 0:
        return dict.fromkeys(names)
    figures = values.mean(), values.std(), *np.percentile(values, [50, 5, 95])
    return {name: float(figure) for name, figure in zip(names, figures, strict=True)}
