"""Piano with velocities: MAESTRO alone and the vocabulary of `ismir2021`.

Aim: notes with their loudness from piano recordings, as in Hawthorne et al., "Sequence-to-Sequence Piano
Transcription with Transformers" (2021): 127 velocities, no instruments, no ties, segments of 4.1 s.

Data: MAESTRO v3, about 200 hours, 23 GB prepared:

    mt3 prepare maestro datasets/maestro-v3.0.0 --out cache

Command:

    mt3 train --config piano
    mt3 convert checkpoint/piano models/piano

Settings: AdamW in bfloat16 with a cosine schedule, gradients clipped at norm 1, a moving average of the parameters.

Expected time, memory and result: not yet run. Time and memory are estimated before the first step.
"""

from mt3core.config.data import AugmentationConfig, DatasetChoice
from mt3core.config.model import ISMIR2021
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
    name="piano",
    model=ISMIR2021,
    num_steps=300_000,
    data=DataConfig(
        # Two pianos at the same time are not piano music, so whole recordings only.
        datasets=(DatasetChoice("maestro", stem=0.0, subset=0.0, across=0.0),),
        augmentation=AugmentationConfig(
            polarity_probability=0.5,
            tilt_probability=0.3,
            noise_probability=0.3,
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
        weight_decay=0.01,
        clip_norm=1.0,
        ema_decay=0.9999,
    ),
    compute=ComputeConfig(dtype="bfloat16"),
    safety=SafetyConfig(not_finite="skip", spike_factor=10.0),
    checkpoint=CheckpointConfig(every_steps=2_000),
    validation=ValidationConfig(every_steps=10_000, num_pieces=16),
)
