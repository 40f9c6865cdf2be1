"""`multitrack_full`, set up for A100 GPUs with 80 GB.

Aim: the model, data and schedule of `multitrack_full` on the GPU that most clusters have; only how it is computed
differs.

Data: as in `multitrack_full`.

Command, on one of them; then on a machine with eight, over which batches are split:

    mt3 train --config multitrack_a100
    mt3 train --config multitrack_a100 --set batch.accumulation=1

An update's 256 examples are computed in two parts of 128, so that activations fit without being computed twice. Where
memory is short all the same: batch.accumulation=4, then compute.remat=true, which costs about a quarter of the speed.

Expected time, memory and result: not yet run. Time and memory are estimated before the first step.
"""

import dataclasses

from mt3core.config.files import load_config

full = load_config("multitrack_full")
config = dataclasses.replace(full, name="multitrack_a100", batch=dataclasses.replace(full.batch, accumulation=2))
