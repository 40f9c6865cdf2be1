"""`multitrack_full` on little data for a minute or two, for benchmarks/gpu.py to run on a GPU.

Aim: run the whole loop on a GPU, with the mixing and augmentation of the real run: Grain's processes, steps,
validation, checkpoints. The pieces are composed, so targets are shorter than those of SLAKH.

    mt3 train --config benchmarks/gpu_run.py --set data.composed_pieces=32
"""

import dataclasses
import os

from mt3core.config.files import load_config
from mt3core.config.training import CheckpointConfig, ReportConfig, ValidationConfig

full = load_config("multitrack_full")
config = dataclasses.replace(
    full,
    name="gpu_run",
    num_steps=2_000,
    data=dataclasses.replace(
        full.data, datasets=(), num_workers=max(1, min(12, (os.cpu_count() or 1) - 2)), num_threads=1
    ),
    optimizer=dataclasses.replace(full.optimizer, warmup_steps=200, ema_decay=0.99),
    checkpoint=CheckpointConfig(every_steps=1_000, keep_last=1, keep_best=0),
    validation=ValidationConfig(every_steps=1_000, loss_examples=256, num_pieces=2, piece_seconds=20.0),
    report=ReportConfig(every_steps=20, tensorboard=False),
)
