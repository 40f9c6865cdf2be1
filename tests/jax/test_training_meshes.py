"""Whole runs of some steps: over meshes and processes, in parts, with remat, with updates that must not be applied.

They run in programs of their own (`training_runs.py`), since a process has one set of devices.
"""

import re

import numpy as np
import pytest
import training_runs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOLERANCE = 1e-5  # of an array's largest number, after 20 steps


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`{program: (results, remarks)}`."""
    folder = tmp_path_factory.mktemp("runs")
    files = {name: folder / f"{name}.npz" for name in ("alone", "meshes", "two", "four")}
    # Two at a time, as many as there are processors on a small machine.
    training_runs.finish(
        [
            training_runs.start("alone", files["alone"], num_devices=1),
            training_runs.start("meshes", files["meshes"], num_devices=training_runs.NUM_DEVICES),
        ]
    )
    training_runs.finish(training_runs.start_hosts(files["two"], 2))
    training_runs.finish(training_runs.start_hosts(files["four"], 4))
    return {name: training_runs.load(path) for name, path in files.items()}


def differences(found, expected):
    """The largest of losses, norms, parameters and average, each relative to its array's largest number."""
    assert found.keys() == expected.keys()
    assert len(found) > 40
    return {
        name: float(np.abs(found[name].astype(np.float64) - expected[name]).max() / np.abs(expected[name]).max())
        for name in expected
    }


def part(results, name):
    return {key.removeprefix(f"{name}/"): array for key, array in results.items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize(
    ("program", "name", "alone"),
    [
        ("meshes", "4x1", "plain"),
        ("meshes", "2x2", "dropout"),
        ("meshes", "1x4", "plain"),
        ("meshes", "muon 2x2", "muon"),
        ("two", "hosts", "dropout"),
        ("four", "hosts", "plain"),
        ("alone", "remat", "plain"),
    ],
)
def test_the_same_as_on_one_device(runs, program, name, alone):
    expected = part(runs["alone"][0], alone)
    assert max(differences(part(runs[program][0], name), expected).values()) < TOLERANCE


def test_parts_add_up(runs):
    """Four parts, their gradients added and not divided by the tokens, as the original does."""
    found, expected = part(runs["alone"][0], "accumulation"), part(runs["alone"][0], "plain")
    num_tokens = runs["alone"][1]["tokens"][0]
    np.testing.assert_allclose(found.pop("norms"), expected.pop("norms") * num_tokens, rtol=TOLERANCE)
    assert max(differences(found, expected).values()) < TOLERANCE


def test_runs_differ_where_they_should(runs):
    results = runs["alone"][0]
    assert differences(part(results, "dropout"), part(results, "plain"))["losses"] > 100 * TOLERANCE
    first, last = part(results, "plain")["losses"][[0, -1]]
    assert last != first
    assert all(np.isfinite(array).all() for array in results.values())


def test_processes_were_as_many_as_asked(runs):
    assert [runs[name][1]["processes"] for name in ("two", "four")] == [2, 4]
    assert [runs[name][1]["devices"] for name in ("two", "four")] == [4, 4]


def test_parameters_are_split_and_examples_stay_where_they_are(runs):
    remarks = {name: runs["meshes"][1][name] for name in ("4x1", "2x2", "1x4")}
    assert [remarks[name]["kernel_shard"] for name in ("4x1", "2x2", "1x4")] == [[8, 12], [4, 12], [2, 12]]
    # With copied parameters nothing travels but sums of gradients and losses.
    assert {found.split()[0] for found in remarks["4x1"]["collectives"]} == {"all-reduce"}
    for found in remarks.values():
        for line in found["collectives"]:
            # Examples, frames and tokens have three axes and more; parameters two.
            assert all(shape.count(",") < 2 for shape in re.findall(r"\[([\d,]*)\]", line)), line


def test_each_device_transforms_its_own_audio(runs):
    """XLA gives the Fourier transforms of all examples to every device, unless each is told its own."""
    found = runs["meshes"][1]["audio"]
    for name in ("train", "eval"):
        assert found[name]["collectives"] == ["all-reduce"]
        assert found[name]["transforms"] == [found["device_examples"]]


def test_bad_updates_are_not_applied(runs):
    remarks = runs["alone"][1]["bad"]
    assert [remark["name"] for remark in remarks] == ["nan", "nan", "spike", "empty", "good"]
    assert [remark["rejection"] for remark in remarks] == [1, 1, 2, 0, 0]
    assert [remark["same"] == 1.0 for remark in remarks] == [True, True, True, True, False]
    assert [remark["num_skipped"] for remark in remarks] == [1, 2, 3, 3, 3]
    assert [remark["skipped_in_row"] for remark in remarks] == [1, 2, 3, 0, 0]
    assert all(remark["steps"] == 1 and remark["finite"] for remark in remarks)


def test_the_states_memory_is_given_up(runs):
    assert all(remark["given_up"] for remark in runs["alone"][1]["bad"])


def test_validation_computes_the_steps_loss(runs):
    evaluated, seen = runs["alone"][1]["evaluated"]
    assert evaluated == pytest.approx(seen, rel=1e-6)
    evaluated_tokens, seen_tokens, typed_tokens = runs["alone"][1]["tokens"]
    assert evaluated_tokens == seen_tokens > typed_tokens > 0
