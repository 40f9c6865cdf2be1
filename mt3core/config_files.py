"""Training configs as Python files: found by name, loaded, and changed by `path=value` with types checked.

A config file defines `config`, a `TrainingConfig`; its docstring tells aim, data, command and expected result. It is
looked for in `./configs` first, then among those that ship with mt3kit. Being Python, it is run: load only what you
would run.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import runpy
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt3core.config_values import parse_value
from mt3core.errors import MT3Error, UsageError
from mt3core.training_config import TrainingConfig, check_training_config

LOCAL_FOLDER = Path("configs")
SHIPPED_PACKAGE = "mt3configs"  # `configs/` of the repository under the name it is installed by


def load_config(name: str, changes: Iterable[str] = ()) -> TrainingConfig:
    """The config of a name or a path to a `.py` file, with changes such as `"batch.examples=64"` applied, checked.

    Raises `UsageError` for what is not there, defines no config, or does not fit.
    """
    config = apply_changes(_run_config_file(find_config(name)), changes)
    check_training_config(config)
    return config


def find_config(name: str) -> Path:
    """The file that a name means. Raises `UsageError` listing the configs there are, the most alike first."""
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"There is no config file {name}.", "Check the path, or give a name: mt3 train --list.")
    files = {path.stem: path for path, _ in list_configs()}
    if name not in files:
        alike = difflib.get_close_matches(name, files, len(files), cutoff=0.0)
        raise UsageError(f"There is no config {name!r}.", f"Choose {', '.join(alike) or 'a path to a .py file'}.")
    return files[name]


def list_configs() -> list[tuple[Path, str]]:
    """Every config that can be named, with the first line of its docstring; one in `./configs` hides a shipped one."""
    files: dict[str, Path] = {}
    for folder in (LOCAL_FOLDER, shipped_folder()):
        for path in sorted(folder.glob("*.py")) if folder is not None and folder.is_dir() else ():
            if not path.stem.startswith("_"):
                files.setdefault(path.stem, path)
    return [(files[name], _first_line(files[name])) for name in sorted(files)]


def shipped_folder() -> Path | None:
    """Where the configs lie that were installed with mt3kit, or the repository's own."""
    specification = importlib.util.find_spec(SHIPPED_PACKAGE)
    places = list(specification.submodule_search_locations or ()) if specification else []
    beside = Path(__file__).resolve().parents[1] / "configs"
    return Path(places[0]) if places else beside if beside.is_dir() else None


def apply_changes(config: TrainingConfig, changes: Iterable[str]) -> TrainingConfig:
    """The config with fields changed by `path=value` each; a path's parts lead through nested dataclasses.

    Of two changes of one field the later holds; fields that have to fit together may be changed in any order.
    Raises `UsageError` for a path that is not there, naming those that are, or a value of another type.
    """
    return _replaced(config, [_split(change) for change in changes], "")


@dataclass(frozen=True)
class _Change:
    path: str
    parts: tuple[str, ...]  # of the path that are still to go
    text: str


def _split(change: str) -> _Change:
    path, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not path:
        raise UsageError(f"--set {change} is no change.", "Write it PATH=VALUE, such as batch.examples=64.")
    return _Change(path, tuple(path.split(".")), text)


def _replaced(values: Any, changes: Sequence[_Change], where: str) -> Any:
    """A copy of the dataclass `values`, whose own path is `where`, with all changes made at once."""
    fields = [field.name for field in dataclasses.fields(values)]
    new: dict[str, Any] = {}
    deeper: dict[str, list[_Change]] = {}
    for change in changes:
        name, *rest = change.parts
        if name not in fields:
            alike = ", ".join(difflib.get_close_matches(name, fields, len(fields), cutoff=0.0))
            raise UsageError(f"There is no {change.path!r} in a training config.", f"{where or 'It'} has {alike}.")
        if not rest:
            new[name] = parse_value(type(values), name, change.path, change.text)
        elif dataclasses.is_dataclass(getattr(values, name)):
            deeper.setdefault(name, []).append(_Change(change.path, tuple(rest), change.text))
        else:
            shorter = f"{where}.{name}".lstrip(".")
            raise UsageError(f"There is no {change.path!r}: {shorter} is a value.", f"Write {shorter}={change.text}.")
    for name, inner in deeper.items():
        new[name] = _replaced(new.get(name, getattr(values, name)), inner, f"{where}.{name}".lstrip("."))
    try:
        return dataclasses.replace(values, **new)
    except MT3Error as error:  # a dataclass that checks itself
        given = ", ".join(f"{change.path}={change.text}" for change in changes)
        raise UsageError(f"{given} does not fit: {error.problem}", error.next_step) from error


def _run_config_file(path: Path) -> TrainingConfig:
    try:
        defined = runpy.run_path(str(path), run_name=path.stem)
    except MT3Error:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        raise UsageError(
            f"The config {path}{f', line {line},' if line else ''} fails: {type(error).__name__}: {error}.",
            "Correct it.",
        ) from error
    config = defined.get("config")
    if not isinstance(config, TrainingConfig):
        raise UsageError(f"{path} defines no config.", "Let it say: config = TrainingConfig(name=..., ...).")
    return config


def _first_line(path: Path) -> str:
    """Read from the text, so that listing runs nothing."""
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (OSError, SyntaxError, ValueError) as error:
        return f"(cannot be read: {type(error).__name__})"
    return docstring.splitlines()[0] if docstring else ""
