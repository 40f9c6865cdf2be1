"""The section of benchmarks/gpu.py about decoding in PyTorch: by lanes, from PCM and FLAC, and without each measure.

The published shape has random weights, which hardly ever write an end token, so every segment takes the same number of
steps: as many as segments of real music have tokens on average. So there is room for no more tokens either, and lanes
take less memory than they do otherwise. `small` has its own weights and writes what it hears. Tokens of the CPU and of
the device are compared in float32.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gpu_figures import LANES, ROUNDS, TOKENS, Case, Figures, equal_tokens, in_time, noise, speed, stereo_flac
from gpu_networks import random_arrays
from step_timing import TINY

from mt3core.config.model import MT3, ModelConfig
from mt3core.decoding import Decoding
from mt3core.model.search import load_pretrained

ABLATION_LANES = 512
FLAC_READERS = 16


def decoding_torch(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    yield from in_time(cases(quick), ends_at)


def cases(quick: bool) -> Iterator[Case]:
    from mt3torch.device_loop import DeviceLoop
    from mt3torch.loading import choose_device

    config, lanes, few = (TINY, (4, 2, 8), 4) if quick else (MT3, LANES, ABLATION_LANES)
    tokens = 8 if quick else TOKENS
    # In a rehearsal also where there is no accelerator: the loop for one, run on the CPU.
    loop = DeviceLoop.of(choose_device()) or DeviceLoop(length_buckets=(4,))
    arrays = random_arrays(config)

    def pcm(size: int, chosen: DeviceLoop = loop, precision: str = "float32") -> Callable[[], Figures]:
        return lambda: from_pcm(config, arrays, size, tokens, chosen, precision)

    def both(config: ModelConfig, arrays: Any, decoding: Decoding, is_on_device: bool) -> Any:
        chosen, device = (loop, "auto") if is_on_device else (None, "cpu")
        return made(config, arrays, decoding, None, chosen, "float32", device)

    yield "equal_tokens", lambda: equal_tokens(both, 4.0 if quick else 40.0)
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


def from_pcm(config: ModelConfig, arrays: Any, lanes: int, max_tokens: int, loop: Any, precision: str) -> Figures:
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


def from_flac(config: ModelConfig, arrays: Any, lanes: int, max_tokens: int, loop: Any, seconds_each: float) -> Figures:
    """A file of 44.1 kHz in stereo, read by several threads: reading, resampling and notes are included."""
    transcriber = made(config, arrays, Decoding("greedy", max_tokens=max_tokens), lanes, loop, "float32")
    return of_a_file(transcriber, config, seconds_each)


def small_from_flac(loop: Any, seconds_each: float) -> Figures:
    config, arrays = load_pretrained("small")
    transcriber = made(config, arrays, Decoding(max_tokens=config.network.max_target_tokens), None, loop, "float32")
    return of_a_file(transcriber, config, seconds_each)


def of_a_file(transcriber: Any, config: ModelConfig, seconds_each: float) -> Figures:
    with stereo_flac(seconds_each) as path:
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


def chosen_lanes(config: ModelConfig, arrays: Any) -> Figures:
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


def memory() -> Figures:
    """The most that PyTorch has had of the device's memory so far, in this case; resets it."""
    import torch

    if not torch.cuda.is_available():
        return {}
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return {"peak_gib": round(peak / 2**30, 2)}
