"""`run.json`: which program trained what in a run's folder, and whether the run can be resumed there."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from mt3core.config.training import TrainingConfig
from mt3core.config.values import is_free
from mt3core.errors import TrainingError, listed
from mt3core.files import atomic_output
from mt3core.json_text import read_json

RUN_FILE = "run.json"
PACKAGES = ("mt3kit", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class Change:
    """A field of a run's configuration whose value has changed."""

    field: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field} (was {_shown(self.before)}, now {_shown(self.now)})"


def read_run_record(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """A run's `run.json`: `config` (as nested dictionaries), `git`, `versions`, `time` and `earlier` starts.

    Raises `TrainingError` if there is none or it cannot be read.
    """
    path = Path(directory) / RUN_FILE
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise TrainingError(f"{directory} is not a training run: {RUN_FILE} is missing.") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}.", "Use another folder, or restore the file.") from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise TrainingError(f"{path} is not the record of a training run.", "Use another folder, or restore the file.")
    return record


def check_folder(directory: Path, config: TrainingConfig) -> list[Change]:
    """Checks whether a run can start or resume in a folder; returns the changes that are allowed.

    Raises `TrainingError` if the folder contains something else or a run of another configuration.
    """
    if not directory.exists():
        return []
    if not directory.is_dir():
        raise TrainingError(f"{directory} is a file.", "Choose a folder for the run with --output.")
    if not (directory / RUN_FILE).exists():
        # Files whose name starts with a dot are from a start that was killed before it had written anything else.
        others = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
        if others:
            raise TrainingError(
                f"{directory} is not the folder of a training run: it contains {', '.join(others[:3])}"
                f"{' and more' if len(others) > 3 else ''}, but no {RUN_FILE}.",
                "Choose another folder with --output.",
            )
        return []
    changes = differences(read_run_record(directory)["config"], config)
    refused = [change for change in changes if not is_free(TrainingConfig, change.field)]
    if refused:
        raise TrainingError(
            f"The run in {directory} was started with a different configuration: {listed(refused)}.",
            "Use the same values, or start a new run with --output.",
        )
    return changes


def has_checkpoints(run_directory: Path) -> bool:
    """Whether a run will be resumed, so that the weights it started from no longer matter."""
    return run_directory.is_dir() and any(entry.name.isdigit() for entry in run_directory.iterdir())


def write_run_record(directory: Path, config: TrainingConfig) -> None:
    """Writes `run.json`, completely or not at all; what it said about earlier starts moves into `earlier`."""
    for left in directory.glob(f".{RUN_FILE}.*"):  # by a start that was killed
        shutil.rmtree(left, ignore_errors=True)
    earlier = []
    if (directory / RUN_FILE).exists():
        before = read_run_record(directory)
        changes = [dataclasses.asdict(change) for change in differences(before["config"], config)]
        start = {name: value for name, value in before.items() if name not in ("config", "earlier")}
        earlier = [*before.get("earlier", []), {**start, "changed_after": changes}]
    record = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git_revision(),
        "versions": versions(),
        "config": dataclasses.asdict(config),
        "earlier": earlier,
    }
    with atomic_output(directory / RUN_FILE) as path:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def differences(before: Mapping[str, Any], config: TrainingConfig) -> list[Change]:
    """The fields whose values have changed. A field that an older version did not have counts as having its default."""
    # Through JSON, like the earlier values: tuples become lists.
    now = flatten_dict(json.loads(json.dumps(dataclasses.asdict(config))), sep=".")
    default = flatten_dict(json.loads(json.dumps(dataclasses.asdict(TrainingConfig(name="default")))), sep=".")
    was = {**default, **flatten_dict(before, sep=".")}
    return [Change(field, was[field], value) for field, value in now.items() if was.get(field) != value]


def versions() -> dict[str, str]:
    """Of Python and the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # from a checkout that was not installed
            found[name] = ""
    return found


def git_revision() -> dict[str, Any] | None:
    """Commit of the program's checkout, and whether files differ from it; None if it is not a checkout."""
    root = Path(__file__).parents[3]
    own = Path(__file__).relative_to(root).as_posix()
    # A package installed below somebody else's checkout is not part of it.
    if _git(root, "ls-files", "--error-unmatch", own) is None:
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit.strip(), "is_dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
