"""The picture of a transcription against its reference, and the matching behind its colours."""

import numpy as np
import pytest

from mt3core.notes import Note, note_table
from mt3core.onset_score import matched_onsets
from mt3core.piano_roll_picture import draw_piano_rolls

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
