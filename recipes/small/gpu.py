"""Trains the small model on a GPU machine without network: one command, nine minutes in total.

    python recipes/small/gpu_pack.py --music music --sounds FONT.sf3 --sounds PIANO_FOLDER --wheels wheels --out carried
    python3 recipes/small/gpu.py carried --out out --minutes 9               on the GPU machine, in the checkout
    python3 recipes/small/gpu.py carried --out out --minutes 2 --quick       a rehearsal on a CPU, with tiny sizes

Network: 7 + 2 layers of width 256, 7.7 million parameters, 15 MB in bfloat16. The program installs the wheels brought
along, renders and prepares music on all processors while the device compiles, and trains by the stages of
`gpu_stages.py`. With `--score`, it also scores the result on compositions that it was not trained on; the note F1 is
then in `log.json`. On an H200 with 16 cores it made 29 hours of music in 100 s and trained on 4.5 million examples in
7 minutes; the weights shipped as `small` began there (docs/small_model.md).

Every minute the newest weights are written to out/small as a model directory (`config.json`, `model.safetensors`,
`README.md`), and out/log.json, complete at any moment, says what has happened; there are no other outputs. Whatever
happens, all processes are ended when the time is up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MUSIC_NAME, SOUNDS_NAME, WHEELS_NAME = "music.tar.xz", "sounds", "wheels"
NEEDED_BY = ("training_run",)  # of benchmarks/gpu_needs.py
# Shares of the whole time: for the data, once the wheels are installed; for the last weights; and for scores.
DATA_SHARE, END_SHARE, SCORE_SHARE = 0.18, 0.04, 0.06
SPARE_SECONDS = 6.0  # kept free before the end
STAGE_GRACE_SECONDS = 12.0  # in which a stage that was told to stop must save
SAVED_EVERY_SECONDS = 60.0
# Of a stage: finished, stopped by its signal, ended by it after it had saved, or still busy when its time was up.
GOOD_CODES = (0, 75, -signal.SIGTERM, None)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the small model on a GPU machine.")
    parser.add_argument("carried", type=Path, help="folder made by gpu_pack.py")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "out")))
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit for everything [%(default)g]")
    parser.add_argument(
        "--init", type=Path, help="model directory of this network to go on from; without the first stage, onsets"
    )
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="float32")
    parser.add_argument("--score", action="store_true", help="score the result on rendered validation pieces")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to rehearse on a CPU")
    parser.add_argument("--scratch", type=Path, help="for temporary files [a new temporary folder]")
    options = parser.parse_args()
    ends_at = time.monotonic() + 60 * options.minutes - SPARE_SECONDS
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    recipe = Recipe(options, Path(tempfile.mkdtemp(dir=options.scratch, prefix="small-")), ends_at)
    try:
        recipe.run()
    except (OutOfTime, RecipeError) as error:
        recipe.log("out_of_time" if isinstance(error, OutOfTime) else "failed", str(error))
        print(f"gpu: {error}", file=sys.stderr)
    finally:
        recipe.end_all()
    return 0 if recipe.is_finished else 1


class RecipeError(Exception):
    """Why the recipe cannot continue, and what to do."""


class OutOfTime(Exception):
    """The time ran out in the middle of something; earlier results are kept."""


class Recipe:
    """One run of the recipe: its clock, its processes, and its outputs."""

    def __init__(self, options: argparse.Namespace, scratch: Path, ends_at: float) -> None:
        self.options, self.scratch, self.ends_at = options, scratch, ends_at
        self.started = time.monotonic()
        self.minutes = options.minutes
        self.processes: list[subprocess.Popen[bytes]] = []
        self.site = scratch / "site"
        self.events: dict[str, Any] = {"command": sys.argv[1:], "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.run_folder: Path | None = None
        self.saving: subprocess.Popen[bytes] | None = None
        self.next_save = 0.0
        self.is_finished = False
        self.first_stage = 0 if options.init is None else 1

    # ---- The stages in order

    def run(self) -> None:
        self.install()
        self.check()
        warm = self.program("gpu_stages.py", "warm", self.scratch, "--stage", self.first_stage)
        warming = self.start("warm", warm, device_memory=".3")
        manifest = self.make_data()
        self.check_running("warm", warming)
        if self.options.quick:  # on the same processors, doing both at the same time gains nothing
            self.wait_for("warm", warming)
        shares = self.stage_shares()
        try:
            for number, (name, share) in list(enumerate(shares))[self.first_stage :]:
                left = self.stages_end() - time.monotonic() - STAGE_GRACE_SECONDS * (len(shares) - number)
                self.train(number, name, manifest, left * (share or 1.0))
            self.end(warming)
            self.save()  # on the processors, during the scoring
            if self.options.score:
                self.score(len(shares) - 1, manifest)
        except RecipeError:
            self.save()  # what there is
            raise
        finally:
            self.finish_saving()
        self.is_finished = True

    def install(self) -> None:
        """Installs the wheels into this run's own folder, and the name under which `convert` is imported."""
        wheels = sorted((self.options.carried / WHEELS_NAME).glob("*.whl"))
        if wheels:
            command = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target"]
            self.wait_for("install", self.start("install", [sys.executable, *command, self.site, *wheels]))
        self.site.mkdir(exist_ok=True)
        (self.site / "mt3convert").symlink_to(ROOT / "convert")

    def check(self) -> None:
        """Lists everything missing before anything slow starts."""
        check = (
            "import gpu_needs, sys; found = gpu_needs.missing(sys.argv[1:]); found.get(sys.argv[1], []) or sys.exit(0);"
            "print(gpu_needs.what_is_missing(found), file=sys.stderr); sys.exit(2)"
        )
        started = self.start("check", [sys.executable, "-c", check, *NEEDED_BY])
        self.wait_for("check", started, "Some packages are missing; they are listed above.")
        if self.options.init is not None and not (self.options.init / "config.json").exists():
            raise RecipeError(f"{self.options.init} is not a model directory.")
        for name in (MUSIC_NAME, SOUNDS_NAME):
            if not (self.options.carried / name).exists():
                raise RecipeError(f"{self.options.carried / name} is not there. Make it with gpu_pack.py.")

    def make_data(self) -> str:
        music = self.scratch / "music"
        with tarfile.open(self.options.carried / MUSIC_NAME) as archive:
            archive.extractall(music, filter="data")
        seconds = DATA_SHARE * 60 * self.minutes
        more = ["--seconds", seconds, *(["--limit", 6, "--processes", 2] if self.options.quick else [])]
        sounds = self.options.carried / SOUNDS_NAME
        command = self.program("gpu_data.py", music, sounds, self.scratch, *more, quick=False)
        self.wait_for("data", self.start("data", command), "The data could not be made; see above.")
        found = json.loads((self.scratch / "data.json").read_text())
        self.log("data", found)
        return found["manifest"]

    def stage_shares(self) -> list[tuple[str, float]]:
        """Names of the stages and their shares of the time left, from the program that defines them."""
        sys.path[:0] = [str(HERE), str(self.site), str(ROOT)]
        from gpu_stages import STAGES

        return [(stage.name, stage.share) for stage in STAGES]

    def stages_end(self) -> float:
        share = END_SHARE + (SCORE_SHARE if self.options.score else 0.0)
        return self.ends_at - share * 60 * self.minutes

    def train(self, number: int, name: str, manifest: str, seconds: float) -> None:
        from gpu_stages import STAGES

        more = ["--stage", number, "--manifest", manifest, "--seconds", max(seconds, 1.0)]
        if self.options.init is not None:
            more += ["--init", self.options.init]
        process = self.start(f"train {number}", self.program("gpu_stages.py", "train", self.scratch, *more), ".65")
        folder = self.scratch / STAGES[number].run
        ends_at = min(time.monotonic() + seconds + STAGE_GRACE_SECONDS, self.ends_at)
        while process.poll() is None and time.monotonic() < ends_at:
            time.sleep(0.2)
            self.run_folder = folder if has_checkpoint(folder) else self.run_folder
            if time.monotonic() >= self.next_save and (self.saving is None or self.saving.poll() is not None):
                self.save()
        code = process.poll()
        self.end(process)
        self.run_folder = folder if has_checkpoint(folder) else self.run_folder
        self.log(f"stage {number}: {name}", {"exit_code": code, "reports": reports(folder)})
        if code not in GOOD_CODES or not has_checkpoint(folder):  # the time can be used better than by the next stage
            raise RecipeError(f"The stage {name!r} ended with {code}; see above.")

    def check_running(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Ends the recipe if a process in the background has failed."""
        if process.poll():
            raise RecipeError(f"{name} ended with {process.returncode}; see above.")

    def score(self, number: int, manifest: str) -> None:
        if self.run_folder is None:
            raise RecipeError("The last stage has left no checkpoint; see above.")
        more = ["--stage", number, "--manifest", manifest]
        process = self.start("score", self.program("gpu_stages.py", "score", self.scratch, *more))
        self.wait_for("score", process, "The weights could not be scored; see above.")
        self.log("score", json.loads((self.scratch / "scores.json").read_text()))

    def save(self) -> None:
        """Starts writing the newest weights, in a process without the device; waits for the previous one."""
        if self.run_folder is None:
            return
        self.finish_saving()
        self.next_save = time.monotonic() + SAVED_EVERY_SECONDS
        command = ["gpu_stages.py", "save", self.run_folder, "--target", self.options.out.resolve() / "small"]
        self.saving = self.start("save", self.program(*command, quick=False), on_device=False)

    def finish_saving(self) -> None:
        if self.saving is not None:
            process, self.saving = self.saving, None
            self.wait_for("save", process, "The weights could not be written; see above.")
            self.log("saved", True)

    # ---- Processes

    def program(self, file: str, *arguments: Any, quick: bool | None = None) -> list[Any]:
        command = [sys.executable, HERE / file, *arguments]
        if file == "gpu_stages.py" and arguments[0] != "save":
            command += ["--dtype", self.options.dtype]
        return [*command, "--quick"] if (self.options.quick if quick is None else quick) else command

    def start(
        self, name: str, command: list[Any], device_memory: str = ".65", on_device: bool = True
    ) -> subprocess.Popen[bytes]:
        """A process in its own group, so that everything it starts can be ended with it."""
        if time.monotonic() >= self.ends_at:
            raise OutOfTime(f"There was no time left for: {name}.")
        paths = [str(ROOT), str(HERE), str(ROOT / "benchmarks"), str(self.site)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "MT3_CACHE": str(self.scratch / "compiled"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "XLA_CLIENT_MEM_FRACTION": device_memory,
        }
        environment.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)  # the older name; JAX refuses both together
        if not on_device or self.options.quick:
            environment["JAX_PLATFORMS"] = "cpu"
        if self.options.quick:  # compiles several times as fast
            environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        self.say(f"{name} ...")
        process = subprocess.Popen([str(part) for part in command], env=environment, start_new_session=True)
        self.processes.append(process)
        return process

    def wait_for(self, name: str, process: subprocess.Popen[bytes], problem: str = "") -> None:
        try:
            code = process.wait(max(self.ends_at - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            raise OutOfTime(f"The time was up during: {name}.") from None
        if code:
            raise RecipeError(problem or f"{name} ended with {code}; see above.")
        self.say(f"{name} done")

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a process and everything that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end_all(self) -> None:
        for process in self.processes:
            self.end(process)
        for rest in self.options.out.glob(".small.*"):  # of a model directory that was being written
            shutil.rmtree(rest, ignore_errors=True)
        # Removing gigabytes may take longer than there is time; nothing waits for it.
        subprocess.run(["sh", "-c", 'rm -rf "$0" &', str(self.scratch)], start_new_session=True)

    # ---- Messages and logs

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f} s] {line}", flush=True)

    def log(self, name: str, value: Any) -> None:
        self.events[name] = {"at_seconds": round(time.monotonic() - self.started, 1), "value": value}
        self.options.out.mkdir(parents=True, exist_ok=True)
        beside = self.scratch / "log.json"
        speeds = self.scratch / "speeds.json"
        if speeds.is_file():
            self.events["seconds_a_step_on_the_device"] = json.loads(speeds.read_text())
        beside.write_text(json.dumps(self.events, indent=1) + "\n")
        shutil.copy(beside, self.options.out / "log.json.part")
        (self.options.out / "log.json.part").replace(self.options.out / "log.json")


def reports(run: Path) -> list[dict[str, Any]]:
    """About a dozen of a run's reports, including the last, with the most important metrics."""
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    kept = lines[:: max(len(lines) // 12, 1)] + lines[-1:]
    wanted = ("step", "time", "train/loss", "train/accuracy", "speed/", "data/", "train/skipped")
    return [{key: value for key, value in line.items() if key.startswith(wanted)} for line in kept]


def has_checkpoint(run: Path) -> bool:
    return run.is_dir() and any(entry.name.isdigit() for entry in run.iterdir())


if __name__ == "__main__":
    sys.exit(main())
