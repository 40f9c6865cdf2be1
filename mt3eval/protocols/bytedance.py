"""bytedance's scores of piano transcription: notes, pedals and frames.

The rule. The reference is read as MIDI events: a note that starts while another of its pitch sounds replaces it
(the first is lost, and its end closes the second), and offsets move to the end of the sustain pedal
(`pedal.prolong_in_one_pass`). The estimate is used as it is. Four note scores follow, all with mir_eval's defaults:
`note` (onset), `note+offset`, `note+velocity` and `note+offset+velocity`, the one that the program prints.
`pedal_*` compares the pedals' intervals (onset within 200 ms, offset within max(50 ms, 20 %)) and is there only if
the reference has a pedal. `frame_*` and `pedal_frame_*` count 100 frames per second, the first and the last frame of
a note rounded and both included, over 88 keys (pitches beyond them count as the outermost keys).

Source: bytedance/piano_transcription, `pytorch/calculate_score_for_paper.py` and `utils/utilities.py`, commit
1ade7dcd4348add669a67c6e6282456c8c6633bd.

Where ours differs. The program scores a network's outputs: here the estimated notes stand for the result of its
post-processing, and the estimate's frames are made from the estimated notes and pedal as those of the reference are,
but without extending the notes. The frame scores are therefore its rule on other input. Precision and recall of
frames come from counts. A pedal that is never released ends with the last event of either side, since the length of
the recording is not known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from mt3core.notes.table import NoteTable
from mt3eval.matching.note_scores import Comparison, f1, require_lengths, scored_notes
from mt3eval.matching.pedal import (
    Intervals,
    one_piano,
    pedal_intervals,
    pedal_notes,
    prolong_in_one_pass,
    require_pedal_lengths,
)
from mt3eval.protocol import Protocol, Scores
from mt3eval.reading.performance import NotDefinedError, Performance

PROGRAM = "bytedance's evaluation"
FRAMES_PER_SECOND = 100
LOWEST_PITCH, NUM_KEYS = 21, 88
PEDAL_ONSET_TOLERANCE_SECONDS = 0.2

# name of the score, offset_ratio of mir_eval, whether velocities count
_NOTE_SCORES: tuple[tuple[str, float | None, bool], ...] = (
    ("note", None, False),
    ("note+offset", 0.2, False),
    ("note+velocity", None, True),
    ("note+offset+velocity", 0.2, True),
)


def score_bytedance(reference: Performance, estimate: Performance) -> Scores:
    """The program's values for one piece; raises `NotDefinedError` if it fails."""
    require_lengths(one_piano(reference, PROGRAM), one_piano(estimate, PROGRAM))
    if len(reference.notes) == 0:
        raise NotDefinedError(f"{PROGRAM} fails if the reference has no notes.")
    end = _end_seconds(reference, estimate)
    heard_pedals, found_pedals = (pedal_intervals(one.controls, end) for one in (reference, estimate))
    heard = prolong_in_one_pass(_replace_sounding(reference.notes), heard_pedals)
    found = _replace_sounding(estimate.notes)  # for the frames alone, and not extended

    scores: Scores = {"reference notes": len(heard)}
    num_frames = _frame(end) + 1
    scores |= _frame_scores("frame", _key_roll(heard, num_frames), _key_roll(found, num_frames))
    if len(heard_pedals):
        require_pedal_lengths(heard_pedals, PROGRAM, "reference")
        require_pedal_lengths(found_pedals, PROGRAM, "estimate")
        scores |= _pedal_scores(heard_pedals, found_pedals)
        scores |= _frame_scores(
            "pedal_frame", _pedal_roll(heard_pedals, num_frames), _pedal_roll(found_pedals, num_frames)
        )
    return scores | _note_scores(heard, estimate.notes)


def _end_seconds(*performances: Performance) -> float:
    """The end of the piece, which the program knows from the recording: here the last event of either side."""
    return float(np.concatenate([(*one.notes["offset"], *one.controls[:, 0]) for one in performances]).max())


def _replace_sounding(notes: NoteTable) -> NoteTable:
    """The notes that MIDI events of one channel give, in order of their ends; ends come before starts."""
    events = [(note["offset"], 0, index) for index, note in enumerate(notes)]
    events += [(note["onset"], 1, index) for index, note in enumerate(notes)]
    sounding: dict[int, int] = {}
    kept: list[int] = []
    ends: list[float] = []
    pitches = notes["pitch"].tolist()
    for time, is_start, index in sorted(events, key=lambda event: event[:2]):
        pitch = pitches[index]
        if is_start:
            sounding[pitch] = index
        elif pitch in sounding:
            kept.append(sounding.pop(pitch))
            ends.append(time)
    parsed = notes[kept]
    parsed["offset"] = ends
    return parsed


def _note_scores(reference: NoteTable, estimate: NoteTable) -> Scores:
    comparison = Comparison(scored_notes(reference), scored_notes(estimate))
    scores: Scores = {}
    for name, offset_ratio, velocity in _NOTE_SCORES:
        score = comparison.velocity_score(offset_ratio) if velocity else comparison.score(offset_ratio, overlap=False)
        scores |= _named(name, score)
    return scores


def _pedal_scores(reference: Intervals, estimate: Intervals) -> Scores:
    comparison = Comparison(pedal_notes(reference), pedal_notes(estimate), PEDAL_ONSET_TOLERANCE_SECONDS)
    return _named("pedal", comparison.score(overlap=False))


def _frame(seconds: float) -> int:
    return round(seconds * FRAMES_PER_SECOND)


def _key_roll(notes: NoteTable, num_frames: int) -> Bool[np.ndarray, "frames keys"]:
    roll = np.zeros((num_frames, NUM_KEYS), dtype=bool)
    keys = np.clip(notes["pitch"] - LOWEST_PITCH, 0, NUM_KEYS - 1)
    for key, onset, offset in zip(keys.tolist(), notes["onset"].tolist(), notes["offset"].tolist(), strict=True):
        roll[_frame(onset) : _frame(offset) + 1, key] = True
    return roll


def _pedal_roll(pedals: Intervals, num_frames: int) -> Bool[np.ndarray, " frames"]:
    roll = np.zeros(num_frames, dtype=bool)
    for start, end in pedals.tolist():
        roll[_frame(start) : _frame(end) + 1] = True
    return roll


def _frame_scores(name: str, reference: np.ndarray, estimate: np.ndarray) -> Scores:
    both = int(np.sum(reference & estimate))
    precision = both / max(1, int(estimate.sum()))
    recall = both / max(1, int(reference.sum()))
    return _named(name, (precision, recall, f1(precision, recall)))


def _named(name: str, values: Sequence[float]) -> Scores:
    return {f"{name}_{metric}": value for metric, value in zip(("precision", "recall", "f1"), values, strict=False)}


PROTOCOLS = (
    Protocol(
        "bytedance",
        "bytedance, piano: reference notes extended by the pedal, pedals, 100 frames per second",
        "Kong et al. 2021; github.com/bytedance/piano_transcription, commit 1ade7dc",
        score_bytedance,
    ),
)
