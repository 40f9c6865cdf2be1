"""The parity report: it passes where both networks are the same, and points at the stage where they are not."""

import dataclasses
import json

import numpy as np
import pytest
from small_models import with_few_tokens

from mt3app.backend import PACKAGES, is_installed
from mt3convert.parity import ParityReport, compare_frameworks, run_parity, synthetic_samples
from mt3convert.parity import _token_differences as token_differences
from mt3convert.parity_stages import Framework, Meter

pytestmark = pytest.mark.integration
needs_both = pytest.mark.skipif(not all(map(is_installed, PACKAGES)), reason="needs torch and jax")

EVERY_STAGE = [
    "log-mel > -4, torch and numpy",
    "log-mel > -8, torch and numpy",
    "log-mel > -4, jax and numpy",
    "log-mel > -8, jax and numpy",
    "encoder input",
    "encoder layer 0",
    "encoder layer 1",
    "encoder",
    "decoder input",
    "decoder layer 0",
    "decoder layer 1",
    "logits",
]


@pytest.fixture(scope="module")
def calm_model(tiny_model):
    """The tiny model with weights of a tenth: its logits are of the usual size, and so are rounding errors."""
    config, arrays = with_few_tokens(tiny_model, max_target_tokens=12)
    return config, {name: array / 10 if array.ndim == 2 else array for name, array in arrays.items()}


@pytest.fixture(scope="module")
def frameworks(calm_model):
    return Framework("torch", *calm_model, "cpu"), Framework("jax", *calm_model, "cpu")


@pytest.fixture(scope="module")
def report(frameworks):
    # Three segments, the last one short.
    return compare_frameworks(*frameworks, synthetic_samples(5.0, 16_000))


@needs_both
def test_equal_networks_are_within_tolerance(report):
    assert report.within_tolerance
    assert [stage.stage for stage in report.stages] == EVERY_STAGE
    assert report.num_segments == 3
    assert 3 <= report.num_tokens <= 36
    assert report.token_differences == ()
    assert report.midi_identical
    logits = report.stages[-1]
    assert 0 < logits.mean < logits.largest < logits.allowed == 1e-4
    assert logits.num_values == report.num_tokens * 1536


@needs_both
def test_the_report_becomes_json(report):
    values = json.loads(json.dumps(report.to_dict()))
    assert values["within_tolerance"] is True
    assert values["stages"][-1]["stage"] == "logits"
    assert values["stages"][-1]["within_tolerance"] is True


@needs_both
@pytest.mark.parametrize(
    ("array", "stage"),
    [
        ("encoder.continuous_inputs_projection.weight", "encoder input"),
        ("encoder.layers.1.mlp.wo.weight", "encoder layer 1"),
        ("decoder.layers.1.encoder_decoder_attention.value.weight", "decoder layer 1"),
        ("decoder.logits_dense.weight", "logits"),
    ],
)
def test_a_changed_array_shows_first_where_it_is_used(frameworks, calm_model, array, stage):
    config, arrays = calm_model
    changed = Framework("torch", config, {**arrays, array: arrays[array] * 1.5}, "cpu")
    report = compare_frameworks(changed, frameworks[1], synthetic_samples(1.0, 16_000))
    assert not report.within_tolerance
    first = next(stage for stage in report.stages if not stage.within_tolerance)
    assert first.stage == stage
    assert first.first[0] == 0
    assert first.largest > first.allowed


@needs_both
@pytest.mark.slow
def test_published_weights_agree_on_a_recording(published_arrays, golden):
    samples = golden("end_to_end_example.npz")["audio"].astype(np.float32) / 32768
    report = run_parity(*published_arrays, samples)
    assert report.within_tolerance, report
    assert report.torch_notes == report.jax_notes == 8
    expected = golden("end_to_end_example.json")["segments"]
    assert report.num_tokens == sum(len(segment["token_ids"]) for segment in expected)


def test_a_meter_knows_the_largest_the_mean_and_the_first():
    meter = Meter("stage", tolerance=0.5)
    ours, theirs = np.zeros((2, 3, 2), np.float32), np.zeros((2, 3, 2), np.float32)
    theirs[1, 2, 0], theirs[0, 1, 1], theirs[0, 2, 0] = 4.0, 0.4, 100.0
    valid = np.ones((2, 3), bool)
    valid[0, 2] = False  # padding does not count
    meter.add(ours, theirs, valid, first_segment=8)
    result = meter.result()
    assert (result.largest, result.num_values, result.first) == (4.0, 10, (9, 2, 0))
    assert result.mean == pytest.approx(0.44)
    assert not result.within_tolerance


def test_a_relative_meter_allows_more_where_values_are_large():
    for largest, is_within in ((0.001, False), (1000.0, True)):
        meter = Meter("stage", tolerance=1e-4, is_relative=True)
        ours = np.array([[largest, 0.0]])
        meter.add(ours, ours + 0.01, np.ones((1, 2), bool), 0)
        assert meter.result().within_tolerance == is_within


def test_values_that_are_no_numbers_are_never_within_tolerance():
    meter = Meter("stage", tolerance=1.0)
    meter.add(np.array([[0.0, np.nan]]), np.zeros((1, 2)), np.ones((1, 2), bool), 0)
    assert not meter.result().within_tolerance
    assert meter.result().first == (0, 1)


def test_token_differences_are_ties_only_where_the_logits_are():
    logits = np.zeros((3, 4, 5), np.float32)
    logits[0, 1, 2], logits[0, 1, 3] = 1.0, 1.00005
    logits[1, 2, 4] = 0.3
    ours = [np.array([1, 2, 1]), np.array([1, 2, 4, 1]), np.array([1, 1])]
    theirs = [np.array([1, 3, 1]), np.array([1, 2]), np.array([1, 1])]
    first, second = token_differences(ours, theirs, logits, 10, 1e-4)
    assert (first.segment, first.position, first.torch_token, first.jax_token) == (10, 1, 2, 3)
    assert first.is_tie
    assert (second.segment, second.position, second.torch_token, second.jax_token) == (11, 2, 4, None)
    assert not second.is_tie
    assert second.margin == pytest.approx(0.3)


def test_only_ties_excuse_different_notes():
    (tie,) = token_differences([np.array([1])], [np.array([2])], np.zeros((1, 1, 3)), 0, 1e-4)
    equal = ParityReport("m", 1e-4, 1, 1, (), (), 3, 3, None, True)
    assert equal.within_tolerance
    # Other MIDI from the same tokens is a fault of ours, not a tie.
    assert not dataclasses.replace(equal, midi_identical=False).within_tolerance
    assert not dataclasses.replace(equal, first_note_difference=2).within_tolerance
    different = dataclasses.replace(equal, token_differences=(tie,), midi_identical=False, first_note_difference=0)
    assert different.within_tolerance
    clear = dataclasses.replace(tie, margin=0.5, is_tie=False)
    assert not dataclasses.replace(different, token_differences=(tie, clear)).within_tolerance


def test_the_synthetic_signal_is_audible_finite_and_always_the_same():
    samples = synthetic_samples(4.0, 16_000)
    assert samples.dtype == np.float32
    assert len(samples) == 64_000
    assert 0.1 < np.abs(samples).max() < 1.5
    np.testing.assert_array_equal(samples, synthetic_samples(4.0, 16_000))
