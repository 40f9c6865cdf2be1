"""How far a request is decoded ahead of a segment that runs on to the greatest number of tokens."""

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")

from mt3core.decoding import Generated
from mt3decode.stretches import Start
from mt3torch.engine import _Request

pytestmark = pytest.mark.unit
NOTHING = Generated(np.zeros(0, np.int32), 0.0)


def test_a_segment_that_runs_on_lets_a_bounded_number_of_others_past():
    """All others are finished in one step, and their results are taken at once."""
    request = _Request(itertools.repeat(np.zeros(1)), None)
    request.waiting.extend(Start(number, np.zeros(1)) for number in range(100))
    assert request.take(8).number == 0
    past = []
    while (start := request.take(8)) is not None:
        past.append(start.number)
        request.finish(start.number, NOTHING)
        request.num_unconsumed -= 1
    assert past == list(range(1, 8))
    request.finish(0, NOTHING)
    assert request.take(8).number == 8
