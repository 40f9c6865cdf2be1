"""Many threads ask one engine at the same time, and some leave in the middle: nobody waits for ever, is refused, or is
given other tokens than alone.

    python benchmarks/engine_stress.py [--model small] [--seconds 120] [--threads 10] [--cancelling 3] [--workers 2]

Each thread makes one request after another until the time is over: a random part of the music (shared/realdata next to
the checkout, or else a piece rendered here). Those that cancel close their request after some of its segments. Prints
how many requests were done and cancelled, and the largest memory; exit code 1 if any was refused, failed, got other
tokens, or did not end. tests/torch/test_engine.py does the same for ten seconds.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GenerateStream = Callable[[Iterable[np.ndarray]], Iterator[tuple[int, Any]]]
SHARED = Path(__file__).resolve().parents[2] / "shared"
PATIENCE_SECONDS = 60.0  # after the end, for requests under way


@dataclass
class Tally:
    """What became of the requests. `problems` are those that were refused or failed, and wrong tokens.

    Cancelled are those that were closed before all their segments had been given.
    """

    num_done: int = 0
    num_cancelled: int = 0
    num_segments: int = 0
    num_hanging: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.problems and not self.num_hanging


def stress(
    generate_stream: GenerateStream,
    log_mel: np.ndarray,
    expected: Mapping[int, list[int]],
    seconds: float,
    num_threads: int = 10,
    num_cancelling: int = 3,
) -> Tally:
    """Asks for parts of `log_mel` (segments, frames, mel), whose tokens are `expected` by the number of the segment.

    Each thread makes at least one request, and the last one may end after the time. `generate_stream` is as of
    `mt3torch.Transcriber`.
    """
    tally, lock, end = Tally(), threading.Lock(), time.monotonic() + seconds

    def ask(number: int) -> None:
        random = np.random.default_rng(number)
        is_cancelling = number >= num_threads - num_cancelling
        while True:
            first, last = np.sort(random.choice(len(log_mel) + 1, 2, replace=False))
            taken = int(random.integers(1, last - first + 1)) if is_cancelling else None
            try:
                stream: Any = generate_stream(log_mel[first:last])
                found = {part: one.tokens.tolist() for part, one in itertools.islice(stream, taken)}
                stream.close()
                problem = ""
            except BaseException as error:
                found, problem = {}, f"{type(error).__name__}: {error}"
            wrong = [part for part, tokens in found.items() if tokens != expected[int(first) + part]]
            if wrong:
                problem = f"other tokens in {len(wrong)} of {len(found)} segments"
            elif not problem and len(found) != (taken or last - first):
                problem = f"{len(found)} of {taken or last - first} segments"
            with lock:
                tally.num_segments += len(found)
                tally.num_cancelled += is_cancelling and not problem and len(found) < last - first
                tally.num_done += not is_cancelling and not problem
                tally.problems += [problem] if problem else []
            if time.monotonic() >= end:
                return

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0) + PATIENCE_SECONDS)
    tally.num_hanging = sum(thread.is_alive() for thread in threads)
    return tally


def main() -> int:
    from speed import RATE_HZ, music, peak_mib

    from mt3core.segments import segments
    from mt3core.spectrogram import log_mel_segments
    from mt3torch import Transcriber

    parser = argparse.ArgumentParser(description="Many threads ask one engine at the same time.")
    parser.add_argument("--model", default="small")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=10)
    parser.add_argument("--cancelling", type=int, default=3, help="of the threads")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--music", type=Path, default=SHARED / "realdata")
    parser.add_argument("--music-seconds", type=float, default=240.0)
    options = parser.parse_args()

    transcriber = Transcriber.from_pretrained(options.model, workers=options.workers)
    config = transcriber.config
    samples = music(options.music, [], options.music_seconds)
    assert config.spectrogram.sample_rate_hz == RATE_HZ
    log_mel = log_mel_segments(samples, segments(len(samples), config), config)
    expected = {number: one.tokens.tolist() for number, one in transcriber.generate_stream(log_mel)}
    alone_mib = peak_mib(resource.RUSAGE_SELF)
    print(f"{len(log_mel)} segments, {sum(map(len, expected.values()))} tokens, {transcriber.workers} workers")

    half = stress(
        transcriber.generate_stream, log_mel, expected, options.seconds / 2, options.threads, options.cancelling
    )
    half_mib = peak_mib(resource.RUSAGE_SELF)
    rest = stress(
        transcriber.generate_stream, log_mel, expected, options.seconds / 2, options.threads, options.cancelling
    )
    problems = half.problems + rest.problems
    num_hanging = half.num_hanging + rest.num_hanging
    print(
        f"{options.threads} threads, {options.cancelling} of which cancel, {options.seconds:g} s: "
        f"{half.num_done + rest.num_done} requests done, {half.num_cancelled + rest.num_cancelled} cancelled, "
        f"{len(problems)} refused or wrong, {num_hanging} hanging, {half.num_segments + rest.num_segments} segments"
    )
    end_mib = peak_mib(resource.RUSAGE_SELF)
    print(
        f"Largest memory, MiB: {alone_mib:.0f} alone, {half_mib:.0f} after half of the time, {end_mib:.0f} at the end"
    )
    for problem in sorted(set(problems)):
        print(f"  {problem} ({problems.count(problem)} times)", file=sys.stderr)
    if num_hanging:
        return 1  # closing would wait for them
    transcriber.close()
    return 0 if half.is_good and rest.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
