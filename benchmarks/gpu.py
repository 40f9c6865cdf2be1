"""Everything worth knowing on a machine with a GPU: `make gpu` (or python benchmarks/gpu.py --quick).

Random weights of the published shape, made-up input and fixed numbers of steps, so that nothing has to be carried
there. Sections: CPU against the device for both networks; the networks against each other; training steps with MFU and
memory; attention by XLA and by cuDNN; some minutes of real training; decoding speed; the tests marked `device`.

Every section is a process of its own with a limit of time; one that fails is reported, what it had found is kept and
the others go on. Writes what it printed as JSON to $OUT/gpu.json (or ./gpu.json). `--quick` is the rehearsal on a CPU.
Where a command may take ten minutes only:

    python benchmarks/gpu.py --limit 570 --only machine --only training
    python benchmarks/gpu.py --limit 570 --only attention --only training_run
    python benchmarks/gpu.py --limit 570 --only parity --only decoding_torch --only decoding_jax --only device_tests

Runs on whatever versions are installed. Beside jax, flax, optax, orbax-checkpoint, torch and numpy it needs
array-api-compat, jaxtyping, safetensors, soundfile, soxr and pretty_midi; `training_run` also grain, array_record,
pyarrow, pyyaml, platformdirs, mir_eval and matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpu_training
import numpy as np

from mt3core.config import MT3
from mt3core.decoding import Decoding
from mt3core.parameters import parameters

SECTION_SECONDS = 540  # of one section at most, unless --limit leaves less


def main() -> None:
    parser = argparse.ArgumentParser(description="All measurements for a machine with a GPU.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to rehearse on a CPU")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="names of sections")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all of it")
    parser.add_argument("--section", nargs=3, metavar=("NAME", "FILE", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        name, file, seconds = options.section
        run_section(name, Path(file), options.quick, time.monotonic() + float(seconds))
        return
    ends_at = time.monotonic() + options.limit
    target = Path(os.environ.get("OUT", ".")) / "gpu.json"
    results: dict[str, dict] = {}
    for name in options.only or SECTIONS:
        started = time.monotonic()
        seconds = min(SECTION_SECONDS, ends_at - started - 5)
        results[name] = in_a_process(name, options.quick, seconds) if seconds > 20 else {"failed": "no time"}
        results[name]["section_seconds"] = round(time.monotonic() - started, 1)
        print(name, json.dumps(results[name]), flush=True)
        target.write_text(json.dumps(results, indent=1))
    sys.exit(any("failed" in result for result in results.values()))


def in_a_process(name: str, quick: bool, seconds: float) -> dict:
    """A section's figures. The device's memory is free again after it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        # A little earlier it should have ended by itself.
        command = [sys.executable, __file__, "--section", name, str(file), str(seconds - 15)]
        process = subprocess.Popen([*command, "--quick"] if quick else command)
        failed = None
        try:
            if process.wait(seconds):
                failed = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            failed = f"not done after {seconds:.0f} s"
        figures = json.loads(file.read_text()) if file.is_file() else {}
    return {"failed": failed, **figures} if failed else figures


def run_section(name: str, file: Path, quick: bool, ends_at: float) -> None:
    """Writes figures as they come."""
    figures: dict[str, Any] = {}
    try:
        for key, value in SECTIONS[name](quick, ends_at):
            print(f"  {name}: {key}: {json.dumps(value)}", flush=True)
            figures[key] = value
            file.write_text(json.dumps(figures))
    except Exception as error:
        traceback.print_exc()
        file.write_text(json.dumps({"failed": f"{type(error).__name__}: {error}"[:500], **figures}))


def machine(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    import flax
    import jax
    import torch

    yield "gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA"
    yield "jax_devices", str(jax.devices())
    yield from {"jax": jax.__version__, "flax": flax.__version__, "torch": torch.__version__}.items()


def random_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights of the published shape with T5's initial variances, in PyTorch form."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for p in parameters(MT3.network):
        scale = {"norm": 0.0, "embedding": 1.0, "linear": p.shape[0] ** -0.5}[p.kind]
        scale *= 0.125 if p.path.endswith(".query") else 1.0
        offset = 1.0 if p.kind == "norm" else 0.0
        arrays[p.torch_name] = (offset + scale * draw.standard_normal(p.torch_shape)).astype(np.float32)
    return arrays


def random_log_mel(count: int, seed: int = 1) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(-4.0, 2.0, (count, MT3.network.input_frames, MT3.network.input_bands)).astype(np.float32)


def parity(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """Largest differences of encoder output and logits, each network on the device against itself on the CPU."""
    import jax
    import torch

    import mt3jax
    import mt3torch

    arrays, log_mel = random_arrays(), random_log_mel(2)
    tokens = np.random.default_rng(2).integers(0, 1000, (2, 64))
    outputs = {}
    for device in dict.fromkeys(("cpu", mt3torch.loading.choose_device().type)):
        model = mt3torch.build_model(MT3, arrays, device)
        with torch.inference_mode():
            encoded = model.encode(torch.from_numpy(log_mel).to(device))
            logits = model.decode(encoded, torch.from_numpy(tokens).to(device))
        outputs["torch", device] = encoded.cpu().numpy(), logits.cpu().numpy()
    for device in dict.fromkeys(("cpu", mt3jax.loading.choose_device().platform)):
        chosen = mt3jax.loading.choose_device(device)
        with jax.default_device(chosen), jax.default_matmul_precision("highest"):
            model = mt3jax.build_model(MT3, arrays, device)
            encoded = model.encode(jax.device_put(log_mel, chosen))
            outputs["jax", device] = np.asarray(encoded), np.asarray(model.decode(encoded, jax.numpy.asarray(tokens)))
    reference = outputs["torch", "cpu"]
    for (framework, device), found in outputs.items():
        parts = zip(("encoder", "logits"), found, reference, strict=True)
        yield f"{framework} {device}", {part: float(np.abs(value - other).max()) for part, value, other in parts}


def decoding_speed(network, batch_size: int, count: int, max_tokens: int) -> dict:
    """Decodes `count` segments of noise with a fixed number of steps: random weights rarely end by themselves."""
    model = network.build_model(MT3, random_arrays(), "auto")
    decoding = Decoding(max_tokens=max_tokens)
    log_mels = random_log_mel(count)
    stream = sys.modules[f"{network.__name__}.decoding"].generate_stream
    for _ in stream(model, iter(log_mels), decoding, batch_size):
        pass
    start = time.perf_counter()
    tokens = sum(len(generated.tokens) for _, generated in stream(model, iter(log_mels), decoding, batch_size))
    seconds = time.perf_counter() - start
    audio_seconds = count * MT3.segment_samples / MT3.spectrogram.sample_rate_hz
    return {
        "batch_size": batch_size,
        "segments": count,
        "tokens_per_second": round(tokens / seconds),
        f"x_real_time_at_{max_tokens}_tokens": round(audio_seconds / seconds, 1),
    }


def decoding_torch(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    import mt3torch

    for size in [2] if quick else [32, 128, 512]:
        yield f"batch_{size}", decoding_speed(mt3torch, size, 2 * size, 16 if quick else 128)


def decoding_jax(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    import mt3jax

    for size in [2] if quick else [32, 128, 512]:
        yield f"batch_{size}", decoding_speed(mt3jax, size, 2 * size, 16 if quick else 128)


def device_tests(quick: bool, ends_at: float) -> Iterator[tuple[str, Any]]:
    """The tests marked `device`, on every device that is there."""
    command = [sys.executable, "-m", "pytest", "-m", "device", "-q", "-o", "addopts=--import-mode=importlib"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:])
        yield "failed", lines[-1] if lines else done.stderr[-300:]
    else:
        yield "pytest", lines[-1]


SECTIONS: dict[str, Callable[[bool, float], Iterator[tuple[str, Any]]]] = {
    "machine": machine,
    "training": gpu_training.training,
    "attention": gpu_training.attention,
    "training_run": gpu_training.training_run,
    "parity": parity,
    "decoding_torch": decoding_torch,
    "decoding_jax": decoding_jax,
    "device_tests": device_tests,
}

if __name__ == "__main__":
    main()
