"""Measures everything of interest on a machine with a GPU and no network, in nine minutes: `make gpu`.

It uses random weights of the published shape, made-up input and fixed numbers of steps, so no data has to be copied
there, and it runs with the installed versions. A machine with jax, flax, optax, orbax-checkpoint and torch lacks some
packages; `python benchmarks/gpu_needs.py` prints the command that downloads them. For Python 3.12 it is

    python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --constraint constraints-py312.txt \\
        --dest wheels \\
        array-api-compat array-record beartype cffi cloudpickle decorator grain hypothesis importlib-resources \\
        iniconfig jaxtyping mido mir-eval packaging platformdirs pluggy portpicker pretty-midi pyarrow pycparser \\
        pygments pyloudnorm pytest pyyaml safetensors six sortedcontainers soundfile soxr tinysoundfont wadler-lindig

(pyarrow is four fifths of the size: leave out what the machine has.) On the machine, with the checkout and the wheels:

    python3 -m pip install --quiet --no-index --no-deps --no-compile --target site wheels/*.whl
    PYTHONPATH=.:site OUT=out python3 benchmarks/gpu.py --limit 540

Everything missing is listed before anything starts. The sections, each in its own process, are: `machine`; `parts` of a
step, three microbenchmarks and a profile of three steps; `training` steps with MFU and memory; `attention` compared
with float32; a `training_run`; `parity` of the networks on CPU and device; decoding speed; transcribing in JAX, from
audio; the tests marked `device`. They share the time in fixed proportions; `--only` chooses some of them, which then
have more. Every result is written
to $OUT/gpu.json (or ./gpu.json) immediately, so results from before a time limit are kept; the profile is next to it.
`--quick` rehearses on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gpu_needs

LIMIT_SECONDS = 540.0
LEAST_SECONDS = 5.0  # a section with less time is not started
KILLED_AFTER_SECONDS = 8.0  # how much earlier a section is asked to finish
VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "torch", "numpy")
Figures = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Section:
    """A part of the measurements: `function` of the module `module`, and its share of the time."""

    module: str
    function: str
    seconds: float

    def measure(self, quick: bool, ends_at: float) -> Figures:
        function: Callable[[bool, float], Figures] = getattr(importlib.import_module(self.module), self.function)
        return function(quick, ends_at)


SECTIONS: dict[str, Section] = {
    "machine": Section("gpu_networks", "machine", 20),
    "parts": Section("gpu_parts", "parts", 165),
    "training": Section("gpu_training", "training", 145),
    "attention": Section("gpu_training", "attention", 40),
    "training_run": Section("gpu_training", "training_run", 90),
    "parity": Section("gpu_networks", "parity", 25),
    "decoding_torch": Section("gpu_decoding", "decoding_torch", 60),
    "decoding_jax": Section("gpu_networks", "decoding_jax", 25),
    "transcribing_jax": Section("gpu_transcribing_jax", "transcribing_jax", 60),
    "device_tests": Section("gpu_networks", "device_tests", 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Take all measurements on a machine with a GPU.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to rehearse on a CPU")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="names of sections")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds for everything [%(default)g]")
    parser.add_argument("--anyway", action="store_true", help="skip the sections for which packages are missing")
    parser.add_argument("--section", nargs=2, metavar=("NAME", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    results = Results(Path(os.environ.get("OUT", ".")) / "gpu.json")
    if options.section:
        run_section(options.section[0], results, options.quick, time.monotonic() + float(options.section[1]))
        return
    ends_at = time.monotonic() + options.limit
    names = list(options.only or SECTIONS)
    lacking = gpu_needs.missing(names)
    if lacking:
        print(gpu_needs.what_is_missing(lacking), file=sys.stderr, flush=True)
        if not options.anyway:
            sys.exit(2)
    # Ending this program also ends the running section and everything it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results.begin(options.quick)
    with tempfile.TemporaryDirectory() as cache:
        for place, name in enumerate(names):
            left = ends_at - time.monotonic()
            seconds = left * SECTIONS[name].seconds / sum(SECTIONS[other].seconds for other in names[place:])
            if options.quick:  # each is short
                seconds = left
            if name in lacking:
                results.add(name, "failed", f"not installed: {', '.join(lacking[name])}")
            elif seconds < LEAST_SECONDS:
                results.add(name, "failed", "no time")
            else:
                in_a_process(name, options.quick, seconds, results, cache)
            found = results.of(name)
            print(f"{name}: {found.get('failed', 'done')} ({found.get('section_seconds', 0)} s)", flush=True)
    sys.exit(any("failed" in results.of(name) for name in names))


class Results:
    """The results so far, by section and then by name, in one file that is complete at any moment."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, quick: bool) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write({"command": sys.argv[1:], "quick": quick, "started": time.strftime("%Y-%m-%d %H:%M:%S")})

    def add(self, section: str, name: str, value: Any) -> None:
        found = self._read()
        found.setdefault(section, {})[name] = value
        self._write(found)

    def of(self, section: str) -> dict[str, Any]:
        return self._read().get(section, {})

    def _read(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def _write(self, found: dict[str, Any]) -> None:
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(found, indent=1) + "\n")
        beside.replace(self.path)


def in_a_process(name: str, quick: bool, seconds: float, results: Results, cache: str) -> None:
    """Runs a section. Afterwards all its processes have ended and the device's memory is free."""
    started = time.monotonic()
    command = [sys.executable, __file__, "--section", name, str(max(seconds - KILLED_AFTER_SECONDS, LEAST_SECONDS))]
    process = subprocess.Popen(
        [*command, "--quick"] if quick else command, start_new_session=True, env=environment(cache, quick)
    )
    try:
        code = process.wait(seconds)
        if code and "failed" not in results.of(name):
            results.add(name, "failed", f"ended with {code}")
    except subprocess.TimeoutExpired:
        results.add(name, "failed", f"not done after {seconds:.0f} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers as well
        process.wait()
    results.add(name, "section_seconds", round(time.monotonic() - started, 1))


def environment(cache: str, quick: bool = False) -> dict[str, str]:
    """For a section: compiles afresh, may use nearly all of the device's memory, and keeps XLA quiet."""
    chosen = {**os.environ, "MT3_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")}
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # the older name; JAX refuses both together
        chosen.setdefault("XLA_CLIENT_MEM_FRACTION", ".92")
    if quick:  # a CPU compiles several times as fast
        chosen["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return chosen


def run_section(name: str, results: Results, quick: bool, ends_at: float) -> None:
    """Measures in this process; every figure is stored as soon as it is known."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        results.add(name, "on", described())
        for key, value in SECTIONS[name].measure(quick, ends_at):
            print(f"  {name}: {key}: {json.dumps(value)}", flush=True)
            results.add(name, key, value)
    except Exception as error:
        traceback.print_exc()
        results.add(name, "failed", f"{type(error).__name__}: {error}"[:500])
        sys.exit(1)


def described() -> dict[str, str]:
    """The device and the versions, without importing a framework, since each would take the device's memory."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        device = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        device = f"no GPU: {os.cpu_count()} cores, {platform.machine()}"
    versions = {package: _version(package) for package in VERSIONS}
    return {"device": " | ".join(device.splitlines()), "python": platform.python_version(), **versions}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
