"""The commands that are killed and starved of disk: what they read, what they write, and copies of this process.

A command runs in a copy of the worker (fork), which has imported everything and computed nothing, so that a kill falls
into the command's own work and not into its imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reliability.findings import Found

OUT = "out"
UNEXPECTED = re.compile(r"Traceback|mt3: Unexpected \w+[.:]")  # see `mt3app.progress.describe`
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SECONDS_TO_END = 20.0  # for the other processes of a command that was killed
_INPUTS, _CACHE, _LEARNT = "inputs", "mt3_cache", "learnt"
_MOST_SECONDS_UNDISTURBED = 600.0
_HIDDEN_OUTPUTS = (".lock", ".zarray", ".zgroup", ".zattrs")

_IMPORTED = (
    *("array_record.python.array_record_module", "grain", "orbax.checkpoint", "pyarrow.parquet", "pyloudnorm"),
    *("mt3app.cli", "mt3app.commands.convert", "mt3app.commands.prepare", "mt3app.commands.render"),
    *("mt3app.commands.train", "mt3app.commands.transcribe", "mt3convert.sources", "mt3core.audio.load"),
    *("mt3core.notes.midi_writing", "mt3jax.train", "mt3render.dataset", "mt3torch"),
)


@dataclass(frozen=True)
class Command:
    """A command of `mt3`. `arguments` has INPUTS and OUT in place of folders.

    Attributes:
        atomic: patterns of paths below OUT that are written completely or not at all, with everything in them.
        overwrites: it can replace what is there; the option is added.
        share: how often it is drawn.
    """

    name: str
    arguments: tuple[str, ...]
    atomic: tuple[str, ...] = ()
    overwrites: bool = False
    share: float = 1.0

    def line(self, inputs: Path, out: Path, overwrite: bool = False) -> list[str]:
        filled = [part.replace("INPUTS", str(inputs)).replace("OUT", str(out)) for part in self.arguments]
        return [*filled, "--overwrite"] if overwrite else filled


_RENDER = ("--engine", "pretty_midi", "--rate", "8000")
_TRANSCRIBE = ("--format", "mid,json", "--model", "INPUTS/model", "--backend", "torch", "--processes", "1")
_PREPARE = ("prepare", "folder", "INPUTS/pieces", "--out", "OUT/cache")
_SLAKH = ("render", "INPUTS/scores", "OUT/slakh", "--layout", "slakh", *_RENDER)
COMMANDS = (
    Command("transcribe", ("transcribe", "INPUTS/songs", "-o", "OUT/notes/", *_TRANSCRIBE), overwrites=True, share=4.0),
    Command("prepare", (*_PREPARE, "--processes", "1"), share=3.0),
    Command("prepare in two", (*_PREPARE, "--processes", "2"), share=0.5),
    Command("render", (*_SLAKH, "--processes", "1"), ("slakh/*/Track*",), True, 3.0),
    Command("render in two", (*_SLAKH, "--processes", "2"), ("slakh/*/Track*",), True, 0.5),
    Command(
        "render pairs",
        ("render", "INPUTS/scores", "OUT/pairs", "--layout", "folder", *_RENDER, "--processes", "1"),
        overwrites=True,
    ),
    Command("convert", ("convert", "INPUTS/model", "OUT/t5x", "--to", "t5x"), ("t5x",), True),
    Command("convert port", ("convert", "INPUTS/model", "OUT/port.pth"), overwrites=True),
    Command("convert back", ("convert", "INPUTS/port.pth", "OUT/model"), ("model",), True),
    Command("train", ("train", "--config", "INPUTS/run.py", "--output", "OUT/run"), share=1.5),
)


def build_inputs(folder: Path) -> None:
    """What the commands read."""
    from mt3app.cli_data import PrepareOptions
    from mt3app.commands.prepare import prepare_dataset
    from mt3app.progress import Reporter
    from mt3convert.torch_port import write_port
    from mt3core.model.directory import save_model_directory
    from reliability.tiny import random_arrays, tiny_model, write_pairs

    inputs = folder / _INPUTS
    config = tiny_model()
    save_model_directory(inputs / "model", config, random_arrays(config))
    write_port(inputs / "port.pth", config, random_arrays(config))
    write_pairs(inputs / "pieces", 5)
    for kind, suffix in (("songs", ".wav"), ("scores", ".mid")):
        (inputs / kind).mkdir()
        for path in sorted((inputs / "pieces").rglob(f"*{suffix}")):
            shutil.copy(path, inputs / kind)
    options = PrepareOptions("folder", inputs / "pieces", inputs / "cache", processes=1)
    assert prepare_dataset(options, Reporter(quiet=True)) == 0
    source = Path(__file__).with_name("tiny.py").read_text(encoding="utf-8")
    (inputs / "run.py").write_text(f"{source}\n\nconfig = tiny_run({str(inputs / 'cache')!r}, 6)\n", encoding="utf-8")


def import_everything(folder: Path, scratch: Path) -> None:
    """Imports what the commands need, so that their copies need not; PyTorch is also run once, in a single thread."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # threads would not be there in a copy
    # Compiled quickly rather than well.
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name in _IMPORTED:
        importlib.import_module(name)
    import torch

    from mt3app.cli import run

    torch.set_num_threads(1)
    line = COMMANDS[0].line(folder / _INPUTS, scratch / "first")
    with contextlib.redirect_stderr(io.StringIO()):
        assert run(line) == 0
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # processes that lose their parent come to this one


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code` is negative for a signal; `said` is what it wrote to standard error."""

    code: int
    said: str
    seconds: float

    @property
    def was_killed(self) -> bool:
        return self.code == -signal.SIGKILL


def run_command(
    arguments: Sequence[str],
    folder: Path,
    most_seconds: float,
    kill_after: float | None = None,
    before: Callable[[], None] = lambda: None,
) -> Ended:
    """Runs `mt3` in a copy of this process; kills it, but not the processes it has started, after `kill_after`.

    `before` is called in the copy. Raises `Found` if it takes longer than `most_seconds`, and if a process that it
    started outlives it.
    """
    said = folder / "command_said"
    child = os.fork()
    if child == 0:
        _be_the_command(arguments, folder, said, before)
    started = time.monotonic()
    status = _wait(child, kill_after if kill_after is not None else most_seconds)
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if kill_after is None:
            _end_group(child, 0.0)
            raise Found(
                "hang", f"mt3 {arguments[0]} took more than {most_seconds:.0f} s; it said: {_text(said)[-300:]}"
            )
    seconds = time.monotonic() - started
    if left := _end_group(child, _SECONDS_TO_END):
        raise Found("left running", f"{left} processes of mt3 {arguments[0]} went on for {_SECONDS_TO_END:.0f} s")
    return Ended(os.waitstatus_to_exitcode(status), _text(said), seconds)


def _be_the_command(arguments: Sequence[str], folder: Path, said: Path, before: Callable[[], None]) -> None:
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        os.environ["MT3_CACHE"] = str(folder / _CACHE)
        before()
        from mt3app.cli import run

        code = run(list(arguments))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(child: int, seconds: float) -> int | None:
    """Its exit status; None if it still runs after so many seconds."""
    ends = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        left = ends - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(0.01, left))


def _end_group(group: int, seconds: float) -> int:
    """Waits until no process of the group is left; kills those that remain, and returns how many these were."""
    ends = time.monotonic() + seconds
    while True:
        try:
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return 0
        if time.monotonic() >= ends:
            break
        time.sleep(0.01)
    left = 0
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)
            left += 1
    return left


def limit_file_size(num_bytes: int) -> Callable[[], None]:
    """For `before`: no file grows beyond this, which is the nearest to a full disk without the right to mount one."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

    return limit


def check_sentence(arguments: Sequence[str], ended: Ended) -> None:
    """Raises `Found` unless a failed command said one sentence and the next step."""
    text = ended.said
    if UNEXPECTED.search(text) or ended.code == 70:
        raise Found("traceback", f"mt3 {arguments[0]}: {text[-1500:]}")
    if ended.code < 0 and not ended.was_killed:
        raise Found("crash", f"mt3 {arguments[0]}: {signal.Signals(-ended.code).name}: {text[-500:]}")
    if ended.code > 0 and not any(word in text for word in ("mt3: ", "Left out: ", "Failed and left out")):
        raise Found("message", f"mt3 {arguments[0]} ended with {ended.code} and said only: {text[-500:]}")


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


# ---- What a command does undisturbed


@dataclass(frozen=True)
class Learnt:
    """The outputs of a command without those that differ from run to run, its usual time, and all its bytes."""

    expected: dict[str, bytes]
    seconds: float
    num_bytes: int


def learn(folder: Path, scratch: Path) -> None:
    """Runs every command undisturbed, and `train` twice, since the first time compiles; writes down what they did."""
    import_everything(folder, scratch)
    found: dict[str, Learnt] = {}
    for command in COMMANDS:
        for _ in range(2 if command.name == "train" else 1):
            out = scratch / OUT
            shutil.rmtree(out, ignore_errors=True)
            ended = run_command(command.line(folder / _INPUTS, out), scratch, _MOST_SECONDS_UNDISTURBED)
            if ended.code:
                raise RuntimeError(f"mt3 {command.name} fails undisturbed: {ended.said}")
        outputs = contents(out)
        found[command.name] = Learnt(stable(outputs), ended.seconds, sum(len(data) for data in outputs.values()))
    (folder / _LEARNT).write_bytes(pickle.dumps(found))
    shutil.copytree(scratch / _CACHE, folder / _CACHE)
    shutil.rmtree(scratch)


def learnt(folder: Path, scratch: Path) -> dict[str, Learnt]:
    """What `learn` wrote, by the command's name; compiled programs are put where the commands look for them."""
    shutil.copytree(folder / _CACHE, scratch / _CACHE, dirs_exist_ok=True)
    return pickle.loads((folder / _LEARNT).read_bytes())


# ---- What lies in the folder of outputs


def contents(out: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name, without those under temporary names."""
    found = {}
    for place, folders, files in os.walk(out):
        folders[:] = [name for name in folders if not is_temporary(name)]
        for name in files:
            path = Path(place, name)
            if not is_temporary(name) and path.is_file():
                found[path.relative_to(out).as_posix()] = path.read_bytes()
    return found


def leftovers(out: Path) -> list[str]:
    """The temporary names below a folder; what is inside them is not listed."""
    found = []
    for place, folders, files in os.walk(out):
        found += [Path(place, name).relative_to(out).as_posix() for name in [*folders, *files] if is_temporary(name)]
        folders[:] = [name for name in folders if not is_temporary(name)]
    return sorted(found)


def is_temporary(name: str) -> bool:
    return (name.startswith(".") and name not in _HIDDEN_OUTPUTS) or ".orbax-checkpoint-tmp" in name


def stable(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without what differs between two runs of one command: times, and files that a run appends to."""
    result = {}
    for name, data in found.items():
        if name.startswith("run/"):
            if name.endswith("metrics.jsonl"):
                lines = [json.loads(line) for line in data.splitlines()]
                data = json.dumps([[line["step"], line.get("train/loss")] for line in lines]).encode()
            else:
                continue
        result[name] = data
    return result
