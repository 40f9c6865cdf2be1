"""The recipe of the published `mt3` checkpoint.

Aim: reproduce the published model (Gardner et al., "MT3: Multi-Task Multitrack Music Transcription", 2022), as far as
the available data allow.

Data: the original mixes six data sets. Two of them, MAESTRO and SLAKH, can be prepared here; others with
`mt3 prepare folder`. They are mixed with temperature 10/3.

    mt3 prepare maestro datasets/maestro-v3.0.0 --out cache
    mt3 prepare slakh datasets/slakh2100_flac_redux --out cache

Command:

    mt3 train --config mt3
    mt3 convert checkpoint/mt3 models/mt3_again

The recipe: 8 + 8 layers, 256 frames in and up to 1,024 tokens out; Adafactor with decay exponent 0.8, a constant rate
of 1e-3 after 1,000 steps of warm-up, 1,000,000 steps of 256 examples, the loss summed over tokens with a z-loss of
1e-4, dropout 0.1. Targets are packed here, which does not change loss and gradients. The original's matrix products
were nominally float32, which a TPU rounds to bfloat16; here activations are also bfloat16, and everything fits one GPU
of 80 GB. In float32 it needs microbatches: --set compute.dtype=float32 --set batch.accumulation=2.

Expected time, memory and result: not yet run; the original took 2.8 days on 16 TPUs v3.
"""

from mt3core.config.model import MT3
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    TrainingConfig,
    ValidationConfig,
)

config = TrainingConfig(
    name="mt3",
    model=MT3,
    num_steps=1_000_000,
    data=DataConfig(temperature=10 / 3, num_workers=12, batches_ahead=4),
    batch=BatchConfig(examples=256),
    optimizer=OptimizerConfig(
        kind="adafactor", learning_rate=1e-3, schedule="constant", warmup_steps=1_000, adafactor_decay=0.8
    ),
    loss=LossConfig(z_loss=1e-4, normalise="sum"),
    compute=ComputeConfig(dtype="bfloat16"),
    checkpoint=CheckpointConfig(every_steps=5_000),
    validation=ValidationConfig(every_steps=5_000),
)
