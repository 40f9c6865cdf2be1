"""Shapes and types written in the annotations of the networks are checked while tests run.

Installed by conftest.py. The music pipeline of mt3core has golden results for every step and is not checked so.
"""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# An int where a float is expected is right in Python's own type system (PEP 484) and in ours.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """JAX describes a pytree that goes into a program by rebuilding it from things that are not arrays."""
    is_pytree = (function.__module__, function.__qualname__) == ("mt3jax.model", "Cache.__init__")
    return function if is_pytree else _check(function)


MODULES = [
    "mt3core.segments",
    "mt3core.spectrogram",
    "mt3jax.attention",
    "mt3jax.model",
    "mt3jax.packing",
    "mt3torch.model",
    "packed_torch",
]


def install() -> None:
    """Must run before the packages are imported."""
    install_import_hook(MODULES, "shape_checks.check")
