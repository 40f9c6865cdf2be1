"""recipes/small/gpu.py without a GPU: its stages fit together, what it takes along is counted, its clock is kept."""

import argparse
import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mt3core.errors import ModelError, OutputError, UsageError
from mt3core.model.directory import check_fit, load_model_directory, save_model_directory
from mt3core.model.parameters import parameters
from mt3core.notes.midi_writing import write_midi
from mt3core.notes.table import Note

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "small"
sys.path.append(str(RECIPE))

import gpu_data  # noqa: E402
import gpu_pack  # noqa: E402
import gpu_stages  # noqa: E402


def recipe_module():
    """Not by its name, which benchmarks/gpu.py has, too."""
    spec = importlib.util.spec_from_file_location("small_gpu_recipe", RECIPE / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = recipe_module()

# ---- Stages


def configs(quick=False):
    return [gpu_stages.stage_config(number, "cache", "bfloat16", quick) for number in range(len(gpu_stages.STAGES))]


@pytest.mark.parametrize("quick", [False, True])
def test_every_stage_can_be_trained_from_the_weights_of_the_one_before(quick):
    found = configs(quick)
    for config in found:
        assert config.batch.rows, "fixed, so that programs can be compiled before there are data"
    for before, after in itertools.pairwise(found):
        check_fit(before.model, after.model, "the stage before")


def test_only_the_last_stage_has_a_fixed_number_of_steps_and_the_one_before_makes_room_for_it():
    stages = gpu_stages.STAGES
    assert [bool(stage.num_steps) for stage in stages] == [False, False, True]
    assert [stage.share == 0 for stage in stages] == [False, True, True]
    assert [config.optimizer.schedule for config in configs()] == ["constant", "constant", "cosine"]
    assert configs()[-1].num_steps == stages[-1].num_steps
    assert all(config.before is None for config in configs())
    assert len({stage.run for stage in stages}) == 3


def test_the_speed_is_that_between_the_first_and_the_last_report(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert gpu_stages.steps_per_second(path) == 0.0
    path.write_text('{"step": 100, "time": 50.0}\n')
    assert gpu_stages.steps_per_second(path) == 0.0
    path.write_text('{"step": 100, "time": 50.0}\n{"step": 300, "time": 55.0}\n{"step": 50')  # still being written
    assert gpu_stages.steps_per_second(path) == 40.0


@pytest.mark.parametrize(
    ("steps_per_second", "stopped_after"),
    [(200.0, 70.0), (80.0, 47.0), (1.0, 35.0), (None, 35.0)],  # at most 70 %, what is needed, at least 35 %
)
def test_a_stage_ends_when_the_next_one_needs_the_rest(tmp_path, monkeypatch, steps_per_second, stopped_after):
    """With 4,000 steps to come in 100 s: 28 s to start, and 1.06 times 4,000 steps; within 30 to 65 %."""
    stages = gpu_stages.STAGES
    monkeypatch.setattr(gpu_stages, "STAGES", (*stages[:2], dataclasses.replace(stages[2], num_steps=4_000)))
    clock = [0.0]
    stopped = []
    monkeypatch.setattr(gpu_stages, "STARTING_SECONDS", 0.0)
    monkeypatch.setattr(gpu_stages.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu_stages.os, "kill", lambda process, number: stopped.append(clock[0]))
    monkeypatch.setattr(gpu_stages, "steps_per_second", lambda path: steps_per_second or 0.0)

    class Waiting(threading.Event):
        def wait(self, timeout=None):
            clock[0] += timeout
            return False

    gpu_stages._stop_in_time(1, tmp_path, 100.0, Waiting())
    assert stopped == [pytest.approx(stopped_after, abs=0.6)]


def test_a_stage_that_has_finished_is_not_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_stages.os, "kill", lambda process, number: pytest.fail("killed"))
    is_done = threading.Event()
    is_done.set()
    gpu_stages._stop_in_time(2, tmp_path, time.monotonic() + 60, is_done)


def test_the_weights_fit_the_package():
    config = configs()[-1]
    count = sum(int(np.prod(p.shape)) for p in parameters(config.model.network))
    assert 7.5e6 < count < 8.3e6
    assert 2 * count < 16 << 20


def test_checkpoints_are_as_frequent_as_the_speed_allows():
    assert gpu_stages.stage_config(0, "", "float32", False).checkpoint.every_steps == gpu_stages.FIRST_EVERY_STEPS
    assert gpu_stages.stage_config(0, "", "float32", False, 0.025).checkpoint.every_steps == 1200
    assert gpu_stages.stage_config(0, "", "float32", False, 100.0).checkpoint.every_steps == 1


# ---- What is taken along


def test_of_many_velocities_eight_are_kept_and_cover_all():
    layers = [{"file": f"v{n}", "key": 60, "keys": [59, 61], "velocities": [8 * n, 8 * n + 7]} for n in range(16)]
    few = [{"file": "a", "key": 70, "keys": [70, 70], "velocities": [0, 127]}]
    kept = gpu_pack.with_fewer_layers([*layers, *few])
    assert [sample["file"] for sample in kept] == [*(f"v{n}" for n in range(1, 16, 2)), "a"]
    covered = [place for sample in kept[:-1] for place in range(sample["velocities"][0], sample["velocities"][1] + 1)]
    assert covered == list(range(128))


def test_long_recordings_are_faded_out(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.full(8 * 16_000, 0.5, np.float32), 16_000)
    gpu_pack._write_small(tmp_path / "long.wav", tmp_path / "long.ogg")
    assert soundfile.info(tmp_path / "long.ogg").frames == 5 * 16_000


# By its hash one is for the test, the other for validation.
UNSEEN_PIECES = (4, 16)


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    for kind, program in (("piano", 0), ("multi", 40), ("drums", None), ("piano_unseen", 0)):
        for piece in UNSEEN_PIECES if kind == "piano_unseen" else range(4):
            path = folder / kind / "corpus" / f"piece{piece}" / "000.mid"
            path.parent.mkdir(parents=True)
            notes = [Note(0.5 * n, 0.5 * n + 0.4, 40 + n + piece, 80, program or 0, program is None) for n in range(12)]
            write_midi(notes, path)
    return folder


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A folder of samples with one recording, stereo at 44.1 kHz."""
    folder = tmp_path_factory.mktemp("sounds") / "bell"
    folder.mkdir()
    time_axis = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_axis) * np.exp(-3 * time_axis)
    soundfile.write(folder / "A4.flac", np.stack([tone, tone], axis=1), 44_100)
    samples = [{"file": "A4.flac", "key": 69, "keys": [60, 80]}]
    (folder / "instrument.json").write_text(json.dumps({"name": "bell", "licence": "CC0", "samples": samples}))
    return folder


def test_samples_are_packed_small_and_everything_is_listed(music, sampled, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a.whl").write_bytes(b"wheel")
    sizes = gpu_pack.pack(music, [sampled], wheels, tmp_path / "carried", 64.0, 12.0)
    assert set(sizes) == {"checkout", "music.tar.xz", "sounds", "wheels"}
    listed = json.loads((tmp_path / "carried" / "LIST.json").read_text())
    assert listed["pieces"] == 14
    assert set(listed["files"]) == {"music.tar.xz", "sounds/bell/A4.ogg", "sounds/bell/instrument.json", "wheels/a.whl"}
    description = json.loads((tmp_path / "carried" / "sounds" / "bell" / "instrument.json").read_text())
    assert (description["licence"], description["samples"][0]["file"]) == ("CC0", "A4.ogg")
    small, rate = soundfile.read(tmp_path / "carried" / "sounds" / "bell" / "A4.ogg")
    assert (rate, small.ndim) == (16_000, 1)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(1600) / 16_000) * np.exp(-3 * np.arange(1600) / 16_000)
    assert np.corrcoef(small[:1600], expected)[0, 1] > 0.98, "neither late nor another sound"
    with tarfile.open(tmp_path / "carried" / "music.tar.xz") as archive:
        assert "piano/corpus/piece0/000.mid" in archive.getnames()


def test_too_much_is_refused_and_nothing_left_behind(music, sampled, tmp_path):
    with pytest.raises(OutputError, match=r"of at most 0\.5: checkout"):
        gpu_pack.pack(music, [sampled], None, tmp_path / "carried", 0.5, 12.0)
    assert list(tmp_path.iterdir()) == []


def test_of_music_as_much_is_taken_as_fits_with_all_kinds(music, monkeypatch):
    monkeypatch.setattr(gpu_pack, "GROUP_FILES", 3)
    chosen = gpu_pack.choose_music(music, 400)
    assert 0 < len(chosen) < 14
    assert {path.parts[0] for path in gpu_pack.choose_music(music, 10_000)} == {
        "piano",
        "multi",
        "drums",
        "piano_unseen",
    }
    assert gpu_pack.choose_music(music, 400) == chosen
    assert gpu_pack.choose_music(music, 400, seed=1) != chosen
    with pytest.raises(UsageError, match="too little"):
        gpu_pack.choose_music(music, 10)


def test_what_is_not_there_is_said(tmp_path, music):
    with pytest.raises(UsageError, match="no MIDI files"):
        gpu_pack.choose_music(tmp_path, 1000)
    with pytest.raises(UsageError, match="There is no"):
        gpu_pack.copy_sound(tmp_path / "none.sf2", tmp_path)


# ---- Data


@pytest.mark.slow
def test_music_becomes_chunks(music, tmp_path):
    pytest.importorskip("tinysoundfont")
    pytest.importorskip("array_record")
    from mt3data.prepare.manifest import read_manifest
    from mt3render.soundfonts import default_sound_font

    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "font.sf2").symlink_to(default_sound_font())
    tasks = gpu_data.planned(music, tmp_path / "sounds", tmp_path / "rendered")
    assert len(tasks) == 13, "all but the one for the test"
    assert {task[1].name for task in tasks[:3]} >= {"piano", "multi"}, "kinds alternate"
    command = [sys.executable, RECIPE / "gpu_data.py", music, tmp_path / "sounds", tmp_path / "out"]
    # So much that the time is no matter; the pieces are few.
    done = subprocess.run([*map(str, command), "--seconds", "500", "--processes", "1"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "out" / "data.json").read_text())
    assert (found["pieces"], found["failed"]) == (13, 0)
    manifest = read_manifest(found["manifest"])
    assert set(manifest["dataset"].tolist()) == {"small_piano", "small_multi", "small_drums"}
    assert set(manifest["stem"][manifest["dataset"] == "small_multi"].tolist()) == {"mix", "S00"}
    is_unseen = manifest["split"] == "validation"
    assert is_unseen.any()
    assert all("piece16" in name for name in manifest["track"][is_unseen])
    assert not any("piece16" in name for name in manifest["track"][~is_unseen])


def test_no_time_is_a_sentence(music, tmp_path):
    pytest.importorskip("tinysoundfont")
    (tmp_path / "sounds").mkdir()
    command = [sys.executable, RECIPE / "gpu_data.py", music, tmp_path / "sounds", tmp_path / "out", "--seconds", "0"]
    done = subprocess.run([*map(str, command), "--processes", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "No piece could be rendered: there was no time" in done.stderr


# ---- The clock


@pytest.fixture
def run(tmp_path):
    options = argparse.Namespace(
        carried=tmp_path / "carried",
        out=tmp_path / "out",
        minutes=1.0,
        dtype="float32",
        quick=True,
        scratch=None,
        init=None,
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return recipe.Recipe(options, scratch, time.monotonic() + 60)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
def test_when_the_time_is_up_all_that_was_started_is_ended(run, tmp_path):
    program = f"""
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
child.wait()
"""
    process = run.start("something long", [sys.executable, "-c", program])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    run.ends_at = time.monotonic() + 0.1
    with pytest.raises(recipe.OutOfTime, match="during: something long"):
        run.wait_for("something long", process)
    with pytest.raises(recipe.OutOfTime, match="no time left for: another"):
        run.start("another", [sys.executable, "-c", "pass"])
    run.end_all()
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


def test_what_is_missing_is_said_before_anything_slow(run):
    run.site.mkdir()
    with pytest.raises(recipe.RecipeError, match=r"music\.tar\.xz is not there. Make it with gpu_pack"):
        run.check()
    assert not run.options.out.exists()


def test_weights_to_go_on_from_must_be_a_model_and_replace_the_first_stage(run, tmp_path):
    assert run.first_stage == 0
    run.options.init = tmp_path / "model"
    going_on = recipe.Recipe(run.options, run.scratch, run.ends_at)
    assert going_on.first_stage == 1
    going_on.site.mkdir()
    with pytest.raises(recipe.RecipeError, match="model is not a model directory"):
        going_on.check()


def test_only_a_dozen_reports_are_kept_the_last_among_them(tmp_path):
    lines = [{"step": n, "train/loss": 1.0 / n, "train/gradient_norm": 2.0} for n in range(1, 101)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = recipe.reports(tmp_path)
    assert 10 < len(kept) < 16
    assert kept[-1] == {"step": 100, "train/loss": 0.01}


def test_the_log_is_whole_and_says_when(run):
    run.log("data", {"hours": 1.5})
    stored = json.loads((run.options.out / "log.json").read_text())
    assert stored["data"]["value"] == {"hours": 1.5}
    assert [path.name for path in run.options.out.iterdir()] == ["log.json"]


# ---- Averages


def test_the_mean_of_models_is_that_of_their_weights(tmp_path):
    import average

    names = [tmp_path / "one", tmp_path / "other"]
    for seed, folder in enumerate(names):
        save_tiny(folder, seed)
    average.average(names, tmp_path / "mean")
    (_, one), (_, other), (_, mean) = map(load_model_directory, [*names, tmp_path / "mean"])
    for name, array in mean.items():
        np.testing.assert_allclose(array, (one[name] + other[name]) / 2, rtol=0.01, atol=1e-6)  # bfloat16
    save_tiny(tmp_path / "wider", 0, mlp_dim=48)
    with pytest.raises(ModelError, match="mlp_dim"):
        average.average([names[0], tmp_path / "wider"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def save_tiny(folder, seed, **sizes):
    config = dataclasses.replace(configs(quick=True)[0].model)
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, **sizes))
    draw = np.random.default_rng(seed)
    arrays = {p.torch_name: draw.normal(0, 1, p.torch_shape).astype(np.float32) for p in parameters(config.network)}
    save_model_directory(folder, config, arrays)
