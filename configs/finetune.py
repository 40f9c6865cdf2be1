"""Fine-tunes the published weights, or others, on your own music.

Aim: improve a trained model on one kind of recording, with minutes to hours of it.

Data: recordings with their notes, as audio and MIDI files of the same name in train/, validation/ and test/. A few
without such folders will do; if none of them is in validation, the run goes on without it.

    mt3 prepare folder my_music --out cache/my_music

Command; `--init` also accepts `small`, a model directory, another T5X or Orbax checkpoint, or the folder of a run; the
network is that of the weights:

    mt3 train --config finetune --init mt3 --data cache/my_music
    mt3 convert checkpoint/finetune models/my_music

Settings: Adafactor, with which these weights were trained, at half the rate, decaying to zero; 2,000 steps of 32
segments of 2 s; the best checkpoint by validation is kept. With only a few pieces, use num_steps=300. Do not use AdamW:
it moves all weights by the same amount, and those of the queries are an eighth as large as the others. At a rate of
1e-4, note F1 of a rendered piece fell from 0.52 to 0.22 within 30 steps, although the loss halved.

On a CPU add --set compute.dtype=float32 --set batch.examples=8 --set num_steps=100.

Expected: on a busy CPU with 2 cores, with batch.examples=8 and compute.dtype=float32, 15 to 25 s per step and about
7 GB of memory; note F1 of three rendered pieces rose from 0.27 to 0.72 in 20 steps (docs/results.md). Not yet run on a
GPU, or to the end.
"""

from mt3core.config.data import AugmentationConfig
from mt3core.config.model import MT3
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
    name="finetune",
    model=MT3,
    init="mt3",
    model_from_init=True,
    num_steps=2_000,
    data=DataConfig(
        augmentation=AugmentationConfig(
            gain_probability=0.5, polarity_probability=0.5, tilt_probability=0.3, detune_probability=0.3
        ),
        batches_ahead=4,
    ),
    batch=BatchConfig(examples=32),
    optimizer=OptimizerConfig(
        kind="adafactor", learning_rate=5e-4, schedule="cosine", warmup_steps=100, end_factor=0.0, clip_norm=1.0
    ),
    compute=ComputeConfig(dtype="bfloat16"),
    safety=SafetyConfig(not_finite="skip", spike_factor=10.0),
    checkpoint=CheckpointConfig(every_steps=250),
    validation=ValidationConfig(every_steps=250, loss_examples=256, num_pieces=4),
)
