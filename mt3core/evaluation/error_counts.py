"""An analysis in numbers: categories by instrument, drum and pitch range, confusions, deviations of time.

"Found" are pairs whose onset, pitch and instrument agree, whatever their offset and velocity; of a split or merged
note one part counts. Precision is found notes over estimated, recall over reference notes; None (null in JSON) where
there are no notes to divide by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3core.evaluation.calibration import calibrate
from mt3core.evaluation.errors import CATEGORIES, NEAR_ONSET_SECONDS, Analysis
from mt3core.evaluation.note_scores import f1
from mt3core.evaluation.program_groups import FAMILY_PROGRAMS
from mt3core.notes import NoteTable

NO_PARTNER = "no partner"
HISTOGRAM_BIN_MILLISECONDS = 10
_OFFSET_HISTOGRAM_MILLISECONDS = 500

Counts = dict[str, dict[str, int]]
Labels = Callable[[NoteTable], list[str]]


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
        "by_instrument": by_label(analysis, instrument_names, drums=False),
        "by_pitch_range": by_label(analysis, pitch_range_names, drums=False),
        "by_drum": by_label(analysis, drum_names, drums=True),
        "confusion": confusion(analysis, instrument_names, drums=False),
        "drum_confusion": confusion(analysis, drum_names, drums=True),
        "onset_deviations": deviations(analysis, "onset", 1000 * NEAR_ONSET_SECONDS),
        "offset_deviations": deviations(analysis, "offset", _OFFSET_HISTOGRAM_MILLISECONDS),
        "calibration": None if calibration is None else calibration.to_json(),
    }


def categories(analysis: Analysis, drums: bool) -> Counts:
    """How many notes of either side are in each category, of the pitched notes or of the drum hits."""
    return _count(
        analysis.reference_categories[analysis.reference["is_drum"] == drums],
        analysis.estimate_categories[analysis.estimate["is_drum"] == drums],
    )


def by_label(analysis: Analysis, labels: Labels, drums: bool) -> list[dict[str, Any]]:
    """The counts and scores of the notes with each label, in the order of pitch or program."""
    rows = np.flatnonzero(analysis.reference["is_drum"] == drums)
    columns = np.flatnonzero(analysis.estimate["is_drum"] == drums)
    reference, estimate = _names(labels, analysis.reference), _names(labels, analysis.estimate)
    found = analysis.found_pairs()
    found = found[analysis.reference["is_drum"][found[:, 0]] == drums]
    result = []
    for name in _ordered(labels, analysis, drums):
        mine, theirs = rows[reference[rows] == name], columns[estimate[columns] == name]
        pairs = int((reference[found[:, 0]] == name).sum())
        precision = pairs / len(theirs) if len(theirs) else None
        recall = pairs / len(mine) if len(mine) else None
        result.append(
            {
                "name": name,
                "reference_notes": len(mine),
                "estimated_notes": len(theirs),
                "found": pairs,
                "precision": precision,
                "recall": recall,
                "f1": None if precision is None or recall is None else f1(precision, recall),
                "categories": _count(analysis.reference_categories[mine], analysis.estimate_categories[theirs]),
            }
        )
    return result


def confusion(analysis: Analysis, labels: Labels, drums: bool) -> dict[str, Any]:
    """Which instrument (or drum) of the reference was taken for which of the estimate.

    `counts[i][j]`: pairs of a reference note of label i and an estimated one of label j. The last label, "no
    partner", takes the rest, so a row adds up to the reference notes of its label and a column to the estimated.
    """
    names = [*_ordered(labels, analysis, drums), NO_PARTNER]
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    reference, estimate = _names(labels, analysis.reference), _names(labels, analysis.estimate)
    pairs = analysis.pairs[analysis.reference["is_drum"][analysis.pairs[:, 0]] == drums]
    for one, other in pairs.tolist():
        counts[place[reference[one]], place[estimate[other]]] += 1
    for one in np.setdiff1d(np.flatnonzero(analysis.reference["is_drum"] == drums), pairs[:, 0]).tolist():
        counts[place[reference[one]], -1] += 1
    for other in np.setdiff1d(np.flatnonzero(analysis.estimate["is_drum"] == drums), pairs[:, 1]).tolist():
        counts[-1, place[estimate[other]]] += 1
    return {"labels": names, "counts": counts.tolist()}


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


def instrument_names(table: NoteTable) -> list[str]:
    """The General MIDI family of each note's program."""
    import pretty_midi

    names = [pretty_midi.program_to_instrument_class(FAMILY_PROGRAMS * number) for number in range(16)]
    return [names[program // FAMILY_PROGRAMS] for program in table["program"].tolist()]


def drum_names(table: NoteTable) -> list[str]:
    """The General MIDI drum of each note's key."""
    import pretty_midi

    names = [pretty_midi.note_number_to_drum_name(pitch) or f"Key {pitch}" for pitch in range(128)]
    return [names[pitch] for pitch in table["pitch"].tolist()]


def pitch_range_names(table: NoteTable) -> list[str]:
    """The octave of each note, middle C (60) being C4."""
    return [f"C{pitch // 12 - 1} to B{pitch // 12 - 1}" for pitch in table["pitch"].tolist()]


def _ordered(labels: Labels, analysis: Analysis, drums: bool) -> list[str]:
    """The labels on either side, from low to high pitches or, for instruments, programs."""
    both = np.concatenate([analysis.reference, analysis.estimate])
    both = both[both["is_drum"] == drums]
    by = "program" if labels is instrument_names else "pitch"
    return list(dict.fromkeys(labels(both[np.argsort(both[by], kind="stable")])))


def _names(labels: Labels, table: NoteTable) -> np.ndarray:
    return np.array(labels(table), dtype=object)


def _count(reference_codes: np.ndarray, estimate_codes: np.ndarray) -> Counts:
    sides = [np.bincount(codes, minlength=len(CATEGORIES)).tolist() for codes in (reference_codes, estimate_codes)]
    return {name: {"reference": one, "estimate": other} for name, one, other in zip(CATEGORIES, *sides, strict=True)}


def _figures(values: Float[np.ndarray, " pairs"]) -> dict[str, float | None]:
    names = ("mean", "standard_deviation", "median", "percentile_5", "percentile_95")
    if len(values) == 0:
        return dict.fromkeys(names)
    figures = values.mean(), values.std(), *np.percentile(values, [50, 5, 95])
    return {name: float(figure) for name, figure in zip(names, figures, strict=True)}
