"""`multitrack_full`, set up for A100 GPUs with 80 GB.

Aim: the model, data and schedule of `multitrack_full` on the GPU that most clusters have; only the computation differs.

Data: as in `multitrack_full`.

Command for one GPU, and for a machine with eight, over which batches are split:

    mt3 train --config multitrack_a100
    mt3 train --config multitrack_a100 --set batch.accumulation=1

The 256 examples of an update are computed in two microbatches of 128, so that activations fit without being computed
twice. If memory still runs out: batch.accumulation=4, then compute.remat=true, which costs about a quarter of the
speed.

Expected time, memory and result: not yet run. Time and memory are estimated before the first step.
"""

import dataclasses

from mt3core.config.files import load_config

full = load_config("multitrack_full")
config = dataclasses.replace(full, name="multitrack_a100", batch=dataclasses.replace(full.batch, accumulation=2))
