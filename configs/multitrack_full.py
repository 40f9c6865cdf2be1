"""MAESTRO and SLAKH together, 6 + 6 layers: a model to transcribe any music.

Aim: the published MT3's accuracy on MAESTRO and SLAKH from a network that decodes faster; segments of 4.1 s.

Data: MAESTRO v3 (about 200 hours) and slakh2100_flac_redux (1,300 hours, mixes and stems together), prepared into
one folder of about 175 GB:

    mt3 prepare maestro datasets/maestro-v3.0.0 --out cache
    mt3 prepare slakh datasets/slakh2100_flac_redux --out cache

Command:

    mt3 train --config multitrack_full
    mt3 convert checkpoint/multitrack_full models/multitrack_full

Settings: AdamW in bfloat16 with a cosine schedule, gradients clipped at norm 1, a moving average of the parameters,
packed targets. 500,000 steps of 256 segments of 4.1 s contain as much audio as the published 1,000,000 steps of 2.05 s.

Expected time, memory and result, on one GPU with 80 GB or more: not yet run. Time and memory are estimated before the
first step.
"""

from mt3core.config.data import AugmentationConfig, DatasetChoice
from mt3core.config.model import MULTITRACK
from mt3core.config.training import (
    BatchConfig,
    CheckpointConfig,
    ComputeConfig,
    DataConfig,
    OptimizerConfig,
    SafetyConfig,
    TrainingConfig,
    ValidationConfig,
)

config = TrainingConfig(
    name="multitrack_full",
    model=MULTITRACK,
    num_steps=500_000,
    data=DataConfig(
        datasets=(DatasetChoice("maestro"), DatasetChoice("slakh")),
        part_gain_db=12.0,
        augmentation=AugmentationConfig(
            gain_probability=0.5,
            polarity_probability=0.5,
            tilt_probability=0.3,
            noise_probability=0.2,
            reverb_probability=0.3,
            detune_probability=0.3,
        ),
        num_workers=12,
        batches_ahead=4,
    ),
    batch=BatchConfig(examples=256),
    optimizer=OptimizerConfig(
        kind="adamw",
        learning_rate=5e-4,
        schedule="cosine",
        warmup_steps=4_000,
        end_factor=0.05,
        adam_b2=0.98,
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.9999,
    ),
    compute=ComputeConfig(dtype="bfloat16"),
    safety=SafetyConfig(not_finite="skip", spike_factor=10.0),
    checkpoint=CheckpointConfig(every_steps=2_000),
    validation=ValidationConfig(every_steps=10_000, num_pieces=16),
)
