"""What tokens cost while `max_examples_per_mix` sweeps: `pytest tests/test_chunk_tokenization_profile.py -v`.

Measures a manifest made by `mt3 prepare` (settings in profile_settings.py) and writes a JSON log to compare with.
"""

import time
from dataclasses import dataclass

import numpy as np
import pytest
from profile_settings import read_profile

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class TokenCost:
    """Milliseconds of one example, as medians over batches."""

    max_examples_per_mix: int
    examples: int
    mean_parts: float
    mean_tokens: float
    example_ms: float
    tokens_ms: float
    read_ms: float
    examples_per_second: float


@pytest.fixture(scope="module")
def profile():
    return read_profile("TOKEN", "chunk_tokenization_profile", mix_values=(1, 2, 4), samples=200)


def test_tokenization_profile(profile, capsys):
    results = [measure(profile, value) for value in profile.mix_values]
    log = profile.write_log(results)
    with capsys.disabled():
        print("\nmix  parts  tokens  example ms  of it tokens  of it reading  examples/s")
        for r in results:
            print(
                f"{r.max_examples_per_mix:3}  {r.mean_parts:5.2f}  {r.mean_tokens:6.1f}  {r.example_ms:10.3f}  "
                f"{r.tokens_ms:12.3f}  {r.read_ms:13.3f}  {r.examples_per_second:10.0f}"
            )
        print(f"written: {log}")
    for value, result in zip(profile.mix_values, results, strict=True):
        assert 1 <= result.mean_parts <= value
        assert 0 < result.tokens_ms + result.read_ms < result.example_ms
        assert (result.mean_tokens > 0) == profile.dataset.get("load_tokens", True)


def measure(profile, max_examples_per_mix):
    """Makes the examples twice and takes the second time, where files are cached and shards open."""
    stream = profile.pipeline(max_examples_per_mix).stream
    batches = np.array_split(np.arange(profile.samples), max(1, profile.samples // 20))
    spent = {"tokens": 0.0, "read": 0.0}
    timed(stream.maker, "_tokens", "tokens", spent)
    timed(stream.maker.reader, "read", "read", spent)
    totals, tokens_ms, read_ms = [], [], []
    made = [stream.batch(indices.tolist()) for indices in batches]
    for indices in batches:
        spent.update(tokens=0.0, read=0.0)
        started = time.perf_counter()
        stream.batch(indices.tolist())
        totals.append((time.perf_counter() - started) / len(indices) * 1000)
        tokens_ms.append(spent["tokens"] / len(indices) * 1000)
        read_ms.append(spent["read"] / len(indices) * 1000)
    example_ms = float(np.median(totals))
    return TokenCost(
        max_examples_per_mix,
        profile.samples,
        float(np.concatenate([batch["num_parts"] for batch in made]).mean()),
        float(np.concatenate([batch["num_tokens"] for batch in made]).mean()),
        example_ms,
        float(np.median(tokens_ms)),
        float(np.median(read_ms)),
        1000 / example_ms,
    )


def timed(owner, name, key, spent):
    """Adds the time of a method's calls to `spent[key]`."""
    method = getattr(owner, name)

    def call(*arguments):
        started = time.perf_counter()
        result = method(*arguments)
        spent[key] += time.perf_counter() - started
        return result

    setattr(owner, name, call)
