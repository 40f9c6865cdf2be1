"""One engine decodes everything that a program asks for: files, lists of files, streams, requests of a service.

A request is a stream of segments. What the network reads (samples, or log-mels where the host makes them) is read ahead
in a thread of its own, at most a few batches. Workers are threads with lanes of their own; a lane takes the next
segment of whichever request has its turn. On a CPU there are several workers, each on one processor: a step is hundreds
of short operations, and splitting every one over all processors means waiting for the slowest each time. Threads share
the weights, and the interpreter only between steps: a step is one call, which does not hold it (`one_token.py`).

Nothing is refused: requests take turns, one segment each. A request that is abandoned gives back its lanes at the
next step. A segment that runs on holds back those after it, so a request gets no more than `AHEAD` times all lanes
ahead of its oldest unfinished segment: then the lanes run empty, and steps with few lanes are fast.
"""

from __future__ import annotations

import collections
import itertools
import os
import queue
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from mt3core.decoding import Decoding, Generated
from mt3core.errors import DecodingError
from mt3decode.grammar import steps_of
from mt3decode.stretches import LogMels, Start, Stretches
from mt3torch.decoding import Worker, encoder_batch, lane_worker
from mt3torch.device_loop import DeviceLoop
from mt3torch.stepper import Stepper

# Batches of the encoder that are read ahead.
BATCHES_AHEAD = 2
AHEAD = 4
# Seconds without work after which a worker gives its memory back.
IDLE_SECONDS = 5.0
_Result = tuple[int, Generated] | BaseException | None


class Engine:
    """Decodes with one method. Threads start with the first request and end with `close`, or with the engine.

    An engine that nobody refers to any more ends with the last of its requests.
    """

    def __init__(
        self,
        stepper: Stepper,
        decoding: Decoding,
        num_lanes: int,
        num_workers: int = 1,
        loop: DeviceLoop | None = None,
    ) -> None:
        self._state = _State(stepper, decoding, num_lanes, num_workers, loop or DeviceLoop.of(stepper.device))
        self._end = weakref.finalize(self, self._state.close)

    def generate_stream(self, log_mels: LogMels, last_steps: Sequence[int] | None = None) -> Results:
        """Like `mt3torch.decoding.generate_stream`, from any number of threads; starts at once.

        `last_steps` may grow while `log_mels` are read. What reading them raises is raised by the results, after those
        of the segments before it. Raises `DecodingError` if the engine is closed.
        """
        return Results(self, self._state.submit(log_mels, last_steps))

    @property
    def num_requests(self) -> int:
        """Requests that are not finished."""
        return len(self._state.requests)

    @property
    def is_open(self) -> bool:
        return self._end.alive

    def cancel(self, request: _Request) -> None:
        self._state.cancel(request)

    def consumed(self, request: _Request) -> None:
        self._state.consumed(request)

    def close(self) -> None:
        """Ends the threads; requests that are not finished raise `DecodingError`."""
        self._end()


class Results(Iterator[tuple[int, Generated]]):
    """The segments of a request, in the order in which they finish. `close`, from any thread, cancels the others."""

    def __init__(self, engine: Engine, request: _Request) -> None:
        self._engine: Engine | None = engine  # as long as results are to come
        self._request = request

    def __next__(self) -> tuple[int, Generated]:
        engine = self._engine
        result = None if engine is None else self._request.results.get()
        if isinstance(result, tuple) and engine is not None:
            engine.consumed(self._request)
            return result
        self._engine = None
        if isinstance(result, BaseException):
            raise result
        raise StopIteration

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.cancel(self._request)

    def __del__(self) -> None:
        self.close()


class _Request:
    """The segments of one request: waiting, in lanes, and finished. Used under the lock of `_State`."""

    def __init__(self, log_mels: LogMels, last_steps: Sequence[int] | None) -> None:
        self.stretches = log_mels if isinstance(log_mels, Stretches) else None
        self.log_mels = log_mels
        self.last_steps = last_steps
        self.waiting: collections.deque[Start] = collections.deque()
        self.is_read = self.stretches is not None  # whether all segments have been read, or as many as can be
        self.error: BaseException | None = None  # in reading the one after them
        self.in_lanes: set[int] = set()
        self.num_unconsumed = 0
        self.results: queue.SimpleQueue[_Result] = queue.SimpleQueue()

    @property
    def is_finished(self) -> bool:
        if self.stretches is not None:
            return self.stretches.is_finished
        return self.is_read and not self.waiting and not self.in_lanes

    def take(self, most_ahead: int) -> Start | None:
        """The next segment that can be started now."""
        if self.num_unconsumed + len(self.in_lanes) >= most_ahead:
            return None
        if self.stretches is not None:
            start = next(iter(self.stretches.take(1)), None)
        elif (
            not self.waiting
            or self.waiting[0].number >= min(self.in_lanes, default=self.waiting[0].number) + most_ahead
        ):
            start = None
        else:
            start = self.waiting.popleft()
        if start is not None:
            self.in_lanes.add(start.number)
        return start

    def end(self, last: BaseException | None) -> None:
        """Gives the last result. The audio is forgotten now, since a thread may long refer to its latest request."""
        self.log_mels, self.stretches, self.error = (), None, None
        self.waiting.clear()
        self.results.put(last)

    def finish(self, number: int, generated: Generated) -> None:
        self.in_lanes.discard(number)
        if self.stretches is not None:
            self.stretches.give(number, generated.tokens)
        self.num_unconsumed += 1
        self.results.put((number, generated))


class _State:
    """What the threads share. They do not refer to the `Engine`, so that it can be forgotten while they wait."""

    def __init__(
        self, stepper: Stepper, decoding: Decoding, num_lanes: int, num_workers: int, loop: DeviceLoop | None
    ) -> None:
        self.stepper, self.decoding, self.loop = stepper, decoding, loop
        self.num_lanes, self.num_workers = num_lanes, num_workers
        self.batch = encoder_batch(stepper.network, num_lanes, loop)
        self.most_ahead = AHEAD * num_lanes * num_workers
        self.most_waiting = BATCHES_AHEAD * num_workers * self.batch
        self.requests: list[_Request] = []  # the next one to have its turn first
        self.changed = threading.Condition()
        self.is_closed = False
        self._workers: list[threading.Thread] = []
        _states.add(self)

    def submit(self, log_mels: LogMels, last_steps: Sequence[int] | None) -> _Request:
        request = _Request(log_mels, last_steps)
        with self.changed:
            if self.is_closed:
                raise _closed()
            self._start_workers()
            self.requests.append(request)
            self.changed.notify_all()
        if not request.is_read:
            _Thread(target=self._read, args=(request,), name="mt3-reader", daemon=True).start()
        return request

    def consumed(self, request: _Request) -> None:
        with self.changed:
            request.num_unconsumed -= 1
            self.changed.notify_all()

    def cancel(self, request: _Request) -> None:
        """Nothing for a finished request."""
        with self.changed:
            if request in self.requests:
                self.requests.remove(request)
                request.end(None)  # somebody may be waiting for one
                self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.is_closed = True
            for request in self.requests:
                request.end(_closed())
            self.requests.clear()
            self.changed.notify_all()
        if isinstance(threading.current_thread(), _Thread):
            return  # the collection of garbage led here, perhaps while this thread has the lock that the others need
        for worker in self._workers:  # a thread that the interpreter ends inside PyTorch may end everything
            worker.join()

    def after_fork(self) -> None:
        """In the new process there are no threads, and one of the old ones may have had the lock."""
        self.changed = threading.Condition()
        self._workers = []
        for request in self.requests:
            request.end(DecodingError("The process was forked during this request.", "Make the request again."))
        self.requests = []

    def _start_workers(self) -> None:
        if self._workers:
            return
        threads, is_ready = torch.get_num_threads(), threading.Barrier(self.num_workers + 1)
        workers: list[threading.Thread] = [
            _Thread(target=self._work, args=(is_ready,), name="mt3-worker", daemon=True)
            for _ in range(self.num_workers)
        ]
        try:
            for worker in workers:
                worker.start()
            is_ready.wait()
        except BaseException:  # no more threads, or an interruption: the next request tries again
            is_ready.abort()
            raise
        finally:
            # The number that a thread chooses is its own, but also that of threads to come.
            torch.set_num_threads(threads)
        self._workers = workers

    def _read(self, request: _Request) -> None:
        """Reads ahead of the workers. What was read before an error is decoded all the same."""
        try:
            for start in itertools.starmap(Start, enumerate(request.log_mels)):  # type: ignore[arg-type]
                with self.changed:
                    self.changed.wait_for(
                        lambda: len(request.waiting) < self.most_waiting or request not in self.requests
                    )
                    if request not in self.requests:
                        return
                    request.waiting.append(start)
                    self.changed.notify_all()
        except BaseException as error:
            self._end_of_reading(request, error)
        else:
            self._end_of_reading(request, None)

    def _end_of_reading(self, request: _Request, error: BaseException | None) -> None:
        with self.changed:
            if request in self.requests:
                request.is_read, request.error = True, error
                self._end_if_finished(request)
                self.changed.notify_all()

    @torch.inference_mode()
    def _work(self, is_ready: threading.Barrier) -> None:
        if self.num_workers > 1:
            torch.set_num_threads(1)
        try:
            is_ready.wait()
        except threading.BrokenBarrierError:
            return
        worker: Worker | None = None
        mine: Counter[_Request] = Counter()  # how many segments of each request this worker has
        while True:
            try:
                with self.changed:
                    for request in mine.keys() - set(self.requests):
                        del mine[request]
                        if worker is not None:
                            worker.drop(request)
                    is_waiting = worker is None or worker.is_idle
                    starts = self._take(worker, mine)
                    while is_waiting and not starts and not self.is_closed:
                        if not self.changed.wait(IDLE_SECONDS) and not self.requests:
                            worker = None
                            self.changed.wait_for(lambda: self.requests or self.is_closed)
                        starts = self._take(worker, mine)
                    if self.is_closed:
                        return
                if worker is None:
                    worker = lane_worker(self.stepper, self.decoding, self.num_lanes, self.loop)
                limits = [
                    steps_of([start.number], request.last_steps, self.stepper.model.config)[0]
                    for request, start in starts
                ]
                worker.encode(starts, limits)
                self._give(worker.step(), mine)
            except BaseException as error:  # whatever it is: without this thread, requests would wait for ever
                for request in mine:
                    self._fail(request, error)
                worker = None
                mine.clear()

    def _give(self, finished: list[tuple[_Request, int, Generated]], mine: Counter[_Request]) -> None:
        """Gives the requests what a worker has finished. What one of them cannot take is an error of that one."""
        if not finished:
            return
        with self.changed:
            mine -= Counter(request for request, _, _ in finished)
            for request, number, generated in finished:
                if request not in self.requests:
                    continue
                try:
                    request.finish(number, generated)
                    self._end_if_finished(request)
                except BaseException as error:
                    self._fail(request, error)
            self.changed.notify_all()

    def _take(self, worker: Worker | None, mine: Counter[_Request]) -> list[tuple[_Request, Start]]:
        """Up to a batch of segments, of each request in turn, which are `mine` from now on."""
        wanted = self.batch if worker is None else worker.num_wanted
        starts: list[tuple[_Request, Start]] = []
        without = 0
        while len(starts) < wanted and without < len(self.requests):
            request = self.requests.pop(0)
            self.requests.append(request)
            try:
                start = request.take(self.most_ahead)
            except BaseException as error:
                self._fail(request, error)
                continue
            if start is None:
                without += 1
            else:
                without = 0
                mine[request] += 1
                starts.append((request, start))
        if starts:
            self.changed.notify_all()
        return starts

    def _end_if_finished(self, request: _Request) -> None:
        if request.is_finished and request in self.requests:
            self.requests.remove(request)
            request.end(request.error)

    def _fail(self, request: _Request, error: BaseException) -> None:
        with self.changed:
            if request in self.requests:
                self.requests.remove(request)
                request.end(error)
                self.changed.notify_all()


class _Thread(threading.Thread):
    """A thread of an engine."""


_states: weakref.WeakSet[_State] = weakref.WeakSet()


def _after_fork() -> None:
    for state in _states:
        state.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _closed() -> DecodingError:
    return DecodingError("The engine was closed.", "Make a new Transcriber.")
