"""MT3's scores: `mt3`, `mt3_onsets_only`, `mt3_tracks_cerberus4`, `mt3_program_aware`, `mt3_tolerance_sweep`.

The rules.

- `Onset F1`, `Onset + offset F1`, `... velocity F1`: mir_eval's scores with its defaults over the pitched notes,
  programs ignored. Notes without length are dropped, all MIDI pitches count.
- `Onset + offset + program F1 (flat | midi_class | full)`, the paper's multi-instrument F1: notes are grouped by
  program and drum flag, each group is scored separately and the groups are pooled by their numbers of notes. Pitched
  notes count with onset and offset, drums with onsets. `flat` puts all pitched notes on one program, `midi_class`
  on the first of their family of eight, `full` leaves them; the program number of drums is never mapped.
  `Drum onset ...` and `Nondrum ...` are the two parts. A part without notes scores 0.
- `Frame ...`: piano rolls of 62.5 frames per second. Notes shorter than 50 ms are made 50 ms long, a frame is the
  floor of time x 62.5, the end is not included, velocities of notes that sound together on a pitch add up. A
  reference frame counts above a velocity of 30, an estimated one above 0.
- `Onset + offset F1 (0.01)` to `(0.5)`: onset tolerance and least offset tolerance in seconds. In `mt3`
  the notes that the frame part has lengthened are scored, so `(0.05)` is not `Onset + offset F1`;
  `mt3_tolerance_sweep` scores the notes as they are.
- `mt3_onsets_only` is for data without offsets; `mt3_tracks_cerberus4` scores bass, drums, guitar, piano separately,
  drums without offsets and, in the frame part, 50 ms long.

If a reference has no notes at all for the frame part, MT3 treats the part as drums, and every estimated note is
made 50 ms long. The value of a set is the plain mean of its files' values. No pedal: MT3 extends reference notes
by the pedal when the data is made.

Source: magenta/mt3, `mt3/metrics.py` and `mt3/metrics_utils.py`, commit fa04532779a6078819c3418adcd83747c94329a4.
Ours differs in one place: rolls without any frame score 0 there only with scikit-learn before 1.9.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Int

from mt3core.notes.table import NoteTable
from mt3eval.matching.matching import OFFSET_RATIO, count_pairs
from mt3eval.matching.note_scores import Comparison, named, scored_notes, with_length
from mt3eval.matching.program_groups import GRANULARITIES, count_groups, family, total
from mt3eval.protocol import Protocol, Scores
from mt3eval.reading.performance import Performance

SOURCE = "magenta/mt3, mt3/metrics.py, commit fa04532779a6078819c3418adcd83747c94329a4"
FRAMES_PER_SECOND = 62.5
SHORTEST_FRAME_NOTE_SECONDS = 0.05
REFERENCE_VELOCITY_ABOVE = 30
SWEEP_TOLERANCES_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
CERBERUS4_TRACKS = {"bass": (32, False), "drums": (0, True), "guitar": (24, False), "piano": (0, False)}

_PITCHES = 128


def mt3_scores(reference: Performance, estimate: Performance, with_offsets: bool = True) -> Scores:
    """All values of MT3's `transcription_metrics` except those of its tracks and of its decoding.

    `with_offsets` is false for data without offsets and velocities.
    """
    pitched = reference.pitched().notes, estimate.pitched().notes
    lengthened = _lengthened(*pitched)
    return {
        **_agnostic(*pitched, with_offsets=with_offsets, with_velocities=with_offsets),
        **_frames(*lengthened),
        **program_aware_scores(reference, estimate),
        **_sweep(*lengthened),
    }


def cerberus4_scores(reference: Performance, estimate: Performance) -> Scores:
    """The agnostic scores of bass, drums, guitar and piano, each alone."""
    scores: Scores = {}
    for track, (program, is_drum) in CERBERUS4_TRACKS.items():
        expected, found = (_track(side.notes, program, is_drum) for side in (reference, estimate))
        values = {**_agnostic(expected, found, with_offsets=not is_drum), **_frames(*_lengthened(expected, found))}
        scores |= {f"{track}/{name}": value for name, value in values.items()}
    return scores


def program_aware_scores(reference: Performance, estimate: Performance) -> Scores:
    """The multi-instrument scores in three granularities, and their drum and pitched parts."""
    expected, found = with_length(reference.notes), with_length(estimate.notes)
    scores: Scores = {}
    for granularity in GRANULARITIES:
        programs = mapped_programs(expected, granularity), mapped_programs(found, granularity)
        counts = count_groups(expected, found, *programs, with_offsets=True)
        parts = (("Onset + offset + program", None), ("Drum onset", True), ("Nondrum onset + offset + program", False))
        for name, drums in parts:
            scores |= named(total(counts, drums).score(), name, f" ({granularity})")
    return scores


def tolerance_sweep(reference: Performance, estimate: Performance) -> Scores:
    """Onset and offset of the pitched notes at six tolerances, notes as they are."""
    return _sweep(reference.pitched().notes, estimate.pitched().notes)


def mapped_programs(table: NoteTable, granularity: str) -> Int[np.ndarray, " _notes"]:
    """The programs of the notes in a granularity; those of drums stay as they are."""
    programs = table["program"].astype(int)
    mapped = {"flat": np.zeros_like(programs), "midi_class": family(programs), "full": programs}[granularity]
    return np.where(table["is_drum"], programs, mapped)


def _agnostic(reference: NoteTable, estimate: NoteTable, with_offsets: bool, with_velocities: bool = True) -> Scores:
    comparison = Comparison(scored_notes(with_length(reference)), scored_notes(with_length(estimate)))
    ratios: dict[str, float | None] = {"Onset": None}
    if with_offsets:
        ratios["Onset + offset"] = OFFSET_RATIO
    scores: Scores = {}
    for name, ratio in ratios.items():
        scores |= named(comparison.score(ratio, overlap=False), name)
    if with_velocities:
        for name, ratio in ratios.items():
            scores |= named(comparison.velocity_score(ratio), f"{name} + velocity")
    return scores


def _sweep(reference: NoteTable, estimate: NoteTable) -> Scores:
    expected, found = scored_notes(with_length(reference)), scored_notes(with_length(estimate))
    scores: Scores = {}
    for tolerance in SWEEP_TOLERANCES_SECONDS:
        comparison = Comparison(expected, found, onset_tolerance=tolerance)
        pairs = count_pairs(comparison.hits(offset_min_tolerance=tolerance))
        scores |= named(comparison.score_count(pairs), "Onset + offset", f" ({tolerance})")
    return scores


def _track(table: NoteTable, program: int, is_drum: bool) -> NoteTable:
    return table[(table["program"] == program) & (table["is_drum"] == is_drum)]


def _lengthened(reference: NoteTable, estimate: NoteTable) -> tuple[NoteTable, NoteTable]:
    """Notes as the frame part uses them: drums 50 ms long, others at least; an empty reference means drums."""
    are_drums = bool(reference["is_drum"].all())
    sides = reference.copy(), estimate.copy()
    for side in sides:
        short = are_drums | (side["offset"] - side["onset"] < SHORTEST_FRAME_NOTE_SECONDS)
        side["offset"][short] = side["onset"][short] + SHORTEST_FRAME_NOTE_SECONDS
    return sides


def _frames(reference: NoteTable, estimate: NoteTable) -> Scores:
    last = max((float(side["offset"].max()) for side in (reference, estimate) if len(side)), default=0.0)
    frames = int(last * FRAMES_PER_SECOND)
    expected = _velocity_roll(reference, frames) > REFERENCE_VELOCITY_ABOVE
    found = _velocity_roll(estimate, frames) > 0
    both, expected_frames, found_frames = (int(np.count_nonzero(roll)) for roll in (expected & found, expected, found))
    precision = both / found_frames if found_frames else 0.0
    recall = both / expected_frames if expected_frames else 0.0
    f1 = 2 * both / (expected_frames + found_frames) if expected_frames + found_frames else 0.0
    return {"Frame Precision": precision, "Frame Recall": recall, "Frame F1": f1}


def _velocity_roll(table: NoteTable, frames: int) -> Int[np.ndarray, "pitches frames"]:
    """The velocities that sound on each pitch in each frame, added up."""
    roll = np.zeros((_PITCHES, frames), dtype=np.int32)
    starts = (table["onset"] * FRAMES_PER_SECOND).astype(int).tolist()
    ends = (table["offset"] * FRAMES_PER_SECOND).astype(int).tolist()
    for pitch, start, end, velocity in zip(
        table["pitch"].tolist(), starts, ends, table["velocity"].tolist(), strict=True
    ):
        roll[pitch, start:end] += velocity
    return roll


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("mt3", "MT3: note, frame and multi-instrument scores (flat, MIDI class, full), sweep", SOURCE, mt3_scores),
    Protocol(
        "mt3_onsets_only",
        "MT3's scores for data without offsets and velocities",
        SOURCE,
        partial(mt3_scores, with_offsets=False),
    ),
    Protocol(
        "mt3_tracks_cerberus4", "MT3's scores of bass, drums, guitar and piano, each alone", SOURCE, cerberus4_scores
    ),
    Protocol(
        "mt3_program_aware",
        "MT3's multi-instrument F1: by program (flat, MIDI class, full) with offsets, drums by onset",
        SOURCE,
        program_aware_scores,
    ),
    Protocol(
        "mt3_tolerance_sweep",
        "MT3's onset + offset scores at tolerances from 10 to 500 ms, pitched notes as they are",
        SOURCE,
        tolerance_sweep,
    ),
)
