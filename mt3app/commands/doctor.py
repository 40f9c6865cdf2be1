"""`mt3 doctor`: what is installed and found on this machine, to check before asking why something fails."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt3app.backend import INSTALL_ONE, PACKAGES, is_installed
from mt3app.progress import describe
from mt3core.extras import EXTRAS, install_command
from mt3core.files import size_in_words

ESSENTIAL = ("numpy", "av", "soundfile", "soxr", "pretty_midi", "mido", "safetensors", "platformdirs", "typer", "rich")
OTHERS = (*dict.fromkeys(package for packages in EXTRAS.values() for package in packages.values()), "tinysoundfont")
# The other formats of libsndfile are rarely used.
COMMON_FORMATS = ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64")


def examine(as_json: bool) -> int:
    """Prints the report; returns 1 only if something essential is missing, which it names."""
    report = examination()
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print_report(report)
    return 1 if report["problems"] else 0


def examination() -> dict[str, Any]:
    """The report as JSON values. If an entry fails, it contains the error instead."""
    report: dict[str, Any] = {
        "mt3kit": installed_version("mt3kit"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "packages": {name: installed_version(name) for name in (*ESSENTIAL, *OTHERS)},
        "devices": {name: _attempt(find) for name, find in (("torch", _torch_devices), ("jax", _jax_devices))},
        "audio": {"libsndfile": _attempt(_sound_formats), "pyav": _attempt(_pyav_versions)},
        "models": _attempt(_models),
        "folders": _attempt(_folders),
        "measured": _attempt(_measured),
    }
    report["problems"] = _problems(report)
    return report


def _problems(report: dict[str, Any]) -> list[str]:
    missing = [name for name in ESSENTIAL if report["packages"][name] is None]
    problems = [f"{name} is not installed. Run: {install_command([name])}" for name in missing]
    if not any(is_installed(backend) for backend in PACKAGES):
        problems.append(f"Neither PyTorch nor JAX is installed. {INSTALL_ONE}")
    for name, found in report["devices"].items():
        if isinstance(found, str):
            problems.append(f"{name} is installed but does not work: {found}")
    if isinstance(report["audio"]["libsndfile"], str):
        problems.append(f"Audio files cannot be read: {report['audio']['libsndfile']}")
    if isinstance(report["audio"]["pyav"], str) and report["packages"]["av"] is not None:
        problems.append(f"Compressed audio cannot be read: {report['audio']['pyav']}")
    return problems


def _attempt(find: Callable[[], Any]) -> Any:
    """What `find` returns, or a sentence about what went wrong: a broken package must not end the report."""
    try:
        return find()
    except Exception as error:
        return describe(error)


def installed_version(package: str) -> str | None:
    """The version of a package by its name on the index; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_devices() -> list[str] | None:
    if not is_installed("torch"):
        return None
    torch = importlib.import_module("torch")
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return devices + (["mps"] if torch.backends.mps.is_available() else [])


def _jax_devices() -> list[str] | None:
    if not is_installed("jax"):
        return None
    jax = importlib.import_module("jax")
    return [f"{device.platform}:{device.id} ({device.device_kind})" for device in jax.devices()]


def _sound_formats() -> list[str]:
    soundfile = importlib.import_module("soundfile")
    available = soundfile.available_formats()
    return [name for name in COMMON_FORMATS if name in available]


def _pyav_versions() -> dict[str, str]:
    """PyAV reads compressed audio; FFmpeg's libraries are inside it."""
    av = importlib.import_module("av")
    return {"version": av.__version__, "ffmpeg": getattr(av, "ffmpeg_version_info", None) or "of unknown version"}


def _models() -> dict[str, Any]:
    """The model used without `--model`, and all models found by name."""
    search = importlib.import_module("mt3core.model.search")
    default = _attempt(lambda: search.find_model(None).source)
    return {"default": default, "found": [str(path) for path in search.models_here()]}


def _folders() -> dict[str, dict[str, Any]]:
    platformdirs = importlib.import_module("platformdirs")
    cache = importlib.import_module("mt3core.files").cache_folder()
    folders = {"cache": cache, "data": platformdirs.user_data_dir("mt3kit"), "current": os.getcwd()}
    return {name: {"path": str(path), "free_gb": _free_gb(Path(path))} for name, path in folders.items()}


def _free_gb(folder: Path) -> float:
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free / 1e9


def _measured() -> dict[str, dict[str, float]]:
    """Milliseconds of attention in all its forms on this machine, as far as they have been measured."""
    if not is_installed("torch"):
        return {}
    from mt3torch.tuning import known_measurements

    return known_measurements()


def _print_report(report: dict[str, Any]) -> None:
    print(f"mt3kit {report['mt3kit']}, Python {report['python']}, {report['platform']}, {report['cpu_cores']} cores")
    _print_row("packages", ", ".join(f"{name} {version}" for name, version in report["packages"].items() if version))
    _print_row("absent", ", ".join(name for name, version in report["packages"].items() if not version) or "none")
    for name, found in report["devices"].items():
        _print_row(f"{name} devices", _joined(found, "not installed"))
    _print_row("audio formats", _joined(report["audio"]["libsndfile"], "none"))
    pyav = report["audio"]["pyav"]
    inside = pyav if isinstance(pyav, str) else f"PyAV {pyav['version']} with FFmpeg {pyav['ffmpeg']}"
    _print_row("compressed", inside)
    models = report["models"]
    if isinstance(models, dict):
        _print_row("default model", models["default"])
        _print_row("models found", _joined(models["found"], "none"))
    else:
        _print_row("models", models)
    for name, folder in report["folders"].items() if isinstance(report["folders"], dict) else ():
        _print_row(f"{name} folder", f"{folder['path']} ({size_in_words(1e9 * folder['free_gb'])} free)")
    measured = report["measured"]
    for where, times in measured.items() if isinstance(measured, dict) else [("failed", measured)]:
        shown = times if isinstance(times, str) else ", ".join(f"{name} {one:g} ms" for name, one in times.items())
        _print_row("attention", f"{shown} ({where})")
    for problem in report["problems"]:
        print(f"Problem: {problem}")


def _print_row(name: str, value: str) -> None:
    print(f"  {name + ':':16}{value}")


def _joined(found: list[str] | str | None, otherwise: str) -> str:
    return found if isinstance(found, str) else ", ".join(found or []) or otherwise
