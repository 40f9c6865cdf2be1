"""Note tables: conversion, validation, trimming and the pedal."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt3core.errors import MT3Error
from mt3core.notes.table import (
    NOTE_DTYPE,
    Confidence,
    Note,
    apply_sustain,
    note_table,
    to_notes,
    trim_overlapping,
    validate_notes,
)

pytestmark = pytest.mark.unit


def rows(table: np.ndarray) -> list[tuple]:
    return [tuple(row)[:3] for row in table.tolist()]


def test_a_table_of_notes_and_of_rows_is_the_same():
    notes = [Note(0.5, 1.25, 60, 80, 24), Note(1.0, 1.01, 36, is_drum=True)]
    table = note_table(notes)
    assert table.dtype == NOTE_DTYPE
    assert to_notes(table) == notes
    sure = [dataclasses.replace(note, confidence=Confidence(1.0, 0.5, 1.0, 0.5)) for note in notes]
    assert sure == notes, "confidences do not make other notes of them"
    np.testing.assert_array_equal(note_table(sure), table)
    np.testing.assert_array_equal(note_table([[0.5, 1.25, 60, 80, 24, False], [1.0, 1.01, 36, 100, 0, True]]), table)
    assert len(note_table([])) == 0
    assert note_table([]).dtype == NOTE_DTYPE


def test_a_table_made_from_a_table_is_its_own():
    table = note_table([Note(0.0, 1.0, 60)])
    note_table(table)["pitch"] = 0
    assert table["pitch"].tolist() == [60]


@pytest.mark.parametrize(
    ("note", "complaint"),
    [
        (Note(float("nan"), 1.0, 60), "not a number"),
        (Note(0.0, float("inf"), 60), "not a number"),
        (Note(-0.1, 1.0, 60), "before the recording"),
        (Note(2.0, 1.0, 60), "ends before it starts"),
        (Note(0.0, 1.0, 128), "pitch"),
        (Note(0.0, 1.0, 60, 0), "velocity"),
        (Note(0.0, 1.0, 60, 128), "velocity"),
        (Note(0.0, 1.0, 60, 100, -1), "program"),
    ],
)
def test_impossible_notes_are_named(note, complaint):
    with pytest.raises(MT3Error, match=f"^Note 1 .*{complaint}"):
        validate_notes(note_table([Note(0.0, 1.0, 60), note]))


def test_possible_notes_pass():
    validate_notes(note_table([]))
    validate_notes(note_table([Note(0.0, 0.0, 0, 1, 0), Note(1.0, 2.0, 127, 127, 127, True)]))


def test_sustain_equals_the_original(golden):
    entry = golden("codec_sequences.json")["sustain"]
    sustained = apply_sustain(note_table(entry["input_notes"]), entry["control_changes"])
    np.testing.assert_array_equal(sustained, note_table(entry["sustained_notes"]))


def test_trimming_equals_the_original(golden):
    entries = golden("codec_sequences.json")
    trimmed = trim_overlapping(note_table(entries["multi_mt3"]["input_notes"]))
    np.testing.assert_array_equal(trimmed, note_table(entries["multi_mt3_trimmed"]["input_notes"]))


def test_the_pedal_holds_until_it_is_released():
    table = note_table([Note(0.0, 1.0, 60), Note(0.5, 4.0, 62), Note(0.6, 0.7, 36, is_drum=True)])
    assert rows(apply_sustain(table, [(0.2, 64), (3.0, 63)])) == [(0, 3, 60), (0.5, 4, 62), (0.6, 0.7, 36)]
    assert rows(apply_sustain(table, np.array([[0.2, 63.0]]))) == rows(table)
    assert rows(apply_sustain(table, [])) == rows(table)


def test_a_note_struck_again_ends_the_held_one():
    table = note_table([Note(0.0, 1.0, 60), Note(2.0, 2.5, 60), Note(2.0, 2.5, 62)])
    assert rows(apply_sustain(table, [(0, 127), (3, 0)])) == [(0, 2, 60), (2, 3, 60), (2, 3, 62)]


def test_of_two_equal_notes_under_the_pedal_one_remains():
    table = note_table([Note(1.0, 2.0, 60, 50), Note(1.0, 3.0, 60, 90)])
    assert apply_sustain(table, [(0, 127), (4, 0)]).tolist() == [(1, 4, 60, 90, 0, False)]


def test_a_pedal_with_a_key_holds_its_own_notes_only():
    table = note_table([Note(0.0, 1.0, 60, program=0), Note(0.0, 1.0, 60, program=40)])
    controls = [(0.5, 100, 40), (2.0, 0, 40)]
    assert apply_sustain(table, controls)["offset"].tolist() == [1, 2]
    assert apply_sustain(table, controls, note_keys=[40, 7])["offset"].tolist() == [2, 1]
    assert apply_sustain(table, [(0.5, 100), (2.0, 0)])["offset"].tolist() == [2, 2]


def test_a_pedal_never_released_holds_to_the_last_event():
    table = note_table([Note(0.0, 1.0, 60), Note(0.0, 5.0, 62)])
    assert apply_sustain(table, [(0.5, 127)])["offset"].tolist() == [5, 5]


def test_trimming_leaves_other_instruments_alone():
    table = note_table(
        [Note(0.0, 3.0, 60), Note(1.0, 4.0, 60), Note(1.0, 4.0, 60, program=5), Note(1.0, 2.0, 61), Note(1.0, 1.0, 63)]
    )
    assert rows(trim_overlapping(table)) == [(0, 1, 60), (1, 4, 60), (1, 4, 60), (1, 2, 61)]


times = st.integers(0, 20).map(lambda step: step / 10)
note_lists = st.lists(
    st.builds(
        lambda onset, length, *rest: Note(onset, onset + length, *rest),
        times,
        times,
        st.integers(60, 62),
        st.integers(1, 127),
        st.integers(0, 1),
        st.booleans(),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(note_lists)
def test_trimmed_notes_never_overlap(notes):
    trimmed = trim_overlapping(note_table(notes))
    for first in trimmed:
        for second in trimmed:
            same = first.tolist()[2] == second.tolist()[2] and first.tolist()[4:] == second.tolist()[4:]
            assert not (same and first["onset"] < second["onset"] < first["offset"])
    np.testing.assert_array_equal(trim_overlapping(trimmed), trimmed)


@settings(deadline=None)
@given(note_lists, st.lists(st.tuples(times, st.sampled_from([0, 63, 64, 127])), max_size=6))
def test_sustained_notes_stay_possible(notes, controls):
    table = note_table(notes)
    sustained = apply_sustain(table, controls)
    validate_notes(sustained)
    assert len(sustained) <= len(table)
    assert (sustained["is_drum"].sum()) == table["is_drum"].sum()
