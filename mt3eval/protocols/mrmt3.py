"""MR-MT3's scores: `mrmt3_program_aware`, `mrmt3_notes`, `mrmt3_tracks`, `mrmt3_instruments`.

The rules.

- `Onset + program F1 (flat | midi_class | full)`: MT3's groups of instruments, but **onsets only for every
  instrument**. `flat` has two groups, pitched notes and drums; `midi_class` maps the program numbers of drums too.
- `Onset F1`: all notes pooled **with drums**, by pitch: a kick drum may match a bass note.
- `F1 by program N`: the groups of `midi_class`; `drums` for drums. Over files, the mean of the files with the group.
- `mrmt3_notes`: everything pooled, with and without offsets, notes without length dropped.
- `mrmt3_tracks`: for each reference track (here: program and drum flag) the best onset-and-offset F1 of any
  estimated track of the same kind, then the mean.
- `mrmt3_instruments`: the set of program numbers of the reference against that of the estimate. Drums count as the
  program number of their track, mostly 0, the same as the piano.

`mrmt3_program_aware` and `mrmt3_tracks` fail for notes without length, `mrmt3_tracks` for an estimate without notes,
and `mrmt3_instruments` for sides without a common instrument; such files are missing from the averages.

**Not from the program**: `leakage ratio phi` in `mrmt3_instruments` is ours, from the definition in the paper ("MR-MT3:
Memory Retaining Multi-Track Music Transcription to Mitigate Instrument Leakage", arXiv 2403.10024): the number
of different instruments in the transcription divided by that in the reference, then the mean over pieces. 1 is right;
more means that instruments leak into others. The program prints the number of instruments only.

Source: gudgud96/MR-MT3, `evaluate.py` and `scripts/instrument_leakage/count_instrument_f1.py`, commit
826ea84a933f93cd707d11e91af711f1d19c8d79. If drums have program numbers of several families, `F1 by program
drums` is that of the family that comes last in a Python set, there and here. Ours differs in the average of
`mrmt3_tracks`, which the program does not compute: files without reference tracks are left out.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int

from mt3core.notes.table import NoteTable
from mt3eval.matching.note_scores import Comparison, named, require_lengths, scored_notes, share_scores, with_length
from mt3eval.matching.program_groups import GRANULARITIES, Group, GroupCount, count_groups, family, split_groups, total
from mt3eval.protocol import Protocol, Scores, mean_without_nan
from mt3eval.reading.performance import NotDefinedError, Performance

COMMIT = "826ea84a933f93cd707d11e91af711f1d19c8d79"
SOURCE = f"gudgud96/MR-MT3, evaluate.py, commit {COMMIT}"
INSTRUMENTS_SOURCE = f"gudgud96/MR-MT3, scripts/instrument_leakage/count_instrument_f1.py, commit {COMMIT}"
PHI = "leakage ratio phi (from the paper, not in its code)"


def program_aware_scores(reference: Performance, estimate: Performance) -> Scores:
    """Pooled and multi-instrument onset scores in three granularities, and the F1 of each family."""
    require_lengths(reference.notes, estimate.notes)
    pooled = Comparison(scored_notes(reference.notes), scored_notes(estimate.notes)).score(None, overlap=False)
    scores = named(pooled, "Onset")
    counts = {one: _count(reference.notes, estimate.notes, one) for one in GRANULARITIES}
    for granularity in GRANULARITIES:
        scores |= named(total(counts[granularity]).score(), "Onset + program", f" ({granularity})")
    families = counts["midi_class"]
    for program, is_drum in set(families):  # of several drum groups the last counts, in the original's order
        scores[f"F1 by program {'drums' if is_drum else program}"] = families[program, is_drum].score().f1
    return scores


def pooled_scores(reference: Performance, estimate: Performance) -> Scores:
    """All notes pooled by pitch, with and without offsets; they come track by track, as in a MIDI file."""
    expected, found = (
        np.concatenate([side.notes[:0], *_tracks(side.notes).values()]) for side in (reference, estimate)
    )
    comparison = Comparison(scored_notes(with_length(expected)), scored_notes(with_length(found)))
    scores: Scores = {
        "len_ref_intervals": len(comparison.reference),
        "len_est_intervals": len(comparison.estimate),
    }
    for name, score in (("onoff", comparison.score()), ("on", comparison.score(offset_ratio=None))):
        scores |= {f"{name}_{share}": value for share, value in score._asdict().items()}
    return scores


def track_scores(reference: Performance, estimate: Performance) -> Scores:
    """The mean over reference tracks of the best F1 of an estimated track; NaN if the reference has none."""
    expected, found = _tracks(reference.notes), _tracks(estimate.notes)
    if not found:
        raise NotDefinedError(
            "The estimate has no tracks, and MR-MT3's track score takes the best of them.",
            "Score with a protocol that accepts an empty estimate, such as mrmt3_notes.",
        )
    best = [max(_track_f1(track, other) for other in found.items()) for track in expected.items()]
    return {
        "mean best track F1": float(np.mean(best)) if best else math.nan,
        "reference tracks": len(expected),
        "estimated tracks": len(found),
    }


def instrument_scores(reference: Performance, estimate: Performance) -> Scores:
    """Which program numbers occur at all, and how many on each side."""
    expected, found = (set(side.notes["program"].tolist()) for side in (reference, estimate))
    both = len(expected & found)
    if not both:
        why = "have no instrument in common" if expected and found else "cannot be compared: one has no notes"
        raise NotDefinedError(
            f"Reference and estimate {why}, and MR-MT3's instrument F1 then divides by zero.",
            "Leave the piece out, or score with another protocol.",
        )
    return {
        **named(share_scores(both, len(expected), len(found)), "instruments"),
        "estimated instruments": len(found),
        "reference instruments": len(expected),
        PHI: len(found) / len(expected),
    }


def mapped_programs(table: NoteTable, granularity: str) -> Int[np.ndarray, " _notes"]:
    """The programs of the notes in a granularity; `midi_class` also maps those of drums."""
    programs = table["program"].astype(int)
    return {"flat": table["is_drum"].astype(int), "midi_class": family(programs), "full": programs}[granularity]


def _count(reference: NoteTable, estimate: NoteTable, granularity: str) -> dict[Group, GroupCount]:
    programs = mapped_programs(reference, granularity), mapped_programs(estimate, granularity)
    return count_groups(reference, estimate, *programs, with_offsets=False)


def _tracks(table: NoteTable) -> dict[Group, NoteTable]:
    places = split_groups(table, table["program"].astype(int))
    return {group: table[place] for group, place in places.items()}


def _track_f1(track: tuple[Group, NoteTable], other: tuple[Group, NoteTable]) -> float:
    (_, is_drum), expected = track
    (_, other_is_drum), found = other
    if is_drum != other_is_drum:
        return 0.0
    require_lengths(expected, found)
    return Comparison(scored_notes(expected), scored_notes(found)).score(overlap=False).f1


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        "mrmt3_program_aware",
        "MR-MT3's multi-instrument F1: by program, onsets only; its Onset F1 pools drums with pitched notes",
        SOURCE,
        program_aware_scores,
    ),
    Protocol(
        "mrmt3_notes",
        "MR-MT3: all notes including drums, pooled by pitch, with and without offsets",
        SOURCE,
        pooled_scores,
    ),
    Protocol(
        "mrmt3_tracks",
        "MR-MT3: the best matching estimated track of each reference track, whatever its program",
        SOURCE,
        track_scores,
        # The program has no average of this score; a piece without reference tracks says nothing.
        mean_without_nan,
    ),
    Protocol(
        "mrmt3_instruments",
        "MR-MT3: which program numbers occur, and the paper's leakage ratio phi",
        INSTRUMENTS_SOURCE,
        instrument_scores,
    ),
)
