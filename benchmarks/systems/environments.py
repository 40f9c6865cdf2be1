"""Virtual environments, one per system, created when first needed and kept."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from systems.registry import System

_FINISHED = "requirements.txt"


class EnvironmentProblem(Exception):
    """Why a system has no environment to run in."""


def python_of(system: System, cache: Path) -> Path:
    """The Python in which the system is installed; creates its environment if needed.

    Systems with the same requirements share one environment. Raises `EnvironmentProblem` with pip's last words.
    """
    missing = [name for name in system.needs_modules if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"not installed here: {', '.join(missing)}")
    if system.is_ours:
        return Path(sys.executable)
    folder = environment_folder(system, cache)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / _FINISHED).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _create(system, folder, python)
    return python


def environment_folder(system: System, cache: Path) -> Path:
    """The folder of the environment for these requirements and this Python."""
    wanted = "\n".join([f"python {sys.version_info[0]}.{sys.version_info[1]}", *_wanted(system)])
    return cache / "environments" / f"{system.adapter[4:]}-{hashlib.sha256(wanted.encode()).hexdigest()[:10]}"


def _create(system: System, folder: Path, python: Path) -> None:
    print(f"{system.name}: installing {', '.join(_wanted(system))} into {folder}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if system.without_dependencies:
        _run([*pip, "--no-deps", *system.without_dependencies])
    if system.requirements:
        _run([*pip, *system.requirements])
    for package in system.drop_broken_extensions:
        _drop_broken_extension(python, package)
    frozen = _run([str(python), "-m", "pip", "freeze", "--disable-pip-version-check"])
    (folder / _FINISHED).write_text(frozen)  # written last: an environment without it is unfinished


def _drop_broken_extension(python: Path, package: str) -> None:
    """Removes the compiled part of a package if it cannot be loaded."""
    if subprocess.run([str(python), "-c", f"import {package}"], capture_output=True, check=False).returncode == 0:
        return
    found = _run([str(python), "-c", f"from importlib.util import find_spec as f; print(f({package!r}).origin)"])
    for library in (Path(found.strip()).parent / "lib").glob("*.so"):
        library.unlink()


def _wanted(system: System) -> list[str]:
    return [*(f"{name} (alone)" for name in system.without_dependencies), *system.requirements]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
        reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise EnvironmentProblem(f"its environment cannot be made: {reason}")
    return done.stdout
