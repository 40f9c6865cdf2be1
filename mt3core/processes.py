"""Work in several processes, and how worker processes react to signals and to the end of their parent.

A terminal's Ctrl-C, and the SIGTERM of a batch system, go to every process of a job. The one that was started by the
user decides how to react, and may need the others until it is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import TypeVar

from mt3core.errors import ProcessError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# How long a worker continues after a SIGTERM: enough for its parent to finish a step and save.
SECONDS_AFTER_SIGTERM = 60


def map_in_processes(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    processes: int,
    work: str,
    done: Callable[[_Item, _Result], None] = lambda item, result: None,
) -> list[_Result]:
    """`function` of every item, started and returned in their order; in this process if one is enough.

    Args:
        function: can be pickled, like its argument and its result.
        items: one piece of work each.
        processes: the largest number of items worked on at the same time.
        work: what a process does, for the message, such as "scored pairs".
        done: called in this process as each item is finished. An error that it raises ends the work: items that
            have been started are finished, no others are started.

    Ctrl-C and SIGTERM end the processes immediately, wherever they are. Raises `ProcessError` if one was killed from
    outside.
    """
    processes = min(processes, len(items))
    if processes <= 1:
        finished = []
        for item in items:
            finished.append(function(item))
            done(item, finished[-1])
        return finished
    others = set(active_children())
    # Fresh processes: a forked one would inherit the locks of this one's threads (BLAS, JAX, ArrayRecord).
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _leave_interrupts_to_parent)
    results: dict[int, _Result] = {}
    try:
        places = {pool.submit(function, item): place for place, item in enumerate(items)}
        for future in as_completed(places):
            place = places[future]
            results[place] = future.result()
            done(items[place], results[place])
    except BrokenProcessPool as error:
        raise ProcessError(
            f"A process that {work} was killed, perhaps because memory ran out.",
            "Run again with fewer --processes.",
        ) from error
    except (KeyboardInterrupt, SystemExit):
        for child in set(active_children()) - others:
            child.terminate()
            child.join()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[place] for place in range(len(items))]


def _leave_interrupts_to_parent() -> None:
    """A terminal's Ctrl-C reaches every process; the parent ends the others, or they notice that it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_parent()


def serve_until_the_parent_ends(worker: int = 0, num_workers: int = 1) -> None:
    """Lets this process outlast signals that its parent gets as well, but not the parent.

    The arguments are those that Grain passes to every worker it starts; they are not used here. Call it in the main
    thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Not for ever: it must be possible to end this process alone.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS_AFTER_SIGTERM))
    end_with_the_parent()


def end_with_the_parent() -> None:
    """Ends this process when the one that started it is killed. Otherwise it would wait for work for ever, or write
    into the folder at the same time as the next run."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
