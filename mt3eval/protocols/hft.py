"""hFT-Transformer's note scores (piano): `hft_note`, `hft_note_velocity`.

The rule. `hft_note` is mir_eval's note score with its defaults over all notes of the file, notes without
length dropped; the pedal is handled when the data is made, not here. `hft_note_velocity` is mir_eval's score
with velocities, given MIDI note numbers where mir_eval expects Hz: 50 cents of a note number are more than a
semitone from 35 on and two from 69 on, so such errors pass. This is a bug; it is kept because the
published numbers include it. `mir_eval_velocity_nondrum` is the score without the bug.

Source: sony/hFT-Transformer, `corpus/conv_note2ref.py` and `evaluation/m_transcription.py`, commit
71a2ee06e9ced1ea24673c95ee0acded2fc98d04. Its frame scores need the network's frame outputs and are not here.
"""

from __future__ import annotations

from dataclasses import replace

from mt3core.notes.table import NoteTable
from mt3eval.matching.note_scores import Comparison, ScoredNotes, require_lengths, scored_notes, with_length
from mt3eval.protocol import Protocol, Scores
from mt3eval.protocols.mir_eval import notes_scores, velocity_scores_of
from mt3eval.reading.performance import Performance

SOURCE = "sony/hFT-Transformer, evaluation/m_transcription.py, commit 71a2ee06e9ced1ea24673c95ee0acded2fc98d04"


def note_scores(reference: Performance, estimate: Performance) -> Scores:
    """mir_eval's note scores of the notes that have a length."""
    return notes_scores(with_length(reference.notes), with_length(estimate.notes))


def note_velocity_scores(reference: Performance, estimate: Performance) -> Scores:
    """mir_eval's scores with velocities, with note numbers instead of Hz."""
    tables = with_length(reference.notes), with_length(estimate.notes)
    require_lengths(*tables)
    return velocity_scores_of(Comparison(_numbers_as_hz(tables[0]), _numbers_as_hz(tables[1])))


def _numbers_as_hz(table: NoteTable) -> ScoredNotes:
    return replace(scored_notes(table), hz=table["pitch"].astype(float))


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("hft_note", "mir_eval's note scores of a piano file, notes without length dropped", SOURCE, note_scores),
    Protocol(
        "hft_note_velocity",
        "mir_eval's scores with velocity, note numbers used as Hz: semitone errors pass (as published)",
        SOURCE,
        note_velocity_scores,
    ),
)
