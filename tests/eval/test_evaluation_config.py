"""Configs of evaluations, the recordings they choose, and note accuracy."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maestro_layout import write_maestro
from small_datasets import scale, write_pair, write_slakh_track

from mt3app.cli import run
from mt3core.config.evaluation import EvaluationConfig, EvaluationData
from mt3core.config.files import list_configs, load_config, load_evaluation_config
from mt3core.errors import DatasetError, UsageError
from mt3core.notes.table import note_table
from mt3eval.matching.note_accuracy import count_notes, mean_accuracy, pooled
from mt3eval.reading.dataset_pieces import find_sets, first_notes

pytestmark = pytest.mark.unit


# ---- Configs


def test_the_shipped_config_takes_both_data_sets_by_every_protocol():
    config = load_evaluation_config("sample", ["data.limit=3", "data.variants=maestro,slakh_mix", "backend=both"])
    assert config.data.variants == ("maestro", "slakh_mix")
    assert (config.data.limit, config.backend, config.protocols) == (3, "both", ("all",))
    assert load_evaluation_config("sample", ["data.limit=none"]) == load_evaluation_config("sample")


def test_a_config_of_the_other_kind_is_answered_with_the_command_that_takes_it(capsys):
    with pytest.raises(UsageError, match=r"mt3\.py is a config for training, .* Use mt3 train --config mt3\."):
        load_evaluation_config("mt3")
    assert run(["train", "--config", "sample"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith("is a config for evaluation, not for training. Use mt3 evaluate --config sample.")


def test_each_command_lists_its_own_configs():
    assert "sample" not in {path.stem for path, _ in list_configs()}
    assert {path.stem for path, _ in list_configs(EvaluationConfig)} == {"sample"}
    with pytest.raises(UsageError, match=r"Unknown config 'smaple'\. Choose sample\."):
        load_evaluation_config("smaple")
    with pytest.raises(UsageError, match=r"Unknown config 'sampel'\. Choose .*piano"):
        load_config("sampel")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.splt=train", r"An evaluation config has no field 'data\.splt'\. data has the fields split, "),
        ("data.limit=0", r"data\.limit is 0\. Use at least 1"),
        ("data.most_seconds=0", r"data\.most_seconds is 0\.0\."),
        ("data.variants=", r"data\.variants is empty\. Use one or more of maestro, slakh_stems, "),
        ("data.variants=maestro,maestro", "each once"),
        ("data.variants=musicnet", r"data\.variants cannot be set to 'musicnet'"),
        ("backend=tensorflow", r"backend cannot be set to 'tensorflow'\. Use torch or jax or both or none\."),
        ("decoding.num_beams=3", "uses one beam, not 3"),
        ("protocols=", r"protocols is empty\. Use one or more protocols"),
        ("output=", "output is empty"),
        ("name=../x", "is not a valid name for an evaluation"),
    ],
)
def test_values_that_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        load_evaluation_config("sample", [change])


def test_values_written_in_python_are_checked_too():
    for values in ({"variants": ("musicnet",)}, {"most_seconds": math.nan}, {"limit": "3"}):
        with pytest.raises(UsageError, match=f"data\\.{next(iter(values))} is "):
            EvaluationData(**values)
    with pytest.raises(UsageError, match=r"backend is 'both_of_them'\. Use torch or jax or both or none\."):
        EvaluationConfig("x", backend="both_of_them")


# ---- Recordings


@pytest.fixture(scope="module")
def maestro(tmp_path_factory):
    return write_maestro(tmp_path_factory.mktemp("sets") / "maestro", {"b": "test", "a": "test", "c": "train"})


@pytest.fixture(scope="module")
def slakh(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "slakh"
    for name in ("Track00002", "Track00001"):
        write_slakh_track(root / "test" / name, seconds=3.0)
    (root / "test/Track00002/stems/S01.flac").unlink()
    return root


def names(sets):
    return {one.variant: [piece.name for piece in one.pieces] for one in sets}


def test_pieces_of_each_variant_with_their_own_notes(maestro, slakh):
    sets = find_sets(EvaluationData(maestro=str(maestro), slakh=str(slakh)))
    assert names(sets) == {
        "maestro": ["a", "b"],
        "slakh_stems": [
            *("Track00001_S00", "Track00001_S01", "Track00001_S02"),
            *("Track00002_S00", "Track00002_S02"),
        ],
        "slakh_mix": ["Track00001"],  # the mix of the other has a stem that nobody knows the notes of
    }
    by_name = {piece.name: piece.reference() for one in sets for piece in one.pieces}
    assert set(by_name["Track00001_S00"]["program"]) == {4}
    assert set(by_name["Track00001_S01"]["program"]) == {33}
    assert by_name["Track00001_S02"]["is_drum"].all()
    stems = [by_name[f"Track00001_S0{number}"] for number in range(3)]
    assert len(by_name["Track00001"]) == sum(map(len, stems))
    assert list(sets[1].left_out) == ["Track00002_S01"]
    assert "its audio is missing" in sets[2].left_out["Track00002"]


def test_the_pedal_holds_the_notes_of_maestro(maestro):
    (one,) = find_sets(EvaluationData(("maestro",), maestro=str(maestro)))
    first = one.pieces[0].reference()[0]
    assert first["offset"] == pytest.approx(0.9)  # written as 0.4 s, with the pedal down until 0.9 s


def test_a_limit_counts_tracks_with_all_their_stems(maestro, slakh):
    sets = find_sets(EvaluationData(maestro=str(maestro), slakh=str(slakh), limit=1))
    stems = ["Track00001_S00", "Track00001_S01", "Track00001_S02"]
    assert names(sets) == {"maestro": ["a"], "slakh_stems": stems, "slakh_mix": ["Track00001"]}
    assert sets[1].left_out == {}


def test_own_folders_are_taken_too(tmp_path):
    write_pair(tmp_path / "test", "song", 1.5, 1)
    (one,) = find_sets(EvaluationData(("folder",), folder=str(tmp_path)))
    assert [piece.audio.name for piece in one.pieces] == ["song.wav"]
    with pytest.raises(DatasetError, match=r"has no default folder\. .*--set data\.folder=DIR"):
        find_sets(EvaluationData(("folder",)))


def test_data_sets_and_splits_that_are_not_there(tmp_path, monkeypatch, maestro):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=r"looked for datasets/slakh2100_flac_redux/, .*leave it out") as caught:
        find_sets(EvaluationData(maestro=str(maestro)))
    assert caught.value.next_step.endswith("--set data.variants=maestro.")
    with pytest.raises(DatasetError, match=r"There is no folder nowhere\. Check data\.maestro\."):
        find_sets(EvaluationData(("maestro",), maestro="nowhere"))
    with pytest.raises(UsageError, match=r"no tracks in the split 'tests'\. It has test \(2\), train \(1\)"):
        find_sets(EvaluationData(("maestro",), maestro=str(maestro), split="tests"))


def test_first_notes_end_with_what_was_taken():
    notes = first_notes(scale(3.0), 0.75)
    assert notes["onset"].tolist() == [0.0, 0.5]
    assert notes["offset"].tolist() == [0.4, 0.75]


# ---- Note accuracy


def test_accuracy_by_hand():
    reference = note_table([(0.0, 1.0, 60, 80, 0, False), (1.0, 2.0, 62, 80, 0, False), (1.0, 1.1, 38, 80, 0, True)])
    estimate = note_table(
        [
            *((0.04, 0.2, 60, 1, 9, False), (0.04, 0.2, 60, 1, 9, False)),  # the first is right, the second too much
            *((1.06, 2.0, 62, 80, 0, False), (1.0, 1.1, 38, 80, 0, False)),  # late; a drum hit as a pitched note
        ]
    )
    counts = count_notes(reference, estimate)
    assert (counts.correct, counts.missed, counts.extra) == (1, 2, 3)
    assert counts.accuracy == pytest.approx(1 / 6)
    same = count_notes(reference, reference)
    assert same.accuracy == 1.0
    assert pooled([counts, same]).accuracy == pytest.approx(4 / 9)
    nothing = count_notes(reference[:0], reference[:0])
    assert math.isnan(nothing.accuracy)
    assert mean_accuracy([counts, same, nothing]) == pytest.approx(7 / 12)
    assert math.isnan(mean_accuracy([nothing]))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(60, 62), st.booleans()), max_size=8), st.integers(0, 8))
def test_accuracy_follows_from_f1(rows, shared):
    table = note_table([(onset / 10, onset / 10 + 0.5, pitch, 80, 0, drum) for onset, pitch, drum in rows])
    counts = count_notes(table, table[:shared])
    assert counts.correct == min(shared, len(rows))
    if rows:
        f1 = 2 * counts.correct / (2 * counts.correct + counts.missed + counts.extra)
        assert counts.accuracy == pytest.approx(f1 / (2 - f1))
