"""Notes on a grid: every onset and end on it, nothing shorter than a step, no two notes at one place."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrical import scale, transcription

from mt3core.errors import UsageError
from mt3core.notes.table import Note
from mt3core.notes.tempo_map import TempoMap, TimeSignature
from mt3core.transcription import Transcription
from mt3music import add_tempo
from mt3music.quantising import Grid, on_grid, quantised

pytestmark = pytest.mark.unit

GRIDS = {
    "1/16t": Fraction(1, 6),
    "1/8": Fraction(1, 2),
    "1/16": Fraction(1, 4),
    "1/32": Fraction(1, 8),
    "1/8t": Fraction(1, 3),
}
NOTES = st.lists(
    st.builds(
        lambda onset, length, pitch, program, velocity: Note(onset, onset + length, pitch, velocity, program),
        st.floats(0, 20),
        st.floats(0, 3),
        st.integers(60, 63),
        st.integers(0, 1),
        st.integers(1, 127),
    ),
    max_size=40,
)


@pytest.mark.parametrize("text", [*GRIDS, "1/16T", "1/4", " 1/8 "])
def test_values_are_parsed(text):
    assert Grid.parse(text).quarters == GRIDS.get(text.strip().lower(), Fraction(1))
    assert Grid.parse(str(Grid.parse(text))) == Grid.parse(text)


@pytest.mark.parametrize("text", ["", "16", "1/3", "2/16", "1/16x", "1/0", "1/128", "-1/8"])
def test_other_values_are_refused(text):
    with pytest.raises(UsageError, match="not a note value"):
        Grid.parse(text)


@settings(deadline=None, max_examples=60)
@given(NOTES, st.sampled_from(list(GRIDS)), st.sampled_from(["4/4", "6/8"]), st.floats(0, 2))
def test_everything_is_on_the_grid_once(notes, value, signature, start):
    tempo = TempoMap((start, start + 0.5, start + 1.1, start + 1.5), TimeSignature.parse(signature))
    moved = on_grid(notes, tempo, GRIDS[value])
    steps = float(tempo.time_signature.beat_quarters / GRIDS[value])
    begins = tempo.beats_at(np.array([note.onset for note in moved])) * steps
    ends = tempo.beats_at(np.array([note.offset for note in moved])) * steps
    assert np.abs(begins - np.rint(begins)).max(initial=0) < 1e-6
    assert np.abs(ends - np.rint(ends)).max(initial=0) < 1e-6
    assert (ends - begins > 0.999).all()
    assert all(note.onset >= 0 for note in moved)
    for one in {(note.pitch, note.program) for note in moved}:
        own = sorted((note.onset, note.offset) for note in moved if (note.pitch, note.program) == one)
        assert all(before[1] <= after[0] + 1e-9 for before, after in itertools.pairwise(own))
    assert {(note.pitch, note.program) for note in moved} == {(note.pitch, note.program) for note in notes}
    assert on_grid(moved, tempo, GRIDS[value]) == pytest.approx(moved) or len(moved) == len(
        on_grid(moved, tempo, GRIDS[value])
    )


def test_a_scale_played_unevenly_becomes_even():
    rng = np.random.default_rng(0)
    uneven = [Note(max(n.onset + rng.normal(0, 0.02), 0), n.offset, n.pitch) for n in scale(8, 100, 0.3)]
    result = add_tempo(transcription(uneven), 100, grid="1/16")
    onsets = np.array([note.onset for note in result.notes])
    assert np.diff(onsets) == pytest.approx(0.6, abs=1e-6)
    assert result.grid == "1/16"
    assert result.remark == "Notes were moved to the grid of 1/16."


def test_of_two_notes_at_one_place_the_loudest_stays():
    tempo = TempoMap.steady(120, 4)
    notes = [
        Note(0.0, 0.2, 60, 50),
        Note(0.04, 0.5, 60, 90),
        Note(0.02, 0.5, 60, 70, 5),
        Note(0.02, 0.3, 60, 1, 0, True),
    ]
    result = quantised(Transcription(notes, tempo=tempo), Grid.parse("1/8"))
    assert [(note.velocity, note.program, note.is_drum) for note in result.notes] == [
        (90, 0, False),
        (70, 5, False),
        (1, 0, True),
    ]
    assert result.remark == "Notes were moved to the grid of 1/8; 1 of 4 fell on others."


def test_without_a_tempo_there_is_no_grid():
    with pytest.raises(UsageError, match="no grid"):
        quantised(Transcription(scale()), Grid.parse("1/8"))


def test_without_notes_nothing_is_said_to_be_moved():
    result = add_tempo(Transcription([], duration_seconds=5.0), 100, grid="1/16")
    assert (result.remark, result.grid) == ("", "1/16")
