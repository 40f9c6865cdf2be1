"""The section of benchmarks/gpu.py about transcribing in JAX: segments a second by lanes, from PCM and from FLAC.

The published shape has random weights, which hardly ever write an end token, so every segment takes `TOKENS` steps, as
many as segments of real music have on average (docs/performance.md). Reading, resampling, log-mels and notes are
included. Tokens of `small`, which has its own weights, are compared with those of the CPU.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_networks import random_arrays
from step_timing import TINY

from mt3core.config.model import MT3, ModelConfig
from mt3core.decoding import Decoding
from mt3core.model.search import load_pretrained

TOKENS = 75
LANES = (512, 128, 1024)
ROUNDS = 3  # so many times as many segments as lanes
FLAC_RATE_HZ = 44_100
NUM_FILES = 16


def transcribing_jax(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """One figure after the other, the most important ones first, until there is no time for one more."""
    longest = 0.0
    for name, measure in cases(quick):
        started = time.monotonic()
        if started + longest > ends_at:
            yield name, {"left_out": "no time"}
            continue
        yield name, measure()
        longest = max(longest, time.monotonic() - started)


def cases(quick: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    config, lanes, tokens = (TINY, (4, 8), 8) if quick else (MT3, LANES, TOKENS)
    arrays = random_arrays(config)
    yield "equal_tokens", lambda: equal_tokens(3.0 if quick else 40.0)
    for size in lanes:
        yield f"pcm_lanes_{size}", lambda size=size: from_pcm(config, arrays, size, tokens)
    yield "pcm_log_mel_on_host", lambda: from_pcm(config, arrays, lanes[0], tokens, on_device=False)
    yield "flac", lambda: from_flac(config, arrays, tokens, 4.0 if quick else 300.0)
    yield "lanes_by_memory", lambda: chosen_lanes(config)


def from_pcm(config: ModelConfig, arrays: Any, lanes: int, tokens: int, on_device: bool = True) -> dict[str, Any]:
    """One recording in memory, at the network's rate."""
    transcriber = made(config, arrays, Decoding("greedy", max_tokens=tokens), lanes, on_device)
    samples = noise(2 * lanes * segment_seconds(config), config.spectrogram.sample_rate_hz)
    transcriber.transcribe_samples(samples)  # compiles
    return timed(config, lambda: [transcriber.transcribe_samples(np.tile(samples, ROUNDS))])


def from_flac(config: ModelConfig, arrays: Any, tokens: int, seconds_each: float) -> dict[str, Any]:
    """A list of files, 44.1 kHz in stereo, with the lanes that are chosen by memory."""
    import soundfile

    transcriber = made(config, arrays, Decoding("greedy", max_tokens=tokens), None, True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.flac"
        mono = noise(seconds_each, FLAC_RATE_HZ)
        soundfile.write(path, np.stack([mono, mono[::-1]], axis=1), FLAC_RATE_HZ)
        transcriber.transcribe(path)
        figures = timed(config, lambda: transcriber.transcribe([path] * NUM_FILES))
    return figures | {"files": NUM_FILES, "lanes": transcriber.batch_size, "read_ahead": transcriber.num_read_ahead}


def timed(config: ModelConfig, transcribe: Callable[[], list[Any]]) -> dict[str, Any]:
    started = time.perf_counter()
    results = transcribe()
    seconds = time.perf_counter() - started
    segments = sum(len(one.segments) for one in results)
    tokens = sum(len(segment.tokens) for one in results for segment in one.segments)
    return {
        "segments": segments,
        "segments_per_second": round(segments / seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "x_real_time": round(segments * segment_seconds(config) / seconds, 1),
    }


def equal_tokens(seconds: float) -> dict[str, Any]:
    """`small` on the device and on the CPU: how many segments have other tokens, by decoding."""
    config, arrays = load_pretrained("small")
    samples, found = noise(seconds, config.spectrogram.sample_rate_hz), {}
    for name, options in {"greedy": {"method": "greedy"}, "t5x": {}, "grammar": {"grammar": True}}.items():
        decoding = Decoding(max_tokens=config.network.max_target_tokens, **options)
        both = []
        for device, on_device in (("cpu", False), ("auto", True)):
            transcriber = made(config, arrays, decoding, None, on_device, device)
            both.append([one.tokens for one in transcriber.transcribe_samples(samples).segments])
        changed = sum(one != other for one, other in zip(*both, strict=True))
        found[name] = {"segments": len(both[0]), "tokens": sum(map(len, both[0])), "changed_segments": changed}
    return found


def chosen_lanes(config: ModelConfig) -> dict[str, Any]:
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


def noise(seconds: float, rate_hz: int) -> np.ndarray:
    """Tones that come and go, in noise; float32 (samples,)."""
    random, clock = np.random.default_rng(0), np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.01 * random.standard_normal(len(clock))
    for hz in random.uniform(80, 2000, 6):
        samples += 0.1 * np.sin(2 * np.pi * hz * clock) * (np.sin(2 * np.pi * random.uniform(0.3, 3) * clock) > 0.3)
    return samples.astype(np.float32)


def segment_seconds(config: ModelConfig) -> float:
    return config.segment_samples / config.spectrogram.sample_rate_hz
