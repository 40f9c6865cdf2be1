"""Memory and processor time of a process and all its descendants, from Linux's /proc; elsewhere unknown."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """`resident_bytes` counts shared memory once per process."""

    resident_bytes: int
    cpu_seconds: float  # of running descendants and of those already waited for


def usage(pid: int) -> Usage | None:
    """The current use of the process and its descendants; None if it cannot be read."""
    resident, ticks = 0, 0
    found = False
    for one in _family(pid):
        try:
            fields = (_PROC / str(one) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found = True
        # proc(5): after the name in brackets come fields 3, 4, ...; 14 to 17 are times, 24 is the resident set.
        ticks += sum(int(fields[number - 3]) for number in (14, 15, 16, 17))
        resident += int(fields[24 - 3]) * os.sysconf("SC_PAGE_SIZE")
    return Usage(resident, ticks / os.sysconf("SC_CLK_TCK")) if found else None


def _family(pid: int) -> list[int]:
    family = [pid]
    for one in family:  # grows during the loop
        for children in (_PROC / str(one) / "task").glob("*/children"):
            try:
                family.extend(map(int, children.read_text(encoding="ascii").split()))
            except OSError:
                continue
    return family
