"""The sections of benchmarks/gpu.py about the networks: CPU against the device, decoding speed in JAX, tests.

Uses random weights of the published shape, or of a small one in a rehearsal.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_needs import needed
from step_timing import TINY

from mt3core.config.model import MT3, ModelConfig
from mt3core.decoding import Decoding
from mt3core.model.parameters import parameters


def machine(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """What the frameworks detect, and whether everything the sections need can be imported, not only found."""
    broken = {}
    for name in sorted(needed("training_run")):
        try:
            importlib.import_module(name)
        except Exception as error:
            broken[name] = f"{type(error).__name__}: {error}"[:200]
    import jax
    import torch

    yield "jax_devices", str(jax.devices())
    statistics = jax.devices()[0].memory_stats() or {}
    yield "memory_limit_gib", round(statistics.get("bytes_limit", 0) / 2**30, 2)
    yield "torch_devices", [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if broken:
        yield "failed", broken


def random_arrays(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights with T5's initial variances, in PyTorch form."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for p in parameters(config.network):
        scale = {"norm": 0.0, "embedding": 1.0, "linear": p.shape[0] ** -0.5}[p.kind]
        scale *= 0.125 if p.path.endswith(".query") else 1.0
        offset = 1.0 if p.kind == "norm" else 0.0
        arrays[p.torch_name] = (offset + scale * draw.standard_normal(p.torch_shape)).astype(np.float32)
    return arrays


def random_log_mel(config: ModelConfig, count: int, seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(-4.0, 2.0, (count, config.network.input_frames, config.network.input_bands)).astype(np.float32)


def parity(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """Largest differences of encoder output and logits between each network on the device and PyTorch on the CPU."""
    import jax
    import torch
    from flax import nnx

    import mt3jax
    import mt3torch

    config = TINY if quick else MT3
    arrays, log_mel = random_arrays(config), random_log_mel(config, 2)
    tokens = np.random.default_rng(2).integers(0, 1000, (2, 64))
    outputs: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def compared(framework: str, device: str) -> Iterator[tuple[str, Any]]:
        parts = zip(("encoder", "logits"), outputs[framework, device], outputs["torch", "cpu"], strict=True)
        yield f"{framework} {device}", {part: float(np.abs(value - other).max()) for part, value, other in parts}

    for device in dict.fromkeys(("cpu", mt3torch.loading.choose_device().type)):
        model = mt3torch.build_model(config, arrays, device)
        with torch.inference_mode():
            encoded = model.encode(torch.from_numpy(log_mel).to(device))
            logits = model.decode(encoded, torch.from_numpy(tokens).to(device))
        outputs["torch", device] = encoded.cpu().numpy(), logits.cpu().numpy()
        yield from compared("torch", device)
    for device in dict.fromkeys(("cpu", mt3jax.loading.choose_device().platform)):
        chosen = mt3jax.loading.choose_device(device)
        with jax.default_device(chosen), jax.default_matmul_precision("highest"):
            model = mt3jax.build_model(config, arrays, device)
            # Compiled as a whole: a GPU takes minutes to compile the operations one by one.
            encoded = nnx.jit(type(model).encode)(model, jax.device_put(log_mel, chosen))
            logits = nnx.jit(type(model).decode)(model, encoded, jax.device_put(tokens, chosen))
            outputs["jax", device] = np.asarray(encoded), np.asarray(logits)
        yield from compared("jax", device)


def decoding_jax(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    import mt3jax

    yield from _decoding(mt3jax, quick, ends_at)


def _decoding(network: Any, quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """By batch size; a size is skipped if the one before took longer than the time left."""
    took = 0.0
    for size in [2] if quick else [128, 512, 32]:
        started = time.monotonic()
        if started + took > ends_at:
            yield f"batch_{size}", {"left_out": "no time"}
            continue
        yield f"batch_{size}", decoding_speed(network, TINY if quick else MT3, size, 2 * size, 16 if quick else 128)
        took = time.monotonic() - started


def decoding_speed(network: Any, config: ModelConfig, batch_size: int, count: int, max_tokens: int) -> dict:
    """Decodes `count` segments of noise with a fixed number of steps: random weights rarely produce an end token."""
    model = network.build_model(config, random_arrays(config), "auto")
    decoding = Decoding(max_tokens=max_tokens)
    log_mels = random_log_mel(config, count)
    stream = sys.modules[f"{network.__name__}.decoding"].generate_stream
    for _ in stream(model, iter(log_mels), decoding, batch_size):
        pass
    start = time.perf_counter()
    tokens = sum(len(generated.tokens) for _, generated in stream(model, iter(log_mels), decoding, batch_size))
    seconds = time.perf_counter() - start
    audio_seconds = count * config.segment_samples / config.spectrogram.sample_rate_hz
    return {
        "segments": count,
        "tokens_per_second": round(tokens / seconds),
        f"x_real_time_at_{max_tokens}_tokens": round(audio_seconds / seconds, 1),
    }


def device_tests(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """The tests marked `device`, on every device available. Only their files: others need more packages."""
    root = Path(__file__).resolve().parents[1]
    files = [str(path) for path in sorted((root / "tests").rglob("test_*.py")) if "mark.device" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "device", "-q", "-o", "addopts=--import-mode=importlib", *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:])
        yield "failed", lines[-1] if lines else done.stderr[-300:]
    else:
        yield "pytest", lines[-1]
