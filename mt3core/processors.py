"""How many processors can be used."""

from __future__ import annotations

import os


def num_processors() -> int:
    """Those that this process may use; batch systems and containers allow only some of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
