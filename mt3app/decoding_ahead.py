"""Files of a batch decoded at the same time, their results taken in order.

A short recording fills few of a network's lanes and a long one leaves them empty at its end, so PyTorch's engine is
given several at a time. How much is in memory before its turn is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mt3core.transcription import Transcription
    from mt3decode.streams import NoteStream

MOST_AT_ONCE = 64  # two seconds are four segments of `small`, whose workers have 128 lanes each
MOST_SECONDS_AHEAD = 600.0  # of audio: 40 MB at 16 kHz, and its notes


class DecodedAhead:
    """Transcribes by `open_stream`, which gives the stream of a job by its number.

    Later jobs are started as long as there are few of them and they are short together. Errors are raised by `result`.
    """

    def __init__(self, open_stream: Callable[[int], NoteStream], durations_seconds: Sequence[float]) -> None:
        self._open_stream = open_stream
        # A file that does not say how long it is may be as long as all that fits.
        self._durations_seconds = [duration or MOST_SECONDS_AHEAD for duration in durations_seconds]
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "transcribe")
        self._waiting: deque[Future[Transcription]] = deque()  # of the jobs from `_next` on
        self._next = 0
        self._lock = Lock()
        self._streams: set[NoteStream] = set()
        self._is_closed = False

    def result(self) -> Transcription:
        """The next job's result, once there is one."""
        self._start()
        waited_for = self._waiting[0]
        try:
            return waited_for.result()
        finally:
            if waited_for.done():  # and not interrupted
                self._waiting.popleft()
                self._next += 1
                self._start()

    def close(self) -> None:
        """Stops what is still being decoded."""
        with self._lock:
            self._is_closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()
        self._threads.shutdown(cancel_futures=True)

    def _start(self) -> None:
        while (number := self._next + len(self._waiting)) < len(self._durations_seconds):
            ahead_seconds = sum(self._durations_seconds[self._next : number + 1])
            if self._waiting and (len(self._waiting) >= MOST_AT_ONCE or ahead_seconds > MOST_SECONDS_AHEAD):
                return
            self._waiting.append(self._threads.submit(self._transcribe, number))

    def _transcribe(self, number: int) -> Transcription:
        with self._open_stream(number) as stream:
            with self._lock:
                self._streams.add(stream)
                if self._is_closed:
                    stream.close()
            try:
                for _ in stream:
                    pass
            finally:
                with self._lock:
                    self._streams.discard(stream)
        assert stream.result is not None
        return stream.result
