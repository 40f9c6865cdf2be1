"""Several tracks' events merged into the target of their mix, as the original's mixing augmentation does it.

Works on events after shifts are merged and before repeated program and velocity events are removed
(`SegmentEncoder.events`); `remove_redundant_changes` and `events_to_tokens` follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mt3core.notes.encoding import split_shifts
from mt3core.notes.vocabulary import Vocabulary

# In rows of several tracks' events, 0 pads the shorter ones (a shift of 0 steps is never written).
PADDING_EVENT = 0


def mix_events(parts: Sequence[Int[np.ndarray, " _"]], vocabulary: Vocabulary) -> Int[np.ndarray, " mixed"]:
    """One stream with the events of all parts in order of their steps.

    Within a step the parts follow each other in their order, except in step 0, where the last comes first: the
    original puts the events before a part's first shift in front of everything so far. So every part keeps its own tie
    section, and a decoder accepts only the first as one. If the notes of the parts are available, encoding
    all of them together gives one tie section for the mix.
    """
    if not parts:
        return np.zeros(0, dtype=np.int32)
    ids, steps = zip(*(_events_with_steps(np.asarray(part, np.int64), vocabulary) for part in parts), strict=True)
    number = np.repeat(np.arange(len(parts)), list(map(len, steps)))
    all_ids, all_steps = np.concatenate(ids), np.concatenate(steps)
    by_time = np.lexsort((np.where(all_steps == 0, -number, number), all_steps))
    all_ids, all_steps = all_ids[by_time], all_steps[by_time]
    positions = np.flatnonzero(np.diff(all_steps, prepend=0))
    positions, shifts = split_shifts(positions, all_steps[positions], vocabulary.max_shift_steps)
    return np.insert(all_ids, positions, shifts).astype(np.int32)


def remove_redundant_changes(
    events: Int[np.ndarray, " events"], vocabulary: Vocabulary
) -> Int[np.ndarray, " remaining"]:
    """Leaves out program and velocity events that repeat the last of their type, including those of the tie section."""
    keep = np.ones(len(events), dtype=bool)
    for kind in ("velocity", "program"):
        positions = np.flatnonzero(vocabulary.is_type(kind, events))
        values = events[positions]
        keep[positions[1:][values[1:] == values[:-1]]] = False
    return events[keep]


def _events_with_steps(
    part: Int[np.ndarray, " events"], vocabulary: Vocabulary
) -> tuple[Int[np.ndarray, " remaining"], Int[np.ndarray, " remaining"]]:
    """The part's events without shifts, each with its step: the sum of the shifts directly before its group."""
    part = part[part != PADDING_EVENT]
    is_shift = vocabulary.is_type("shift", part)
    steps = np.where(is_shift, part - vocabulary.first_id("shift"), 0)
    total = np.cumsum(steps)
    # Consecutive shifts add up; the next run starts again from the segment's start.
    starts_run = is_shift & ~np.concatenate([[False], is_shift[:-1]])
    before_run = np.maximum.accumulate(np.where(starts_run, total - steps, 0))
    return part[~is_shift], (total - before_run)[~is_shift]
