"""YourMT3's scores of multi-instrument transcription: notes, drums, instrument classes, frames.

The rule. `onset_f` and `offset_f` (onset and offset): all notes except drums, programs ignored, mir_eval's
defaults. `onset_f_drum`: drum hits by onset and pitch; if the preset has a drum map, each hit gets the first pitch
of its group, and hits outside all groups are dropped. `onset_f_X`, `offset_f_X`: the notes of instrument class X
alone. `multi_f`: the onset-and-offset pairs of all classes and the onset pairs of drums, pooled within a file; notes
of programs in no class are not counted. `frame_f`: 16 frames per second (hop 0.0625 s), pitches 16 to 109, at least
one frame per note, octaves ignored in `frame_f_pc`; estimated frames after the end of the reference's frames are not
counted. Values are NaN if the reference has no notes, 0 if only the estimate has none; classes without notes
are left out. `micro_onset_p_X` and the like are precision and recall of class X, with the number of notes as
`... weight`.
Over files: the mean without NaN; `micro_..._f` is pooled over the notes of all files, from the weighted means of
precision and recall.

The presets differ in classes and drum map (`yourmt3_classes`).

Source: YourMT3+ (Chang et al. 2024), `utils/metrics.py`, `utils/metrics_helper.py`, `config/vocabulary.py`; the
authors' repository points to a Hugging Face space, the files were read in the PyPI package `yourmt3` 0.1.4.

Where ours differs. Averages are 64-bit sums; the original's are 32-bit (difference below 1e-6). Precision and
recall of frames are counted directly. One of the original's oddities decides its values and is therefore kept: the
frames of a side end at the latest end among the last 20 notes of its list, not of all notes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int

from mt3core.notes.table import NoteTable
from mt3eval.intervals import means_without_each
from mt3eval.matching.matching import best_pairs
from mt3eval.matching.note_scores import Comparison, f1, require_lengths, scored_notes
from mt3eval.protocol import LeftOut, Protocol, Scores, mean_without_nan
from mt3eval.protocols.yourmt3_classes import (
    EVERY_PROGRAM,
    GENERAL_MIDI,
    GENERAL_MIDI_AND_SINGING,
    GENERAL_MIDI_DRUMS,
    GUITAR,
    KICK_SNARE_HIHAT,
    MT3_TABLE,
    MUSICNET,
    PIANO,
    Classes,
)
from mt3eval.reading.performance import Performance

FRAME_SECONDS = 0.0625
LOWEST_PITCH, HIGHEST_PITCH = 16, 109  # of frames: mir_eval's multipitch takes 20 to 5000 Hz
DRUM_SECONDS = 0.008  # the length of every drum hit
NOTES_THAT_END_THE_FRAMES = 20
_NO_CLASS = -1
_EPSILON = sys.float_info.epsilon
Value = TypeVar("Value", float, LeftOut)


@dataclass(frozen=True)
class Preset:
    """Instrument classes (none: no class scores, no `multi_f`) and drum groups (none: pitches as they are)."""

    classes: Classes | None = None
    drum_groups: Classes | None = None

    def score(self, reference: Performance, estimate: Performance) -> Scores:
        """The values of one file; raises `NotDefinedError` if mir_eval refuses notes without length."""
        truth, found = reference.pitched().notes, estimate.pitched().notes
        if len(truth) and len(found):
            require_lengths(truth, found)
        truth_hits = _drum_hits(reference.drums().notes, self.drum_groups)
        found_hits = _drum_hits(estimate.drums().notes, self.drum_groups)

        drum_pairs = Comparison(scored_notes(truth_hits), scored_notes(found_hits)).count(offset_ratio=None)
        drums = _Counts(len(truth_hits), len(found_hits), drum_pairs)
        comparison = Comparison(scored_notes(truth), scored_notes(found))
        pooled = _Counts(len(truth), len(found), comparison.count(None), comparison.count())
        scores = {"onset_f_drum": drums.onset_f} | drums.micro_scores("onset", "drum", list_empty=True)
        scores |= {"onset_f": pooled.onset_f, "offset_f": pooled.offset_f} | _frame_scores(truth, found)
        if self.classes is not None:
            by_class = _count_classes(comparison, truth, found, self.classes)
            for name, counts in by_class.items():
                scores |= counts.class_scores(name)
            scores["multi_f"] = _multi_f([*by_class.values()], drums)
        return scores

    def average(self, files: Sequence[Scores]) -> Scores:
        """The values of a set: means over files without NaN, and `micro_..._f` of each class, NaN without values."""
        means = mean_without_nan(files)
        averages = {name: means.get(name, math.nan) for name in self._mean_names()}
        for kind, name in self._pooled_names():
            precision, recall = (_weighted_mean(files, f"micro_{kind}_{share}_{name}") for share in ("p", "r"))
            averages[f"micro_{kind}_f_{name}"] = _harmonic_mean(precision, recall)
        return averages

    def averages_without_each(self, files: Sequence[Scores]) -> dict[str, LeftOut]:
        """The same for all files but one, for each file in turn."""
        means = means_without_each(files, skip_nan=True)
        nothing = np.full(len(files), math.nan)
        averages = {name: means.get(name, nothing) for name in self._mean_names()}
        for kind, name in self._pooled_names():
            precision, recall = (_weighted_means_without_each(files, f"micro_{kind}_{p}_{name}") for p in ("p", "r"))
            averages[f"micro_{kind}_f_{name}"] = _harmonic_mean(precision, recall)
        return averages

    def _mean_names(self) -> list[str]:
        names = ["onset_f", "offset_f", "frame_f", "frame_f_pc", "onset_f_drum"]
        names += ["multi_f"] if self.classes is not None else []
        return names + [f"{kind}_f_{name}" for name in self.classes or () for kind in ("onset", "offset")]

    def _pooled_names(self) -> list[tuple[str, str]]:
        return [(kind, name) for name in self.classes or () for kind in ("onset", "offset")] + [("onset", "drum")]


@dataclass(frozen=True)
class _Counts:
    """Notes on both sides and the pairs among them; the offset pairs agree in onset and offset."""

    reference: int
    estimate: int
    onset_pairs: int
    offset_pairs: int = 0

    @property
    def onset_f(self) -> float:
        return self._f(self.onset_pairs)

    @property
    def offset_f(self) -> float:
        return self._f(self.offset_pairs)

    def _f(self, pairs: int) -> float:
        """NaN if the reference has no notes, 0 if only the estimate has none."""
        if self.reference == 0:
            return math.nan
        return f1(pairs / self.estimate, pairs / self.reference) if self.estimate else 0.0

    def micro_scores(self, kind: str, name: str, list_empty: bool = False) -> Scores:
        """Precision and recall with their weights; sides without notes have none (NaN if `list_empty`)."""
        pairs = self.onset_pairs if kind == "onset" else self.offset_pairs
        scores: Scores = {}
        for share, notes in (("p", self.estimate), ("r", self.reference)):
            if notes:
                scores |= {f"micro_{kind}_{share}_{name}": pairs / notes, f"micro_{kind}_{share}_{name} weight": notes}
            elif list_empty:
                scores[f"micro_{kind}_{share}_{name}"] = math.nan
        return scores

    def class_scores(self, name: str) -> Scores:
        """The listed values of one instrument class."""
        shares = {f"onset_f_{name}": self.onset_f, f"offset_f_{name}": self.offset_f} if self.reference else {}
        return shares | self.micro_scores("onset", name) | self.micro_scores("offset", name)


def _drum_hits(drums: NoteTable, groups: Classes | None) -> NoteTable:
    """Drum hits of one short length, each with the first pitch of its group."""
    hits = drums.copy()
    if groups is not None:
        first = {pitch: group[0] for group in groups.values() for pitch in group}
        hits = hits[[pitch in first for pitch in drums["pitch"].tolist()]]
        hits["pitch"] = [first[pitch] for pitch in hits["pitch"].tolist()]
    hits["offset"] = hits["onset"] + DRUM_SECONDS
    return hits


def _count_classes(
    comparison: Comparison, reference: NoteTable, estimate: NoteTable, classes: Classes
) -> dict[str, _Counts]:
    """The counts of each class, scored separately: pairs within tolerance whose programs are of one class."""
    truth, found = _class_of(reference, classes), _class_of(estimate, classes)
    totals = [np.bincount(side[side != _NO_CLASS], minlength=len(classes)) for side in (truth, found)]
    for offset_ratio in (None, 0.2):
        hits = comparison.hits(offset_ratio)
        hits = hits.keep((truth[hits.reference] == found[hits.estimate]) & (truth[hits.reference] != _NO_CLASS))
        totals.append(np.bincount(truth[best_pairs(hits)[:, 0]], minlength=len(classes)))
    return {name: _Counts(*(int(total[index]) for total in totals)) for index, name in enumerate(classes)}


def _class_of(notes: NoteTable, classes: Classes) -> Int[np.ndarray, " notes"]:
    class_of_program = np.full(128, _NO_CLASS)
    for index, programs in enumerate(classes.values()):
        class_of_program[list(programs)] = index
    return class_of_program[notes["program"]]


def _multi_f(classes: Sequence[_Counts], drums: _Counts) -> float:
    pairs = drums.onset_pairs + sum(one.offset_pairs for one in classes)
    estimate = drums.estimate + sum(one.estimate for one in classes)
    reference = drums.reference + sum(one.reference for one in classes)
    precision = pairs / estimate if estimate else math.nan
    recall = pairs / reference if reference else math.nan
    return _harmonic_mean(precision, recall)


def _frame_scores(reference: NoteTable, estimate: NoteTable) -> Scores:
    truth, found = _frames(reference), _frames(estimate)
    if not truth.any():
        return {"frame_f": math.nan, "frame_f_pc": math.nan}
    if not found.any():
        return {"frame_f": 0.0, "frame_f_pc": 0.0}
    compared = np.zeros_like(truth)
    length = min(len(truth), len(found))
    compared[:length] = found[:length]
    totals = int(compared.sum()), int(truth.sum())
    both = int(np.sum(truth & compared))
    both_classes = int(np.minimum(_pitch_classes(truth), _pitch_classes(compared)).sum())
    return {"frame_f": _frame_f(both, *totals), "frame_f_pc": _frame_f(both_classes, *totals)}


def _frames(notes: NoteTable) -> Bool[np.ndarray, "frames 128"]:
    """Which pitches sound in each frame."""
    last = notes["offset"][-NOTES_THAT_END_THE_FRAMES:].max(initial=0.0)
    frames = np.zeros((int(last / FRAME_SECONDS), 128), dtype=bool)
    first = (notes["onset"] / FRAME_SECONDS).astype(int)
    end = np.maximum((notes["offset"] / FRAME_SECONDS).astype(int), first + 1)
    for pitch, start, stop in zip(notes["pitch"].tolist(), first.tolist(), end.tolist(), strict=True):
        frames[start:stop, pitch] = True
    frames[:, :LOWEST_PITCH] = False
    frames[:, HIGHEST_PITCH + 1 :] = False
    return frames


def _pitch_classes(frames: Bool[np.ndarray, "frames 128"]) -> Int[np.ndarray, "frames 12"]:
    """How many pitches of each pitch class sound in each frame."""
    return np.stack([frames[:, pitch_class::12].sum(axis=1) for pitch_class in range(12)], axis=1)


def _frame_f(both: int, estimate: int, reference: int) -> float:
    return _harmonic_mean(both / estimate if estimate else 0.0, both / reference)


def _harmonic_mean(precision: Value, recall: Value) -> Value:
    """The original's F1: the harmonic mean of both with machine epsilon added, so that 0 and 0 give 0."""
    precision, recall = precision + _EPSILON, recall + _EPSILON
    return 2 * precision * recall / (precision + recall) - _EPSILON


def _weighted_mean(files: Sequence[Scores], name: str) -> float:
    weights = [(scores[name], scores[f"{name} weight"]) for scores in files if f"{name} weight" in scores]
    total = math.fsum(weight for _, weight in weights)
    return math.fsum(value * weight for value, weight in weights) / total if total else math.nan


def _weighted_means_without_each(files: Sequence[Scores], name: str) -> LeftOut:
    weights = np.array([scores.get(f"{name} weight", 0.0) for scores in files])
    values = np.array([scores[name] if weight else 0.0 for scores, weight in zip(files, weights, strict=True)])
    others, products = weights.sum() - weights, values * weights
    means = np.full(len(files), math.nan)
    return np.divide(products.sum() - products, others, out=means, where=others > 0)


_SOURCE = "Chang et al. 2024, YourMT3+; utils/metrics.py in the PyPI package yourmt3 0.1.4"


def _protocol(name: str, summary: str, classes: Classes | None, drum_groups: Classes | None = None) -> Protocol:
    preset = Preset(classes, drum_groups)
    return Protocol(name, f"YourMT3: {summary}", _SOURCE, preset.score, preset.average, preset.averages_without_each)


PROTOCOLS = (
    _protocol("yourmt3_slakh", "notes, General MIDI families, drums in groups", GENERAL_MIDI, GENERAL_MIDI_DRUMS),
    _protocol("yourmt3_gm_plus", "notes, General MIDI families and singing, drums by pitch", GENERAL_MIDI_AND_SINGING),
    _protocol("yourmt3_gm_full", "notes, every program separately, drums by pitch", EVERY_PROGRAM),
    _protocol("yourmt3_mt3_full", "notes, the instruments of the MT3 paper's table, drums by pitch", MT3_TABLE),
    _protocol("yourmt3_musicnet", "notes, MusicNet's piano, strings and winds, drums by pitch", MUSICNET),
    _protocol("yourmt3_maestro", "notes, piano as the only class, drums by pitch", PIANO),
    _protocol("yourmt3_guitarset", "notes, guitar as the only class, drums by pitch", GUITAR),
    _protocol("yourmt3_drums_ksh", "notes without classes, drums as kick, snare and hi-hat", None, KICK_SNARE_HIHAT),
)
