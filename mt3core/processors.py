"""How many processors there are to use."""

from __future__ import annotations

import os


def num_processors() -> int:
    """Those this process may use; batch systems and containers grant a few of a machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
