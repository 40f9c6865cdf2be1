"""Files of a batch decoded at the same time: their results come in order, and how many are ahead is bounded."""

import threading
from contextlib import closing

import pytest

from mt3app import decoding_ahead
from mt3app.decoding_ahead import DecodedAhead
from mt3core.errors import AudioError

SECONDS = 10


class Stream:
    """Stands for a `NoteStream`: it gives notes until it is closed or let go."""

    def __init__(self, number, may_end):
        self.result = None
        self.number, self.may_end, self.is_closed = number, may_end, threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __iter__(self):
        while not (self.may_end.wait(0.01) or self.is_closed.is_set()):
            yield "note"
        self.result = f"result {self.number}"

    def close(self):
        self.is_closed.set()


class Recordings:
    def __init__(self, fail=()):
        self.opened, self.may_end, self.fail = [], threading.Event(), fail
        self.is_full = threading.Event()
        self.streams = []

    def open_stream(self, number):
        self.opened.append(number)
        if number in self.fail:
            raise AudioError(f"Recording {number} is damaged.", "Use another.")
        self.streams.append(Stream(number, self.may_end))
        return self.streams[-1]


def test_results_come_in_order_and_an_error_is_that_of_its_file():
    recordings = Recordings(fail=(2,))
    recordings.may_end.set()
    with closing(DecodedAhead(recordings.open_stream, [1.0] * 5)) as ahead:
        assert [ahead.result(), ahead.result()] == ["result 0", "result 1"]
        with pytest.raises(AudioError, match="Recording 2 is damaged"):
            ahead.result()
        assert [ahead.result(), ahead.result()] == ["result 3", "result 4"]
    assert sorted(recordings.opened) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("durations", "most_at_once", "expected"),
    [
        ([1.0] * 9, 4, 4),
        ([250.0, 250.0, 250.0, 1.0], 64, 2),  # of 600 seconds, and in order: the short one waits as well
        ([4000.0, 1.0, 1.0], 64, 1),  # one alone may be longer
        ([0.0, 0.0, 0.0], 64, 1),  # of unknown length
    ],
)
def test_few_are_ahead(monkeypatch, durations, most_at_once, expected):
    monkeypatch.setattr(decoding_ahead, "MOST_AT_ONCE", most_at_once)
    recordings = Recordings()
    with closing(DecodedAhead(recordings.open_stream, durations)) as ahead:
        waiting = threading.Thread(target=ahead.result)
        waiting.start()
        for _ in range(100 * SECONDS):
            if len(recordings.streams) >= expected:
                break
            waiting.join(0.01)
        waiting.join(0.1)  # more would have come by now
        assert sorted(recordings.opened) == list(range(expected))
        recordings.may_end.set()
        waiting.join(SECONDS)
        assert not waiting.is_alive()


def test_what_is_decoded_is_stopped_at_the_end():
    recordings = Recordings()
    ahead = DecodedAhead(recordings.open_stream, [1.0] * 3)
    waiting = threading.Thread(target=ahead.result)
    waiting.start()
    while len(recordings.streams) < 3:
        waiting.join(0.01)
    ahead.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    assert all(stream.is_closed.is_set() for stream in recordings.streams)
