"""The picture of a transcription against its reference, and the matching behind its colours."""

import tracemalloc

import numpy as np
import pytest

from mt3core.notes.table import Note, note_table
from mt3eval.matching.onset_score import matched_onsets, onset_score
from mt3eval.piano_roll_picture import draw_piano_rolls

pytestmark = pytest.mark.unit

REFERENCE = [Note(0.0, 0.5, 60, 100, 24), Note(0.5, 1.0, 64, 100, 24), Note(1.0, 1.1, 38, 100, 0, True)]
ESTIMATE = [Note(0.04, 0.2, 60, 100, 0), Note(0.56, 1.0, 64, 100, 24), Note(1.01, 1.1, 38, 100, 0, True)]


def _red(path):
    import matplotlib.image

    pixels = matplotlib.image.imread(path)
    return int(((pixels[..., 0] > 0.8) & (pixels[..., 1:3] < 0.2).all(axis=-1)).sum())


def test_notes_match_by_onset_within_50_ms_and_pitch():
    assert matched_onsets(REFERENCE, ESTIMATE) == [(0, 0), (2, 2)]
    assert matched_onsets(REFERENCE, []) == matched_onsets([], ESTIMATE) == []


def test_only_what_differs_is_red(tmp_path):
    draw_piano_rolls(tmp_path / "same.png", REFERENCE, note_table(REFERENCE), "equal")
    draw_piano_rolls(tmp_path / "other.png", note_table(REFERENCE), ESTIMATE)
    draw_piano_rolls(tmp_path / "empty.png", [], np.zeros(0, note_table([]).dtype))
    legend = _red(tmp_path / "empty.png")
    assert _red(tmp_path / "same.png") == legend
    assert _red(tmp_path / "other.png") > legend + 500


def test_letters_that_the_font_lacks_are_drawn_in_silence(tmp_path):
    draw_piano_rolls(tmp_path / "title.png", REFERENCE, ESTIMATE, "\u65e5\u672c")  # warnings are errors here
    assert (tmp_path / "title.png").stat().st_size > 1000


def test_a_long_piece_is_matched_without_a_table_of_all_pairs():
    notes = [Note(0.02 * place, 0.02 * place + 0.3, 21 + place * 37 % 88, 100, 0) for place in range(60_000)]
    tracemalloc.start()
    score = onset_score(notes, notes[::2], drums=False)
    used_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (score.precision, score.recall, score.f1) == (1.0, 0.5, pytest.approx(2 / 3, abs=1e-12))
    assert used_bytes < 200e6  # a byte a pair would be 1.8e9
