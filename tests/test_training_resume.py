"""Runs that are killed, stopped and taken up again: the same parameters and losses as without, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sine_runs import sine_pieces

pytestmark = [pytest.mark.integration, pytest.mark.slow]
PROGRAM = Path(__file__).with_name("sine_runs.py")
NUM_STEPS = 40
CHANGES = ["batch.accumulation=2", "optimizer.ema_decay=0.9"]


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return sine_pieces(tmp_path_factory.mktemp("pieces"))


def start(pieces, run, *changes):
    root = PROGRAM.parents[1]
    command = [sys.executable, str(PROGRAM), str(pieces), str(run), str(NUM_STEPS), *CHANGES, *changes]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


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


def assert_same(run, uninterrupted):
    assert curve(run) == curve(uninterrupted)
    expected = arrays(uninterrupted)
    for name, array in arrays(run).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(pieces, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    code, output = finish(start(pieces, run))
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


def test_killed_at_any_step(pieces, uninterrupted, tmp_path):
    run = tmp_path / "run"
    for step in (7, 23):  # between two checkpoints, the second time in what has been taken up
        process = start(pieces, run)
        wait_for_step(run, step, process)
        process.send_signal(signal.SIGKILL)
        finish(process)
    code, output = finish(start(pieces, run))
    assert code == 0, output
    assert "Going on after step" in output
    assert_same(run, uninterrupted)


def test_killed_while_checkpoints_are_written(pieces, uninterrupted, tmp_path):
    run = tmp_path / "run"
    for delay_seconds in (0.0, 0.03):  # saving at every step, some checkpoint is being written at any moment
        process = start(pieces, run, "checkpoint.every_steps=1")
        wait_for_step(run, 12 if delay_seconds else 3, process)
        time.sleep(delay_seconds)
        process.send_signal(signal.SIGKILL)
        finish(process)
    code, output = finish(start(pieces, run, "checkpoint.every_steps=1"))
    assert code == 0, output
    assert_same(run, uninterrupted)


def test_a_signal_saves_and_says_so_by_its_exit_code(pieces, uninterrupted, tmp_path):
    run = tmp_path / "run"
    process = start(pieces, run)
    wait_for_step(run, 12, process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    assert "SIGTERM received" in output
    assert "The same command goes on" in output
    code, output = finish(start(pieces, run))
    assert code == 0, output
    assert_same(run, uninterrupted)
