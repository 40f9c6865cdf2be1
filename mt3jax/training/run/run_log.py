"""The metrics of a run on disk: `metrics.jsonl`, TensorBoard events and, if requested, Weights & Biases.

`metrics.jsonl` has one line per report: {"step": 1200, "time": seconds since 1970, "train/loss": 1.23, ...}; values
that are not finite are null. The names are those of `meter.py` and `validation.py`. After an interruption a run resumes
from its last checkpoint; lines of later steps are then dropped, so the file reads like that of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from mt3core.config.training import ReportConfig
from mt3core.errors import MissingExtraError, OutputError, UsageError
from mt3core.extras import needed
from mt3core.files import atomic_output

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_NAME = "wandb_id.txt"

Scalars = Mapping[str, float]


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Writes metrics and pictures to every place that the configuration names. Close it, or use it as a context.

    Of several hosts only one writes; the others' logs do nothing.
    """

    def __init__(
        self,
        directory: Path,
        config: ReportConfig,
        is_writer: bool,
        say: Callable[[str], None],
        run_config: Mapping[str, Any],
        step: int,
    ) -> None:
        """Opens everything, before the first report.

        `run_config`: JSON-ready, stored with the run at Weights & Biases, which also uses its `name`. `step` is the
        last finished one, 0 for a new run. Raises `MissingExtraError` for Weights & Biases without its package,
        `UsageError` if it does not start, `OutputError` if nothing can be written.
        """
        self._outputs: list[_Output] = []
        if not is_writer:
            return
        if config.wandb:  # before any file is changed, since this is what may fail
            self._outputs.append(_WeightsAndBiases(directory, config.wandb_project, run_config))
        self._outputs.append(_JsonLines(directory / METRICS_NAME, step))
        if config.tensorboard:
            try:
                self._outputs.append(_TensorBoard(directory / TENSORBOARD_FOLDER, step))
            except MissingExtraError as error:
                say(f"Nothing is written for TensorBoard (metrics are still in {METRICS_NAME}): {error}")

    def scalars(self, step: int, values: Scalars) -> None:
        """One report: metrics by name, at the end of a step. Raises `OutputError` if the disk is full."""
        numbers = {name: float(value) for name, value in values.items()}
        for output in self._outputs:
            output.scalars(step, numbers)

    def picture(self, step: int, name: str, path: Path) -> None:
        """A PNG file."""
        for output in self._outputs:
            output.picture(step, name, path)

    def close(self) -> None:
        """Writes what is left. Further calls do nothing."""
        while self._outputs:
            self._outputs.pop().close()

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without one that is still being written."""
    with path.open(encoding="utf-8", errors="replace") as file:
        parsed = (_parse(line) for line in file)
        return [values for values in parsed if values is not None]


class _Output(Protocol):
    def scalars(self, step: int, values: Scalars) -> None: ...

    def picture(self, step: int, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, path: Path, first_step: int) -> None:
        self._path = path
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_later_lines(path, first_step)
            self._file: IO[str] = path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Scalars) -> None:
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with _writing(self._path):
            # In one piece, so that a kill leaves whole lines except perhaps the last.
            self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **numbers}) + "\n")
            self._file.flush()

    def picture(self, step: int, name: str, path: Path) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class _TensorBoard:
    def __init__(self, folder: Path, first_step: int) -> None:
        with needed("train", "report.tensorboard=true"):
            from tensorboardX import SummaryWriter

        # TensorBoard drops what earlier files have for later steps. Names are only precise to the second.
        purge_step = first_step + 1 if first_step else None
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=f".{first_step}")

    def scalars(self, step: int, values: Scalars) -> None:
        for name, value in values.items():
            if math.isfinite(value):  # it cannot show others, and tensorboardX warns
                self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a kill would lose waiting values, even of steps that are not repeated

    def picture(self, step: int, name: str, path: Path) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        data = path.read_bytes()
        width, height = png_size(data)
        # Unchanged; `add_image` would decode and encode it again.
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=data)
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run there. Its id stays in the run's folder, so that a resumed run continues with the same one.

    Steps after the last checkpoint are logged a second time after an interruption, with the same values.
    """

    def __init__(self, directory: Path, project: str, run_config: Mapping[str, Any]) -> None:
        with needed("wandb", "report.wandb=true"):
            import wandb
        self._wandb = wandb
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                name=str(run_config.get("name", directory.name)),
                id=_stored_id(directory / WANDB_ID_NAME),
                resume="allow",
                dir=os.fspath(directory),
                config=dict(run_config),
                # The terminal belongs to the run.
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UsageError(
                f"Weights & Biases does not start: {reason}.",
                "Run wandb login, or set WANDB_MODE=offline in the environment, or report.wandb=false.",
            ) from error
        # Its own count of steps never goes back, which a resumed run has to.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Scalars) -> None:
        self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, path: Path) -> None:
        self._run.log({"step": step, name: self._wandb.Image(os.fspath(path))})

    def close(self) -> None:
        self._run.finish()


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG file: the first two numbers of its header chunk."""
    return struct.unpack(">II", data[16:24])


def _drop_later_lines(path: Path, last_step: int) -> None:
    """Keeps the whole lines up to a step; the file is replaced in one step or not touched."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        if all(_is_kept(line, last_step) for line in lines):
            return
        lines.seek(0)
        with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(line for line in lines if _is_kept(line, last_step))


def _is_kept(line: str, last_step: int) -> bool:
    values = _parse(line)
    return values is not None and values["step"] <= last_step


def _parse(line: str) -> dict[str, Any] | None:
    """None for a line that a kill has cut, even if only its line break is missing: the next line would continue it."""
    try:
        values = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None


def _stored_id(path: Path) -> str:
    if path.is_file() and (stored := path.read_text().strip()):
        return stored
    identity = uuid.uuid4().hex[:12]
    with atomic_output(path) as temporary:
        temporary.write_text(identity + "\n")
    return identity


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.", "Free disk space, or choose another folder."
        ) from error
