"""Several recordings as one stream of segments.

A short recording fills few of a network's lanes, and a long one leaves them empty at its end. So the segments of the
next recordings follow those of the last one without a gap; how far they are decoded ahead is for the decoder to say.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

import numpy as np

from mt3core.decoding import Generated
from mt3decode.arriving import ArrivingSegments
from mt3decode.streams import Segments, closing_if_possible
from mt3decode.stretches import LogMels

Item = TypeVar("Item")
Generate = Callable[[LogMels, Sequence[int]], Segments]


class Numbered(Generic[Item]):
    """The items of an iterable by their numbers, in any thread; asked for only as far as numbers are."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._found: dict[int, Item] = {}
        self._count = self._first = 0
        self._lock = threading.Lock()

    def get(self, number: int) -> Item | None:
        """None after the last. Raises `LookupError` for one that has been forgotten."""
        while number not in self._found:
            with self._lock:
                if number < self._first:
                    raise LookupError(number)
                if number < self._count:  # another thread has just found it
                    continue
                try:
                    self._found[self._count] = next(self._items)
                except StopIteration:
                    return None
                self._count += 1
        return self._found[number]

    @property
    def found(self) -> list[Item]:
        """Those that are not forgotten."""
        with self._lock:
            return list(self._found.values())

    def forget(self, number: int) -> None:
        """This one and all before it."""
        with self._lock:
            for one in range(self._first, number + 1):
                self._found.pop(one, None)
            self._first = number + 1


class SharedSegments(Sequence[int]):
    """Decodes recordings in one stream; `of` has the segments of each one, taken in order.

    `get` gives a recording by its number, from 0; as many are opened ahead as are to be read at the same time.

    As a sequence it has the last steps of those segments that are not finished. An error in reading a recording is its
    own; after one in decoding `is_broken`.
    """

    def __init__(self, get: Callable[[int], ArrivingSegments | None], generate: Generate, num_read_ahead: int) -> None:
        self.is_broken = False
        self._get, self._num_read_ahead = get, num_read_ahead
        self._places: dict[int, tuple[ArrivingSegments, int]] = {}
        self._ready: dict[ArrivingSegments, deque[tuple[int, Generated]]] = {}
        self._num_given = 0
        self._stream = generate(self._inputs(), self)

    @overload
    def __getitem__(self, number: int) -> int: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[int]: ...

    def __getitem__(self, number: int | slice) -> int | Sequence[int]:
        if isinstance(number, slice):
            raise TypeError("They are not there all at once.")
        arriving, index = self._places[number]
        return arriving.last_steps[index]

    def __len__(self) -> int:
        return self._num_given

    def of(self, arriving: ArrivingSegments) -> Iterator[tuple[int, Generated]]:
        """Yields like `generate_stream`, what is ready of later recordings is kept for them."""
        ready, given = self._ready.setdefault(arriving, deque()), 0
        try:
            while True:
                while ready:
                    given += 1
                    yield ready.popleft()
                if arriving.error is not None and given == arriving.num_given:
                    raise arriving.error
                if given == arriving.count or not self._pull():
                    return
        finally:
            self._ready.pop(arriving, None)

    def close(self) -> None:
        with closing_if_possible(self._stream):
            pass

    def _pull(self) -> bool:
        try:
            number, generated = next(self._stream)
        except StopIteration:
            return False
        except BaseException:
            self.is_broken = True
            raise
        arriving, index = self._places.pop(number)
        if not arriving.is_closed:  # somebody had enough of it
            self._ready.setdefault(arriving, deque()).append((index, generated))
        return True

    def _inputs(self) -> Iterator[np.ndarray]:
        for number in itertools.count():
            try:
                arriving = self._get(number)
            except LookupError:  # somebody had enough of it before it was read
                continue
            if arriving is None:
                return
            for later in range(1, self._num_read_ahead):
                self._get(number + later)
            try:
                for index, one in enumerate(arriving):
                    self._places[self._num_given] = arriving, index
                    self._num_given += 1
                    yield one
            except Exception as error:
                arriving.error = error
