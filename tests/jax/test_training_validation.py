"""Validation of a training run: which examples and pieces, their figures, the table and the picture."""

import dataclasses
import math

import numpy as np
import pytest
from prepared_chunks import Recording, prepare, random_notes, small_band
from tiny_networks import random_arrays

pytest.importorskip("jax")
pytest.importorskip("array_record")

from mt3core.config.model import ModelConfig, NetworkConfig, SpectrogramConfig, VocabularyConfig
from mt3core.config.training import BatchConfig, DataConfig, LossConfig, TrainingConfig, ValidationConfig
from mt3core.decoding import Generated
from mt3core.errors import DatasetError
from mt3core.notes.table import Note, note_table
from mt3data.examples.chunk_table import ChunkTable, ShardReader
from mt3data.examples.pieces import as_written, choose_pieces, read_piece, spread
from mt3data.prepare.manifest import read_manifest
from mt3jax.training.run.hosts import gather_bytes
from mt3jax.training.step.sharding import make_mesh
from mt3jax.training.step.state import init_state
from mt3jax.training.validation import piece_transcription, validation
from mt3jax.training.validation.piece_scores import piece_figures, score_piece, worst_table
from mt3jax.training.validation.piece_transcription import pack, unpack
from mt3jax.training.validation.validation import Validator, summary

MODEL = ModelConfig(
    name="tiny",
    network=NetworkConfig(
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        head_dim=4,
        emb_dim=8,
        mlp_dim=8,
        input_frames=64,
        input_bands=16,
        max_target_tokens=256,
        max_positions=256,
    ),
    spectrogram=SpectrogramConfig(mel_bands=16),
)
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    """Three tracks with stems and a piece without, of two data sets, all in the split train."""
    return small_band(tmp_path_factory.mktemp("band"), num_tracks=3, seconds=(6.0, 10.0))


def config_of(manifest, model=MODEL, packed=True, examples=8, **validation):
    values = {"every_steps": 1, "split": "train", "loss_examples": 20, "num_pieces": 3, "piece_seconds": 2.0}
    return TrainingConfig(
        "tiny",
        model,
        data=DataConfig(manifest=str(manifest)),
        batch=BatchConfig(examples=examples, packed=packed),
        loss=LossConfig(chunk_tokens=64),
        validation=ValidationConfig(**{**values, "max_tokens": MAX_TOKENS, "decoding_batch_size": 16, **validation}),
    )


def validator_of(config, **hosts):
    return Validator(config, make_mesh(config.compute), print, **hosts)


@pytest.fixture(scope="module")
def params(band):
    config = config_of(band)
    return init_state(config, make_mesh(config.compute), random_arrays(config.model)).params


@pytest.fixture(scope="module")
def result(band, params, tmp_path_factory):
    return validator_of(config_of(band)).run(params, 1200, tmp_path_factory.mktemp("run"))


@pytest.mark.integration
def test_figures_table_and_picture(result):
    metrics = result.metrics
    assert metrics["validation/loss"] == pytest.approx(
        metrics["validation/cross_entropy"] + metrics["validation/z_loss"], rel=1e-5
    )
    assert metrics["validation/cross_entropy"] > 3  # random weights, though they need not be as good as chance
    accuracy = {name: value for name, value in metrics.items() if "accuracy" in name}
    assert {"validation/accuracy", "validation/accuracy_shift", "validation/accuracy_end"} <= set(accuracy)
    assert all(0 <= value <= 1 for value in accuracy.values())
    assert metrics["validation/note_f1"] < 0.2
    assert {"validation/note_f1_slakh", "validation/note_f1_maestro", "validation/drum_f1"} <= set(metrics)
    assert metrics["validation/unfinished_segments"] > 0.5  # nothing but the limit of tokens ends them
    assert result.summary == summary(metrics)
    assert len(result.table.splitlines()) == 4
    assert {line.split()[-1].split("/")[0] for line in result.table.splitlines()[1:]} == {"slakh", "maestro"}
    assert result.picture.name == "validation_00001200.png"
    assert result.picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.integration
def test_loss_is_that_of_the_same_examples_unpacked(band, params, result, tmp_path):
    config = config_of(band, packed=False, examples=5, num_pieces=0)
    metrics = validator_of(config).run(params, 1, tmp_path).metrics
    assert set(metrics) == {name for name in result.metrics if "loss" in name or "acc" in name or "entropy" in name}
    for name, value in metrics.items():
        assert result.metrics[name] == pytest.approx(value, rel=2e-5), name


@pytest.mark.integration
def test_two_hosts_share_the_pieces_and_agree(band, params, result, tmp_path):
    sent = []

    def first(data):
        sent.append(data)
        return [data, sent[0]]

    config = config_of(band, loss_examples=0)
    two = [validator_of(config, host=host, num_hosts=2, gather=first) for host in (1, 0)]
    found = [validator.run(params, 1200, tmp_path) for validator in two]
    assert [len(unpack(data)) for data in sent] == [1, 2]
    assert found[1].metrics == {name: v for name, v in result.metrics.items() if name in found[1].metrics}
    assert found[1].table == result.table
    assert found[0].picture is None
    assert found[1].picture.read_bytes() == result.picture.read_bytes()


@pytest.mark.unit
def test_two_hosts_share_the_examples(band):
    whole = list(validator_of(config_of(band))._batches())
    halves = [list(validator_of(config_of(band), host=host, num_hosts=2)._batches()) for host in (0, 1)]
    assert len(whole) == 3
    for batch, *parts in zip(whole, *halves, strict=True):
        for name, values in batch.items():
            np.testing.assert_array_equal(values, np.concatenate([part[name] for part in parts]))
    numbers = np.concatenate([batch["index"] for batch in whole])
    stream = validator_of(config_of(band))._stream
    assert numbers[numbers >= 0].tolist() == spread(stream.num_examples, 20).tolist()
    assert np.count_nonzero(numbers < 0) == 4


@pytest.mark.integration
@pytest.mark.parametrize(
    "vocabulary",
    [
        VocabularyConfig(),
        VocabularyConfig(program_granularity="flat", velocity_bins=127, ties=False),
        VocabularyConfig(program_granularity="midi_class"),
        VocabularyConfig(onsets_only=True, ties=False),
    ],
    ids=["full", "flat", "midi_class", "onsets_only"],
)
def test_a_network_that_writes_the_targets_finds_all_notes(band, params, monkeypatch, vocabulary):
    config = config_of(band, dataclasses.replace(MODEL, vocabulary=vocabulary), loss_examples=0, piece_seconds=99.0)
    validator = validator_of(config)
    stream = validator._stream
    targets = {}
    for number in range(stream.num_examples):
        example = stream.example(number)
        name = "/".join(str(validator._manifest[column][example.rows[0]]) for column in ("dataset", "track"))
        targets.setdefault(name, []).append(example.tokens)
    wanted = [tokens for piece in validator._pieces for tokens in targets[piece.name]]

    def write_targets(model, log_mels, decoding, batch_size):
        assert decoding.method == "greedy"
        for index in reversed(range(len(wanted))):
            yield index, Generated(wanted[index], 0.0)

    monkeypatch.setattr(piece_transcription, "generate_stream", write_targets)
    metrics = piece_figures([one.score for one in validator._transcribe(params)], "")
    assert metrics["note_f1"] > 0.995
    assert metrics["note_recall"] > 0.99
    assert metrics["mean_note_f1"] > 0.99
    assert ("drum_f1" in metrics) == (not vocabulary.onsets_only)
    assert metrics["unfinished_segments"] == 0
    if vocabulary == VocabularyConfig():  # others cannot say which note ends
        assert metrics["invalid_events"] < 0.2


@pytest.mark.unit
def test_without_recordings_a_sentence_says_so(band):
    with pytest.raises(DatasetError, match=r"no recordings in 'validation'.*its splits are train.*every_steps=0"):
        validator_of(config_of(band, split="validation"))
    with pytest.raises(DatasetError, match="There is no manifest"):
        validator_of(config_of(band.parent / "missing.parquet"))


@pytest.mark.unit
def test_data_without_a_validation_split_are_trained_on_without_it(band):
    said = []
    usual = config_of(band, split="validation")
    assert validation.validator_of(usual, make_mesh(usual.compute), said.append) is None
    (line,) = said
    assert line.startswith(f"{band} has no recordings in 'validation', so the run is not validated. To hold some out, ")
    other = config_of(band, split="test")  # somebody has asked for it
    with pytest.raises(DatasetError, match="no recordings in 'test'"):
        validation.validator_of(other, make_mesh(other.compute), said.append)
    never = config_of(band, split="validation", every_steps=0)
    assert validation.validator_of(never, make_mesh(never.compute), said.append) is None
    there = config_of(band)
    assert isinstance(validation.validator_of(there, make_mesh(there.compute), said.append), Validator)
    assert len(said) == 1


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A long piece (two chunks) and short ones, with the manifest of them."""
    rng = np.random.default_rng(1)
    made = [
        Recording(f"{dataset}{number}", (rng.standard_normal(size) * 1000).astype(np.int16), notes, dataset=dataset)
        for dataset, number, size, notes in [
            ("a", 0, 200_000, random_notes(rng, 12.0, 80)),
            *[("a", number, 5_000, [[0.1, 0.2, 60, 80, 0, False]]) for number in range(1, 7)],
            *[("b", number, 5_000, []) for number in range(2)],
        ]
    ]
    manifest = read_manifest(prepare(tmp_path_factory.mktemp("pieces"), made))
    return made, manifest, ChunkTable.from_manifest(manifest)


@pytest.mark.unit
@pytest.mark.parametrize("seconds", [3.0, 8.5, 60.0])
def test_pieces_are_the_beginnings_of_recordings(recordings, seconds):
    made, manifest, table = recordings
    rows = choose_pieces(manifest, table, table.is_mix, 99)[0]
    piece = read_piece(manifest, table, rows, seconds, ShardReader(table.shard_paths))
    size = min(int(seconds * 16_000), 200_000)
    assert piece.name == "a/a0"
    np.testing.assert_array_equal(piece.samples, made[0].audio[:size] / np.float32(32768))
    assert piece.samples.dtype == np.float32
    end = size / 16_000
    expected = [[n[0], min(n[1], end), *n[2:]] for n in made[0].notes if n[0] < end]
    assert sorted(piece.notes.tolist()) == sorted(map(tuple, expected))
    assert len(expected) < 80 or seconds == 60.0


@pytest.mark.unit
def test_pieces_are_spread_over_data_sets(recordings):
    made, manifest, table = recordings

    def names(count):
        return [str(manifest["track"][rows[0]]) for rows in choose_pieces(manifest, table, table.is_mix, count)]

    assert names(4) == ["a1", "a5", "b0", "b1"]
    assert names(5) == ["a1", "a3", "a5", "b0", "b1"]
    assert names(1) == ["a3"]
    assert names(99) == [recording.track for recording in made]
    assert names(0) == []


@pytest.mark.unit
def test_spread():
    assert spread(10, 2).tolist() == [2, 7]
    assert spread(3, 9).tolist() == [0, 1, 2]
    assert spread(0, 9).tolist() == []
    assert spread(10**9, 5).tolist() == [10**8, 3 * 10**8, 5 * 10**8, 7 * 10**8, 9 * 10**8]


@pytest.mark.unit
def test_as_written_tells_instruments_as_the_vocabulary_does():
    notes = note_table([[0.0, 1.0, 60, 80, 43, False], [0.0, 1.0, 40, 80, 0, True]])

    def told(**vocabulary):
        return [row[-2:] for row in as_written(notes, VocabularyConfig(**vocabulary)).tolist()]

    assert told() == [(43, False), (0, True)]
    assert told(program_granularity="midi_class") == [(40, False), (0, True)]
    assert told(program_granularity="flat") == [(0, False), (0, True)]
    assert told(onsets_only=True) == [(0, False), (0, False)]
    assert notes["program"].tolist() == [43, 0]


def notes_at(*onsets, drum=False):
    return [Note(onset, onset + 0.1, 60, is_drum=drum) for onset in onsets]


@pytest.mark.unit
def test_scores_of_pieces():
    first = score_piece(
        "a", "one", notes_at(1, 2, 3, 4) + notes_at(1, drum=True), notes_at(1, 2.2) + notes_at(1, 2, drum=True), 4, 1, 6
    )
    second = score_piece("b", "two", notes_at(1, 2), notes_at(1, 2), 4, 0, 0)
    silent = score_piece("b", "silent", [], [], 2, 0, 0)
    assert (first.matched, first.reference, first.estimate) == ((1, 1), (4, 1), (2, 2))
    assert first.note_f1 == pytest.approx(2 * 2 / 9)
    assert math.isnan(silent.note_f1)
    pieces = [second, silent, first]
    assert piece_figures(pieces, "p/") == pytest.approx(
        {
            "p/note_f1": 2 * 4 / (7 + 6),
            "p/note_precision": 4 / 6,
            "p/note_recall": 4 / 7,
            "p/pitched_f1": 2 * 3 / (6 + 4),
            "p/drum_f1": 2 / 3,
            "p/mean_note_f1": (4 / 9 + 1) / 2,
            "p/note_f1_a": 4 / 9,
            "p/note_f1_b": 1.0,
            "p/unfinished_segments": 0.1,
            "p/invalid_events": 0.6,
        }
    )
    assert piece_figures([silent], "") == {"unfinished_segments": 0, "invalid_events": 0}
    lines = worst_table(pieces).splitlines()
    assert [line.split()[-1] for line in lines] == ["piece", "a/one", "b/two", "b/silent"]
    assert lines[1].split() == ["0.444", "0.333", "0.667", "2", "4", "5", "a/one"]
    assert lines[3].split()[:3] == ["-", "-", "-"]
    assert worst_table([]) == ""


@pytest.mark.unit
def test_transcribed_pieces_travel_between_hosts():
    score = score_piece("a", "ü", notes_at(1), notes_at(1), 1, 0, 0)
    one = piece_transcription.Transcribed(score, note_table(notes_at(1 / 3)), note_table([]))
    (again,) = unpack(gather_bytes(pack([one]))[0])
    assert again.score == score
    assert again.reference.tobytes() == one.reference.tobytes()
    assert again.estimate.tobytes() == one.estimate.tobytes()


@pytest.mark.unit
def test_summary():
    values = {"loss": 1.2345, "accuracy": 0.5612, "note_f1": 0.5, "pitched_f1": 0.4, "drum_f1": 0.6}
    metrics = {f"validation/{name}": value for name, value in values.items()}
    assert summary(metrics) == "loss 1.234, accuracy 56.1 %, note F1 0.500 (pitched 0.400, drums 0.600)"
    del metrics["validation/drum_f1"], metrics["validation/loss"]
    assert summary(metrics) == "note F1 0.500"
