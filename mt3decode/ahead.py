"""Items that a thread of its own makes before they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class ReadAhead(Iterator[Item], Generic[Item]):
    """The items of an iterable, of which up to `most` are made ahead, from now on. Raises what making them raises."""

    def __init__(self, items: Iterable[Item], most: int) -> None:
        self._most = most
        self._ready: deque[Item] = deque()
        self._error: BaseException | None = None
        self._is_done = self._is_closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, args=(items,), name="mt3-ahead", daemon=True).start()

    def __next__(self) -> Item:
        for item in self.take(1):
            return item
        raise StopIteration

    def take(self, most: int, waits: bool = True) -> list[Item]:
        """Up to `most` items that are there now. If it `waits`, at least one, and none only after the last."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: self._ready or self._is_done or self._is_closed)
            items = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            self._changed.notify_all()
            if not items and self._error is not None:
                error, self._error = self._error, None
                raise error
            return items

    @property
    def is_done(self) -> bool:
        """Whether no more items come."""
        with self._changed:
            return (self._is_done or self._is_closed) and not self._ready and self._error is None

    def close(self) -> None:
        """Stops the thread after the item that it is making."""
        with self._changed:
            self._is_closed = True
            self._ready.clear()
            self._changed.notify_all()

    def _run(self, items: Iterable[Item]) -> None:
        error: BaseException | None = None
        source: Any = iter(items)
        try:
            for item in source:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._most or self._is_closed)
                    if self._is_closed:
                        break
                    self._ready.append(item)
                    self._changed.notify_all()
        except BaseException as found:
            error = found
        finally:
            if hasattr(source, "close"):
                source.close()
            with self._changed:
                self._error, self._is_done = error, True
                self._changed.notify_all()
