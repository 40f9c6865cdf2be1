"""The section `parts` of benchmarks/gpu.py: what the step of `mt3` with 256 examples consists of.

First the whole step, with a profile of three steps; then three operations suspected to be slow on GPUs, each in two
forms and compared with float64; then stages of the step, each a separate program, and the step with something left out.
Every program is compiled, run twice, and timed over several rounds, of which the best counts.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from gpu_training import Case, Figures, figures_of, timed_step, too_large
from step_timing import TINY, TimedStep, draw_lengths, draw_tokens, made_up_batch, rows_for

from mt3core.config.model import MT3, ModelConfig
from mt3core.config.training import Optimizer, OptimizerConfig, TrainingConfig
from mt3jax import row_packing
from mt3jax.loading import network
from mt3jax.training.step.loss import for_training, loss_sums, network_input
from mt3jax.training.step.optimizer import apply_directions, make_optimizer
from mt3jax.training.step.state import drawn_params

PROFILED_STEPS = 3
KERNELS_SHOWN = 25
MOST_PROFILE_BYTES = 15 << 20  # of the file that is kept
ROUNDS, CALLS = 3, 5


def parts(quick: bool, ends_at: float) -> Iterator[tuple[str, Figures]]:
    case = Case("tiny 4", TINY, 4, {"block_tokens": 8}) if quick else Case("mt3 256", MT3)
    step, tokens = timed_step(case)
    yield "whole step", figures_of(case, step, tokens, 2 if quick else 20)
    yield "profile", profile(step)
    del step  # and its memory
    slowest = 0.0
    for name, measure in (_operations(case.model) | _programs(case) | _variants(case, quick)).items():
        started = time.monotonic()
        if started + slowest > ends_at:
            yield name, {"left_out": "no time"}
            continue
        try:
            yield name, measure()
        except Exception as error:
            yield name, {"failed": f"{type(error).__name__}: {error}"[:300]}
        slowest = max(slowest, time.monotonic() - started)


def timed_ms(program: Callable[..., Any], *arguments: Any) -> float:
    """Milliseconds per call: the best of several rounds of calls, dispatched one after the other."""
    compiled = jax.jit(program).lower(*arguments).compile()
    arguments = jax.device_put(arguments)
    for _ in range(2):
        jax.block_until_ready(compiled(*arguments))
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            found = compiled(*arguments)
        jax.block_until_ready(found)
        rounds.append((time.perf_counter() - started) / CALLS)
    return round(1e3 * min(rounds), 4)


# ---- The profile


def profile(step: TimedStep) -> Figures:
    """The kernels of three steps by time, in milliseconds per step; the trace is kept next to the results."""
    with tempfile.TemporaryDirectory() as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # one line per function call would be most of the file
        with jax.profiler.trace(folder, profiler_options=options):
            step.run(PROFILED_STEPS)
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = path.read_bytes()
    packed = gzip.compress(data)
    if len(packed) <= MOST_PROFILE_BYTES:
        (Path(os.environ.get("OUT", ".")) / "profile.xplane.pb.gz").write_bytes(packed)
    times, counts = kernel_times(data)
    total = sum(times.values())
    shown = {
        name[:90]: [round(time_ms, 3), round(counts[name] / PROFILED_STEPS, 1)]
        for name, time_ms in times.most_common(KERNELS_SHOWN)
    }
    return {"ms_of_all_kernels": round(total, 2), "bytes": len(packed), "kernels_ms_and_calls": shown}


def kernel_times(xplane: bytes) -> tuple[Counter[str], Counter[str]]:
    """Milliseconds per step and number of calls of each kernel in a trace: a GPU's streams, or a CPU's threads."""
    planes = list(jax.profiler.ProfileData.from_serialized_xspace(xplane).planes)
    devices = [plane for plane in planes if "/device:" in plane.name]
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for plane in devices or planes:
        lines = list(plane.lines)
        # On a GPU, other lines repeat the same times.
        streams = [line for line in lines if "stream" in line.name.lower()] if devices else []
        for line in streams or lines:
            for event in line.events:
                if event.duration_ns:
                    times[event.name] += event.duration_ns / 1e6 / PROFILED_STEPS
                    counts[event.name] += 1
    return times, counts


# ---- Three operations


def _operations(model: ModelConfig) -> dict[str, Callable[[], Figures]]:
    return {
        "gather of keys and values, transposed": lambda: gather_transposed(model),
        "token embedding, transposed": lambda: embedding_transposed(model),
        **{f"optimiser {kind}": lambda kind=kind: {"ms": optimizer_ms(model, kind)} for kind in get_args(Optimizer)},
    }


def gather_transposed(model: ModelConfig) -> Figures:
    """The gradients of copied keys or values: the sum over each example's blocks.

    For 256 examples of `mt3` bfloat16 (1280, 6, 256, 64) to (256, 6, 256, 64); a step has sixteen of these.
    """
    size, draw = model.network, np.random.default_rng(0)
    examples = 256 if size.emb_dim > 100 else 8
    numbers = np.sort(draw.integers(0, examples, 5 * examples))
    shape = (size.num_heads, size.input_frames, size.head_dim)
    gradient = draw.standard_normal((len(numbers), *shape), np.float32).astype(jnp.bfloat16)

    def scatter(gradient: jax.Array) -> jax.Array:
        return jnp.zeros((examples, *shape), jnp.bfloat16).at[numbers].add(gradient)

    def product(gradient: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(numbers, examples, axis=0, dtype=jnp.bfloat16)
        flat = gradient.reshape(len(numbers), -1)
        summed = jnp.matmul(one_hot, flat, preferred_element_type=jnp.float32)
        return summed.astype(jnp.bfloat16).reshape(examples, *shape)

    exact = np.zeros((examples, *shape[1:]))
    np.add.at(exact, numbers, gradient[:, 0].astype(np.float64))
    return {
        name: {"ms": timed_ms(form, gradient), "error": _error(np.asarray(jax.jit(form)(gradient))[:, 0], exact)}
        for name, form in (("bfloat16 scatter", scatter), ("one-hot product", product))
    }


def embedding_transposed(model: ModelConfig) -> Figures:
    """The gradient of the table from those of the tokens; 28 % are padding (token 0), as in packed rows."""
    size, draw = model.network, np.random.default_rng(0)
    count = (40 if size.emb_dim > 100 else 2) * size.max_target_tokens
    ids = draw_tokens(size.vocab_size, (count,), draw)
    ids[draw.uniform(size=count) < 0.28] = 0
    gradient = (draw.standard_normal((count, size.emb_dim), np.float32) + 0.1).astype(jnp.bfloat16)

    def scatter(dtype: str) -> Callable[[jax.Array], jax.Array]:
        return lambda gradient: (
            jnp.zeros((size.vocab_size, size.emb_dim), dtype).at[ids].add(gradient.astype(dtype)).astype(jnp.float32)
        )

    def product(gradient: jax.Array) -> jax.Array:
        one_hot = jax.nn.one_hot(ids, size.vocab_size, axis=0, dtype=jnp.bfloat16)
        return jnp.matmul(one_hot, gradient, preferred_element_type=jnp.float32)

    exact = np.zeros((size.vocab_size, size.emb_dim))
    np.add.at(exact, ids, gradient.astype(np.float64))
    forms = {
        "bfloat16 scatter": scatter("bfloat16"),
        "float32 scatter": scatter("float32"),
        "one-hot product": product,
    }
    return {
        name: {"ms": timed_ms(form, gradient), "error": _error(np.asarray(jax.jit(form)(gradient)), exact)}
        for name, form in forms.items()
    }


def optimizer_ms(model: ModelConfig, kind: Any) -> float:
    """Only the update, as it is in the step."""
    params = drawn_params(model, 0)
    optimizer = make_optimizer(OptimizerConfig(kind=kind))
    draw = np.random.default_rng(1)
    gradients = jax.tree.map(lambda leaf: draw.normal(0, 1e-3, leaf.shape).astype(np.float32), params)

    def update(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        directions, state = optimizer.update(gradients, state, params)
        return apply_directions(params, directions, jnp.float32(1e-3)), state

    return timed_ms(update, gradients, optimizer.init(params), params)


def _error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - exact) / np.linalg.norm(exact))


# ---- Parts of the step


def _programs(case: Case) -> dict[str, Callable[[], Figures]]:
    """Programs that compute more and more of the step, without dropout and update."""
    config, model = case.config(), case.model
    batch = made_up_batch(model, draw_lengths(model, case.examples))
    rows = rows_for(config, draw_lengths(model, 1000, seed=4))
    part = {name: array[0] for name, array in row_packing.split_batch(batch, config, 1, rows).items()}

    def loss(params: Any, part: Any) -> Any:
        return loss_sums(network(model, params), part, config).loss

    def encoded(params: Any, part: Any) -> Any:
        log_mel = network_input(part, config).astype(config.compute.dtype)
        return for_training(network(model, params), config).encode(log_mel)

    programs = {
        "log-mel": lambda params, part: network_input(part, config),
        "log-mel, encoder": encoded,
        "log-mel, encoder, decoder, loss": loss,
        "all that, and its gradient": jax.value_and_grad(loss),
    }
    return {
        name: lambda program=program: {"ms": timed_ms(program, drawn_params(model, 0), part)}
        for name, program in programs.items()
    }


def _variants(case: Case, quick: bool) -> dict[str, Callable[[], Figures]]:
    """The whole step with one thing changed."""
    without_dropout = dataclasses.replace(case.config(), model=_without_dropout(case.model))
    found = {"whole step, dropout 0": lambda: _variant_ms(case, without_dropout, quick)}
    if jax.default_backend() == "gpu":  # elsewhere it is always XLA's
        xla = dataclasses.replace(case, compute={**case.compute, "attention": "xla"})
        found["whole step, XLA's attention"] = lambda: _variant_ms(xla, xla.config(), quick)
    return found


def _variant_ms(case: Case, config: TrainingConfig, quick: bool) -> Figures:
    reason = too_large(case)
    if reason:
        return {"left_out": reason}
    step, tokens = timed_step(case, config)
    return figures_of(case, step, tokens, 2 if quick else 10)


def _without_dropout(model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(model, network=dataclasses.replace(model.network, dropout_rate=0.0))
