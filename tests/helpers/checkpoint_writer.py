"""States whose every number tells their step, and programs that save them.

python checkpoint_writer.py kill RUN TRIES SEED     writers that are killed at random moments, one after the other
python checkpoint_writer.py open RUN                one that only opens the run's folder
python checkpoint_writer.py join RUN STEP           one of several processes: restores STEP, saves the one after
"""

import dataclasses
import functools
import itertools
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import jax
import numpy as np
from tiny_networks import tiny

from mt3core.config.training import BatchConfig, CheckpointConfig, ComputeConfig, OptimizerConfig, TrainingConfig
from mt3jax.training.run.checkpoints import Checkpoints
from mt3jax.training.run.hosts import join_hosts
from mt3jax.training.step.sharding import make_mesh, place
from mt3jax.training.step.state import abstract_state


def run_config(ema_decay=0.9, keep_last=2, keep_best=1, fsdp=1, **changes):
    config = TrainingConfig(
        name="tiny",
        model=tiny(num_encoder_layers=1, num_decoder_layers=1),
        batch=BatchConfig(block_tokens=5),
        optimizer=OptimizerConfig(kind="adamw", clip_norm=1.0, weight_decay=0.1, ema_decay=ema_decay),
        compute=ComputeConfig(fsdp=fsdp),
        checkpoint=CheckpointConfig(keep_last=keep_last, keep_best=keep_best),
    )
    return dataclasses.replace(config, **changes)


@functools.cache
def shapes_of(config):
    return abstract_state(config, make_mesh(config.compute))


def numbers_of(config, step):
    """The state after a step, as host arrays: random bits but for the sign and exponent, in an order of its own."""
    shapes = shapes_of(config)
    leaves, form = jax.tree.flatten(shapes)
    rng = np.random.default_rng(step)
    arrays = [(rng.integers(0, 1 << 20, leaf.shape) + 0.1).astype(leaf.dtype) for leaf in leaves]
    return dataclasses.replace(jax.tree.unflatten(form, arrays), step=np.int32(step))


def state_of(config, step):
    return place(numbers_of(config, step), jax.tree.map(lambda leaf: leaf.sharding, shapes_of(config)))


def assert_is(state, config, step):
    """Whether it is the state after that step, bit for bit: of each array, the parts that this process has."""
    expected = numbers_of(config, step)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for found, array in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        for shard in found.addressable_shards:
            assert np.asarray(shard.data).tobytes() == array[shard.index].tobytes()


def write_until_killed(run, pipe):
    def say(line):
        os.write(pipe, f"{line}\n".encode())

    config = run_config(keep_last=1, keep_best=0)
    with Checkpoints(run, config, say=lambda line: None) as checkpoints:
        restored = checkpoints.restore(shapes_of(config))
        first = 1
        if restored is not None:
            first = int(restored.state.step) + 1
            assert_is(restored.state, config, first - 1)
            assert restored.data_state == {"next_example": 8 * (first - 1)}
        state_of(config, first)  # which takes longer the first time
        say(f"from {first}")
        for step in itertools.count(first):
            checkpoints.save(state_of(config, step), {"next_example": 8 * step})
            say(f"began {step}")  # and so the one before is there


def kill_writers(run, tries, seed):
    """Each begins as a copy of this process, which has loaded everything and computed nothing."""
    rng = random.Random(seed)
    expected, num_interrupted = 1, 0
    for number in range(tries):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                write_until_killed(run, writing)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(writing)
        with os.fdopen(reading) as lines:
            begun = lines.readline()
            print(begun, end="", flush=True)
            assert int(begun.split()[1]) >= expected, f"{begun!r}, but {expected - 1} had been written"
            times = [time.monotonic()]
            for _ in range(number % 4 + 1):
                expected = int(lines.readline().split()[1])
                times.append(time.monotonic())
            time.sleep(rng.uniform(0.0, times[-1] - times[-2]))
            os.kill(child, signal.SIGKILL)
            num_interrupted += any(Path(run).glob("*.orbax-checkpoint-tmp*"))
            os.waitpid(child, 0)
            expected = max([expected, *(int(line.split()[1]) for line in lines)])
    print(f"interrupted {num_interrupted}", flush=True)


def join(run, step):
    join_hosts()
    config = run_config(fsdp=2)
    with Checkpoints(run, config) as checkpoints:
        restored = checkpoints.restore(shapes_of(config))
        assert_is(restored.state, config, step)
        kernel = restored.state.params["decoder"]["layers"][0]["mlp"]["wo"]["kernel"]
        assert len({str(shard.index) for shard in kernel.addressable_shards}) == 2
        checkpoints.save(state_of(config, step + 1), restored.data_state, {"validation/loss": 1.0})


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        kill_writers(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1] == "open":
        with Checkpoints(sys.argv[2], run_config()):
            pass
    else:
        join(sys.argv[2], int(sys.argv[3]))
