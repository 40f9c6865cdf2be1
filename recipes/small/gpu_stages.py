"""The curriculum of recipes/small/gpu.py, and the programs that it runs on the device, each in its own process.

    warm     compiles the steps of all stages into JAX's cache while the data are rendered, and times them
    train    one stage, for a given time, from the weights of the stage before; then scores the result
    save     the newest checkpoint of a run as a model directory in bfloat16

Data, targets and augmentation are those of the runs of `configs/small.py`, in segments of half a second: first onsets,
on which attention locks within a few hundred steps; then all events, at a constant rate for as long as the time allows;
and then the same while the rate falls. The last stage has a fixed number of steps, and the one
before it ends when the speed that it measures leaves just enough time for them. So the speed need not be known, and all
programs can be compiled in advance.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mt3core.config.files import load_config
from mt3core.config.model import ModelConfig
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    ComputeConfig,
    ReportConfig,
    SafetyConfig,
    TrainingConfig,
    ValidationConfig,
)
from mt3core.processors import num_processors

ROOT = Path(__file__).resolve().parents[2]
SPEEDS_NAME, SCORES_NAME = "speeds.json", "scores.json"
SAVED_EVERY_SECONDS = 30.0  # by the speed of the steps; later if the data are slower
FIRST_EVERY_STEPS = 200  # while the speed is unknown


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        share: of the time left for steps; 0 for all of it.
        of_recipe: the number of the run of `configs/small.py` whose data and targets it has, from 0.
        rows: decoder rows per batch, 10 % more than `row_packing.choose_rows` gives for the rendered music.
        num_steps: after which it ends, its rate having fallen; 0 for a constant rate until the time is up, or until the
            next stage needs the rest.
    """

    name: str
    run: str
    share: float
    of_recipe: int
    rows: int
    rate: float
    num_steps: int = 0


STAGES = (
    Stage("onsets", "onsets", 0.15, 0, 98, 6e-3),
    Stage("all events", "events", 0.0, 2, 92, 5e-3),
    Stage("all events, with a falling rate", "falling", 0.0, 2, 92, 4.5e-3, num_steps=11_000),
)
# With 384, at 13,000 examples a second, the device waited for data 40 % of the time: smaller batches cost nothing.
EXAMPLES, BLOCK_TOKENS = 256, 16
# The time in which a stage starts its processes and reaches its first step.
STARTING_SECONDS = 28.0
# The next stage starts in time for all its steps and this much more, and within these shares of the time for both.
NEXT_SPARE, NEXT_SHARES = 1.06, (0.3, 0.65)
# More mixes than in the recipe's last run, because a batch is large enough for all kinds of examples.
MULTI: dict[str, Any] = {"mix": 0.7, "stem": 0.8, "subset": 0.6}
WEIGHTS = {"small_piano": 0.44, "small_multi": 0.4, "small_drums": 0.16}


def _curriculum() -> list[TrainingConfig]:
    """The runs of `configs/small.py`, the first one first."""
    runs = [load_config(str(ROOT / "configs" / "small.py"))]
    while runs[0].before is not None:
        runs.insert(0, runs[0].before)
    return runs


RECIPE = _curriculum()
_TINY: dict[str, Any] = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "head_dim": 8}
_TINY |= {"emb_dim": 16, "mlp_dim": 32, "input_bands": 32}
Dtype = Literal["float32", "bfloat16"]


def stage_config(number: int, manifest: str, dtype: Dtype, quick: bool, step_seconds: float = 0.0) -> TrainingConfig:
    """The run of a stage. `step_seconds`, if known, decides how often it is saved."""
    stage = STAGES[number]
    recipe = RECIPE[stage.of_recipe]
    every = max(round(SAVED_EVERY_SECONDS / step_seconds), 1) if step_seconds else FIRST_EVERY_STEPS
    num_steps = (4 if quick else stage.num_steps) if stage.num_steps else 1_000_000  # the others are stopped by time
    sets = recipe.data.datasets
    if len(sets) == len(WEIGHTS):
        sets = tuple(dataclasses.replace(one, weight=WEIGHTS[one.name]) for one in sets)
        sets = tuple(dataclasses.replace(one, **MULTI) if one.name == "small_multi" else one for one in sets)
    return dataclasses.replace(
        recipe,
        name="small",
        before=None,
        model=_model(stage, quick),
        num_steps=num_steps,
        data=dataclasses.replace(
            recipe.data,
            manifest=manifest,
            datasets=sets,
            num_workers=0 if quick else max(1, min(15, num_processors() - 1)),
        ),
        batch=BatchConfig(
            examples=4 if quick else EXAMPLES, block_tokens=BLOCK_TOKENS, rows=2 if quick else stage.rows
        ),
        optimizer=dataclasses.replace(
            recipe.optimizer,
            learning_rate=stage.rate,
            schedule="cosine" if stage.num_steps else "constant",
            warmup_steps=2 if quick else recipe.optimizer.warmup_steps,
        ),
        compute=ComputeConfig(dtype=dtype),
        safety=SafetyConfig(not_finite="skip", spike_factor=20.0),
        checkpoint=CheckpointConfig(every_steps=every, keep_last=2, keep_best=0),
        validation=ValidationConfig(every_steps=0),
        report=ReportConfig(every_steps=max(every // 4, 1), tensorboard=False),
    )


def _model(stage: Stage, quick: bool) -> ModelConfig:
    recipe = RECIPE[stage.of_recipe].model
    network = dataclasses.replace(recipe.network, **_TINY) if quick else recipe.network
    spectrogram = dataclasses.replace(recipe.spectrogram, mel_bands=network.input_bands)
    return dataclasses.replace(recipe, network=network, spectrogram=spectrogram)


# ---- The processes


def warm(folder: Path, dtype: Dtype, quick: bool, first_stage: int = 0) -> None:
    """Compiles every stage's step, from the first one on, and times it; results so far are in `speeds.json`."""
    import jax

    sys.path.append(str(ROOT / "benchmarks"))
    from step_timing import TimedStep, draw_lengths, made_up_batch

    print(f"jax {jax.__version__} on {jax.devices()}", flush=True)
    if not quick and jax.default_backend() == "cpu":
        raise SystemExit("JAX finds no accelerator here; --quick rehearses without one.")
    speeds: dict[str, float] = {}
    for number, stage in list(enumerate(STAGES))[first_stage:]:
        config = stage_config(number, "", dtype, quick)
        config = dataclasses.replace(config, compute=dataclasses.replace(config.compute, data=1))
        lengths = draw_lengths(config.model, config.batch.examples)
        started = time.monotonic()
        step = TimedStep(config, [made_up_batch(config.model, lengths)], lengths)
        compiled = time.monotonic() - started
        step.run(2)
        num_steps = 2 if quick else 10
        speeds[stage.name] = step.run(num_steps) / num_steps
        _write(folder / SPEEDS_NAME, speeds)
        print(f"{stage.name}: compiled in {compiled:.0f} s, {1e3 * speeds[stage.name]:.1f} ms per step", flush=True)


def train_stage(
    number: int, folder: Path, manifest: str, seconds: float, dtype: Dtype, quick: bool, init: Path | None = None
) -> int:
    """Trains until the time is up; returns the exit code of the run.

    It starts from the weights of the stage before, or else from those of `init`.
    """
    from mt3jax.train import train

    ends_at = time.monotonic() + seconds
    stage = STAGES[number]
    speeds = _read(folder / SPEEDS_NAME)
    config = stage_config(number, manifest, dtype, quick, speeds.get(stage.name, 0.0))
    arrays = None
    earlier = [folder / one.run for one in STAGES[:number] if one.run != stage.run and _newest(folder / one.run)]
    before = earlier[-1] if earlier else init
    if before is not None and not _newest(folder / stage.run):
        arrays = _weights(before)
    is_done = threading.Event()
    threading.Thread(target=_stop_in_time, args=(number, folder, ends_at, is_done), daemon=True).start()
    result = train(config, folder / stage.run, arrays, show_progress=True)
    is_done.set()
    print(f"{stage.name}: {result.step:,} steps in total", flush=True)
    return result.exit_code


def _stop_in_time(number: int, folder: Path, ends_at: float, is_done: threading.Event) -> None:
    """Sends this process SIGTERM when the time is up or the next stage must start; `train` then saves and returns."""
    started = time.monotonic()
    following = STAGES[number + 1].num_steps if STAGES[number].share == 0 and number + 1 < len(STAGES) else 0
    while (now := time.monotonic()) < ends_at:
        if following:
            left, least, most = ends_at - now, *(share * (ends_at - started) for share in NEXT_SHARES)
            rate = steps_per_second(folder / STAGES[number].run / "metrics.jsonl")
            needed = STARTING_SECONDS + NEXT_SPARE * following / rate if rate else most
            if left <= min(max(needed, least), most):
                break
        if is_done.wait(0.5):
            return
    os.kill(os.getpid(), signal.SIGTERM)


def steps_per_second(metrics: Path) -> float:
    """The speed between a run's first and last reports; 0.0 if there are not two."""
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    reports = [json.loads(line) for line in lines if line.endswith("}")]
    if len(reports) < 2 or reports[-1]["time"] <= reports[0]["time"]:
        return 0.0
    return (reports[-1]["step"] - reports[0]["step"]) / (reports[-1]["time"] - reports[0]["time"])


def score(number: int, folder: Path, manifest: str, dtype: Dtype, quick: bool) -> dict[str, float]:
    """Loss and note F1 of the newest checkpoint on the validation split, whose compositions were not trained on."""
    import jax

    from mt3jax.loading import given_params
    from mt3jax.training.step.sharding import make_mesh, place
    from mt3jax.training.step.state import params_shardings
    from mt3jax.training.validation.validation import Validator

    stage = STAGES[number]
    config = dataclasses.replace(
        stage_config(number, manifest, dtype, quick),
        validation=ValidationConfig(
            every_steps=1,
            loss_examples=8 if quick else 1024,
            num_pieces=1 if quick else 8,
            piece_seconds=2.0 if quick else 20.0,
            max_tokens=16 if quick else RECIPE[stage.of_recipe].model.network.max_target_tokens,
        ),
    )
    mesh = make_mesh(config.compute)
    validator = Validator(config, mesh, print)
    arrays = _weights(folder / stage.run)
    params = place(given_params(config.model, arrays), params_shardings(config.model, mesh))
    with jax.default_device(mesh.local_devices[0]):
        found = validator.run(params, 0, folder / stage.run)
    print(f"{found.summary}\n{found.table}", flush=True)
    return {"step": _newest(folder / stage.run), **found.metrics}


def save(run: Path, target: Path) -> None:
    """Writes the newest checkpoint as a model directory, replacing an existing one atomically or not at all."""
    from mt3convert.sources import convert

    convert(run, target, overwrite=True, stored_type="bfloat16")


def _weights(run: Path) -> Mapping[str, Any]:
    from mt3convert.sources import load

    return load(run).arrays


def _newest(run: Path) -> int:
    """The step of a run's newest checkpoint; 0 if there is none."""
    return max((int(entry.name) for entry in run.iterdir() if entry.name.isdigit()), default=0) if run.is_dir() else 0


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one of the programs of the GPU recipe.")
    parser.add_argument("what", choices=["warm", "train", "score", "save"])
    parser.add_argument("folder", type=Path, help="working folder; for save, the folder of a run")
    parser.add_argument("--stage", type=int, default=-1, help="number; for warm, the first one")
    parser.add_argument("--init", type=Path, help="model directory that the first stage starts from")
    parser.add_argument("--manifest", default="")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="float32")
    parser.add_argument("--target", type=Path, help="model directory to write")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.what == "warm":
        warm(options.folder, options.dtype, options.quick, max(options.stage, 0))
    elif options.what == "save":
        save(options.folder, options.target)
    elif options.what == "score":
        found = score(options.stage, options.folder, options.manifest, options.dtype, options.quick)
        _write(options.folder / SCORES_NAME, found)
    else:
        return train_stage(
            options.stage,
            options.folder,
            options.manifest,
            options.seconds,
            options.dtype,
            options.quick,
            options.init,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
