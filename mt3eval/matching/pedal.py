"""The sustain pedal as the piano evaluations read it: its intervals, and which notes it extends.

Two conventions are in use. Transkun's extends each note whose key is released under the pedal to the end of that
pedal, then cuts every note where the next of its pitch starts. bytedance's goes through pedals and notes together,
each once, and so leaves out some notes near the end of a pedal; its scores come from that rule.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mt3core.notes.table import SUSTAIN_DOWN, SUSTAIN_PEDAL, NoteTable
from mt3eval.matching.note_scores import ScoredNotes
from mt3eval.reading.performance import NotDefinedError, Performance

Intervals = Float[np.ndarray, "intervals 2"]


def one_piano(performance: Performance, program: str) -> NoteTable:
    """The notes of a performance of one instrument, in their order; their programs are ignored.

    Raises `NotDefinedError` if there are drums: `program`, the calling evaluation, is for pianos only.
    """
    if performance.notes["is_drum"].any():
        raise NotDefinedError(
            f"{program} scores a single piano, but these notes include drums.",
            "Remove the drums, or choose a protocol for several instruments.",
        )
    return performance.notes


def pedal_intervals(
    controls: Float[np.ndarray, "controls 3"], end_seconds: float, controller: int = SUSTAIN_PEDAL
) -> Intervals:
    """From when to when (seconds) a pedal was down: from a value of 64 or more to the next below.

    A pedal that is not released is held until `end_seconds`, or until its last control change if that is later,
    and left out if it then has no length.
    """
    changes = controls[controls[:, 1] == controller]
    changes = changes[np.argsort(changes[:, 0], kind="stable")]
    is_down = changes[:, 2] >= SUSTAIN_DOWN
    times = changes[np.diff(is_down, prepend=False), 0]
    if len(times) % 2:
        end = max(end_seconds, float(changes[-1, 0]))
        times = np.append(times, end) if end > times[-1] else times[:-1]
    return times.reshape(-1, 2)


def require_pedal_lengths(intervals: Intervals, program: str, side: str) -> None:
    """Raises `NotDefinedError` if a pedal goes down and up at the same time, for which `program` fails."""
    empty = np.flatnonzero(intervals[:, 0] >= intervals[:, 1])
    if len(empty):
        raise NotDefinedError(
            f"{program} fails if a pedal goes down and up at the same time, as one in the {side} does at "
            f"{intervals[empty[0], 0]:.3f} s.",
            "Remove these control changes, then try again.",
        )


def pedal_notes(intervals: Intervals) -> ScoredNotes:
    """A pedal's intervals as notes of one pitch, to be scored like notes."""
    return ScoredNotes(intervals, np.ones(len(intervals)), np.zeros(len(intervals)))


def prolong_to_pedal(notes: NoteTable, pedals: Intervals) -> NoteTable:
    """Transkun's rule: a note that ends strictly inside a pedal's interval ends with the pedal."""
    prolonged = notes.copy()
    if len(pedals) == 0:
        return prolonged
    ends = notes["offset"]
    pedal = np.searchsorted(pedals[:, 0], ends, side="left") - 1  # the last that went down before the note's end
    is_held = (pedal >= 0) & (ends < pedals[pedal, 1])
    prolonged["offset"][is_held] = pedals[pedal[is_held], 1]
    return prolonged


def cut_at_next_of_pitch(notes: NoteTable) -> NoteTable:
    """Ends each note where the next of its pitch in the list starts, and drops those left without length.

    `notes` are in order of onset. Of notes that start together the last in the list stays. The result is in order
    of onset, offset and pitch.
    """
    cut = notes.copy()
    by_pitch = np.argsort(notes["pitch"], kind="stable")
    here, after = by_pitch[:-1], by_pitch[1:]
    same = notes["pitch"][here] == notes["pitch"][after]
    here, after = here[same], after[same]
    cut["offset"][here] = np.minimum(notes["offset"][here], notes["onset"][after])
    return in_time_order(cut[cut["onset"] < cut["offset"]])


def in_time_order(notes: NoteTable) -> NoteTable:
    """The notes in order of onset, then offset, then pitch."""
    return notes[np.lexsort((notes["pitch"], notes["offset"], notes["onset"]))]


def prolong_in_one_pass(notes: NoteTable, pedals: Intervals) -> NoteTable:
    """bytedance's rule: notes (in order of offset) and pedals (in order of time) are each gone through once.

    A note that ends strictly inside the current pedal ends with it, and cuts the note of the same pitch that this
    pedal extended before. The first note that ends after the current pedal makes the next one current, and is
    itself never compared with that next pedal, as in the original.
    """
    offsets = notes["offset"].tolist()
    onsets, pitches = notes["onset"].tolist(), notes["pitch"].tolist()
    index = 0
    for start, end in pedals.tolist():
        held: dict[int, int] = {}  # the last note of each pitch that this pedal extends
        while index < len(offsets):
            offset, pitch = offsets[index], pitches[index]
            if start < offset < end:
                if pitch in held:
                    offsets[held[pitch]] = onsets[index]
                offsets[index] = end
                held[pitch] = index
            index += 1
            if offset > end:
                break
    prolonged = notes.copy()
    prolonged["offset"] = offsets
    return prolonged
