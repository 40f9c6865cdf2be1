"""The section of benchmarks/gpu.py about decoding in PyTorch: by lanes, from PCM and FLAC, and without each measure.

The published shape has random weights, which hardly ever write an end token, so every segment takes the same number of
steps: as many as segments of real music have tokens on average. So there is room for no more tokens either, and lanes
take less memory than they do otherwise. `small` has its own weights and writes what it hears. Tokens of the CPU and of
the device are compared in float32.
"""

from __future__ import annotations

import dataclasses
import tempfile
import threading
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

TOKENS = 75  # a segment; the mean of three minutes of mixed recordings is 67 (docs/performance.md)
LANES = (512, 128, 1024)
ABLATION_LANES = 512
ROUNDS = 3  # so many times as many segments as lanes
FLAC_RATE_HZ = 44_100
FLAC_READERS = 16
Case = tuple[str, Callable[[], Any]]


def decoding_torch(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """One figure after the other, the most important ones first, until there is no time for one more."""
    longest = 0.0
    for name, measure in cases(quick):
        started = time.monotonic()
        if started + longest > ends_at:
            yield name, {"left_out": "no time"}
            continue
        yield name, measure()
        longest = max(longest, time.monotonic() - started)


def cases(quick: bool) -> Iterator[Case]:
    from mt3torch.device_loop import DeviceLoop
    from mt3torch.loading import choose_device

    config, lanes, few = (TINY, (4, 2, 8), 4) if quick else (MT3, LANES, ABLATION_LANES)
    tokens = 8 if quick else TOKENS
    # In a rehearsal also where there is no accelerator: the loop for one, run on the CPU.
    loop = DeviceLoop.of(choose_device()) or DeviceLoop(length_buckets=(4,))
    arrays = random_arrays(config)

    def pcm(size: int, chosen: DeviceLoop = loop, precision: str = "float32") -> Callable[[], dict[str, Any]]:
        return lambda: from_pcm(config, arrays, size, tokens, chosen, precision)

    yield "equal_tokens", lambda: equal_tokens(loop, 4.0 if quick else 40.0)
    for size in lanes:
        yield f"pcm_lanes_{size}", pcm(size)
    yield "flac", lambda: from_flac(config, arrays, lanes[-1], tokens, loop, 4.0 if quick else 300.0)
    yield "flac_small", lambda: small_from_flac(loop, 4.0 if quick else 300.0)
    yield f"lanes_{few}_without_graphs", pcm(few, dataclasses.replace(loop, has_graphs=False))
    yield f"lanes_{few}_log_mel_on_host", pcm(few, dataclasses.replace(loop, makes_log_mels=False))
    for steps in (1, 32):
        yield f"lanes_{few}_look_every_{steps}", pcm(few, dataclasses.replace(loop, look_every=steps))
    yield "lanes_by_memory", lambda: chosen_lanes(config, arrays)
    yield f"pcm_lanes_{lanes[-1]}_auto_precision", pcm(lanes[-1], precision="auto")


def from_pcm(
    config: ModelConfig, arrays: Any, lanes: int, max_tokens: int, loop: Any, precision: str
) -> dict[str, Any]:
    """Segments a second from samples, or from log-mels that are made on the way if the loop makes none."""
    from mt3core.segments import AudioSegment
    from mt3decode.stretches import network_input

    transcriber = made(config, arrays, Decoding("greedy", max_tokens=max_tokens), lanes, loop, precision)
    samples, hop = noise(60.0, config.spectrogram.sample_rate_hz), config.spectrogram.hop_samples
    frames = config.network.input_frames
    per_minute = len(samples) // (frames * hop)

    def inputs(count: int) -> Iterator[np.ndarray]:
        for number in range(count):
            piece = AudioSegment(number, number % per_minute * frames, frames, 0.0)
            yield network_input(samples, piece, config, transcriber.takes_samples)

    for _ in transcriber.generate_stream(inputs(2 * lanes)):  # prepares libraries, captures graphs
        pass
    started = time.perf_counter()
    tokens, first_seconds = 0, 0.0
    for _, generated in transcriber.generate_stream(inputs(ROUNDS * lanes)):
        tokens += len(generated.tokens)
        first_seconds = first_seconds or time.perf_counter() - started
    seconds = time.perf_counter() - started
    transcriber.close()
    return speed(config, ROUNDS * lanes, seconds) | {
        "tokens_per_second": round(tokens / seconds),
        "first_segment_after_s": round(first_seconds, 3),
        "dtype": str(transcriber._stepper.dtype).removeprefix("torch."),
    } | memory()  # fmt: skip


def from_flac(
    config: ModelConfig, arrays: Any, lanes: int, max_tokens: int, loop: Any, seconds_each: float
) -> dict[str, Any]:
    """A file of 44.1 kHz in stereo, read by several threads: reading, resampling and notes are included."""
    transcriber = made(config, arrays, Decoding("greedy", max_tokens=max_tokens), lanes, loop, "float32")
    return of_a_file(transcriber, config, seconds_each)


def small_from_flac(loop: Any, seconds_each: float) -> dict[str, Any]:
    config, arrays = load_pretrained("small")
    transcriber = made(config, arrays, Decoding(max_tokens=config.network.max_target_tokens), None, loop, "float32")
    return of_a_file(transcriber, config, seconds_each)


def of_a_file(transcriber: Any, config: ModelConfig, seconds_each: float) -> dict[str, Any]:
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.flac"
        mono = noise(seconds_each, FLAC_RATE_HZ)
        soundfile.write(path, np.stack([mono, mono[::-1]], axis=1), FLAC_RATE_HZ)
        transcriber.transcribe(path)
        done: list[Any] = []
        threads = [
            threading.Thread(target=lambda: done.append(transcriber.transcribe(path))) for _ in range(FLAC_READERS)
        ]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
    transcriber.close()
    segments = sum(len(one.segments) for one in done)
    if len(done) < FLAC_READERS:
        raise RuntimeError(f"{FLAC_READERS - len(done)} of {FLAC_READERS} readers failed")
    return speed(config, segments, seconds) | {"readers": FLAC_READERS} | memory()


def equal_tokens(loop: Any, seconds: float) -> dict[str, Any]:
    """`small` on the device and on the CPU, in float32: how many segments have other tokens, by decoding."""
    config, arrays = load_pretrained("small")
    samples = noise(seconds, config.spectrogram.sample_rate_hz)
    found = {}
    for name, options in {"greedy": {"method": "greedy"}, "t5x": {}, "grammar": {"grammar": True}}.items():
        decoding = Decoding(max_tokens=config.network.max_target_tokens, **options)
        both = []
        for device, chosen in (("cpu", None), ("auto", loop)):
            transcriber = made(config, arrays, decoding, None, chosen, "float32", device)
            both.append([one.tokens for one in transcriber.transcribe_samples(samples).segments])
            transcriber.close()
        changed = sum(one != other for one, other in zip(*both, strict=True))
        found[name] = {"segments": len(both[0]), "tokens": sum(map(len, both[0])), "changed_segments": changed}
    return found


def chosen_lanes(config: ModelConfig, arrays: Any) -> dict[str, Any]:
    """What `auto` chooses on this device for the published number of tokens."""
    from mt3torch import build_model
    from mt3torch.decoding import default_batch_size
    from mt3torch.stepper import Stepper

    return {"lanes": default_batch_size(Stepper(build_model(config, arrays, "auto")), Decoding())} | memory()


def made(
    config: ModelConfig,
    arrays: Any,
    decoding: Decoding,
    lanes: int | None,
    loop: Any,
    precision: str,
    device: str = "auto",
) -> Any:
    import mt3torch

    model = mt3torch.build_model(config, arrays, device)
    return mt3torch.Transcriber(model, decoding, lanes, None, precision, loop)


def noise(seconds: float, rate_hz: int, seed: int = 0) -> np.ndarray:
    """Tones that come and go, in noise."""
    random, time_seconds = np.random.default_rng(seed), np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.01 * random.standard_normal(len(time_seconds))
    for pitch_hz in random.uniform(80, 2000, 6):
        beats = np.sin(2 * np.pi * random.uniform(0.3, 3) * time_seconds) > 0.3
        samples += 0.1 * np.sin(2 * np.pi * pitch_hz * time_seconds) * beats
    return samples.astype(np.float32)


def speed(config: ModelConfig, segments: int, seconds: float) -> dict[str, Any]:
    segment_seconds = config.segment_samples / config.spectrogram.sample_rate_hz
    return {
        "segments": segments,
        "segments_per_second": round(segments / seconds, 1),
        "x_real_time": round(segments * segment_seconds / seconds, 1),
    }


def memory() -> dict[str, Any]:
    """The most that PyTorch has had of the device's memory so far, in this case; resets it."""
    import torch

    if not torch.cuda.is_available():
        return {}
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return {"peak_gib": round(peak / 2**30, 2)}
