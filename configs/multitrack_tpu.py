"""`multitrack_full` on a slice of a TPU pod: 32 chips, a batch of 1,024.

Aim: the model of `multitrack_full` in a quarter of its steps.

Data: as in `multitrack_full`, in a folder that every host can read (`--data`); each host reads its own share.

Command, the same on every host of the slice; the hosts find each other:

    mt3 train --config multitrack_tpu --data /mnt/data/cache --output /mnt/data/checkpoint/multitrack_tpu

Batches are split over all chips (32 examples each), and each chip has all parameters: 60 million of them with AdamW's
moments and their moving average are 1 GB. `compute.fsdp=4` would spread them over four chips. The learning rate is
twice that of `multitrack_full`: the square root of the factor of the batch size.

Expected time, memory and result: not yet run. Time and memory are estimated before the first step.
"""

import dataclasses

from mt3core.config.files import load_config

full = load_config("multitrack_full")
config = dataclasses.replace(
    full,
    name="multitrack_tpu",
    num_steps=125_000,
    batch=dataclasses.replace(full.batch, examples=1024),
    optimizer=dataclasses.replace(full.optimizer, learning_rate=1e-3, warmup_steps=2_000, ema_decay=0.9996),
    checkpoint=dataclasses.replace(full.checkpoint, every_steps=1_000),
    validation=dataclasses.replace(full.validation, every_steps=2_500),
)
