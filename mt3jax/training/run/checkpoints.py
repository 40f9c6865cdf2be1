"""A run's folder: numbered checkpoints, each written under a temporary name and then renamed, and restoring them.

    run.json          the run's configuration and program (`run_record.py`)
    3000/params/      what is validated and converted: the moving average, or the parameters if there is none
    3000/train/       optimizer state, counters, and the parameters themselves if `params` is the average
    3000/config/      the model's configuration, as JSON
    3000/data/        the place in the data, as JSON
    3000/metrics/     of the validation, as JSON
    3000/checksums.json    sizes and checksums of all of these (`checksums.py`)
    3000.broken/      a checkpoint that could not be read and was skipped

Random keys need not be saved: they are made from the seed, which is in the configuration, and the step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mt3core.config.training import TrainingConfig
from mt3core.errors import MT3Error, TrainingError, listed
from mt3core.files import size_in_words
from mt3core.json_text import read_json
from mt3jax.training.run.checksums import find_damage, record_checksums
from mt3jax.training.run.hosts import first_process_does, said_by_first_process, true_for_all_processes
from mt3jax.training.run.run_record import RUN_FILE, check_folder, write_run_record
from mt3jax.training.step.state import TrainState

HALF_WRITTEN = ".orbax-checkpoint-tmp*"  # after the step: Orbax's name for a checkpoint that is not renamed yet
COUNTERS = ("step", "norm_mean", "num_skipped", "skipped_in_row")
LOCK_FILE = ".lock"
MOST_SECONDS_UNSEEN = 60.0  # NFS may report for up to half of this that a new file does not exist
SPARE_BYTES = 1 << 20  # for Orbax's metadata and the JSON
Say = Callable[[str], None]
# Names of the metrics that a checkpoint is saved with, and which of two values is better.
BEST_BY: dict[str, Callable[..., float]] = {"validation/loss": min, "validation/note_f1": max}


@dataclass(frozen=True)
class Restored:
    """The content of a checkpoint; `metrics` is empty if it was saved without a validation."""

    state: TrainState
    data_state: dict[str, Any]
    metrics: dict[str, float]


class LastAndBest:
    """A preservation policy for Orbax's `CheckpointManager`.

    Args:
        keep_last: number of newest checkpoints that are kept.
        keep_best: number of best checkpoints kept by each metric of `BEST_BY`; of two equal ones the earlier is kept.

    `metrics` are those of each step. A step whose metric is missing or NaN never counts as best.
    """

    def __init__(self, keep_last: int, keep_best: int) -> None:
        self.keep_last, self.keep_best = keep_last, keep_best
        self.metrics: dict[int, dict[str, float]] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax asks this for its checkpoints in the order of their steps."""
        kept = self.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Those of `steps` (ascending) that are kept."""
        kept = set(steps[-self.keep_last :])
        for name, better in BEST_BY.items():
            sign = 1 if better is min else -1
            figures = [(sign * self.metrics.get(step, {}).get(name, math.nan), step) for step in steps]
            kept.update(step for _, step in sorted(f for f in figures if math.isfinite(f[0]))[: self.keep_best])
        return kept


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """Saves and restores a run's state. All processes call the same methods in the same order.

    Opening creates the folder and `run.json`, and removes what a killed process had not finished writing.

    Args:
        directory: of the run; absent, empty or that of this run.
        config: of the run.
        say: called with messages for the user.

    Raises `TrainingError` if the folder contains something else, another run, or one that is still training.
    """

    def __init__(self, directory: str | os.PathLike[str], config: TrainingConfig, say: Say = print) -> None:
        self.directory = Path(directory).absolute()
        self._config, self._say = config, say
        self._lock: Any = None
        changes = check_folder(self.directory, config)
        first_process_does(self._open_folder)
        if not true_for_all_processes(_appears(self.directory / RUN_FILE)):
            raise TrainingError(
                f"{self.directory} is not the same folder for all processes.",
                "Choose one on a file system that all hosts share with --output.",
            )
        if changes:
            say(f"Resuming with changed values: {listed(changes)}.")
        self._retention = LastAndBest(config.checkpoint.keep_last, config.checkpoint.keep_best)
        self._saving: int | None = None
        self._has_failed = False
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._retention,
            cleanup_tmp_directories=False,  # Orbax would do it in the background and not finish in a short run
            lightweight_initialize=True,  # so that a damaged file of a checkpoint cannot keep it from starting
            async_options=ocp.AsyncOptions(post_finalization_callback=self._record),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        quiet_orbax()
        for step in self._manager.all_steps():
            self._retention.metrics[step] = _read_metrics(self.directory / str(step))

    def save(
        self, state: TrainState, data_state: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Writes a checkpoint while training continues; a step that already has one is skipped.

        Args:
            state: may be donated to the next step as soon as this returns.
            data_state: where the data continues, in JSON-ready types.
            metrics: of the validation after this step, which decide whether it is among the best.

        Raises `TrainingError` if it, or the previous one, cannot be written. Earlier ones are untouched.
        """
        self.wait()
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        first_process_does(lambda: self._check_room(state, 1, f"for checkpoint {step:,}"))
        figures = {name: float(value) for name, value in (metrics or {}).items()}
        self._retention.metrics[step] = figures
        self._saving, self._has_failed = step, False
        average, train = _to_items(state)
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(average),
            train=ocp.args.StandardSave(train),
            config=ocp.args.JsonSave(self._config.model.to_dict()),
            data=ocp.args.JsonSave(dict(data_state)),
            metrics=ocp.args.JsonSave(figures),
        )
        with self._failures_named():
            self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Waits until the current checkpoint is written. Raises `TrainingError` if it could not be written."""
        with self._failures_named():
            self._manager.wait_until_finished()

    def restore(self, abstract_state: TrainState) -> Restored | None:
        """The newest complete checkpoint; None if there are no checkpoints.

        Damaged ones are reported, and renamed as soon as an earlier one could be read.

        Args:
            abstract_state: shapes and shardings to restore to, whatever they were when it was saved.

        Raises `TrainingError` if there are checkpoints and none can be used, or if the disk has no space for
        a new one.
        """
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        # Old ones are deleted only when the new one is complete, so the first two need space at the same time.
        first_process_does(lambda: self._check_room(abstract_state, 1 if steps else 2, "for checkpoints"))
        broken: dict[int, str] = {}
        for step in steps:
            restored, problem = self._try(step, abstract_state)
            if restored is not None:
                self._set_aside(broken, step)
                return restored
            broken[step] = problem
        if not broken:
            return None
        newest = max(broken)
        raise TrainingError(
            f"None of the {len(broken)} checkpoints in {self.directory} can be used; "
            f"the newest, {newest}: {broken[newest]}.",
            "Restore one from a copy, or start a new run with --output.",
        )

    def close(self) -> None:
        """Waits for the current checkpoint, and releases the folder."""
        try:
            self.wait()
            self._manager.close()
        finally:
            if self._has_failed:
                self._remove_half_written()  # by writes that continued after another had failed
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TrainingError:
            if error is None:  # the user should read the error that ended the run
                raise

    # ---- Opening

    def _open_folder(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(self.directory / LOCK_FILE)
        except OSError as error:
            raise TrainingError(
                f"Cannot write to {self.directory}: {error.strerror or error}.", "Choose another folder with --output."
            ) from error
        if self._lock is None:
            raise TrainingError(
                f"Another process is training in {self.directory}.",
                "Wait for it, or choose another folder with --output.",
            )
        for directory in self.directory.glob(f"*{HALF_WRITTEN}"):
            shutil.rmtree(directory, ignore_errors=True)
        write_run_record(self.directory, self._config)

    # ---- Saving

    def _record(self) -> None:
        """Called by Orbax's thread in the first process, when all files are written, still under the temporary name."""
        for directory in self._half_written():
            record_checksums(directory)

    def _half_written(self) -> Iterator[Path]:
        return self.directory.glob(f"{self._saving}{HALF_WRITTEN}")

    def _remove_half_written(self) -> None:
        for directory in self._half_written() if jax.process_index() == 0 else ():
            shutil.rmtree(directory, ignore_errors=True)

    def _check_room(self, state: TrainState, count: int, purpose: str) -> None:
        needed = count * (_num_bytes(state) + SPARE_BYTES)
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise TrainingError(
                f"{self.directory} has too little space {purpose}: {size_in_words(free)} free, "
                f"{size_in_words(needed)} needed.",
                "Free some space (earlier checkpoints are untouched), or use another disk with --output.",
            )

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except MT3Error:
            raise
        except Exception as error:  # Orbax, TensorStore and the file system raise many kinds
            self._has_failed = True
            self._remove_half_written()
            self._manager.reload()  # it has forgotten the old steps that it was going to delete after this one
            raise TrainingError(
                f"Checkpoint {self._saving} could not be written to {self.directory}: {_reason(error)}.",
                "Earlier checkpoints are untouched: make sure that the disk has space, then run the same command "
                "again.",
            ) from error

    # ---- Restoring

    def _try(self, step: int, abstract_state: TrainState) -> tuple[Restored | None, str]:
        """A checkpoint, or what is wrong with it; all processes get the same result."""
        problem = find_damage(self.directory / str(step)) if jax.process_index() == 0 else ""
        if said_by_first_process(bool(problem)):
            return None, problem or "the first process found it damaged"
        restored = None
        try:
            restored = self._read(step, abstract_state)
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            problem = _reason(error)
        if not true_for_all_processes(restored is not None):
            return None, problem or "another process could not read it"
        return restored, ""

    def _read(self, step: int, abstract_state: TrainState) -> Restored:
        average, train = _to_items(abstract_state)
        found = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(average),
                train=ocp.args.StandardRestore(train),
                data=ocp.args.JsonRestore(),
                metrics=ocp.args.JsonRestore(),
            ),
        )
        return Restored(_to_state(found["params"], found["train"]), dict(found["data"]), dict(found["metrics"]))

    def _set_aside(self, broken: Mapping[int, str], used: int) -> None:
        """Renames damaged checkpoints, since the run will reach their steps again; `used` is the one that works."""
        if not broken:
            return
        for step, problem in broken.items():
            self._say(
                f"Checkpoint {step} is damaged ({problem}); it was renamed to {step}.broken. "
                f"Checkpoint {used} is used instead."
            )
        first_process_does(lambda: self._rename(broken))
        self._manager.reload()

    def _rename(self, steps: Iterable[int]) -> None:
        for step in steps:
            aside = self.directory / f"{step}.broken"
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")


def _read_metrics(directory: Path) -> dict[str, float]:
    """The metrics that a checkpoint was saved with; none if they cannot be read."""
    try:
        found = read_json(directory / "metrics" / "metrics")
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def quiet_orbax() -> None:
    """Suppresses Orbax's log messages: tracebacks of errors that it also raises, and advice on its use.

    When one of its writes or reads fails, asyncio also reports each of the others; for Orbax these are suppressed too.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_orbax)  # once, however often it is called


def _is_not_orbax(record: logging.LogRecord) -> bool:
    place = f"{os.sep}orbax{os.sep}"
    return place not in record.pathname and (record.name != "asyncio" or place not in record.getMessage())


def _to_items(state: TrainState) -> tuple[Any, dict[str, Any]]:
    """The content of `params` and of `train`."""
    train = {"opt_state": state.opt_state, **{name: getattr(state, name) for name in COUNTERS}}
    if state.ema is None:
        return state.params, train
    return state.ema, {**train, "params": state.params}


def _to_state(average: Any, train: Mapping[str, Any]) -> TrainState:
    params, ema = (train["params"], average) if "params" in train else (average, None)
    return TrainState(params=params, ema=ema, opt_state=train["opt_state"], **{name: train[name] for name in COUNTERS})


def _num_bytes(state: TrainState) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(state))


def _appears(path: Path) -> bool:
    """Whether a file exists that another host may have just made, which network file systems show late."""
    ends = time.monotonic() + MOST_SECONDS_UNSEEN
    while not path.exists() and time.monotonic() < ends:
        time.sleep(0.2)
    return path.exists()


def _take_lock(path: Path) -> Any:
    """An open file that this process holds a lock on; None if another one does. The system releases it in any case."""
    file = path.open("w")
    try:
        import fcntl

        # Not inherited by worker processes, which may outlive a killed run.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except (ImportError, OSError):  # a file system or platform without locks
        pass
    return file
