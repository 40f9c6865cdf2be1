"""Runs that are killed, stopped and taken up again: the same parameters and losses as without, bit for bit."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sine_runs import sine_pieces

pytestmark = [pytest.mark.integration, pytest.mark.slow]
PROGRAM = Path(__file__).parents[1] / "helpers" / "sine_runs.py"
NUM_STEPS = 24
# One row for three examples of half a row each is too little, so of every batch some targets are left out.
CHANGES = ["batch.examples=6", "batch.accumulation=2", "batch.rows=1", "optimizer.ema_decay=0.9"]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return sine_pieces(tmp_path_factory.mktemp("pieces"))


def start(pieces, run, *changes, num_steps=NUM_STEPS, **variables):
    root = PROGRAM.parents[1]
    command = [sys.executable, str(PROGRAM), str(pieces), str(run), str(num_steps), *changes]
    # Compiled quickly rather than well.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "XLA_FLAGS": flags, **variables}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def start_two(pieces, run, *changes, num_steps):
    """Two processes that train together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    variables = {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [
        start(pieces, run, *changes, num_steps=num_steps, **variables, JAX_PROCESS_ID=str(host)) for host in range(2)
    ]


def finish(process):
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def curve(run):
    """(step, loss, gradient norm) of every step, as written."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["train/loss"], line["train/gradient_norm"]) for line in lines]


def arrays(run):
    from mt3convert.orbax import read_orbax

    return read_orbax(run)[1]


@pytest.fixture(scope="module")
def uninterrupted(pieces, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    code, output = finish(start(pieces, run, *CHANGES))
    assert code == 0, output
    return run


def wait_for_step(run, step, process):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        path = run / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[0]}")


def test_killed_killed_while_writing_and_stopped_by_a_signal(pieces, uninterrupted, tmp_path):
    """One run after another in the same folder, each going on from what the one before has left."""
    run = tmp_path / "run"
    process = start(pieces, run, *CHANGES)
    wait_for_step(run, 12, process)  # between two checkpoints; the one after step 5 is there
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL

    process = start(pieces, run, *CHANGES, "checkpoint.every_steps=1")
    wait_for_step(run, 16, process)  # some checkpoint is being written at any moment
    process.send_signal(signal.SIGKILL)
    code, output = finish(process)
    assert code == -signal.SIGKILL
    assert "Resuming from step" in output

    process = start(pieces, run, *CHANGES)
    wait_for_step(run, 19, process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    assert "SIGTERM received" in output
    assert "Run the same command to resume" in output

    code, output = finish(start(pieces, run, *CHANGES))
    assert code == 0, output
    assert curve(run) == curve(uninterrupted)
    expected = arrays(uninterrupted)
    for name, array in arrays(run).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_two_processes_of_which_one_is_stopped_and_then_one_alone(pieces, tmp_path):
    """What two have begun, one goes on with: as one alone from the start, but for rounding."""
    changes = ["batch.examples=4", "optimizer.ema_decay=0.9"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    code, output = finish(start(pieces, whole, *changes, num_steps=12))
    assert code == 0, output

    pair = start_two(pieces, run, *changes, num_steps=12)
    wait_for_step(run, 3, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    codes, outputs = zip(*map(finish, pair), strict=True)
    assert codes == (75, 75), outputs
    assert "2 process(es)" in outputs[0]
    assert "Run the same command to resume" in outputs[0]
    stopped_after = curve(run)[-1][0]
    assert 3 <= stopped_after < 12

    code, output = finish(start(pieces, run, *changes, num_steps=12))
    assert code == 0, output
    assert f"Resuming from step {stopped_after}" in output
    np.testing.assert_allclose(np.array(curve(run)), np.array(curve(whole)), rtol=1e-5)
    expected = arrays(whole)
    for name, array in arrays(run).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5 * np.abs(expected[name]).max(), err_msg=name)
