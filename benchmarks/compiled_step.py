"""What a training step consists of, without a GPU or TPU: operations as lowered, bytes and memory as compiled.

    python benchmarks/compiled_step.py                                lowered for CUDA with cuDNN's attention, seconds
    python benchmarks/compiled_step.py --set optimizer.kind=adamw     with another optimizer; `--config` names a config
    python benchmarks/compiled_step.py --config multitrack_test --layers 1 --tpu v6e:2x2    compiled for TPUs

Operations are counted in the StableHLO text, before XLA fuses them. `--tpu` needs no TPU, only the version of `libtpu`
that JAX's metadata names: its XLA compiler counts the arithmetic and the bytes read and written by every fused
operation of one device, and plans memory. This takes minutes; `mt3` with one layer on each side had not finished after
40 on two busy cores. Targets in the batch have the lengths of rendered SLAKH.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import re
import time
from typing import Any
from unittest import mock

import numpy as np
from step_timing import draw_lengths, made_up_batch, rows_for, with_layers

from mt3core.config.files import load_config
from mt3core.config.training import TrainingConfig
from mt3jax import row_packing

COUNTED = ("scatter", "gather", "dot_general", "reduce", "concatenate", "custom_call", "transpose", "while")


def abstract_batch(config: TrainingConfig, num_groups: int) -> tuple[dict[str, Any], int]:
    """The batch of a step as shapes, and the rows per device and microbatch."""
    import jax

    batch = config.batch
    lengths = draw_lengths(config.model, 2000)
    group = batch.examples // batch.accumulation // num_groups
    one_group = dataclasses.replace(config, batch=dataclasses.replace(batch, examples=group, accumulation=1))
    rows = batch.rows or rows_for(one_group, lengths)
    split = row_packing.split_batch(made_up_batch(config.model, lengths[: batch.examples]), config, num_groups, rows)
    return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in split.items()}, rows


def lowered_for_cuda(config: TrainingConfig) -> dict[str, Any]:
    """Operations of the step on one GPU, from the text that JAX hands to XLA."""
    import jax

    from mt3jax.training.step.sharding import make_mesh
    from mt3jax.training.step.state import abstract_state
    from mt3jax.training.step.train_step import make_train_step

    mesh = make_mesh(config.compute, jax.devices()[:1])
    batch, rows = abstract_batch(config, 1)
    # JAX looks for cuDNN on the machine, which is not needed to lower calls to it.
    version = mock.patch("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", return_value=91002)
    capability = mock.patch("jax._src.cudnn.fused_attention_stablehlo.check_compute_capability", return_value=True)
    with version, capability:
        traced = make_train_step(config, mesh).trace(abstract_state(config, mesh), batch)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return {"rows": rows} | operations(text)


def operations(text: str) -> dict[str, Any]:
    """Counts of StableHLO operations; a function counts as often as it is called."""
    bodies = dict(re.findall(r"func\.func (?:public |private )?@(\w+)(.*?)\n  }", text, re.DOTALL))
    own = {name: collections.Counter(re.findall(r"stablehlo\.(\w+)", body)) for name, body in bodies.items()}
    calls = {name: re.findall(r"call @(\w+)", body) for name, body in bodies.items()}

    def total(name: str) -> collections.Counter[str]:
        return sum((total(called) for called in calls[name] if called in bodies), own[name])

    counts = total("main")
    random = sum(len(re.findall(r"call @_?threefry", body)) for body in bodies.values())
    cudnn = collections.Counter(re.findall(r"@(__cudnn\$\w+)", text))
    return {
        "operations": sum(counts.values()),
        **{name: counts[name] for name in COUNTED},
        "threefry_calls_written": random,
        "cudnn": dict(cudnn),
    }


def compiled_for_tpu(config: TrainingConfig, topology: str, num_devices: int) -> dict[str, Any]:
    """Arithmetic, bytes, memory and messages of one device's program."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    import jax
    from jax.experimental import topologies

    from mt3jax.training.step.sharding import make_mesh
    from mt3jax.training.step.state import abstract_state
    from mt3jax.training.step.train_step import make_train_step

    jax.config.update("jax_enable_compilation_cache", False)
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    devices = found.devices[: num_devices or len(found.devices)]
    mesh = make_mesh(config.compute, list(devices))
    batch, rows = abstract_batch(config, mesh.size)
    started = time.perf_counter()
    compiled = make_train_step(config, mesh).lower(abstract_state(config, mesh), batch).compile()
    seconds = time.perf_counter() - started
    plan, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    kinds = re.findall(r"[ )](all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter)(?:-start)?\(", text)
    return {
        "device": devices[0].device_kind,
        "devices": mesh.size,
        "rows": rows,
        "compile_seconds": round(seconds),
        "teraflop": round(cost["flops"] / 1e12, 3),
        "gigabytes_read_and_written": round(cost["bytes accessed"] / 1e9, 2),
        "gigabytes_planned": round((plan.argument_size_in_bytes + plan.temp_size_in_bytes) / 1e9, 2),
        "entry_operations": len(re.findall(r"^  %?\S+ = ", text[text.index("ENTRY") :], re.MULTILINE)),
        "collectives": dict(collections.Counter(kinds)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="mt3")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--layers", type=int, default=0, help="on either side [those of the config]")
    parser.add_argument("--tpu", metavar="TOPOLOGY", help="such as v6e:2x2 or v6e:4x8")
    parser.add_argument("--devices", type=int, default=0, help="of the topology [all]")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    attention = "xla" if options.tpu else "cudnn"
    changes = ["compute.dtype=bfloat16", f"compute.attention={attention}", *options.set]
    config = load_config(options.config, changes)
    config = dataclasses.replace(config, model=with_layers(config.model, options.layers))
    np.random.seed(0)
    found = compiled_for_tpu(config, options.tpu, options.devices) if options.tpu else lowered_for_cuda(config)
    print(json.dumps({"config": config.name, "changes": options.set, "layers": options.layers} | found, indent=1))


if __name__ == "__main__":
    main()
