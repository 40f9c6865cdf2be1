"""A band of four notes, and the comparison of notes with what was expected."""

import numpy as np

from mt3core.notes.table import Note, to_notes

BAND = [
    Note(0.5, 1.0, 40, 100, 33),
    Note(0.25, 0.26, 36, 120, 0, True),
    Note(0.5, 0.75, 60, 1, 0),
    Note(0.51, 2.0, 64, 127, 0),
]


def assert_same_notes(found, expected):
    """Equal in everything but times, which may differ by a microsecond."""
    found, expected = to_notes(found), list(expected)
    assert [(n.pitch, n.velocity, n.program, n.is_drum) for n in found] == [
        (n.pitch, n.velocity, n.program, n.is_drum) for n in expected
    ]
    times = [(n.onset, n.offset) for n in expected]
    np.testing.assert_allclose([(n.onset, n.offset) for n in found], np.reshape(times, (-1, 2)), atol=1e-6)
