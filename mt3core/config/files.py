"""Configs as Python files: found by name, loaded, and changed by `path=value` with types checked.

A config file defines `config`, a `TrainingConfig` or an `EvaluationConfig`; its docstring gives aim, data, command and
expected result. It is looked for in `./configs` first, then among those that ship with mt3kit. Since it is Python, it
is run: load only configs that you would run.
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
from typing import Any, TypeVar

from mt3core.config.evaluation import EvaluationConfig
from mt3core.config.training import TrainingConfig
from mt3core.config.values import parse_value
from mt3core.errors import MT3Error, UsageError

LOCAL_FOLDER = Path("configs")
SHIPPED_PACKAGE = "mt3configs"  # `configs/` of the repository under its installed name


Config = TypeVar("Config", TrainingConfig, EvaluationConfig)


@dataclass(frozen=True)
class _Kind:
    """What a config is for, and the command that uses it."""

    purpose: str
    command: str


_KINDS: dict[type, _Kind] = {
    TrainingConfig: _Kind("training", "mt3 train"),
    EvaluationConfig: _Kind("evaluation", "mt3 evaluate"),
}


def load_config(name: str, changes: Iterable[str] = ()) -> TrainingConfig:
    """The training config of a name or a path to a `.py` file, with changes such as `"batch.examples=64"` applied.

    Raises `UsageError` if the file is missing, defines no config or one of another kind, or a value is not valid.
    """
    return _load(name, changes, TrainingConfig)


def load_evaluation_config(name: str, changes: Iterable[str] = ()) -> EvaluationConfig:
    """The same for an evaluation config."""
    return _load(name, changes, EvaluationConfig)


def _load(name: str, changes: Iterable[str], kind: type[Config]) -> Config:
    return apply_changes(_run_config_file(find_config(name, kind), name, kind), changes)


def find_config(name: str, kind: type = TrainingConfig) -> Path:
    """The file that a name refers to. Raises `UsageError` listing the configs of this kind, the most similar first."""
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"There is no config file {name}.", "Check the path, or use a name from mt3 train --list.")
    files = _files()
    if name not in files:
        if Path(f"{name}.py").is_file():
            raise UsageError(f"Unknown config {name!r}.", f"The path of a file must end in .py: --config {name}.py.")
        names = [path.stem for path, _ in list_configs(kind)]
        alike = difflib.get_close_matches(name, names, len(names), cutoff=0.0)
        raise UsageError(f"Unknown config {name!r}.", f"Choose {', '.join(alike) or 'a path to a .py file'}.")
    return files[name]


def list_configs(kind: type = TrainingConfig) -> list[tuple[Path, str]]:
    """The configs that can be named, each with the first line of its docstring; one in `./configs` hides a shipped one.

    The kind is read from the text of a file, since nothing is run here; a file that does not say is for training.
    """
    described = {path: _described(path) for _, path in sorted(_files().items())}
    return [(path, line) for path, (line, described_kind) in described.items() if described_kind is kind]


def _files() -> dict[str, Path]:
    files: dict[str, Path] = {}
    for folder in (LOCAL_FOLDER, shipped_folder()):
        for path in sorted(folder.glob("*.py")) if folder is not None and folder.is_dir() else ():
            if not path.stem.startswith("_"):
                files.setdefault(path.stem, path)
    return files


def shipped_folder() -> Path | None:
    """The folder of the configs that were installed with mt3kit, or of the repository's own."""
    specification = importlib.util.find_spec(SHIPPED_PACKAGE)
    places = list(specification.submodule_search_locations or ()) if specification else []
    beside = Path(__file__).resolve().parents[2] / "configs"
    return Path(places[0]) if places else beside if beside.is_dir() else None


def apply_changes(config: Config, changes: Iterable[str]) -> Config:
    """The config with fields changed by `path=value` each; a path leads through nested dataclasses.

    If a field is changed twice, the later change counts; fields that depend on each other may be changed in any order.
    Raises `UsageError` for an unknown path, listing the known ones, or for a value of another type.
    """
    return _replaced(config, [_split(change) for change in changes], "", _KINDS[type(config)].purpose)


@dataclass(frozen=True)
class _Change:
    path: str
    parts: tuple[str, ...]  # what is left of the path
    text: str


def _split(change: str) -> _Change:
    path, equals, text = (part.strip() for part in change.partition("="))
    if not equals or not path:
        raise UsageError(f"--set {change} is not of the form PATH=VALUE.", "Write for example batch.examples=64.")
    return _Change(path, tuple(path.split(".")), text)


def _replaced(values: Any, changes: Sequence[_Change], where: str, purpose: str) -> Any:
    """A copy of the dataclass `values`, whose own path is `where`, with all changes made in one go."""
    fields = [field.name for field in dataclasses.fields(values)]
    new: dict[str, Any] = {}
    deeper: dict[str, list[_Change]] = {}
    for change in changes:
        name, *rest = change.parts
        if name not in fields:
            alike = ", ".join(difflib.get_close_matches(name, fields, len(fields), cutoff=0.0))
            problem = f"A{'n' * (purpose[0] in 'aeiou')} {purpose} config has no field {change.path!r}."
            raise UsageError(problem, f"{where or 'It'} has the fields {alike}.")
        if not rest:
            new[name] = parse_value(type(values), name, change.path, change.text)
        elif dataclasses.is_dataclass(getattr(values, name)):
            deeper.setdefault(name, []).append(_Change(change.path, tuple(rest), change.text))
        else:
            shorter = f"{where}.{name}".lstrip(".")
            raise UsageError(
                f"There is no field {change.path!r}: {shorter} is a single value.", f"Write {shorter}={change.text}."
            )
    for name, inner in deeper.items():
        new[name] = _replaced(new.get(name, getattr(values, name)), inner, f"{where}.{name}".lstrip("."), purpose)
    try:
        return dataclasses.replace(values, **new)
    except MT3Error as error:  # it checks itself
        if any(error.problem.startswith(f"{change.path} ") for change in changes):
            raise
        given = ", ".join(f"{change.path}={change.text}" for change in changes)
        raise UsageError(f"{given} is not valid: {error.problem}", error.next_step) from error


def _run_config_file(path: Path, name: str, kind: type[Config]) -> Config:
    try:
        defined = runpy.run_path(str(path), run_name=path.stem)
    except MT3Error:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        raise UsageError(
            f"The config {path}{f', line {line},' if line else ''} cannot be loaded: {type(error).__name__}: {error}.",
            "Correct it.",
        ) from error
    config = defined.get("config")
    if isinstance(config, kind):
        return config
    if type(config) in _KINDS:
        other = _KINDS[type(config)]
        raise UsageError(
            f"{path} is a config for {other.purpose}, not for {_KINDS[kind].purpose}.",
            f"Use {other.command} --config {name}.",
        )
    raise UsageError(f"{path} defines no config.", f"It must define config = {kind.__name__}(name=..., ...).")


def _described(path: Path) -> tuple[str, type]:
    """First line of the docstring, and kind of a config, read from the text, so that listing runs nothing."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        return f"(cannot be read: {type(error).__name__})", TrainingConfig
    docstring = ast.get_docstring(tree)
    return docstring.splitlines()[0] if docstring else "", _written_kind(tree)


def _written_kind(tree: ast.Module) -> type:
    """The kind that a file declares by `config = EvaluationConfig(...)`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "config" in targets and node.value.func.id == EvaluationConfig.__name__:
                return EvaluationConfig
    return TrainingConfig
