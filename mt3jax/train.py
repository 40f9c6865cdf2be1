"""The training loop, read top to bottom: hosts, data, state, forecast, steps.

    mt3 train --config multitrack_test                      or, in Python:
    train(load_config("multitrack_test"), "checkpoint/run")

The same command resumes a run that was stopped or killed: parameters, optimizer, counters and the place in the data
come from the newest complete checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

from mt3core.config.training import TrainingConfig
from mt3core.errors import MT3Error, TrainingError
from mt3data.examples.examples import ExampleConfig
from mt3jax.compilation import keep_compiled_programs
from mt3jax.pipeline import Pipeline, training_pipeline
from mt3jax.training.run.bad_batches import bad_batches_file, chunk_names, note_bad_batch
from mt3jax.training.run.checkpoints import Checkpoints
from mt3jax.training.run.console import Console
from mt3jax.training.run.estimate import exhaustion_explained, forecast_lines, memory_limit
from mt3jax.training.run.hosts import join_hosts
from mt3jax.training.run.meter import Meter
from mt3jax.training.run.run_log import RunLog
from mt3jax.training.run.stopping import EXIT_FINISHED, StopSignals
from mt3jax.training.step.sharding import check_batch, make_mesh
from mt3jax.training.step.state import TrainState, abstract_state, init_state
from mt3jax.training.step.step_input import StepBatch, StepInput
from mt3jax.training.step.train_step import Rejection, make_train_step
from mt3jax.training.validation.validation import Validator, validator_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. `exit_code` is 0 when it is finished, 75 when a signal stopped it and 130 after Ctrl-C."""

    run_directory: Path
    step: int
    exit_code: int
    validation: dict[str, float] = field(default_factory=dict)


def train(
    config: TrainingConfig,
    run_directory: str | Path,
    arrays: Mapping[str, np.ndarray] | None = None,
    say: Say = print,
    show_progress: bool = True,
) -> TrainingResult:
    """Trains until `config.num_steps`, from the newest checkpoint in `run_directory` if there is one.

    Args:
        config: the run.
        run_directory: for checkpoints, `metrics.jsonl`, TensorBoard's files and pictures.
        arrays: weights to start a new run from, by PyTorch name in PyTorch's shape; None draws them.
        say: called with lines for the user; only the first process calls it.
        show_progress: whether each report is printed, or shown live on a terminal.

    Raises `UsageError` and `DatasetError` for what cannot be trained, `TrainingError` if training must stop.
    """
    # ---- Hosts and devices
    join_hosts(say)
    keep_compiled_programs()
    is_writer = jax.process_index() == 0
    say = say if is_writer else lambda line: None
    mesh = make_mesh(config.compute)
    check_batch(config, mesh)
    run_directory = Path(run_directory)
    program = f"jax {jax.__version__}, flax {flax.__version__}"
    say(f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}, {jax.process_count()} process(es); {program}")

    # ---- Data, and the folder of the run
    pipeline = training_pipeline(
        config.data, config.batch.examples, example=ExampleConfig(config.model), seed=config.seed
    )
    every = config.validation.every_steps
    validator = validator_of(config, mesh, say)
    with Checkpoints(run_directory, config, say) as checkpoints:
        # ---- State: the newest checkpoint, or given weights, or drawn ones
        restored = checkpoints.restore(abstract_state(config, mesh))
        state = restored.state if restored else init_state(config, mesh, arrays)
        first_step = int(state.step)
        if restored:
            say(f"Resuming from step {first_step:,} in {run_directory}")
        if first_step >= config.num_steps:
            say(f"{run_directory} already has {first_step:,} steps; for more, use --set num_steps=N.")
            return TrainingResult(run_directory, first_step, EXIT_FINISHED)

        with (
            RunLog(run_directory, config.report, is_writer, say, dataclasses.asdict(config), first_step) as log,
            StepInput(pipeline, config, mesh, restored.data_state if restored else None) as batches,
        ):
            # ---- Forecast
            limit = memory_limit(mesh)
            for line in forecast_lines(config, mesh, batches.rows, batches.mean_tokens, first_step, limit):
                say(line)

            # ---- Steps
            with (
                StopSignals(say) as stop,
                Console(config.num_steps, first_step, is_writer and show_progress, say) as console,
            ):
                meter = Meter(config, mesh.size)
                run = _Run(config, pipeline, checkpoints, log, validator, console, run_directory, meter)
                is_given = arrays is not None and first_step == 0  # to compare with the trained model
                was_stopped = restored is not None and not restored.metrics  # before its validation
                try:
                    with exhaustion_explained():
                        if validator and (is_given or (was_stopped and first_step % every == 0)):
                            run.validate(validator, state)
                        run.steps(state, batches, make_train_step(config, mesh), stop)
                except MT3Error:
                    run.save_what_is_left()
                    raise
                checkpoints.wait()  # here, where a signal cannot interrupt it
    if stop.exit_code != EXIT_FINISHED:
        say(f"Stopped after step {run.step:,}; everything is saved in {run_directory}. Run the same command to resume.")
    return TrainingResult(run_directory, run.step, stop.exit_code, run.validation)


@dataclass
class _Dispatched:
    """A step that the devices may still be computing."""

    step: int
    metrics: dict[str, jax.Array]
    batch: StepBatch


@dataclass
class _Run:
    """The loop, and its work besides stepping: accounting, validation, checkpoints."""

    config: TrainingConfig
    pipeline: Pipeline
    checkpoints: Checkpoints
    log: RunLog
    validator: Validator | None
    console: Console
    run_directory: Path
    meter: Meter
    step: int = 0
    validation: dict[str, float] = field(default_factory=dict)
    has_validated: bool = False
    newest: tuple[TrainState, dict[str, Any]] | None = None  # with the place in the data after it

    def steps(
        self,
        state: TrainState,
        batches: StepInput,
        train_step: Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, dict[str, jax.Array]]],
        stop: StopSignals,
    ) -> None:
        config = self.config
        self.step = int(state.step)
        last: _Dispatched | None = None
        first, must_stop = self.step, False
        while self.step < config.num_steps and not must_stop:
            batch = next(batches)
            if self.step == first:
                self.console.compiling("the training step")
            state, metrics = train_step(state, batch.arrays)
            self.newest = state, batch.data_state
            if self.step == first:  # it has been compiled
                self.console.note("")
                self.meter.start()
            self.step += 1
            # The numbers of the previous step are read only now, while the devices compute this one.
            trouble = self._account(last)
            last = _Dispatched(self.step, metrics, batch)

            must_stop = stop.must_stop(self.step)
            is_end = self.step == config.num_steps
            is_due = is_end or self.step % max(config.validation.every_steps, 1) == 0
            validator = self.validator if is_due else None
            saves = must_stop or validator or is_end or self.step % config.checkpoint.every_steps == 0
            if saves or trouble or self.step % config.report.every_steps == 0:
                trouble = trouble or self._account(last)
                last = None
                self._report()
            if trouble:
                self.checkpoints.save(state, batch.data_state)
                self.checkpoints.wait()
                raise trouble
            found = self.validate(validator, state) if validator and not must_stop else None
            if saves:
                with self.meter.paused():
                    self.checkpoints.save(state, batch.data_state, found)

    def save_what_is_left(self) -> None:
        """After an error: saves what was learned since the last checkpoint, if that still exists."""
        # Of several processes only one may have failed, and saving needs all of them.
        if self.newest is None or jax.process_count() > 1:
            return
        # The state may have been passed to a step that failed, or be the result of one.
        with contextlib.suppress(RuntimeError):
            self.checkpoints.save(jax.block_until_ready(self.newest[0]), self.newest[1])
            self.checkpoints.wait()

    def _account(self, dispatched: _Dispatched | None) -> TrainingError | None:
        """Reads a step's numbers, waiting for them; returns why training must stop, if it must."""
        if dispatched is None:
            return None
        metrics = jax.device_get(dispatched.metrics)
        self.meter.add(metrics, dispatched.batch)
        self.console.step(dispatched.step, float(metrics["loss"]))
        rejection = Rejection(int(metrics["rejection"]))
        if not rejection:
            return None
        names = chunk_names(self.pipeline, dispatched.batch.host)
        note_bad_batch(self.run_directory, dispatched.step, rejection.reason, metrics, names, self.console.say)
        safety, which = self.config.safety, rejection.name.lower()
        problem = (
            f"Step {dispatched.step:,} was not applied: {rejection.reason} "
            f"(loss {float(metrics['loss']):.4g}, gradient norm {float(metrics['gradient_norm']):.4g}). "
            f"Its batch starts with {names[0] if names else 'nothing'}; all chunks are in {bad_batches_file()}."
        )
        if getattr(safety, which) == "stop":
            return TrainingError(
                problem, f"The previous state is saved; to skip such batches, use --set safety.{which}=skip."
            )
        if int(metrics["skipped_in_row"]) > safety.most_skipped:
            return TrainingError(
                f"{problem} Steps skipped in a row: {int(metrics['skipped_in_row'])}.",
                "Resume from an earlier checkpoint with a lower learning rate.",
            )
        self.console.say(problem)
        return None

    def _report(self) -> None:
        figures = self.meter.take()
        self.log.scalars(self.step, figures)
        self.console.report(self.step, figures)

    def validate(self, validator: Validator, state: TrainState) -> dict[str, float]:
        """Evaluates the validation sample, reports it, and returns its metrics."""
        started = time.perf_counter()
        if not self.has_validated:
            self.console.compiling("the validation")
            self.has_validated = True
        self.console.note("validating")
        with self.meter.paused():
            result = validator.run(state.ema or state.params, self.step, self.run_directory)
        self.console.note("")
        self.validation = result.metrics
        self.log.scalars(self.step, result.metrics)
        if result.picture is not None:
            self.log.picture(self.step, "validation", result.picture)
        seconds = time.perf_counter() - started
        self.console.say(f"Validation after step {self.step:,} ({seconds:.0f} s): {result.summary}")
        if result.table:
            self.console.say(result.table)
        return result.metrics


if __name__ == "__main__":
    sys.exit("mt3: training is started by the command: mt3 train --config NAME")
