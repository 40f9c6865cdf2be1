"""Space in shared memory, through which workers pass their batches on."""

from __future__ import annotations

import shutil
from pathlib import Path

from mt3core.errors import UsageError
from mt3core.files import size_in_words

SHARED_MEMORY = Path("/dev/shm")  # of Linux; containers have 64 MB there by default


def check_shared_memory(num_workers: int, batches_ahead: int, batch_bytes: int, folder: Path = SHARED_MEMORY) -> None:
    """Raises `UsageError` if workers that keep `batches_ahead` batches and make one more have no space for them.

    They would be killed by a signal (SIGBUS) in the middle of a run. Systems without the folder are not checked.
    """
    needed = num_workers * (batches_ahead + 1) * batch_bytes
    if not needed or not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"{num_workers} workers that keep {batches_ahead} batches ready need {size_in_words(needed)} of shared "
            f"memory, and {folder} has {size_in_words(free)} free.",
            "Give the container more (docker run --shm-size=4g; in Kubernetes, mount an emptyDir with medium: Memory), "
            "or lower data.batches_ahead or data.num_workers.",
        )
