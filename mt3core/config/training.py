"""Everything that decides a training run, as frozen dataclasses; the files in `configs/` are built from them.

Each field can be changed on the command line: `--set optimizer.learning_rate=3e-4 --set batch.examples=64`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from mt3core.config.data import AugmentationConfig, DatasetChoice
from mt3core.config.model import MT3, ModelConfig
from mt3core.errors import UsageError

OPTIMIZERS = ("adafactor", "adamw", "muon")
SCHEDULES = ("constant", "cosine", "rsqrt")
RULES = ("skip", "stop")


@dataclass(frozen=True)
class DataConfig:
    """Which examples; see `mt3jax.pipeline.PipelineConfig`, which is made of this.

    `manifest` is a `chunk_manifest.parquet` or its folder. `datasets` empty means all that it lists. With
    `composed_pieces` so many short pieces are made up and rendered instead, once (`mt3data/prepare/composed.py`).
    """

    manifest: str = "cache/chunk_manifest.parquet"
    composed_pieces: int = 0
    datasets: tuple[DatasetChoice, ...] = ()
    temperature: float = 10 / 3
    max_examples_per_mix: int = 4
    part_gain_db: float = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    num_workers: int = 0
    num_threads: int = 1
    batches_ahead: int = 2


@dataclass(frozen=True)
class BatchConfig:
    """How many examples make a step, and how their targets lie in decoder rows.

    Attributes:
        examples: of one update, all devices and hosts together.
        accumulation: parts that an update's examples are computed in, one after the other.
        packed: several segments' targets share a decoder row; else each has a row of `max_target_tokens` of its own.
        block_tokens: a segment begins at a multiple of so many tokens in its row; must divide `max_target_tokens`.
        rows: decoder rows of a device and part; 0 measures a sample of the data. Of a batch that needs more, the
            shortest targets are left out and counted.
    """

    examples: int = 256
    accumulation: int = 1
    packed: bool = True
    block_tokens: int = 32
    rows: int = 0


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule. The defaults are the published recipe: Adafactor, constant rate after a warm-up.

    Attributes:
        kind: `muon` takes Muon for the matrices of the layers, and AdamW for embedding, logits and norms.
        learning_rate: the peak. Adafactor multiplies it by each array's root mean square, AdamW and Muon do not.
        schedule: what follows the linear warm-up: constant; cosine down to `end_factor` of the peak at the last step;
            rsqrt, falling with the square root of the step.
        adafactor_decay: exponent of the second moment's decay, 1 - step ** -decay.
        clip_norm: gradients of a larger global norm are scaled down to it; 0 leaves them.
        ema_decay: of a moving average of the parameters, which is what is validated and converted; 0 for none.
    """

    kind: Literal["adafactor", "adamw", "muon"] = "adafactor"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "rsqrt"] = "constant"
    warmup_steps: int = 1000
    end_factor: float = 0.1
    adafactor_decay: float = 0.8
    adam_b1: float = 0.9
    adam_b2: float = 0.98
    adam_epsilon: float = 1e-8
    muon_momentum: float = 0.95
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    ema_decay: float = 0.0


@dataclass(frozen=True)
class LossConfig:
    """Cross entropy plus `z_loss` times the squared logarithm of the softmax's denominator.

    `normalise` divides by the target tokens of the update; `sum` is the original's sum over them.
    """

    z_loss: float = 1e-4
    normalise: Literal["tokens", "sum"] = "tokens"
    chunk_tokens: int = 0  # of each row, whose logits lie in memory at a time; 0 for some 65,000 of all rows


@dataclass(frozen=True)
class ComputeConfig:
    """Where and how it is computed.

    Attributes:
        dtype: of activations and matrix products; parameters, softmax, norms and loss are float32 in any case.
        remat: compute each layer's activations again for the backward pass instead of keeping them.
        attention: `auto` takes cuDNN's fused attention on GPUs in bfloat16, else XLA's.
        data, fsdp: shape of the mesh; batches are split over both, parameters over `fsdp`. -1 takes what is left.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    data: int = -1
    fsdp: int = 1


@dataclass(frozen=True)
class SafetyConfig:
    """What happens to an update that would do harm. It is never applied; the run skips it or stops.

    A spike is a gradient norm above `spike_factor` times its running mean (0: nothing is a spike); it is looked for
    after the warm-up. More than `most_skipped` in a row stop the run in any case.
    """

    not_finite: Literal["skip", "stop"] = "stop"
    spike: Literal["skip", "stop"] = "skip"
    spike_factor: float = 0.0
    most_skipped: int = 20


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are saved and which are kept: the last, and the best by validation loss and by note F1."""

    every_steps: int = 1000
    keep_last: int = 3
    keep_best: int = 1


@dataclass(frozen=True)
class ValidationConfig:
    """A fixed sample of the validation split, looked at every so many steps (0: never).

    `loss_examples` give the loss; the first `piece_seconds` of `num_pieces` pieces are decoded for note F1.
    """

    every_steps: int = 5000
    split: str = "validation"
    loss_examples: int = 1024
    num_pieces: int = 8
    piece_seconds: float = 60.0
    max_tokens: int = 1024
    decoding_batch_size: int = 0  # segments side by side; 0 chooses by device


@dataclass(frozen=True)
class ReportConfig:
    """How often figures are written and where to, besides the terminal and `metrics.jsonl`."""

    every_steps: int = 20
    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "mt3"


@dataclass(frozen=True)
class FinishConfig:
    """What `mt3 train` does after the last step.

    Attributes:
        transcribe: convert the newest checkpoint, transcribe a piece of `split` by every back end, and score it.
        piece_seconds: how much of the piece; 0 all of it.
        curve: JSON beside the configs: the loss curve that this one has to follow; empty for none.
    """

    transcribe: bool = False
    split: str = "test"
    piece_seconds: float = 60.0
    curve: str = ""


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        init: names weights to start from; empty draws them from `seed`.
        before: another run, which is trained first and whose weights this one starts from: a curriculum.
    """

    name: str
    model: ModelConfig = MT3
    init: str = ""
    before: TrainingConfig | None = None
    seed: int = 0
    num_steps: int = 1_000_000
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    finish: FinishConfig = field(default_factory=FinishConfig)


def check_training_config(config: TrainingConfig) -> None:
    """Raises `UsageError` for values that cannot work together, before anything is loaded or compiled."""
    network, batch, optimizer = config.model.network, config.batch, config.optimizer
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.name):
        raise UsageError(f"{config.name!r} cannot name a run.", "Use letters, digits, '-', '_' and '.'.")
    _choice("optimizer.kind", optimizer.kind, OPTIMIZERS)
    _choice("optimizer.schedule", optimizer.schedule, SCHEDULES)
    _choice("loss.normalise", config.loss.normalise, ("tokens", "sum"))
    _choice("compute.dtype", config.compute.dtype, ("float32", "bfloat16"))
    _choice("compute.attention", config.compute.attention, ("auto", "xla", "cudnn"))
    _choice("safety.not_finite", config.safety.not_finite, RULES)
    _choice("safety.spike", config.safety.spike, RULES)
    at_least_one = {
        "model.network.max_target_tokens": network.max_target_tokens,
        "num_steps": config.num_steps,
        "batch.examples": batch.examples,
        "batch.accumulation": batch.accumulation,
        "batch.block_tokens": batch.block_tokens,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "checkpoint.keep_last": config.checkpoint.keep_last,
        "validation.max_tokens": config.validation.max_tokens,
        "report.every_steps": config.report.every_steps,
    }
    at_least_zero = {
        "seed": config.seed,
        "data.composed_pieces": config.data.composed_pieces,
        "finish.piece_seconds": config.finish.piece_seconds,
        "batch.rows": batch.rows,
        "optimizer.warmup_steps": optimizer.warmup_steps,
        "optimizer.end_factor": optimizer.end_factor,
        "optimizer.adafactor_decay": optimizer.adafactor_decay,
        "optimizer.adam_epsilon": optimizer.adam_epsilon,
        "optimizer.weight_decay": optimizer.weight_decay,
        "optimizer.clip_norm": optimizer.clip_norm,
        "loss.z_loss": config.loss.z_loss,
        "loss.chunk_tokens": config.loss.chunk_tokens,
        "safety.spike_factor": config.safety.spike_factor,
        "safety.most_skipped": config.safety.most_skipped,
        "checkpoint.keep_best": config.checkpoint.keep_best,
        "validation.every_steps": config.validation.every_steps,
        "validation.loss_examples": config.validation.loss_examples,
        "validation.num_pieces": config.validation.num_pieces,
        "validation.decoding_batch_size": config.validation.decoding_batch_size,
    }
    for lowest, values in ((1, at_least_one), (0, at_least_zero)):
        for name, value in values.items():
            if not value >= lowest:  # NaN, too
                raise UsageError(f"{name} is {value}.", f"Give at least {lowest}.")
    positive = {
        "optimizer.learning_rate": optimizer.learning_rate,
        "validation.piece_seconds": config.validation.piece_seconds,
    }
    for name, value in positive.items():
        if not value > 0 or not math.isfinite(value):
            raise UsageError(f"{name} is {value}.", "Give a positive number.")
    shares = {
        "optimizer.ema_decay": optimizer.ema_decay,
        "optimizer.adam_b1": optimizer.adam_b1,
        "optimizer.adam_b2": optimizer.adam_b2,
        "optimizer.muon_momentum": optimizer.muon_momentum,
        "model.network.dropout_rate": network.dropout_rate,
    }
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UsageError(f"{name} is {value}.", "Give at least 0 and less than 1.")
    if network.max_target_tokens % batch.block_tokens:
        raise UsageError(
            f"batch.block_tokens is {batch.block_tokens}, which does not divide the decoder's "
            f"{network.max_target_tokens} tokens.",
            "Choose 32 or another power of two.",
        )
    if config.before is not None:
        _check_before(config, config.before)
    if batch.examples % batch.accumulation:
        raise UsageError(
            f"{batch.examples} examples cannot be computed in {batch.accumulation} equal parts.",
            "Choose batch.accumulation so that it divides batch.examples.",
        )


def _check_before(config: TrainingConfig, before: TrainingConfig) -> None:
    if config.init:
        raise UsageError(
            f"{config.name} starts from {config.init} and from the run {before.name} before it.",
            "Choose one: --set before=none, or leave init out.",
        )
    if before.name == config.name:
        raise UsageError(f"{config.name} and the run before it have one name.", "Name them apart.")
    check_training_config(before)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}.", f"Choose {', '.join(choices)}.")
