"""How many examples the whole pipeline brings: `pytest tests/test_chunk_dataloader_profile.py -v`.

Measures a manifest made by `mt3 prepare` (settings in profile_settings.py) and writes a JSON log to compare with.
"""

import time
from dataclasses import dataclass

import pytest
from profile_settings import read_profile

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Throughput:
    """Examples a second through Grain, after the first batch of every worker."""

    max_examples_per_mix: int
    num_workers: int
    batch_size: int
    examples: int
    first_batch_seconds: float
    examples_per_second: float
    megabytes_per_second: float


@pytest.fixture(scope="module")
def profile():
    return read_profile("DATALOADER", "chunk_dataloader_profile", mix_values=(1, 4), samples=512)


def test_dataloader_profile(profile, capsys):
    batch_size = profile.integers("BATCH_SIZE", (32,))[0]
    workers = profile.integers("NUM_WORKERS", (0,))
    results = [measure(profile, value, number, batch_size) for value in profile.mix_values for number in workers]
    log = profile.write_log(results)
    with capsys.disabled():
        print("\nmix  workers  first batch s  examples/s  MB/s")
        for r in results:
            print(
                f"{r.max_examples_per_mix:3}  {r.num_workers:7}  {r.first_batch_seconds:13.2f}  "
                f"{r.examples_per_second:10.0f}  {r.megabytes_per_second:4.0f}"
            )
        print(f"written: {log}")
    for result in results:
        assert result.examples >= profile.samples
        assert result.examples_per_second > 0


def measure(profile, max_examples_per_mix, num_workers, batch_size):
    pipeline = profile.pipeline(max_examples_per_mix, batch_size, num_workers)
    with iter(pipeline) as batches:
        started = time.perf_counter()
        next(batches)
        first_batch_seconds = time.perf_counter() - started
        for _ in range(num_workers * (1 + pipeline.data.batches_ahead)):  # those made while the first was waited for
            next(batches)
        examples, num_bytes, started = 0, 0, time.perf_counter()
        while examples < profile.samples:
            batch = next(batches)
            examples += batch_size
            num_bytes += sum(array.nbytes for array in batch.values())
        seconds = time.perf_counter() - started
    return Throughput(
        max_examples_per_mix,
        num_workers,
        batch_size,
        examples,
        first_batch_seconds,
        examples / seconds,
        num_bytes / seconds / 1e6,
    )
