"""Short training runs of a tiny network: on one device, over meshes of virtual devices, in several processes.

This file is a program, too: `start` runs it with XLA's optimisation off, which would take most of the time, and it
writes what came out to a file: losses and parameters by run, and remarks as JSON beside.
"""

import contextlib
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from tiny_networks import tiny

from mt3core.config.training import (
    BatchConfig,
    ComputeConfig,
    LossConfig,
    OptimizerConfig,
    SafetyConfig,
    TrainingConfig,
)
from mt3core.model.parameters import parameters
from mt3jax import row_packing

NUM_STEPS = 20
NUM_DEVICES = 4
ROOT = Path(__file__).resolve().parents[2]
# Name, data, fsdp, dropout. Dropout takes long to compile, so only one mesh has it.
MESHES = (("4x1", 4, 1, 0.0), ("2x2", 2, 2, 0.1), ("1x4", 1, 4, 0.0))
MUON = {"kind": "muon"}
MUON_STEPS = 6
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
COLLECTIVES = r"= (\S+|\([^)]*\)) (all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(?:-start)?\("


def training_config(dropout_rate=0.0, **sections):
    """A run of a network of one layer on either side; `sections` are changes by section."""
    network = {"num_encoder_layers": 1, "num_decoder_layers": 1, "mlp_activations": ("relu",)}
    defaults = {
        "batch": BatchConfig(examples=8, block_tokens=5),
        "optimizer": OptimizerConfig(warmup_steps=2, ema_decay=0.9),
        "loss": LossConfig(chunk_tokens=10),
        "compute": ComputeConfig(),
        "safety": SafetyConfig(spike_factor=10.0),
    }
    changed = {name: dataclasses.replace(section, **sections.get(name, {})) for name, section in defaults.items()}
    return TrainingConfig("test", tiny(dropout_rate=dropout_rate, **network), num_steps=NUM_STEPS, **changed)


def step_batch(config, number, mesh, host=0, num_hosts=1):
    """The examples of a step, drawn at random, as a host gives its share of them to its devices."""
    random = np.random.default_rng(number)
    network, size = config.model.network, config.batch.examples
    length = network.max_target_tokens
    # As many tokens in every step, so that Adafactor, which no constant factor changes, takes their sum as their mean.
    lengths = random.permutation(np.linspace(3, length // 2, size).astype(int))
    tokens = random.integers(2, network.vocab_size, (size, length))
    batch = {
        "log_mel": random.normal(size=(size, network.input_frames, network.input_bands)).astype(np.float32),
        "num_frames": np.full(size, network.input_frames, np.int32),
        "targets": np.where(np.arange(length) < lengths[:, None], tokens, 0).astype(np.int32),
    }
    share = slice(host * size // num_hosts, (host + 1) * size // num_hosts)
    # No target is longer than half a row.
    rows = size // (2 * mesh.size * config.batch.accumulation)
    local = {name: array[share] for name, array in batch.items()}
    return row_packing.split_batch(local, config, mesh.size // num_hosts, rows)


def initial_arrays(config):
    """Weights of T5's initial variances by PyTorch name, from NumPy, since JAX would compile for seconds first."""
    random = np.random.default_rng(0)
    arrays = {}
    for p in parameters(config.network):
        scale = {"norm": 0.0, "embedding": 1.0, "linear": p.shape[0] ** -0.5}[p.kind]
        scale *= config.network.head_dim**-0.5 if p.path.endswith(".query") else 1.0
        array = random.normal(float(p.kind == "norm"), scale, p.torch_shape)
        arrays[p.torch_name] = array.astype(np.float32)
    return arrays


class Run:
    """Some steps from the same weights: `state` after them, `losses` and `norms` of each."""

    def __init__(self, config, mesh, host=0, num_hosts=1, num_steps=NUM_STEPS):
        from mt3jax.training.step.state import init_state
        from mt3jax.training.step.train_step import make_train_step

        self.config, self.mesh, self.hosts = config, mesh, (host, num_hosts)
        self.state = init_state(config, mesh, initial_arrays(config.model))
        self.program = make_train_step(config, mesh).lower(self.state, self.batch(0)).compile()
        metrics = [self.step(self.batch(number)) for number in range(num_steps)]
        self.losses = np.asarray([float(m["loss"]) for m in metrics])
        self.norms = np.asarray([float(m["gradient_norm"]) for m in metrics])

    def batch(self, number):
        from mt3jax.training.step.sharding import to_global

        return to_global(step_batch(self.config, number, self.mesh, *self.hosts), self.mesh)

    def step(self, batch):
        self.state, metrics = self.program(self.state, batch)
        return metrics

    def results(self, name):
        return {f"{name}/losses": self.losses, f"{name}/norms": self.norms} | by_name(self.state, f"{name}/")


def by_name(state, prefix=""):
    """Parameters and their average as host arrays."""
    from mt3jax.loading import flatten

    found = flatten({"params": state.params, "ema": state.ema}, prefix)
    return {name: np.array(array) for name, array in found.items()}  # copies: views would keep the memory


def run_alone(target):
    """What meshes are compared with, and all that needs but one device."""
    from mt3jax.training.step.sharding import make_mesh
    from mt3jax.training.step.train_step import make_eval_step

    mesh = make_mesh(ComputeConfig(data=1))
    dropping = Run(training_config(0.1), mesh)
    results = dropping.results("dropout")
    results |= Run(training_config(compute={"remat": True}), mesh).results("remat")
    plain = Run(training_config(), mesh)
    results |= plain.results("plain")
    results |= Run(training_config(optimizer=MUON), mesh, num_steps=MUON_STEPS).results("muon")
    parts = Run(training_config(batch={"accumulation": 4}, loss={"normalise": "sum"}), mesh)
    results |= parts.results("accumulation")
    evaluated = make_eval_step(plain.config, mesh)(plain.state.params, plain.batch(30))
    seen = plain.step(plain.batch(30))
    remarks = {
        "bad": bad_updates(dropping),
        "evaluated": [float(evaluated.loss / evaluated.num_tokens), float(seen["loss"])],
        "tokens": [float(evaluated.num_tokens), float(seen["num_tokens"]), float(evaluated.count.sum())],
    }
    save(target, results, remarks)


def bad_updates(run):
    """Four updates that must not be applied, and one that is, after the run's; what became of each."""
    import jax
    import jax.numpy as jnp

    good = run.batch(21)
    not_a_number = good | {"log_mel": good["log_mel"].at[0, 3, 2, 1].set(jnp.nan)}
    empty = good | {name: jnp.zeros_like(good[name]) for name in ("targets", "decoder_inputs", "segments")}
    remarks = []
    for name, batch in (
        ("nan", not_a_number),
        ("nan", not_a_number),
        ("spike", good),
        ("empty", empty),
        ("good", good),
    ):
        if name in ("spike", "empty"):
            factor = jnp.float32(1e-3 if name == "spike" else 1e3)
            run.state = dataclasses.replace(run.state, norm_mean=jax.device_put(run.state.norm_mean * factor))
        before = jax.tree.map(np.array, run.state)
        donated = jax.tree.leaves(run.state)
        metrics = run.step(batch)
        kept = ("params", "opt_state", "ema", "norm_mean")
        pairs = [(getattr(before, field), getattr(run.state, field)) for field in kept]
        same = jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == np.asarray(b)).all()), *zip(*pairs, strict=True)))
        remarks.append(
            {
                "name": name,
                "rejection": int(metrics["rejection"]),
                "same": sum(same) / len(same),
                "steps": int(run.state.step - before.step),
                # Copies: from JAX 0.11 on int() leaves a view behind, which keeps the number's memory.
                "num_skipped": int(np.array(run.state.num_skipped)),
                "skipped_in_row": int(np.array(run.state.skipped_in_row)),
                "given_up": all(leaf.is_deleted() for leaf in donated),
                "finite": all(np.isfinite(array).all() for array in by_name(run.state).values()),
            }
        )
    return remarks


def run_meshes(target):
    """Each mesh of four virtual devices, in one process."""
    from mt3jax.training.step.sharding import make_mesh

    results, remarks = {}, {}
    for name, data, fsdp, dropout_rate in MESHES:
        run = Run(
            training_config(dropout_rate, compute={"data": data, "fsdp": fsdp}),
            make_mesh(ComputeConfig(data=data, fsdp=fsdp)),
        )
        results |= run.results(name)
        kernel = run.state.params["encoder"]["layers"][0]["attention"]["query"]["kernel"]
        remarks[name] = {
            "collectives": sorted(
                {f"{kind} {shape}" for shape, kind in re.findall(COLLECTIVES, run.program.as_text())}
            ),
            "kernel_shard": kernel.sharding.shard_shape(kernel.shape),
        }
    config = training_config(optimizer=MUON, compute={"data": 2, "fsdp": 2})
    results |= Run(config, make_mesh(config.compute), num_steps=MUON_STEPS).results("muon 2x2")
    save(target, results, remarks | {"audio": programs_for_audio(make_mesh(ComputeConfig(data=NUM_DEVICES)))})


def programs_for_audio(mesh):
    """What the compiled steps of training and validation send about, and what Fourier transforms a device computes."""
    from mt3jax.training.step.sharding import to_global
    from mt3jax.training.step.state import abstract_state
    from mt3jax.training.step.train_step import make_eval_step, make_train_step

    config = training_config(compute={"data": mesh.size}, batch={"examples": 16, "accumulation": 2})
    batch, size = step_batch(config, 0, mesh), config.batch.examples
    log_mel = batch.pop("log_mel")
    batch["audio"] = np.zeros((*log_mel.shape[:2], config.model.segment_samples), np.int16)
    batch, state = to_global(batch, mesh), abstract_state(config, mesh)
    found = {}
    for name, lowered in (
        ("train", make_train_step(config, mesh).lower(state, batch)),
        ("eval", make_eval_step(config, mesh).lower(state.params, batch)),
    ):
        text = lowered.compile().as_text()
        found[name] = {
            "collectives": sorted({kind for _, kind in re.findall(COLLECTIVES, text)}),
            "transforms": [int(count) for count in re.findall(r"= c64\[(\d+),[\d,]*\]\S* fft\(", text)],
        }
    return found | {"device_examples": size // (2 * mesh.size)}


def run_hosts(target, address, host, num_hosts):
    """One of several processes that train together: two with dropout and parameters split between two, or four."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_hosts, host)
    from jax.experimental import multihost_utils

    from mt3jax.training.step.sharding import make_mesh

    config = training_config(0.1 if num_hosts == 2 else 0.0, compute={"fsdp": 2 if num_hosts == 2 else 1})
    run = Run(config, make_mesh(config.compute), host, num_hosts)
    whole = multihost_utils.process_allgather(dataclasses.replace(run.state, opt_state=None), tiled=True)
    if host == 0:
        run.state = whole
        save(target, run.results("hosts"), {"processes": jax.process_count(), "devices": len(jax.devices())})
    jax.distributed.shutdown()


def save(target, results, remarks):
    np.savez(target, **results)
    Path(target).with_suffix(".json").write_text(json.dumps(remarks))


def load(target):
    """`(results, remarks)` as they were saved."""
    with np.load(target) as arrays:
        return dict(arrays), json.loads(Path(target).with_suffix(".json").read_text())


def start(*arguments, num_devices):
    """This file as a program on so many virtual devices."""
    flags = f"{XLA_FLAGS} --xla_force_host_platform_device_count={num_devices}"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=flags, PYTHONPATH=path)
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_hosts(target, num_hosts):
    """As many processes that train together."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = [("hosts", target, address, host, num_hosts) for host in range(num_hosts)]
    return [start(*found, num_devices=NUM_DEVICES // num_hosts) for found in arguments]


def finish(programs, timeout_seconds=400):
    """Waits for programs; an error shows what they said."""
    outputs = [program.communicate(timeout=timeout_seconds)[0] for program in programs]
    assert all(program.returncode == 0 for program in programs), "\n".join(outputs)
    return "\n".join(outputs)


if __name__ == "__main__":
    kind, target, *rest = sys.argv[1:]
    if kind == "hosts":
        run_hosts(target, rest[0], int(rest[1]), int(rest[2]))
    else:
        {"alone": run_alone, "meshes": run_meshes}[kind](target)
