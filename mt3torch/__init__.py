"""Music transcription with PyTorch, on CPU, CUDA and MPS."""

import os

# Decoding is thousands of short parallel stretches. OpenMP's threads spin between them by default, and where another
# program wants the processor too they keep it from each other: measured 80 s in place of 9 s. Waiting asleep costs
# little on an idle machine. It has to be said before PyTorch is imported; whoever has set it keeps their own.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mt3core.extras import needed

with needed("torch", "mt3torch"):
    import torch as _torch  # noqa: F401

from mt3core.decoding import Decoding, Generated
from mt3torch.decoding import generate
from mt3torch.loading import build_model, load_model
from mt3torch.model import Transformer
from mt3torch.transcriber import Transcriber

__all__ = ["Decoding", "Generated", "Transcriber", "Transformer", "build_model", "generate", "load_model"]
