"""What a process that works for another one does about the end of that one, and about signals that reach both.

A terminal's Ctrl-C, and the SIGTERM of a batch system, go to every process of a job. The one that was started by the
user decides what to do about them, and may need the others until it has done it.
"""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process

# How long a worker goes on after a SIGTERM: enough for its parent to finish a step and save.
SECONDS_AFTER_SIGTERM = 60


def serve_until_the_parent_ends(worker: int = 0, num_workers: int = 1) -> None:
    """Lets this process outlast signals that its parent gets as well, but not the parent.

    The arguments are what Grain says to every worker it starts; they do not matter here. To be called in the main
    thread.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        # Not for ever: whoever means this process alone must be able to end it.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS_AFTER_SIGTERM))
    end_with_the_parent()


def end_with_the_parent() -> None:
    """Ends this process when the one that started it is killed. Otherwise it would wait for work for ever, or write
    into the folder beside the next run."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
