"""What the sections of benchmarks/gpu.py about transcribing share: music, time, speed and equal tokens."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.config.model import ModelConfig
from mt3core.decoding import Decoding
from mt3core.model.search import load_pretrained

TOKENS = 75  # a segment; the mean of three minutes of mixed recordings is 67 (docs/performance.md)
LANES = (512, 128, 1024)
ROUNDS = 3  # so many times as many segments as lanes
FLAC_RATE_HZ = 44_100
Figures = dict[str, Any]
Case = tuple[str, Callable[[], Figures]]


def in_time(cases: Iterable[Case], ends_at: float) -> Iterator[tuple[str, Figures]]:
    """One figure after the other, the most important ones first, until there is no time for one more."""
    longest = 0.0
    for name, measure in cases:
        started = time.monotonic()
        if started + longest > ends_at:
            yield name, {"left_out": "no time"}
            continue
        yield name, measure()
        longest = max(longest, time.monotonic() - started)


def noise(seconds: float, rate_hz: int) -> np.ndarray:
    """Tones that come and go, in noise; float32 (samples,)."""
    random, time_seconds = np.random.default_rng(0), np.arange(round(seconds * rate_hz)) / rate_hz
    samples = 0.01 * random.standard_normal(len(time_seconds))
    for pitch_hz in random.uniform(80, 2000, 6):
        beats = np.sin(2 * np.pi * random.uniform(0.3, 3) * time_seconds) > 0.3
        samples += 0.1 * np.sin(2 * np.pi * pitch_hz * time_seconds) * beats
    return samples.astype(np.float32)


@contextlib.contextmanager
def stereo_flac(seconds: float) -> Iterator[Path]:
    """A file of 44.1 kHz."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.flac"
        mono = noise(seconds, FLAC_RATE_HZ)
        soundfile.write(path, np.stack([mono, mono[::-1]], axis=1), FLAC_RATE_HZ)
        yield path


def speed(config: ModelConfig, segments: int, seconds: float) -> Figures:
    segment_seconds = config.segment_samples / config.spectrogram.sample_rate_hz
    return {
        "segments": segments,
        "segments_per_second": round(segments / seconds, 1),
        "x_real_time": round(segments * segment_seconds / seconds, 1),
    }


def equal_tokens(make: Callable[[ModelConfig, Any, Decoding, bool], Any], seconds: float) -> Figures:
    """`small` on the device and on the CPU: how many segments have other tokens, by decoding.

    `make` gives a transcriber of a model with a decoding, on the device or (False) on the CPU.
    """
    config, arrays = load_pretrained("small")
    samples, found = noise(seconds, config.spectrogram.sample_rate_hz), {}
    for name, options in {"greedy": {"method": "greedy"}, "t5x": {}, "grammar": {"grammar": True}}.items():
        decoding = Decoding(max_tokens=config.network.max_target_tokens, **options)  # type: ignore[arg-type]
        both = []
        for is_on_device in (False, True):
            transcriber = make(config, arrays, decoding, is_on_device)
            both.append([one.tokens for one in transcriber.transcribe_samples(samples).segments])
            transcriber.close()
        changed = sum(one != other for one, other in zip(*both, strict=True))
        found[name] = {"segments": len(both[0]), "tokens": sum(map(len, both[0])), "changed_segments": changed}
    return found
