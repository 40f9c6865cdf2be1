"""`mt3 train`: determines config, data and initial weights, trains, and ends with the steps the config requests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mt3app.backend import fetch_weights
from mt3app.progress import Reporter
from mt3core.config.data import DatasetChoice
from mt3core.config.files import find_config, list_configs, load_config
from mt3core.config.model import FORMAT_VERSION, ModelConfig
from mt3core.config.training import TrainingConfig
from mt3core.errors import DatasetError, ModelError
from mt3core.extras import require
from mt3core.model.directory import check_fit
from mt3data.prepare.manifest import COMPOSED_NAME, MANIFEST_NAME, read_manifest

if TYPE_CHECKING:
    from mt3app.cli_train import TrainOptions

RUNS_FOLDER = Path("checkpoint")
# Changes that say which data a run has.
_OWN_DATA = ("data.manifest=", "data.composed_pieces=")
# What every run needs sooner or later, by module name. Without the rest of [train] a run omits its output
# for TensorBoard and pictures, and prints a line about it.
PACKAGES = ("jax", "flax", "optax", "orbax", "grain", "pyarrow", "array_record", "mir_eval", "scipy")


def print_configs() -> None:
    """Each config's name and the first line of its docstring, on standard output."""
    configs = list_configs()
    width = max((len(path.stem) for path, _ in configs), default=0)
    for path, about in configs:
        print(f"{path.stem:{width}}  {about}")


def run_training(options: TrainOptions, reporter: Reporter) -> int:
    """Trains and returns the exit code: 0 finished, 75 stopped by a signal with everything saved.

    Raises `UsageError`, `DatasetError` or `ModelError` for unusable options, if possible before anything slow.
    """
    config = settled_config(options)
    output = options.output or RUNS_FOLDER / config.name
    require("train", "mt3 train", PACKAGES)
    if config.report.wandb:
        require("wandb", "report.wandb=true")
    runs = runs_in_order(config, output)
    runs = [(with_data_of_run(stage, folder, options), folder) for stage, folder in runs]
    for stage, _ in runs:
        if not stage.data.composed_pieces:
            check_manifest(stage.data.manifest)
    exit_code = 0
    source = ""  # of the weights that the next run starts from
    for stage, folder in runs:
        if len(runs) > 1:
            reporter.line(f"Run {stage.name} in {folder}")
        config, exit_code = _train(stage, folder, stage.init or source, reporter)
        _compare_curve(config, options, folder, reporter)
        if exit_code:
            return exit_code
        source = str(folder)
    _finish(config, output, reporter)
    return exit_code


def runs_in_order(config: TrainingConfig, output: Path) -> list[tuple[TrainingConfig, Path]]:
    """The runs to train, each with its folder: the preceding ones, and then the config's own.

    If a run has checkpoints, the runs before it are finished, whether or not their folders still exist.
    """
    from mt3jax.training.run.run_record import has_checkpoints

    runs = [(config, output)]
    while (before := runs[0][0].before) is not None and not has_checkpoints(runs[0][1]):
        runs.insert(0, (before, output.with_name(f"{output.name}-{before.name}")))
    return runs


def _train(config: TrainingConfig, output: Path, source: str, reporter: Reporter) -> tuple[TrainingConfig, int]:
    """One run, from the weights named by `source`, if any: its config with the data it had, and its exit code."""
    arrays = None
    if source:
        from mt3jax.training.run.hosts import join_hosts
        from mt3jax.training.run.run_record import has_checkpoints

        if has_checkpoints(output):
            reporter.detail(f"{output} is being resumed, so {source} is not read again.")
            config = with_model_of_run(config, output)
        else:
            # First, as reading a checkpoint starts JAX, which can then no longer find other hosts.
            join_hosts(reporter.line)
            config, arrays = initial_arrays(config, source, reporter)

    from mt3data.prepare.composed import with_composed_data
    from mt3jax.train import train
    from mt3jax.training.run.run_record import check_folder

    if config.data.composed_pieces:
        check_folder(output, config)  # before composing, which takes a minute
    config = with_composed_data(config, reporter.line, _begun_with(config, output))
    started = time.perf_counter()
    result = train(config, output, arrays, reporter.line, show_progress=not reporter.quiet)
    reporter.detail(f"Took {time.perf_counter() - started:.0f} s.")
    return config, result.exit_code


def with_data_of_run(config: TrainingConfig, output: Path, options: TrainOptions) -> TrainingConfig:
    """The config with the prepared data that the run in `output` began with, unless the command names data."""
    from mt3jax.training.run.run_record import RUN_FILE, has_checkpoints, read_run_record

    is_named = options.data is not None or any(change.startswith(_OWN_DATA) for change in options.changes)
    if is_named or not has_checkpoints(output) or not (output / RUN_FILE).is_file():
        return config
    recorded = read_run_record(output)["config"].get("data", {})
    manifest, num_pieces = recorded.get("manifest", ""), recorded.get("composed_pieces", 0)
    # Composed pieces are found, or made again, when the run begins; other data may have moved and the config with it.
    if num_pieces or not _is_manifest(manifest):
        return config
    return _with_manifest(config, manifest)


def _begun_with(config: TrainingConfig, output: Path) -> str:
    """The manifest of the composed pieces that a run to be resumed has learned from; empty for another run."""
    from mt3jax.training.run.run_record import RUN_FILE, has_checkpoints, read_run_record

    if not config.data.composed_pieces or not has_checkpoints(output) or not (output / RUN_FILE).is_file():
        return ""
    return str(read_run_record(output)["config"].get("data", {}).get("manifest", ""))


def _compare_curve(config: TrainingConfig, options: TrainOptions, output: Path, reporter: Reporter) -> None:
    """Says whether a run follows its stored curve, up to where it came: a few hundred steps are enough to see it."""
    import jax

    from mt3app.commands.train_finish import follows_curve

    if not config.finish.curve or jax.process_index():  # of several hosts the first does it
        return
    unchanged = load_config(options.config)
    while unchanged.name != config.name and unchanged.before is not None:
        unchanged = unchanged.before
    curve = find_config(options.config).with_name(config.finish.curve)
    is_compared, found = follows_curve(config, unchanged, output, curve)
    if is_compared:
        print(f"Loss curve: {found}")
    else:
        reporter.detail(f"Loss curve: {found}")


def _finish(config: TrainingConfig, output: Path, reporter: Reporter) -> None:
    import jax

    from mt3app.commands.train_finish import finish_run, next_step

    if jax.process_index():  # of several hosts the first does it
        return
    if config.finish.transcribe:
        finish_run(config, output, reporter)
    reporter.line(next_step(config, output))


def settled_config(options: TrainOptions) -> TrainingConfig:
    """The config with all changes; `--data` and `--init` also stand for fields of it.

    With `--init` no run is trained before it.
    """
    config = load_config(options.config, options.changes)
    if options.init is not None:
        config = dataclasses.replace(config, init=options.init, before=None)
    if any(change.startswith(("model.", "model=")) for change in options.changes):
        config = dataclasses.replace(config, model_from_init=False)
    if options.data is not None:
        config = _with_manifest(config, str(options.data))
    stage = config
    while stage.before is not None:
        check_fit(stage.before.model, stage.model, f"of the run {stage.before.name}")
        stage = stage.before
    return config


def _with_manifest(config: TrainingConfig, manifest: str) -> TrainingConfig:
    """The config with other data, and so the runs before it. The choice of composed pieces goes with them."""
    datasets = (
        _without_composed(config.data.datasets, manifest) if config.data.composed_pieces else config.data.datasets
    )
    data = dataclasses.replace(config.data, manifest=manifest, composed_pieces=0, datasets=datasets)
    before = None if config.before is None else _with_manifest(config.before, manifest)
    return dataclasses.replace(config, data=data, before=before)


def _without_composed(datasets: tuple[DatasetChoice, ...], manifest: str) -> tuple[DatasetChoice, ...]:
    """The data sets that are not the composed pieces; these too if the manifest has them."""
    if not _is_manifest(manifest):  # which is said later
        return datasets
    there = set(read_manifest(manifest)["dataset"].tolist())
    return tuple(choice for choice in datasets if choice.name != COMPOSED_NAME or choice.name in there)


def _is_manifest(manifest: str) -> bool:
    return Path(manifest).is_file() or (Path(manifest) / MANIFEST_NAME).is_file()


def check_manifest(manifest: str) -> None:
    """Checks, before any framework is loaded, that prepared data exist. Raises `DatasetError`."""
    if not _is_manifest(manifest):
        raise DatasetError(
            f"No prepared data at {Path(manifest)}.",
            "Prepare a data set first (mt3 prepare maestro DIR --out cache), or use --data MANIFEST.",
        )


def initial_arrays(
    config: TrainingConfig, name: str, reporter: Reporter
) -> tuple[TrainingConfig, Mapping[str, np.ndarray]]:
    """The weights of a name or path, by PyTorch name, and the config, which may get their model (`model_from_init`).

    Raises `ModelError` if they do not match the config.
    """
    from mt3core.model.search import find_model

    source = find_model(name).source
    weights = fetch_weights(source, reporter)
    try:
        check_fit(weights.config, config.model, name)
    except ModelError:
        if not config.model_from_init:
            raise
        # What was measured with these weights is not true of those that are trained from them.
        config = dataclasses.replace(config, model=dataclasses.replace(weights.config, confidence=(), agreement=()))
    reporter.line(f"Starting from {source} ({weights.config.name}, {len(weights.arrays)} arrays)")
    return config, weights.arrays


def with_model_of_run(config: TrainingConfig, output: Path) -> TrainingConfig:
    """The config with the model that a run in `output` has, if that came from its first weights."""
    from mt3jax.training.run.run_record import RUN_FILE, read_run_record

    if not config.model_from_init or not (output / RUN_FILE).is_file():
        return config
    recorded = read_run_record(output)["config"].get("model", {})
    return dataclasses.replace(config, model=ModelConfig.from_dict({"format_version": FORMAT_VERSION, **recorded}))
