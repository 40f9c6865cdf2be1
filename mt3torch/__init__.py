"""Music transcription with PyTorch, on CPU, CUDA and MPS."""

import os

# Decoding is thousands of short parallel sections. By default OpenMP's threads spin between them, and if another
# program also needs the processor, both slow each other down: measured 80 s instead of 9 s. Sleeping while waiting
# costs little on an idle machine. This must be set before PyTorch is imported; a value set by the user is kept.
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
