"""Music transcription and training with JAX and Flax."""

try:
    import flax as _flax  # noqa: F401
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:
    from mt3core.errors import MissingExtraError

    raise MissingExtraError("JAX or Flax is not installed.", 'Install it: pip install "mt3kit[jax]".') from error

from mt3core.decoding import Decoding, Generated
from mt3jax.decoding import generate
from mt3jax.loading import build_model, load_model
from mt3jax.model import Transformer
from mt3jax.transcriber import Transcriber

__all__ = ["Decoding", "Generated", "Transcriber", "Transformer", "build_model", "generate", "load_model"]
