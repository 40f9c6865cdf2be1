"""Everything that decides a training run, as frozen dataclasses; the files in `configs/` are built from them.

Each field can be changed on the command line: `--set optimizer.learning_rate=3e-4 --set batch.examples=64`. Bounds
are given next to the fields (see `values.py`), and so is what may differ in a resumed run: `FREE`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mt3core.config.data import DataConfig
from mt3core.config.model import MT3, ModelConfig
from mt3core.config.values import (
    FREE,
    Checked,
    Count,
    CountOrZero,
    Limits,
    NotNegative,
    Positive,
    Share,
    check_name,
)
from mt3core.errors import UsageError

Optimizer = Literal["adafactor", "adamw", "muon"]
Rule = Literal["skip", "stop"]


@dataclass(frozen=True)
class BatchConfig(Checked, section="batch"):
    """How many examples make a step, and how their targets are arranged in decoder rows.

    Attributes:
        examples: of one update, over all devices and hosts.
        accumulation: microbatches of an update, computed one after the other.
        packed: several segments' targets share a decoder row; else each has a row of `max_target_tokens` of its own.
        block_tokens: a segment starts at a multiple of this many tokens in its row; must divide `max_target_tokens`.
        rows: decoder rows per device and microbatch; 0 chooses by a sample of the data. If a batch needs more, its
            shortest targets are left out and counted.
    """

    examples: Count = 256
    accumulation: Annotated[Count, FREE] = 1
    packed: Annotated[bool, FREE] = True
    block_tokens: Annotated[Count, FREE] = 32
    rows: Annotated[CountOrZero, FREE] = 0


@dataclass(frozen=True)
class OptimizerConfig(Checked, section="optimizer"):
    """The update rule. The defaults are the published recipe: Adafactor, constant rate after a warm-up.

    Attributes:
        kind: `muon` uses Muon for the matrices of the layers, and AdamW for embedding, logits and norms.
        learning_rate: the peak. Adafactor multiplies it by each array's root mean square; AdamW and Muon do not.
        schedule: what follows the linear warm-up: constant; cosine down to `end_factor` of the peak at the last step;
            rsqrt, falling with the square root of the step.
        adafactor_decay: exponent of the second moment's decay, 1 - step ** -decay.
        clip_norm: gradients of a larger global norm are scaled down to it; 0 for no clipping.
        ema_decay: of a moving average of the parameters, which is then validated and converted; 0 for none.
    """

    kind: Optimizer = "adafactor"
    learning_rate: Annotated[Positive, FREE] = 1e-3
    schedule: Annotated[Literal["constant", "cosine", "rsqrt"], FREE] = "constant"
    warmup_steps: Annotated[CountOrZero, FREE] = 1000
    end_factor: Annotated[NotNegative, FREE] = 0.1
    adafactor_decay: NotNegative = 0.8
    adam_b1: Share = 0.9
    adam_b2: Share = 0.98
    adam_epsilon: NotNegative = 1e-8
    muon_momentum: Share = 0.95
    weight_decay: NotNegative = 0.0
    clip_norm: NotNegative = 0.0
    ema_decay: Share = 0.0


@dataclass(frozen=True)
class LossConfig(Checked, section="loss"):
    """Cross entropy plus `z_loss` times the squared logarithm of the softmax's denominator.

    `normalise` divides by the target tokens of the update; `sum` is the original's sum over them.
    """

    z_loss: NotNegative = 1e-4
    normalise: Literal["tokens", "sum"] = "tokens"
    # Per row: tokens whose logits are in memory at a time; 0 for about 65,000 over all rows.
    chunk_tokens: Annotated[CountOrZero, FREE] = 0


@dataclass(frozen=True)
class ComputeConfig(Checked, section="compute"):
    """Where and how a step is computed.

    Attributes:
        dtype: of activations and matrix products; parameters, softmax, norms and loss are always float32.
        remat: compute each layer's activations again for the backward pass instead of keeping them.
        attention: `auto` uses cuDNN's fused attention on GPUs in bfloat16, else XLA's.
        data, fsdp: shape of the mesh; batches are split over both, parameters over `fsdp`. -1 for all other devices.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Annotated[bool, FREE] = False
    attention: Annotated[Literal["auto", "xla", "cudnn"], FREE] = "auto"
    data: Annotated[int, FREE] = -1
    fsdp: Annotated[int, FREE] = 1


@dataclass(frozen=True)
class SafetyConfig(Checked, section="safety"):
    """What happens to a harmful update. It is never applied; the run skips it or stops.

    A spike is a gradient norm above `spike_factor` times its running mean (0: nothing is a spike); spikes are detected
    after the warm-up. More than `most_skipped` in a row always stop the run.
    """

    not_finite: Rule = "stop"
    spike: Rule = "skip"
    spike_factor: NotNegative = 0.0
    most_skipped: CountOrZero = 20


@dataclass(frozen=True)
class CheckpointConfig(Checked, section="checkpoint"):
    """When checkpoints are saved and which are kept: the last, and the best by validation loss and by note F1."""

    every_steps: Count = 1000
    keep_last: Count = 3
    keep_best: CountOrZero = 1


@dataclass(frozen=True)
class ValidationConfig(Checked, section="validation"):
    """A fixed sample of the validation split, evaluated every `every_steps` steps (0: never).

    `loss_examples` give the loss; the first `piece_seconds` of `num_pieces` pieces are decoded for note F1.
    """

    every_steps: CountOrZero = 5000
    split: str = "validation"
    loss_examples: CountOrZero = 1024
    num_pieces: CountOrZero = 8
    piece_seconds: Positive = 60.0
    max_tokens: Count = 1024
    decoding_batch_size: CountOrZero = 0  # segments decoded at a time; 0 chooses by device


@dataclass(frozen=True)
class ReportConfig(Checked, section="report"):
    """How often metrics are written, and where, besides the terminal and `metrics.jsonl`."""

    every_steps: Count = 20
    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "mt3"


@dataclass(frozen=True)
class FinishConfig(Checked, section="finish"):
    """What `mt3 train` does after the last step.

    Attributes:
        transcribe: convert the newest checkpoint, transcribe a piece of `split` with every backend, and score it.
        piece_seconds: how much of the piece; 0 for all of it.
        curve: a JSON file next to the configs: the loss curve that this run must follow; empty for none.
    """

    transcribe: bool = False
    split: str = "test"
    piece_seconds: NotNegative = 60.0
    curve: str = ""


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """A training run.

    Attributes:
        init: weights to start from; empty draws them from `seed`.
        model_from_init: weights of another network bring their own `model` instead of being refused.
        before: a run that is trained first; this one starts from its weights: a curriculum.
    """

    name: Annotated[str, FREE]
    model: ModelConfig = MT3
    init: str = ""
    model_from_init: Annotated[bool, FREE] = False
    before: Annotated[TrainingConfig | None, FREE] = None  # a run that has started does not need it any more
    seed: Annotated[int, Limits("at least 0, and less than 2 ** 63", lambda seed: 0 <= seed < 1 << 63)] = 0
    num_steps: Annotated[Count, FREE] = 1_000_000
    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    safety: Annotated[SafetyConfig, FREE] = field(default_factory=SafetyConfig)
    checkpoint: Annotated[CheckpointConfig, FREE] = field(default_factory=CheckpointConfig)
    validation: Annotated[ValidationConfig, FREE] = field(default_factory=ValidationConfig)
    report: Annotated[ReportConfig, FREE] = field(default_factory=ReportConfig)
    finish: Annotated[FinishConfig, FREE] = field(default_factory=FinishConfig)

    def _check_together(self) -> None:
        check_name(self.name, "a run")
        batch, max_target_tokens = self.batch, self.model.network.max_target_tokens
        if max_target_tokens % batch.block_tokens:
            raise UsageError(
                f"batch.block_tokens is {batch.block_tokens}, which does not divide the decoder's "
                f"{max_target_tokens} tokens.",
                "Choose 32 or another power of two.",
            )
        if batch.examples % batch.accumulation:
            raise UsageError(
                f"{batch.examples} examples cannot be divided into {batch.accumulation} equal microbatches.",
                "Choose batch.accumulation so that it divides batch.examples.",
            )
        if self.before is not None and self.init:
            raise UsageError(
                f"{self.name} starts from {self.init} and from the run {self.before.name} before it.",
                "Choose one: --set before=none, or leave init out.",
            )
        if self.before is not None and self.before.name == self.name:
            raise UsageError(f"{self.name} and the run before it have the same name.", "Rename one of them.")
