"""`multitrack_full` on little data for some minutes, for benchmarks/gpu.py to run where a GPU is.

Aim: to see the whole loop at work on a GPU: Grain's processes, steps, validation, checkpoints.

    mt3 train --config benchmarks/gpu_run.py --set data.composed_pieces=32
"""

import dataclasses

from mt3core.config_files import load_config
from mt3core.training_config import CheckpointConfig, DataConfig, ReportConfig, ValidationConfig

full = load_config("multitrack_full")
config = dataclasses.replace(
    full,
    name="gpu_run",
    num_steps=2_000,
    data=DataConfig(num_workers=12, num_threads=2, batches_ahead=4),
    optimizer=dataclasses.replace(full.optimizer, warmup_steps=200, ema_decay=0.99),
    checkpoint=CheckpointConfig(every_steps=1_000, keep_last=1, keep_best=0),
    validation=ValidationConfig(every_steps=1_000, loss_examples=256, num_pieces=2, piece_seconds=20.0),
    report=ReportConfig(every_steps=50, tensorboard=False),
)
