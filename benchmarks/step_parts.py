"""Where the time of PyTorch's decoder step and encoder goes, by operation, on one thread of this machine's processor.

    python benchmarks/step_parts.py [--model MODEL] [--lanes 32] [--tokens 60] [--precision float32]
    PYTHONPATH=CHECKOUT python benchmarks/step_parts.py ...   # of another checkout, from 27 November 2026 on

A step is one more token in every lane, each with `--tokens` tokens; its input is noise. Milliseconds are medians of the
plain runs; the shares are those of the profiler, which makes everything a little slower. The step is also timed while
another thread takes such steps, as two workers do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import speed
import torch

from mt3core.segments import segments as cut
from mt3core.spectrogram import log_mel_segments
from mt3torch.loading import load_model
from mt3torch.log_mel import LogMel
from mt3torch.precision import PRECISIONS, dtype_of
from mt3torch.stepper import Lanes, Stepper
from mt3torch.tuning import fastest_forms

ROUNDS = 20
SECONDS_BESIDE = 3.0
MOST_OPERATIONS = 10


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a decoder step and of the encoder goes.")
    parser.add_argument("--model", default=speed.default_model())
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=60, help="that each lane has read")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model, "cpu")
    dtype = dtype_of(options.precision, torch.device("cpu"))
    is_query_first = fastest_forms(model, dtype).is_query_first
    print(f"attention to tokens: {'query' if is_query_first else 'keys'} first")
    stepper = Stepper(model, dtype, is_folded=False, is_query_first=is_query_first)
    log_mel = LogMel(model.config, stepper.device)
    random = np.random.default_rng(0)
    samples = [random.standard_normal(model.config.segment_samples).astype(np.float32) for _ in range(8)]
    joined = np.concatenate(samples)
    pieces = cut(len(joined), model.config)[: len(samples)]
    report("log-mels of 8 segments, NumPy", lambda: log_mel_segments(joined, pieces, model.config))
    report("log-mels of 8 segments, PyTorch", lambda: log_mel(samples))
    segments = log_mel(samples)
    report("encoder, 8 segments", lambda: stepper.encode(segments))
    encoded = stepper.encode(segments)
    steps = [step_of(stepper, encoded, options.lanes, options.tokens) for _ in range(2)]
    name = f"step of {options.lanes} lanes with {options.tokens} tokens each"
    report(name, steps[0])
    with ThreadPoolExecutor(2) as threads:  # as the engine's workers do
        found = sorted(threads.map(milliseconds_beside, steps))
    print(f"{name}, in two threads at once: {found[0]:.1f} and {found[1]:.1f} ms")


def step_of(stepper: Stepper, encoded: torch.Tensor, num_lanes: int, num_tokens: int) -> Callable[[], object]:
    """A step of lanes that have read so many tokens, which can be repeated."""
    network, random = stepper.network, np.random.default_rng(0)
    lanes = Lanes(stepper, num_lanes, 1, network.input_frames, network.max_positions)
    lanes.add(encoded[torch.arange(num_lanes) % len(encoded)])
    one = np.ones(num_lanes, np.int64)

    def step() -> None:
        lanes.step(random.integers(3, network.vocab_size, (num_lanes, 1)))
        lanes.take_back(one)

    for _ in range(num_tokens):  # really read: memory that nobody wrote to is one page of zeros, and in the caches
        step()
        lanes.lengths += 1
    return step


def milliseconds_beside(step: Callable[[], object]) -> float:
    torch.set_num_threads(1)
    started, count = time.perf_counter(), 0
    with torch.inference_mode():
        while time.perf_counter() < started + SECONDS_BESIDE:
            step()
            count += 1
    return (time.perf_counter() - started) * 1000 / count


def report(name: str, run: Callable[[], object]) -> None:
    run()
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    print(f"{name}: {statistics.median(times) * 1000:.1f} ms")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(ROUNDS):
            run()
    found = sorted(profiler.key_averages(), key=lambda one: -one.self_cpu_time_total)
    whole = sum(one.self_cpu_time_total for one in found)
    for one in found[:MOST_OPERATIONS]:
        share, calls = one.self_cpu_time_total / whole, one.count / ROUNDS
        print(f"    {share:6.1%}  {one.key}, {calls:g} times")


if __name__ == "__main__":
    main()
