"""Merged token streams against the original's and by hand."""

import numpy as np
import pytest

from mt3core.notes.mixing import mix_events, remove_redundant_changes
from mt3core.notes.vocabulary import Vocabulary

pytestmark = pytest.mark.unit

TIE, ON, PIANO, C4 = 1131, 1130, 1132, 1061
VOCABULARY = Vocabulary()


def test_mixes_equal_the_original(golden):
    mixes = golden("codec_sequences.json")["mix"]
    assert len(mixes) == 5
    for mix in mixes:
        merged = mix_events([np.array(part, dtype=np.int64) for part in mix["parts"]], VOCABULARY)
        assert merged.tolist() == mix["merged"]
        assert remove_redundant_changes(merged, VOCABULARY).tolist() == mix["after_redundancy_removal"]


def test_tie_sections_come_last_part_first_and_later_events_in_order():
    first = np.array([PIANO, C4, TIE, 20, ON, C4, 0, 0])
    second = np.array([TIE, 10, PIANO + 1, C4 + 1, 20, C4 + 2])
    expected = [TIE, PIANO, C4, TIE, 10, PIANO + 1, C4 + 1, 20, ON, C4, C4 + 2]
    assert mix_events([first, second], VOCABULARY).tolist() == expected


def test_long_shifts_add_up_and_are_split_again():
    first, second = np.array([C4, 1000, 200, C4, 1000, 500, C4]), np.array([1000, 300, C4 + 1])
    expected = [C4, 1000, 200, C4, 1000, 300, C4 + 1, 1000, 500, C4]
    assert mix_events([first, second], VOCABULARY).tolist() == expected


@pytest.mark.parametrize("parts", [[], [[]], [[], [0, 0]]])
def test_nothing_mixed_is_nothing(parts):
    assert mix_events([np.array(part, dtype=np.int32) for part in parts], VOCABULARY).tolist() == []
