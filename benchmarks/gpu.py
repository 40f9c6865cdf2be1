"""Everything worth knowing on a machine with a GPU, in one run: `make gpu` (or python benchmarks/gpu.py --quick).

Random weights of the published shape and fixed numbers of steps, so that nothing has to be carried there.
Sections: CPU against the device for both networks; the networks against each other; decoding speed; training
step speed with MFU (JAX); the tests marked `device`. A section that fails is reported and the others go on.
Writes what it printed as JSON to $OUT/gpu.json (or ./gpu.json). `--quick` is the rehearsal on a CPU.

Runs on whatever versions are installed. Beside jax, flax, optax and torch it needs array-api-compat, jaxtyping,
safetensors, soundfile, soxr, pretty_midi and numpy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mt3core.config import MT3
from mt3core.decoding import Decoding
from mt3core.parameters import parameters

# bf16 without sparsity, from NVIDIA's data sheets of the H100 SXM and H200 (the same chip).
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def main() -> None:
    parser = argparse.ArgumentParser(description="All measurements for a machine with a GPU.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to rehearse on a CPU")
    parser.add_argument("--only", action="append", help="names of sections")
    options = parser.parse_args()
    sections: dict[str, Callable[[bool], dict]] = {
        "machine": machine,
        "parity": parity,
        "decoding_torch": decoding_torch,
        "decoding_jax": decoding_jax,
        "training_jax": training_jax,
        "device_tests": device_tests,
    }
    results = {}
    for name in options.only or sections:
        start = time.perf_counter()
        try:
            results[name] = sections[name](options.quick)
        except Exception as error:
            traceback.print_exc()
            results[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        results[name]["section_seconds"] = round(time.perf_counter() - start, 1)
        print(name, json.dumps(results[name]), flush=True)
    target = Path(os.environ.get("OUT", ".")) / "gpu.json"
    target.write_text(json.dumps(results, indent=1))
    sys.exit(any("failed" in result for result in results.values()))


def machine(quick: bool) -> dict:
    import flax
    import jax
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA"
    versions = {"jax": jax.__version__, "flax": flax.__version__, "torch": torch.__version__}
    return {"gpu": name, "jax_devices": str(jax.devices()), **versions}


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


def parity(quick: bool) -> dict:
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
    return {
        f"{framework} {device}": {
            part: float(np.abs(value - expected).max())
            for part, value, expected in zip(("encoder", "logits"), found, reference, strict=True)
        }
        for (framework, device), found in outputs.items()
    }


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


def decoding_torch(quick: bool) -> dict:
    import mt3torch

    sizes = [2] if quick else [32, 128, 512]
    runs = [decoding_speed(mt3torch, size, 2 * size, 16 if quick else 128) for size in sizes]
    return {f"batch_{run['batch_size']}": run for run in runs}


def decoding_jax(quick: bool) -> dict:
    import mt3jax

    sizes = [2] if quick else [32, 128, 512]
    runs = [decoding_speed(mt3jax, size, 2 * size, 16 if quick else 128) for size in sizes]
    return {f"batch_{run['batch_size']}": run for run in runs}


def training_jax(quick: bool) -> dict:
    """A plain step (no packing, no sharding): forward, backward, Adafactor; float32 and bfloat16 weights."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    import mt3jax

    batch, length, steps = (1, 16, 1) if quick else (64, 160, 20)
    log_mel = random_log_mel(batch)
    tokens = np.random.default_rng(3).integers(3, 1000, (batch, length))
    results = {}
    for dtype in ("float32", "bfloat16"):
        graph, state = nnx.split(mt3jax.build_model(MT3, random_arrays(), "auto"))
        state = jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), state)
        optimizer = optax.adafactor(1e-3)

        def loss(state, log_mel, tokens, graph=graph):
            model = nnx.merge(graph, state)
            inputs = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
            logits = model.decode(model.encode(log_mel), inputs).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, tokens).mean()

        @jax.jit
        def step(state, opt_state, log_mel, tokens, loss=loss, optimizer=optimizer):
            value, gradient = jax.value_and_grad(loss)(state, log_mel, tokens)
            updates, opt_state = optimizer.update(gradient, opt_state, state)
            return optax.apply_updates(state, updates), opt_state, value

        opt_state = optimizer.init(state)
        inputs = jnp.asarray(log_mel, dtype), jnp.asarray(tokens)
        state, opt_state, value = step(state, opt_state, *inputs)
        value.block_until_ready()
        start = time.perf_counter()
        for _ in range(steps):
            state, opt_state, value = step(state, opt_state, *inputs)
        value.block_until_ready()
        per_second = batch * steps / (time.perf_counter() - start)
        results[dtype] = {"examples_per_second": round(per_second, 1), "loss": float(value), **mfu(per_second, length)}
    return {"batch": batch, "target_tokens": length, **results}


def mfu(examples_per_second: float, target_tokens: int) -> dict:
    """Model FLOPs utilisation: 6 FLOPs a weight and position (forward and backward), attention left out."""
    import jax

    encoder = sum(np.prod(p.shape) for p in parameters(MT3.network) if p.path.startswith("encoder"))
    decoder = sum(np.prod(p.shape) for p in parameters(MT3.network) if p.path.startswith("decoder"))
    flops = 6 * (encoder * MT3.network.input_frames + decoder * target_tokens) * examples_per_second
    kind = jax.devices()[0].device_kind
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in kind), None)
    return {"tflops": round(flops / 1e12, 1), "mfu": round(flops / peak, 3) if peak else None}


def device_tests(quick: bool) -> dict:
    """The tests marked `device`, on every device that is there."""
    command = [sys.executable, "-m", "pytest", "-m", "device", "-q", "-o", "addopts=--import-mode=importlib"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:])
        return {"failed": lines[-1] if lines else done.stderr[-300:]}
    return {"pytest": lines[-1]}


if __name__ == "__main__":
    main()
