"""The section of benchmarks/gpu.py about transcribing in JAX: segments a second by lanes, from PCM and from FLAC.

The published shape has random weights, which hardly ever write an end token, so every segment takes `TOKENS` steps, as
many as segments of real music have on average (docs/performance.md). Reading, resampling, log-mels and notes are
included. Tokens of `small`, which has its own weights, are compared with those of the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gpu_figures import LANES, ROUNDS, TOKENS, Case, Figures, equal_tokens, in_time, noise, speed, stereo_flac
from gpu_networks import random_arrays
from step_timing import TINY

from mt3core.config.model import MT3, ModelConfig
from mt3core.decoding import Decoding

NUM_FILES = 16


def transcribing_jax(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    yield from in_time(cases(quick), ends_at)


def cases(quick: bool) -> Iterator[Case]:
    config, lanes, tokens = (TINY, (4, 8), 8) if quick else (MT3, LANES, TOKENS)
    arrays = random_arrays(config)
    yield "equal_tokens", lambda: equal_tokens(both, 3.0 if quick else 40.0)
    for size in lanes:
        yield f"pcm_lanes_{size}", lambda size=size: from_pcm(config, arrays, size, tokens)
    yield "pcm_log_mel_on_host", lambda: from_pcm(config, arrays, lanes[0], tokens, on_device=False)
    yield "flac", lambda: from_flac(config, arrays, tokens, 4.0 if quick else 300.0)
    yield "lanes_by_memory", lambda: chosen_lanes(config)


def from_pcm(config: ModelConfig, arrays: Any, lanes: int, tokens: int, on_device: bool = True) -> Figures:
    """One recording in memory, at the network's rate."""
    transcriber = made(config, arrays, Decoding("greedy", max_tokens=tokens), lanes, on_device)
    rate_hz = config.spectrogram.sample_rate_hz
    samples = noise(2 * lanes * config.segment_samples / rate_hz, rate_hz)
    transcriber.transcribe_samples(samples)  # compiles
    return timed(config, lambda: [transcriber.transcribe_samples(np.tile(samples, ROUNDS))])


def from_flac(config: ModelConfig, arrays: Any, tokens: int, seconds_each: float) -> Figures:
    """A list of files, 44.1 kHz in stereo, with the lanes that are chosen by memory."""
    transcriber = made(config, arrays, Decoding("greedy", max_tokens=tokens), None, True)
    with stereo_flac(seconds_each) as path:
        transcriber.transcribe(path)
        figures = timed(config, lambda: transcriber.transcribe([path] * NUM_FILES))
    return figures | {"files": NUM_FILES, "lanes": transcriber.batch_size, "read_ahead": transcriber.num_read_ahead}


def timed(config: ModelConfig, transcribe: Callable[[], list[Any]]) -> Figures:
    started = time.perf_counter()
    results = transcribe()
    seconds = time.perf_counter() - started
    tokens = sum(len(segment.tokens) for one in results for segment in one.segments)
    segments = sum(len(one.segments) for one in results)
    return speed(config, segments, seconds) | {"tokens_per_second": round(tokens / seconds)}


def chosen_lanes(config: ModelConfig) -> Figures:
    import jax

    from mt3jax.transcriber import default_batch_size, lane_bytes

    device = jax.devices()[0]
    lanes = default_batch_size(device, config.network)
    return {"lanes": lanes, "gib": round(lanes * lane_bytes(config.network) / 2**30, 2)}


def made(
    config: ModelConfig, arrays: Any, decoding: Decoding, lanes: int | None, on_device: bool, device: str = "auto"
) -> Any:
    import mt3jax

    return mt3jax.Transcriber(mt3jax.build_model(config, arrays, device), decoding, lanes, on_device)


def both(config: ModelConfig, arrays: Any, decoding: Decoding, is_on_device: bool) -> Any:
    return made(config, arrays, decoding, None, is_on_device, "auto" if is_on_device else "cpu")
