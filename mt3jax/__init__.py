"""Music transcription and training with JAX and Flax."""

from mt3core.extras import needed

with needed("jax", "mt3jax"):
    import flax as _flax  # noqa: F401
    import jax as _jax  # noqa: F401

from mt3core.decoding import Decoding, Generated
from mt3jax.decoding import generate
from mt3jax.loading import build_model, load_model
from mt3jax.model import Transformer
from mt3jax.transcriber import Transcriber

__all__ = ["Decoding", "Generated", "Transcriber", "Transformer", "build_model", "generate", "load_model"]
