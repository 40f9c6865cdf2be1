"""`examples/transcribe_corpus_slurm.sh`, each job of its array by hand, and `transcribe_corpus_ray.py` where Ray is."""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from small_models import save_model, write_wav

from mt3core.transcription import Transcription

pytest.importorskip("torch")

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SLURM = ROOT / "examples" / "transcribe_corpus_slurm.sh"
RAY = ROOT / "examples" / "transcribe_corpus_ray.py"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray[data]; .ci/ray installs it and runs this")
PATIENCE_SECONDS = 300
# Its actors die over one recording, as they would without memory; examples/ and tests/helpers are where they import it.
FATAL = """
import os
import sys
import transcribe_corpus_ray as example

class Fatal(example.Worker):
    def __init__(self, *given):
        super().__init__(*given)
        transcribe = self.transcriber.transcribe
        self.transcriber.transcribe = lambda audio: os._exit(1) if "song_5" in audio else transcribe(audio)

example.Worker = Fatal
sys.exit(example.main())
"""


@pytest.fixture
def model(tmp_path, tiny_model):
    return save_model(tmp_path / "tiny", tiny_model)


@pytest.fixture
def corpus(tmp_path):
    """Twenty recordings in two folders, two of which cannot be read."""
    for number in range(20):
        write_wav(tmp_path / "music" / f"set{number % 2}" / f"song_{number}.wav", seconds=0.3)
    (tmp_path / "music/set0/song_4.wav").write_bytes(b"")
    (tmp_path / "music/set1/song_7.wav").write_bytes(b"RIFF" + bytes(20))
    return tmp_path / "music"


def results(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.json")}


def expected(*without):
    return {f"set{number % 2}/song_{number}.json" for number in range(20) if number not in without}


def environment(**variables):
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]), **variables}


def start(command, folder, **variables):
    return subprocess.run(
        command, cwd=folder, env=environment(**variables), capture_output=True, text=True, check=False
    )


def array_job(folder, number, count, *arguments):
    """One job of `sbatch --array=1-count`, with the variables that SLURM sets, and `mt3` on the path."""
    program = folder / "bin/mt3"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from mt3app.cli import main; main()" "$@"\n')
    program.chmod(0o755)
    variables = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_MIN": 1, "SLURM_ARRAY_TASK_COUNT": count}
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    numbers = {name: str(value) for name, value in variables.items()}
    return start(["bash", str(SLURM), *arguments], folder, PATH=path, **numbers)


def test_the_jobs_of_an_array_share_the_recordings_and_go_on_with_another_number(tmp_path, corpus, model):
    arguments = ("music", "notes", "--model", model, "--format", "json")
    done = array_job(tmp_path, 2, 3, *arguments)
    before = results(tmp_path / "notes")
    assert len(before) == 7 - done.stderr.count("\nmt3: 1 of 7 files failed")
    codes = {}
    for number in (1, 2):
        done = array_job(tmp_path, number, 2, *arguments)
        codes[number] = done.returncode
        failures = tmp_path / f"notes/failures-{number}-of-2.txt"
        assert failures.exists() == bool(done.returncode)
        assert done.stderr == (failures.read_text() if failures.exists() else "")
    after = results(tmp_path / "notes")
    assert set(after) == expected(4, 7)
    assert {name: after[name] for name in before} == before
    assert 1 in codes.values()
    reasons = "".join(path.read_text() for path in (tmp_path / "notes").glob("failures-*-of-2.txt"))
    assert "set0/song_4.wav is empty" in reasons
    assert "set1/song_7.wav cannot be read as audio" in reasons


def test_outside_an_array_the_script_says_how_it_is_used(tmp_path):
    done = start(["bash", str(SLURM), "music", "notes"], tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == "Usage: sbatch --array=1-N transcribe_corpus_slurm.sh RECORDINGS NOTES [OPTIONS OF mt3 transcribe]\n"
    )
    assert not (tmp_path / "notes").exists()


def ray_command(model, program=str(RAY)):
    return [sys.executable, program, "music", "notes", "--model", model, "--format", "json", "--actors", "1"]


def with_ray(folder, model, program=str(RAY)):
    return start(ray_command(model, program), folder)


def failures(folder):
    lines = (folder / "notes/failures.jsonl").read_text().splitlines()
    return {Path(one["audio"]).stem: one["error"] for one in map(json.loads, lines)}


@pytest.mark.parametrize(("gpus", "workers"), [(0.0, 4), (1.0, None), (0.5, None)])
def test_actors_with_a_gpu_have_as_many_workers_as_suit_it(monkeypatch, gpus, workers):
    """Several would share the GPU. Without Ray: only what it is asked to do matters."""
    asked, ray = MagicMock(), MagicMock()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # which the example would set for good
    monkeypatch.setattr("mt3torch.Transcriber.from_pretrained", asked)
    spec = spec_from_file_location("ray_example", RAY)
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    options = argparse.Namespace(format="mid", actors=1, cpus=4, gpus=gpus)
    list(example.transcribed([{}], "small", options))
    (worker,), given = ray.data.from_items.return_value.map_batches.call_args
    worker(*given["fn_constructor_args"])
    assert asked.call_args.kwargs.get("workers") == workers
    assert (given["num_cpus"], given["num_gpus"]) == (4, gpus)


@needs_ray
def test_ray_goes_on_after_it_was_killed_and_lists_what_failed(tmp_path, corpus, model):
    process = subprocess.Popen(ray_command(model), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + PATIENCE_SECONDS
    while not (before := results(tmp_path / "notes")):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.kill()
    process.wait()
    (tmp_path / "notes/.trying/0").write_text(".....")  # as if actors had died over the first recording as well

    done = with_ray(tmp_path, model)
    assert done.returncode == 1, done.stderr
    assert done.stderr.endswith("2 recordings failed: notes/failures.jsonl\n")
    after = results(tmp_path / "notes")
    assert set(after) == expected(4, 7)
    assert {name: after[name] for name in before} == before
    assert set(failures(tmp_path)) == {"song_4", "song_7"}
    assert "is empty" in failures(tmp_path)["song_4"]
    assert Transcription.load(tmp_path / "notes/set0/song_0.json").duration_seconds == pytest.approx(0.3)

    write_wav(corpus / "set0/song_4.wav")
    (corpus / "set1/song_7.wav").unlink()
    done = with_ray(tmp_path, model)
    assert done.returncode == 0, done.stderr
    assert "19 recordings, 18 finished before." in done.stdout
    assert set(results(tmp_path / "notes")) == expected(7)
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["set0", "set1"]
    assert "19 finished before" in with_ray(tmp_path, model).stdout


@needs_ray
def test_a_recording_over_which_actors_die_does_not_end_the_others(tmp_path, corpus, model):
    (tmp_path / "fatal.py").write_text(FATAL)
    done = with_ray(tmp_path, model, str(tmp_path / "fatal.py"))
    assert done.returncode == 1, done.stderr
    assert set(results(tmp_path / "notes")) == expected(4, 5, 7)
    assert "died 2 times" in failures(tmp_path)["song_5"]
    assert set(failures(tmp_path)) == {"song_4", "song_5", "song_7"}


@needs_ray
def test_ray_is_not_started_without_a_model(tmp_path, corpus):
    done = with_ray(tmp_path, "no/model")
    assert done.returncode == 1
    assert done.stderr.startswith("transcribe_corpus_ray: Model 'no/model' was not found")
    assert not (tmp_path / "notes").exists()
