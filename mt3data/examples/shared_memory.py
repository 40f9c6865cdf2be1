"""Room in the memory that processes share, through which workers hand their batches over."""

from __future__ import annotations

import shutil
from pathlib import Path

from mt3core.errors import UsageError

SHARED_MEMORY = Path("/dev/shm")  # of Linux; containers have 64 MB there unless told otherwise


def check_shared_memory(num_workers: int, batches_ahead: int, batch_bytes: int, folder: Path = SHARED_MEMORY) -> None:
    """Raises `UsageError` where workers that keep `batches_ahead` batches and make one more find no room for them.

    They would be ended by a signal (SIGBUS) in the middle of a run. Systems without the folder are not looked at.
    """
    needed = num_workers * (batches_ahead + 1) * batch_bytes
    if not needed or not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"{num_workers} workers that keep {batches_ahead} batches ready need {_megabytes(needed)} of shared "
            f"memory, and {folder} has {_megabytes(free)} free.",
            "Give the container more (docker run --shm-size=4g; in Kubernetes an emptyDir of medium Memory there), "
            "or lower data.batches_ahead or data.num_workers.",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
