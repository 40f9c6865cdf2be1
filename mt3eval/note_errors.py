"""The error of each note: every note of the reference and of the estimate in exactly one category.

Pitched notes and drum hits are judged separately. Notes are paired step by step; each step uses only the notes left
over by the steps before it, so the order below decides when a note fits two categories. An instrument is
a General MIDI family of eight programs; "onset agrees" means within 50 ms, "offset agrees" within 50 ms or 20 % of
the reference note's length, as in mir_eval (`matching.py`, whose choice of partners the first two steps use).

1. `correct`: pitch, instrument, onset and offset agree. These and the next are the pairs that MT3's `Onset + offset +
   program F1 (midi_class)` counts.
2. `velocity`: the same, but the velocity is off by mir_eval's rule (more than a tenth of the reference's range after
   a line is fitted). Judged only if both sides have more than one velocity: a system that writes one velocity for
   every note says nothing about loudness.
3. `split`: a reference note and the two or more estimated notes of its pitch and instrument that start inside it, the
   first of them at its onset. The others must not be at the onset of another reference note that is left over.
4. `merged`: an estimated note and the two or more reference notes in it; step 3 with the sides exchanged.
5. `offset`: pitch, instrument and onset agree, the offset does not.
6. `instrument`: pitch and onset agree, the instrument does not. For drums: the onset agrees, the drum does not.
7. `octave`: instrument and onset agree, the pitch is one or more whole octaves off.
8. `early`, `late`: pitch and instrument agree, the estimated onset is more than 50 and at most 200 ms off.
9. `missed` (reference only) and `ghost` (estimate only): all other notes.

Drum hits go through steps 1, 2 (without offsets), 6, 8 and 9. In steps 6 to 8 the notes closest in time are paired
first, then the next closest; ties go to the note that comes first in the reference, then in the estimate.

In numbers (`summary`), "found" are pairs whose onset, pitch and instrument agree, whatever their offset and velocity;
of a split or merged note one part counts. Precision is found notes over estimated, recall over reference notes; None
(null in JSON) if there are no notes to divide by.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.table import NoteTable, note_table
from mt3eval.calibration import calibrate
from mt3eval.matching.matching import (
    ONSET_TOLERANCE_SECONDS,
    Hits,
    Pairs,
    best_pairs,
    match_velocities,
    onset_hits,
    within_offsets,
)
from mt3eval.matching.note_scores import f1
from mt3eval.reading.performance import Performance

NEAR_ONSET_SECONDS = 0.2  # further apart, two notes of the same pitch are rather two events
PAIR_CATEGORIES = ("correct", "velocity", "offset", "instrument", "octave", "early", "late")
CATEGORIES = (*PAIR_CATEGORIES, "split", "merged", "missed", "ghost")
FOUND_CATEGORIES = ("correct", "velocity", "offset", "split", "merged")  # pairs with the right onset and pitch

_CODE = {name: code for code, name in enumerate(CATEGORIES)}
_OCTAVE = 12


@dataclass(frozen=True, eq=False)
class Analysis:
    """Two lists of notes with the category of each note, as indices into `CATEGORIES`.

    `pairs` has rows (index in the reference, index in the estimate), sorted; no note is in two of them. Of a split
    or merged note and its parts only the first part is paired. `velocities_compared` says whether pitched notes
    and drum hits could be in the category "velocity".
    """

    reference: NoteTable
    estimate: NoteTable
    reference_categories: Int[np.ndarray, " _reference_notes"]
    estimate_categories: Int[np.ndarray, " _estimated_notes"]
    pairs: Pairs
    velocities_compared: tuple[bool, bool] = (False, False)
    confidences: Float[np.ndarray, " _estimated_notes"] | None = None

    def found_pairs(self) -> Pairs:
        """The pairs whose onset, pitch and instrument agree."""
        codes = [_CODE[name] for name in FOUND_CATEGORIES]
        return self.pairs[np.isin(self.estimate_categories[self.pairs[:, 1]], codes)]

    def to_json(self) -> dict[str, Any]:
        """Counts by category, instrument, drum and pitch range, confusion, deviations of time, calibration.

        The form is described in `summary`. Computed once, so it must not be modified.
        """
        return self._summary

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return summary(self)


def analyse(reference: Performance, estimate: Performance) -> Analysis:
    """Puts every note into its category, by the rules in the module's docstring."""
    steps = _Steps(reference.notes, estimate.notes)
    compared = []
    for drums in (False, True):
        compared.append(steps.take_agreeing(drums))
        if not drums:
            steps.take_covered()
            steps.take(best_pairs(steps.hits(_instrument_keys, drums)), "offset")
            steps.take_nearest(steps.hits(_pitch_keys, drums), "instrument")
            steps.take_nearest(steps.hits(_octave_keys, drums), "octave")
        else:
            steps.take_nearest(steps.hits(_one_key, drums), "instrument")
        steps.take_shifted(drums)
    pairs = np.array(sorted(steps.pairs), dtype=np.int64).reshape(-1, 2)
    codes = steps.reference_codes, steps.estimate_codes
    return Analysis(reference.notes, estimate.notes, *codes, pairs, (compared[0], compared[1]), _confidences(estimate))


def pool(analyses: Sequence[Analysis]) -> Analysis:
    """Several pieces joined to one; confidences only if all pieces with notes have them."""
    if not analyses:
        nothing = Performance(note_table([]))
        return analyse(nothing, nothing)
    starts = np.zeros((len(analyses), 2), dtype=np.int64)
    starts[1:] = np.cumsum([(len(one.reference), len(one.estimate)) for one in analyses], axis=0)[:-1]
    with_notes = [one for one in analyses if len(one.estimate)]
    confidences = [one.confidences for one in with_notes if one.confidences is not None]
    return Analysis(
        np.concatenate([one.reference for one in analyses]),
        np.concatenate([one.estimate for one in analyses]),
        np.concatenate([one.reference_categories for one in analyses]),
        np.concatenate([one.estimate_categories for one in analyses]),
        np.concatenate([one.pairs + start for one, start in zip(analyses, starts, strict=True)]),
        (any(one.velocities_compared[0] for one in analyses), any(one.velocities_compared[1] for one in analyses)),
        np.concatenate(confidences) if confidences and len(confidences) == len(with_notes) else None,
    )


class _Steps:
    """The notes that are still without a category, and the steps applied to them."""

    def __init__(self, reference: NoteTable, estimate: NoteTable) -> None:
        self.reference, self.estimate = reference, estimate
        self.reference_codes = np.full(len(reference), _CODE["missed"])
        self.estimate_codes = np.full(len(estimate), _CODE["ghost"])
        self.reference_free, self.estimate_free = np.ones(len(reference), bool), np.ones(len(estimate), bool)
        self.pairs: list[tuple[int, int]] = []

    def take(self, pairs: Pairs, category: str) -> None:
        """Gives both notes of each pair the category."""
        for side, codes, free in (
            (0, self.reference_codes, self.reference_free),
            (1, self.estimate_codes, self.estimate_free),
        ):
            codes[pairs[:, side]], free[pairs[:, side]] = _CODE[category], False
        self.pairs += [(int(one), int(other)) for one, other in pairs]

    def take_agreeing(self, drums: bool) -> bool:
        """Steps 1 and 2; returns whether velocities were compared."""
        hits = self.hits(_instrument_keys, drums)
        if not drums:
            hits = within_offsets(hits, _intervals(self.reference), _intervals(self.estimate))
        pairs = best_pairs(hits)
        velocities = [
            table["velocity"][table["is_drum"] == drums].astype(float) for table in (self.reference, self.estimate)
        ]
        compared = all(len(np.unique(side)) > 1 for side in velocities)
        agreeing = pairs
        if compared:
            places = [np.cumsum(table["is_drum"] == drums) - 1 for table in (self.reference, self.estimate)]
            within = np.stack([places[0][pairs[:, 0]], places[1][pairs[:, 1]]], axis=1)
            kept = match_velocities(within, *velocities)[:, 0]
            agreeing = pairs[np.isin(within[:, 0], kept)]
        self.take(agreeing, "correct")
        self.take(pairs[~np.isin(pairs[:, 0], agreeing[:, 0])], "velocity")
        return compared

    def take_covered(self) -> None:
        """Steps 3 and 4."""
        sides = (self.reference, self.reference_free), (self.estimate, self.estimate_free)
        for category, long, short in (("split", 0, 1), ("merged", 1, 0)):
            for whole, parts in _wholes_and_parts(*sides[long], *sides[short]):
                first = (whole, parts[0]) if long == 0 else (parts[0], whole)
                self.take(np.array([first]), category)
                sides[short][1][parts] = False
                (self.estimate_codes if long == 0 else self.reference_codes)[parts] = _CODE[category]

    def take_nearest(self, hits: Hits, category: str) -> None:
        """Steps 6 and 7."""
        self.take(self._nearest(hits), category)

    def take_shifted(self, drums: bool) -> None:
        """Step 8."""
        pairs = self._nearest(self.hits(_instrument_keys, drums, NEAR_ONSET_SECONDS))
        is_late = self.estimate["onset"][pairs[:, 1]] > self.reference["onset"][pairs[:, 0]]
        self.take(pairs[~is_late], "early")
        self.take(pairs[is_late], "late")

    def hits(self, keys: Any, drums: bool, tolerance: float = ONSET_TOLERANCE_SECONDS) -> Hits:
        """Pairs of notes left over whose keys are equal and whose onsets are within tolerance."""
        rows = np.flatnonzero(self.reference_free & (self.reference["is_drum"] == drums))
        columns = np.flatnonzero(self.estimate_free & (self.estimate["is_drum"] == drums))
        one, other = self.reference[rows], self.estimate[columns]
        pseudo_hz = _pseudo_hz(keys(one)), _pseudo_hz(keys(other))
        found = onset_hits(_intervals(one), pseudo_hz[0], _intervals(other), pseudo_hz[1], tolerance)
        return Hits(rows[found.reference], columns[found.estimate])

    def _nearest(self, hits: Hits) -> Pairs:
        distances = np.abs(self.reference["onset"][hits.reference] - self.estimate["onset"][hits.estimate])
        order = np.lexsort((hits.estimate, hits.reference, distances))
        taken: tuple[set[int], set[int]] = (set(), set())
        pairs = []
        for one, other in zip(hits.reference[order].tolist(), hits.estimate[order].tolist(), strict=True):
            if one not in taken[0] and other not in taken[1]:
                taken[0].add(one)
                taken[1].add(other)
                pairs.append((one, other))
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _wholes_and_parts(
    long: NoteTable, long_free: Bool[np.ndarray, " _long"], short: NoteTable, short_free: Bool[np.ndarray, " _short"]
) -> list[tuple[int, list[int]]]:
    """Notes that the other side has in several parts, with these parts in order of onset."""
    parts_of_key: dict[tuple[int, int], list[int]] = defaultdict(list)
    wholes_of_key: dict[tuple[int, int], list[int]] = defaultdict(list)
    for table, free, found in ((long, long_free, wholes_of_key), (short, short_free, parts_of_key)):
        places = np.flatnonzero(free & ~table["is_drum"])
        for place in places[np.argsort(table["onset"][places], kind="stable")].tolist():
            found[int(table["pitch"][place]), int(table["program"][place]) // PROGRAMS_PER_CLASS].append(place)
    found_wholes = []
    for key, wholes in wholes_of_key.items():
        parts = parts_of_key.get(key, [])
        onsets = [float(short["onset"][part]) for part in parts]
        starts = [float(long["onset"][whole]) for whole in wholes]
        used: set[int] = set()
        for whole, start in zip(wholes, starts, strict=True):
            end = float(long["offset"][whole]) - ONSET_TOLERANCE_SECONDS
            low = bisect_left(onsets, start - ONSET_TOLERANCE_SECONDS)
            inside = [number for number in range(low, bisect_left(onsets, end)) if number not in used]
            if len(inside) < 2 or abs(onsets[inside[0]] - start) > ONSET_TOLERANCE_SECONDS:
                continue
            others = [number for number in inside[1:] if not _is_near(onsets[number], starts, start)]
            if others:
                used.update([inside[0], *others])
                found_wholes.append((whole, [parts[number] for number in (inside[0], *others)]))
    return found_wholes


def _is_near(onset: float, starts: list[float], but: float) -> bool:
    """Whether an onset agrees with one of the sorted times other than `but`."""
    low = bisect_left(starts, onset - ONSET_TOLERANCE_SECONDS)
    high = bisect_left(starts, onset + ONSET_TOLERANCE_SECONDS)
    return any(start != but for start in starts[low:high])


def _confidences(estimate: Performance) -> np.ndarray | None:
    return None if estimate.confidences is None else np.asarray(estimate.confidences, dtype=float)


def _intervals(table: NoteTable) -> Float[np.ndarray, " _notes 2"]:
    return np.stack([table["onset"], table["offset"]], axis=1)


def _pseudo_hz(keys: Int[np.ndarray, " _notes"]) -> Float[np.ndarray, " _notes"]:
    """Frequencies two semitones apart for different keys, so that the matching of pitches compares the keys."""
    return np.exp2(keys / 6.0)


def _instrument_keys(table: NoteTable) -> Int[np.ndarray, " _notes"]:
    """Equal for notes of one pitch and instrument; for drum hits, of one drum."""
    return table["pitch"] + 128 * np.where(table["is_drum"], 0, table["program"] // PROGRAMS_PER_CLASS)


def _pitch_keys(table: NoteTable) -> Int[np.ndarray, " _notes"]:
    return table["pitch"].astype(np.int64)


def _octave_keys(table: NoteTable) -> Int[np.ndarray, " _notes"]:
    return table["pitch"] % _OCTAVE + _OCTAVE * (table["program"] // PROGRAMS_PER_CLASS)


def _one_key(table: NoteTable) -> Int[np.ndarray, " _notes"]:
    return np.zeros(len(table), dtype=np.int64)


# ---- In numbers

NO_PARTNER = "no partner"
HISTOGRAM_BIN_MILLISECONDS = 10
_OFFSET_HISTOGRAM_MILLISECONDS = 500

_MOST_GROUPS = 128

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Grouping:
    """Notes sorted into at most 128 groups: the number of each note's group, and the name of a group."""

    codes: Callable[[NoteTable], Int[np.ndarray, " _notes"]]
    name: Callable[[int], str]


def _family_name(number: int) -> str:
    import pretty_midi

    return pretty_midi.program_to_instrument_class(PROGRAMS_PER_CLASS * number)


def _drum_name(pitch: int) -> str:
    import pretty_midi

    return pretty_midi.note_number_to_drum_name(pitch) or f"Key {pitch}"


INSTRUMENTS = Grouping(lambda table: table["program"] // PROGRAMS_PER_CLASS, _family_name)  # General MIDI families
DRUMS = Grouping(lambda table: table["pitch"], _drum_name)
OCTAVES = Grouping(lambda table: table["pitch"] // 12, lambda number: f"C{number - 1} to B{number - 1}")  # 60 is C4


def summary(analysis: Analysis) -> dict[str, Any]:
    """All results, as plain values for JSON.

    `pitched` and `drums`: category -> notes of the reference and of the estimate, which add up to all notes of the
    side. `by_instrument`, `by_pitch_range` (pitched notes), `by_drum`: a list of `{name, reference_notes,
    estimated_notes, found, precision, recall, f1, categories}`; each note counts in the group its own side gives it.
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
    """The number of notes of either side in each category, for the pitched notes or the drum hits."""
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
    """Which instrument (or drum) of the reference became which in the estimate.

    `counts[i][j]`: pairs of a reference note of label i and an estimated one of label j. The last label, "no
    partner", has the rest, so a row adds up to the reference notes of its label and a column to the estimated ones.
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

    Drum hits have no meaningful offsets and are left out there. `{notes, mean, standard_deviation, median,
    percentile_5, percentile_95, low, bin, counts}`: `counts[i]` is the number of deviations in the i-th bin of width
    `bin` from `low` up; the first and last bin include all values beyond. The statistics are None without pairs.
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
