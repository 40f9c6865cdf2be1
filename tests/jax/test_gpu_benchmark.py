"""benchmarks/gpu.py away from any GPU: what it needs is listed, what it finds is kept, what it starts is ended."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import gpu_needs  # noqa: E402
import step_timing  # noqa: E402

from mt3core.config.model import MT3  # noqa: E402

pytestmark = pytest.mark.integration


def benchmark_module():
    """Not by its name, which recipes/small/gpu.py has, too."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpu = benchmark_module()

OURS = {"mt3core", "mt3decode", "mt3render", "mt3data", "mt3page", "mt3eval", "mt3jax", "mt3torch", "mt3convert"}
# Imported where they are wanted only, and by no section.
NOT_NEEDED = {"av", "matplotlib", "tensorboardX", "wandb", "rich", "librosa"}
COMES_WITH_THE_FRAMEWORKS = {"absl"}


def third_party_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            top = name.split(".")[0]
            if (
                top not in sys.stdlib_module_names
                and top not in OURS
                and not (ROOT / "benchmarks" / f"{top}.py").exists()
            ):
                yield top


def test_whatever_the_sections_import_is_listed():
    files = [
        path
        for folder in ("mt3core", "mt3decode", "mt3render", "mt3data", "mt3page", "mt3eval", "mt3jax", "mt3torch")
        for path in (ROOT / folder).rglob("*.py")
    ]
    files += [*(ROOT / "benchmarks").glob("gpu*.py"), ROOT / "benchmarks" / "step_timing.py"]
    found = {name for path in files for name in third_party_imports(path)}
    listed = {module for section in gpu.SECTIONS for module in gpu_needs.needed(section)}
    assert found - NOT_NEEDED - COMES_WITH_THE_FRAMEWORKS <= listed


def requirements(distribution):
    """Names of the distributions that one needs here, extras aside."""
    try:
        wanted = [Requirement(line) for line in metadata.requires(distribution) or []]
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs {distribution}")
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {canonicalize_name(one.name) for one in wanted}


def test_so_is_whatever_that_needs_itself():
    frameworks = {"jax", "flax", "optax", "orbax-checkpoint"}
    given, new = set(), set(frameworks)
    while new:
        given |= new
        new = {name for one in new for name in requirements(one)} - given
    travelling = set(gpu_needs.wheel_names())
    plays_on_loudspeakers = {"pyaudio"}
    for name in travelling & {canonicalize_name(one.metadata["Name"]) for one in metadata.distributions()}:
        assert requirements(name) <= travelling | given | plays_on_loudspeakers, name


def test_the_line_that_fetches_them_is_the_one_in_the_docstring():
    documented = " ".join(gpu.__doc__.replace("\\\n", " ").split())
    assert " ".join(gpu_needs.download_line(gpu_needs.wheel_names()).split()) in documented


def test_all_that_is_missing_is_named_at_once(monkeypatch, tmp_path, capsys):
    there = importlib.util.find_spec
    gone = {"soxr", "grain", "cffi", "torch"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else there(name))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--only", "parity", "--only", "training_run"])
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("Not installed here: cffi, grain, soxr, torch.\n")
    assert "parity needs torch, cffi, soxr" in said
    assert "torch should be there already" in said
    assert gpu_needs.download_line(["cffi", "grain", "soxr"]) in said
    assert not (tmp_path / "out").exists()


STUB = """
import json, os, pathlib, subprocess, sys
name, seconds = sys.argv[2:4]
path = pathlib.Path(os.environ["OUT"]) / "gpu.json"
found = json.loads(path.read_text())
found[name] = {"first": 1}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if name != "machine":
    path.write_text(json.dumps(found))
    pathlib.Path(os.environ["OUT"], "pid").write_text(str(child.pid))
    child.wait()
sys.exit(3)
"""


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    """Sections are a program that starts another and waits for it, `machine` one that fails at once."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "stub.py"))
    monkeypatch.setenv("OUT", str(tmp_path))
    results = gpu.Results(tmp_path / "gpu.json")
    results.begin(quick=True)
    return results


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
def test_a_section_that_hangs_is_ended_with_all_it_started_and_its_figures_stay(stubbed, tmp_path):
    gpu.in_a_process("parts", True, 8.0, stubbed, str(tmp_path))
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert found["first"] == 1
    assert found["failed"] == "not done after 8 s"
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):  # its parent has died, so that it is for the system to bury it
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


def test_a_section_that_fails_says_how(stubbed, tmp_path):
    gpu.in_a_process("machine", True, 60.0, stubbed, str(tmp_path))
    assert stubbed.of("machine")["failed"] == "ended with 3"


def test_figures_are_in_the_folder_as_they_come_and_the_error_after_them(monkeypatch, tmp_path):
    def figures(quick, ends_at):
        yield "first", 1
        assert json.loads((tmp_path / "gpu.json").read_text())["parts"]["first"] == 1
        raise ValueError("no more")

    monkeypatch.setattr(gpu.Section, "measure", lambda self, quick, ends_at: figures(quick, ends_at))
    results = gpu.Results(tmp_path / "gpu.json")
    with pytest.raises(SystemExit):
        gpu.run_section("parts", results, True, 0.0)
    found = results.of("parts")
    assert found["failed"] == "ValueError: no more"
    assert found["on"]["numpy"] == np.__version__
    assert found["on"]["device"]


def test_a_section_may_use_nearly_all_of_the_devices_memory_and_finds_no_compiled_programs(monkeypatch):
    monkeypatch.setenv("MT3_CACHE", "/used/before")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    chosen = gpu.environment("/new")
    assert (chosen["MT3_CACHE"], chosen["XLA_CLIENT_MEM_FRACTION"]) == ("/new", ".92")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5")
    assert "XLA_CLIENT_MEM_FRACTION" not in gpu.environment("/new") or "XLA_CLIENT_MEM_FRACTION" in os.environ


def test_the_cases_of_decoding_are_ready_and_the_last_are_left_out_if_there_is_no_time(monkeypatch):
    pytest.importorskip("torch")
    import gpu_decoding

    monkeypatch.setattr(gpu_decoding, "random_arrays", lambda config: {})
    names = [name for name, _ in gpu_decoding.cases(quick=False)]
    assert {"equal_tokens", "pcm_lanes_128", "pcm_lanes_512", "pcm_lanes_1024", "flac", "flac_small"} < set(names)
    without = {name.removeprefix("lanes_512_") for name in names if name.startswith("lanes_512_")}
    assert without == {"without_graphs", "log_mel_on_host", "look_every_1", "look_every_32"}
    monkeypatch.undo()
    rehearsed = dict(gpu_decoding.cases(quick=True))
    found = rehearsed["pcm_lanes_4"]()
    assert found["segments"] == 12
    assert found["dtype"] == "float32"
    assert rehearsed["lanes_4_look_every_1"]()["segments_per_second"] > 0
    ended = dict(gpu_decoding.decoding_torch(True, time.monotonic() - 1))
    assert ended.keys() == rehearsed.keys()
    assert all(figures == {"left_out": "no time"} for figures in ended.values())


def test_made_up_tokens_are_as_unequally_frequent_as_real_ones():
    lengths = step_timing.draw_lengths(MT3, 200)
    batch = step_timing.made_up_batch(MT3, lengths)
    targets = batch["targets"]
    assert (np.count_nonzero(targets, axis=1) == lengths).all()
    assert (targets[np.arange(200), lengths - 1] == step_timing.END_TOKEN).all()
    assert targets.max() < MT3.network.vocab_size
    counts = np.sort(np.bincount(targets[targets > step_timing.END_TOKEN]))[::-1] / np.count_nonzero(targets > 1)
    assert counts[0] == pytest.approx(0.07, abs=0.01)
    assert counts[:64].sum() == pytest.approx(0.711, abs=0.02)


def test_the_rehearsal_can_be_asked_what_it_needs():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_needs.py"), "--there", "pyarrow", "Mir_Eval"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fetch, install = done.stdout.splitlines()
    assert fetch.startswith("python3 -m pip download --no-deps")
    assert " grain " in fetch
    assert "pyarrow" not in fetch
    assert "mir-eval" not in fetch
    assert "--no-index" in install
