"""The loop as a whole: what is learned can be heard in both frameworks, and what goes wrong is said."""

import json
import shutil

import jax
import numpy as np
import pytest
from sine_runs import piece, piece_audio, sine_pieces, small_run

from mt3core.decoding import Decoding
from mt3core.errors import DatasetError, TrainingError, UsageError
from mt3core.notes.table import note_table, to_notes
from mt3data.prepare.chunks import SAMPLE_RATE_HZ
from mt3eval.matching.onset_score import onset_score
from mt3jax.train import train
from mt3jax.training.step.step_input import StepInput
from mt3jax.training.step.train_step import judge, make_train_step

pytestmark = pytest.mark.integration
NUM_PIECES = 6


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return sine_pieces(tmp_path_factory.mktemp("pieces"), NUM_PIECES)


# One program for all tests, so that it is compiled once.
COMMON = ("model.network.dropout_rate=0", "batch.examples=6")


def run_small(pieces, num_steps, folder, *changes, **options):
    return train(small_run(pieces, num_steps, *COMMON, *changes), folder / "run", **{"say": ignore, **options})


def ignore(line):
    pass


@pytest.fixture
def no_numbers(pieces, make_weights):
    """Weights with which no loss is finite."""
    weights = make_weights(small_run(pieces, 1).model)
    return {name: np.full_like(array, np.inf) for name, array in weights.items()}


def history(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_what_is_learned_by_heart_is_transcribed_in_both_frameworks(pieces, tmp_path):
    pytest.importorskip("torch")
    import mt3jax
    import mt3torch
    from mt3convert.sources import convert, load

    result = run_small(pieces, 120, tmp_path, "checkpoint.every_steps=120")
    assert (result.step, result.exit_code) == (120, 0)
    losses = [line["train/loss"] for line in history(tmp_path / "run")]
    assert losses[-1] < 0.1 * losses[0]

    convert(tmp_path / "run", tmp_path / "model")
    loaded = load(tmp_path / "model")
    transcribers = [
        network.Transcriber(network.build_model(loaded.config, loaded.arrays, "cpu"), Decoding(max_tokens=64))
        for network in (mt3jax, mt3torch)
    ]
    scores = []
    for seed in range(NUM_PIECES):
        notes = piece(seed)
        samples = piece_audio(notes) / np.float32(32768)
        heard = [t.transcribe((samples, SAMPLE_RATE_HZ)).notes for t in transcribers]
        assert heard[0] == heard[1]
        scores.append(onset_score(to_notes(note_table(notes)), heard[1], drums=False).f1)
    assert np.mean(scores) > 0.95


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(pieces, tmp_path, no_numbers):
    with pytest.raises(TrainingError, match=r"not applied: .* was not finite .*folder/train/piece"):
        run_small(pieces, 50, tmp_path, arrays=no_numbers)
    bad = [json.loads(line) for line in (tmp_path / "run" / "bad_batches.jsonl").read_text().splitlines()]
    assert [len(entry["chunks"]) for entry in bad] == [6]


def test_bad_batches_are_left_out_where_the_rule_says_so_but_not_for_ever(pieces, tmp_path, no_numbers):
    said = []
    changes = ("safety.not_finite=skip", "safety.most_skipped=3")
    with pytest.raises(TrainingError, match=r"skipped in a row: 4\. .*lower learning rate"):
        run_small(pieces, 50, tmp_path, *changes, arrays=no_numbers, say=said.append)
    assert sum("was not applied" in line for line in said) == 3


def test_more_steps_go_on_and_a_shard_that_vanishes_is_named(tmp_path):
    manifest, said = sine_pieces(tmp_path / "pieces"), []
    run_small(manifest, 5, tmp_path, "validation.split=nowhere")  # which is not looked for without every_steps
    assert run_small(manifest, 5, tmp_path, say=said.append).step == 5
    assert "already has 5 steps" in said[-1]
    assert run_small(manifest, 7, tmp_path).step == 7
    assert [line["step"] for line in history(tmp_path / "run")] == [1, 2, 3, 4, 5, 6, 7]
    shutil.rmtree(manifest.parent / "shards")
    with pytest.raises(DatasetError, match=r"00000\.array_record"):
        run_small(manifest, 10, tmp_path)


def test_what_was_learned_is_saved_when_the_data_end_in_an_error(pieces, tmp_path, monkeypatch):
    calls, make = iter(range(9)), StepInput.__next__

    def fail(batches):
        if next(calls) == 3:
            raise DatasetError("The disk is gone.")
        return make(batches)

    monkeypatch.setattr(StepInput, "__next__", fail)
    with pytest.raises(DatasetError, match="disk is gone"):
        run_small(pieces, 9, tmp_path)
    monkeypatch.undo()
    said = []
    run_small(pieces, 4, tmp_path, say=said.append)
    assert any("Resuming from step 3 " in line for line in said)


def test_memory_that_does_not_suffice_is_a_sentence_with_everything_saved(pieces, tmp_path, monkeypatch):
    def make_step(config, mesh):
        step, calls = make_train_step(config, mesh), iter(range(9))

        def run(state, batch):
            if next(calls) == 3:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 94 bytes.\nPages of it.")
            return step(state, batch)

        return run

    monkeypatch.setattr("mt3jax.train.make_train_step", make_step)
    with pytest.raises(TrainingError, match=r"ran out of memory \(RESOURCE_EXHAUSTED: Out of memory .* 94 bytes\)"):
        run_small(pieces, 9, tmp_path)
    monkeypatch.undo()
    said = []
    run_small(pieces, 4, tmp_path, say=said.append)
    assert any("Resuming from step 3 " in line for line in said)


def test_batches_that_are_too_full_are_no_reason_to_compile_again(pieces, tmp_path, monkeypatch):
    """Two rows of 64 tokens hold about four of a batch's six targets; the others are left out, and counted as cut."""
    judged = []
    monkeypatch.setattr("mt3jax.training.step.train_step.judge", lambda *given: judged.append(given) or judge(*given))
    result = run_small(pieces, 3, tmp_path, "batch.rows=2")
    assert result.step == 3
    assert len(judged) == 1, "traced once"
    figures = history(tmp_path / "run")
    assert all(1 / 6 <= line["data/cut"] <= 4 / 6 for line in figures)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("batch.examples=0", "batch.examples is 0"),
        ("batch.block_tokens=24", "does not divide"),
        ("data.manifest=nowhere", "nowhere"),
        ("compute.data=64", "64"),
        ("optimizer.learning_rate=nan", "Use a number"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_compiled(pieces, tmp_path, change, sentence):
    with pytest.raises((UsageError, DatasetError), match=sentence):
        run_small(pieces, 5, tmp_path, change)
