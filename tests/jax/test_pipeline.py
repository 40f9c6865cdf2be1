"""The Grain pipeline: the same examples whatever fetches them, from any point on, and what is said of broken data."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from prepared_chunks import Recording, prepare, small_band

from mt3core.config.data import AugmentationConfig, DataConfig, DatasetChoice
from mt3core.config.model import MT3, VocabularyConfig
from mt3core.errors import DatasetError, ProcessError, UsageError
from mt3core.segments import segments
from mt3data.examples.examples import ExampleConfig
from mt3data.examples.shared_memory import check_shared_memory
from mt3data.prepare.manifest import read_manifest
from mt3jax import pipeline as pipelines
from mt3jax.pipeline import Pipeline

pytestmark = pytest.mark.integration

AUGMENTATION = AugmentationConfig(gain_probability=0.5, polarity_probability=0.5, noise_probability=0.5)


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    """The manifest of a small SLAKH and a small MAESTRO."""
    return small_band(tmp_path_factory.mktemp("band"))


def training_pipeline(manifest, host=0, num_hosts=1, kind=pipelines.training_pipeline, **settings) -> Pipeline:
    """Of settings of the data and of the pipeline; batches of 8 and a few effects unless told otherwise."""
    names = {field.name for field in dataclasses.fields(DataConfig)}
    data = {"augmentation": AUGMENTATION} | {name: value for name, value in settings.items() if name in names}
    others = {"batch_size": 8} | {name: value for name, value in settings.items() if name not in names}
    return kind(DataConfig(str(manifest), **data), host=host, num_hosts=num_hosts, **others)


def evaluation_pipeline(manifest, host=0, num_hosts=1, **settings):
    settings = {"split": "train", **settings}
    return training_pipeline(manifest, host, num_hosts, pipelines.evaluation_pipeline, **settings)


def assert_equal(batch, expected):
    assert batch.keys() == expected.keys()
    for name, array in expected.items():
        assert batch[name].dtype == array.dtype
        np.testing.assert_array_equal(batch[name], array, err_msg=name)


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_a_batch_has_what_training_needs(band):
    batch = training_pipeline(band).batch(3)
    assert batch["audio"].shape == (8, MT3.segment_samples)
    assert batch["audio"].dtype == np.int16
    assert batch["targets"].shape == (8, 1024)
    assert batch["targets"].dtype == np.int32
    assert batch["index"].tolist() == list(range(24, 32))
    for tokens, count in zip(batch["targets"], batch["num_tokens"], strict=True):
        assert tokens[count - 1] == 1  # the end token
        assert not tokens[count:].any()
        assert (tokens[: count - 1] >= 3).all()


def test_hosts_share_the_same_global_batches(band):
    whole = training_pipeline(band)
    shares = [training_pipeline(band, host, 4) for host in range(4)]
    for number in (0, 1, 700):
        assert_equal(joined([share.batch(number) for share in shares]), whole.batch(number))


def test_threads_and_read_ahead_change_nothing(band):
    pipeline = training_pipeline(band)
    expected = [pipeline.batch(number) for number in range(6)]
    for settings in ({"num_threads": 0}, {"num_threads": 3, "batches_ahead": 4}):
        with iter(training_pipeline(band, **settings)) as batches:
            for batch in expected:
                assert_equal(next(batches), batch)


@pytest.mark.slow
def test_workers_without_room_for_their_batches_are_refused(band, monkeypatch):
    """A container's 64 MB of shared memory: a signal would end them in the middle of a run."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=64_000_000))
    # Of 256 examples with 32,768 samples and 1,024 tokens each a batch has 18 MB.
    check_shared_memory(1, 2, 17_825_792)
    with pytest.raises(UsageError, match=r"12 workers that keep 4 batches ready need 1\.07 GB .* has 64 MB free"):
        check_shared_memory(12, 4, 17_825_792)
    check_shared_memory(12, 4, 17_825_792, Path("no such folder"))
    few, many = (training_pipeline(band, num_workers=n, batches_ahead=9) for n in (0, 2000))
    few.dataset()
    with pytest.raises(UsageError, match="2000 workers"):
        many.dataset()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing_and_outlast_signals_to_all_processes(band, num_workers):
    pipeline = training_pipeline(band)
    others = multiprocessing.active_children()
    with iter(training_pipeline(band, num_workers=num_workers)) as batches:
        for number in range(8):
            assert_equal(next(batches), pipeline.batch(number))
            if number == 1:
                workers = [process for process in multiprocessing.active_children() if process not in others]
                for worker in workers:
                    os.kill(worker.pid, signal.SIGINT)
                    os.kill(worker.pid, signal.SIGTERM)
    assert len(workers) == num_workers
    assert [worker.exitcode for worker in workers] == [0] * num_workers


@pytest.mark.parametrize(
    ("number", "what_to_do"),
    [
        (
            signal.SIGKILL,
            "was killed by SIGKILL, probably by the system because memory ran out. Run the same command again "
            "to resume, with fewer --set data.num_workers or data.batches_ahead",
        ),
        (signal.SIGBUS, "was killed by SIGBUS, because /dev/shm, through which batches are passed, is full."),
        (signal.SIGSEGV, "was killed by SIGSEGV. Run the same command again to resume; with --set data.num_workers=0"),
    ],
)
def test_a_killed_worker_is_named_with_its_signal(band, number, what_to_do):
    others = multiprocessing.active_children()
    with iter(training_pipeline(band, num_workers=2, batches_ahead=1)) as batches:
        next(batches)
        worker = next(process for process in multiprocessing.active_children() if process not in others)
        os.kill(worker.pid, number)
        with pytest.raises(ProcessError) as caught:
            list(itertools.islice(batches, 20))
    assert str(caught.value).startswith("A reading process (data.num_workers is 2) ")
    assert what_to_do in str(caught.value)


def test_workers_that_end_otherwise_are_named_by_their_exit_code(band):
    data = DataConfig(str(band), num_workers=3)
    assert "(data.num_workers is 3) ended with exit code 1. Its own" in str(pipelines._worker_ended(1, data))
    assert "was killed by signal 99." in str(pipelines._worker_ended(-99, data))


def test_a_program_without_a_guard_is_told_so_and_ends(band, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from mt3core.config.data import DataConfig\n"
        "from mt3jax.pipeline import training_pipeline\n"
        # More than a pipe holds, as the table of a real data set is.
        f"pipeline = training_pipeline(DataConfig({str(band)!r}, num_workers=1), 4)\n"
        "pipeline.stream.ballast = bytes(1 << 20)\n"
        "with iter(pipeline) as batches:\n"
        "    next(batches)\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=90)
    assert ended.returncode == 1
    assert 'if __name__ == "__main__":' in ended.stderr


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_an_interrupted_run_goes_on_with_the_next_hundred_examples(band, taken):
    """Taken up by one host in batches of 5 instead of two hosts in batches of 8."""
    interrupted = [training_pipeline(band, host, 2) for host in range(2)]
    states = []
    for pipeline in interrupted:
        with iter(pipeline) as batches:
            for _ in range(taken):
                next(batches)
            states.append(json.dumps(batches.get_state()))
    assert states[0] == states[1]
    uninterrupted = joined([training_pipeline(band).batch(number) for number in range(taken + 13)])
    with iter(training_pipeline(band, batch_size=5)) as batches:
        next(batches)
        batches.set_state(json.loads(states[0]))
        following = joined([next(batches) for _ in range(20)])
    assert_equal(following, {name: array[8 * taken :][:100] for name, array in uninterrupted.items()})


def test_another_seed_and_the_next_epoch_bring_other_examples(band):
    first = joined([training_pipeline(band).batch(number) for number in range(4)])
    other = joined([training_pipeline(band, seed=1).batch(number) for number in range(4)])
    later = joined([training_pipeline(band).batch(number) for number in range(512, 516)])
    for batch in (other, later):
        assert (batch["row"] != first["row"]).any()
        assert (batch["first_frame"] != first["first_frame"]).any()


def test_a_state_of_other_settings_or_other_data_is_refused(band, tmp_path):
    with iter(training_pipeline(band)) as batches:
        state = batches.get_state()
    for name, pipeline in {
        "configuration": training_pipeline(band, seed=1),
        "manifest": training_pipeline(small_band(tmp_path, seed=5)),
    }.items():
        with iter(pipeline) as batches, pytest.raises(DatasetError, match=f"saved with a different {name}"):
            batches.set_state(state)
    batches = iter(training_pipeline(band))
    with batches, pytest.raises(DatasetError, match="not the state of a data pipeline"):
        batches.set_state({"next_index": 3})


def test_states_that_were_saved_before_stay_good(band):
    """The fingerprint of a configuration as it was before the pipeline took `DataConfig`: runs keep it."""
    pipeline = training_pipeline(
        band,
        datasets=(DatasetChoice("slakh", weight=2.0), DatasetChoice("maestro")),
        augmentation=AugmentationConfig(gain_probability=0.5, noise_probability=0.5, reverb_probability=0.3),
        part_gain_db=3.0,
        temperature=2.0,
        seed=7,
    )
    assert pipeline.fingerprint["config"] == "5a4c048685a2bc93"


def test_evaluation_brings_every_segment_once_in_order(band):
    manifest = read_manifest(band)
    settings = {"datasets": (DatasetChoice("slakh"),)}
    with iter(evaluation_pipeline(band, **settings)) as batches:
        batch = joined(list(batches))
    is_mix = (manifest["dataset"] == "slakh") & (manifest["stem"] == "mix")
    expected = []
    for track in sorted(set(manifest["track"][is_mix])):
        rows = np.flatnonzero(is_mix & (manifest["track"] == track))
        num_samples = round(manifest["duration_seconds"][rows].sum() * 16000)
        expected += [(track, segment.first_frame, segment.num_frames) for segment in segments(num_samples, MT3)]
    count = len(expected)
    found = zip(manifest["track"][batch["row"][:count]], batch["first_frame"], batch["num_frames"], strict=False)
    assert list(found) == expected
    assert batch["index"].tolist() == list(range(count)) + [-1] * (len(batch["index"]) - count)
    assert not batch["targets"][count:].any()
    shares = [evaluation_pipeline(band, host, 2, **settings) for host in range(2)]
    assert_equal(joined([share.batch(number) for number in range(len(shares[0])) for share in shares]), batch)


def test_targets_that_are_too_long_are_counted(band):
    short = dataclasses.replace(MT3, network=dataclasses.replace(MT3.network, max_target_tokens=60))
    redraw = training_pipeline(band, batch_size=64, example=ExampleConfig(model=short)).batch(0)
    cut = training_pipeline(band, batch_size=64, example=ExampleConfig(model=short, too_long="cut")).batch(0)
    assert redraw["num_rejected"].sum() > 0
    assert (redraw["num_tokens"] <= 60).sum() > (cut["num_tokens"] <= 60).sum() > 0
    assert not cut["num_rejected"].any()
    is_cut = cut["num_tokens"] > 60
    assert (cut["targets"][~is_cut] == 1).sum() == (~is_cut).sum()
    assert not (cut["targets"][is_cut] == 1).any()
    kept = (redraw["num_rejected"] == 0) & ~is_cut
    np.testing.assert_array_equal(redraw["targets"][kept], cut["targets"][kept])


@pytest.mark.parametrize("variant", ["mix", "stem", "subset", "across"])
def test_variants_take_the_chunks_they_say(band, variant):
    manifest = read_manifest(band)
    shares = {"mix": 0.0, "stem": 0.0, "subset": 0.0, "across": 0.0, variant: 1.0}
    stream = training_pipeline(band, datasets=(DatasetChoice("slakh", **shares),), max_examples_per_mix=3).stream
    sizes = set()
    for index in range(60):
        example = stream.example(index)
        rows = list(example.rows)
        sizes.add(len(rows))
        assert (manifest["dataset"][rows] == "slakh").all()
        assert ((manifest["stem"][rows] == "mix") == (variant == "mix")).all()
        if variant == "subset":
            assert len({(manifest["track"][row], manifest["start_seconds"][row]) for row in rows}) == 1
            assert len(set(rows)) == len(rows)
            assert len(set(example.first_frames)) == 1
    assert sizes == {"mix": {1}, "stem": {1}, "subset": {1, 2, 3, 4}, "across": {1, 2, 3}}[variant]


def test_an_epoch_has_every_chunk_once(band):
    manifest = read_manifest(band)
    choice = DatasetChoice("slakh", mix=0.0, subset=0.0, across=0.0, instrument_classes=("Bass", "Drums"))
    expected = np.flatnonzero(
        np.isin(manifest["instrument_class"].astype(str), ["Bass", "Drums"]) & (manifest["num_notes"] > 0)
    )
    stream = training_pipeline(band, datasets=(choice,)).stream
    epochs = [[stream.example(index + start).rows[0] for index in range(len(expected))] for start in (0, len(expected))]
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected.tolist()
    assert epochs[0] != epochs[1]


def test_data_sets_are_weighted_by_temperature_or_as_told(band):
    manifest = read_manifest(band)
    sizes = [int(((manifest["dataset"] == name) & (manifest["stem"] == "mix")).sum()) for name in ("maestro", "slakh")]
    for temperature in (1.0, 10 / 3):
        batch = training_pipeline(band, temperature=temperature, batch_size=512)
        share = batch.stream.sampler.shares[0][1]
        weights = np.array(sizes) ** (1 / temperature)
        assert share == pytest.approx(weights[0] / weights.sum(), abs=1e-3)
    told = (DatasetChoice("maestro", weight=3.0), DatasetChoice("slakh", weight=1.0))
    rows = training_pipeline(band, datasets=told, batch_size=256).batch(0)["row"]
    assert (manifest["dataset"][rows] == "maestro").mean() == pytest.approx(0.75, abs=0.08)


def test_velocities_and_ties_by_configuration(band):
    vocabulary = VocabularyConfig(velocity_bins=127, ties=False)
    example = ExampleConfig(model=dataclasses.replace(MT3, vocabulary=vocabulary))
    targets = training_pipeline(band, example=example).batch(0)["targets"]
    first = 3 + 1129  # the first velocity's token
    assert len(np.unique(targets[(targets > first) & (targets <= first + 127)])) > 20
    assert not (targets == first + 128).any()  # the tie's


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"datasets": (DatasetChoice("musicnet"),)},
            r"has no data set 'musicnet'\. Choose from maestro, slakh; .*--set data\.datasets=maestro,slakh\.",
        ),
        ({"split": "test"}, "has no chunks for maestro, slakh in 'test'"),
    ],
)
def test_what_is_not_there_is_named(band, settings, sentence):
    with pytest.raises(DatasetError, match=sentence) as caught:
        training_pipeline(band, **settings)
    assert caught.value.next_step


def test_impossible_numbers_are_refused(band):
    with pytest.raises(UsageError, match="8 examples cannot be divided equally among 3 hosts"):
        training_pipeline(band, 0, 3)
    with pytest.raises(UsageError, match="global batch of 0 examples"):
        training_pipeline(band, batch_size=0)
    with pytest.raises(UsageError, match="The seed -1 is not valid"):
        training_pipeline(band, seed=-1)
    with pytest.raises(UsageError, match=r"data\.datasets\.mix is -1\.0\. Use at least 0\."):
        DatasetChoice("slakh", mix=-1.0)
    with pytest.raises(UsageError, match="data set slakh has no share above 0"):
        DatasetChoice("slakh", mix=0.0, stem=0.0, subset=0.0, across=0.0)
    with pytest.raises(DatasetError, match="no recordings in 'omitted'; its splits are train"):
        evaluation_pipeline(band, split="omitted")


def test_broken_data_gets_its_sentence(band, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(band.parent, folder)
    shard = sorted((folder / "shards").iterdir())[2]
    kept = shard.read_bytes()
    shard.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(DatasetError, match=f"{shard.name} is truncated or damaged"):
        training_pipeline(folder)
    shard.unlink()
    with pytest.raises(DatasetError, match=f"{shard.name} is missing"):
        training_pipeline(folder)
    (folder / "chunk_manifest.parquet").write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(DatasetError, match="cannot be read as a manifest"):
        training_pipeline(folder)


def test_a_shard_that_goes_bad_during_a_run_is_named(tmp_path):
    silence = np.zeros(40000, np.int16)
    manifest = prepare(tmp_path, [Recording("a", silence, [[0.1, 0.5, 60, 80, 0, False]])])
    pipeline = training_pipeline(manifest)
    (shard,) = (tmp_path / "shards").iterdir()
    os.truncate(shard, 1000)
    with iter(pipeline) as batches, pytest.raises(DatasetError, match=f"{shard.name}"):
        next(batches)
    shard.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        training_pipeline(manifest)
