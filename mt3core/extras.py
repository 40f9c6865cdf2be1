"""The extras of pyproject.toml: which packages each brings, and the error if one of them is missing."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator

from mt3core.errors import MissingExtraError

# By extra: the import names of the packages, and their names for pip. `tests/core/test_extras.py` compares them
# with pyproject.toml.
EXTRAS: dict[str, dict[str, str]] = {
    "torch": {"torch": "torch"},
    "jax": {"jax": "jax", "flax": "flax", "optax": "optax", "orbax": "orbax-checkpoint"},
    "convert": {"tensorstore": "tensorstore", "msgpack": "msgpack"},
    "evaluate": {"mir_eval": "mir_eval", "scipy": "scipy", "matplotlib": "matplotlib"},
    "datasets": {
        "grain": "grain",
        "array_record": "array-record",
        "pyarrow": "pyarrow",
        "yaml": "pyyaml",
        "librosa": "librosa",
        "pyloudnorm": "pyloudnorm",
    },
    "music": {"librosa": "librosa"},
    "onnx": {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "wandb": {"wandb": "wandb"},
    "web": {"starlette": "starlette", "uvicorn": "uvicorn"},
}
SCORE_PACKAGES = ("mir_eval", "scipy")  # of [evaluate]: without these nothing can be scored
EXTRAS["train"] = {**EXTRAS["jax"], **EXTRAS["datasets"], **EXTRAS["evaluate"], "tensorboardX": "tensorboardX"}


def install_command(packages: Iterable[str]) -> str:
    """The command that installs packages, from anywhere: mt3kit itself is not on the package index."""
    return f"pip install {' '.join(packages)}"


@contextlib.contextmanager
def needed(extra: str, purpose: str) -> Iterator[None]:
    """Around imports from an extra's packages: if one is missing, raises `MissingExtraError` instead of Python's error.

    `purpose` starts the sentence: what cannot be done without the package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        if module not in EXTRAS[extra]:
            raise  # our own, or one that a package of the extra should have brought: no extra would fix that
        raise _missing(extra, purpose, [module]) from error


def require(extra: str, purpose: str, modules: Iterable[str] = ()) -> None:
    """Before anything slow: raises `MissingExtraError` if modules of an extra, or any of them, are not installed."""
    if missing := [name for name in modules or EXTRAS[extra] if not is_installed(name)]:
        raise _missing(extra, purpose, missing)


def is_installed(module: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def _missing(extra: str, purpose: str, modules: list[str]) -> MissingExtraError:
    """Names what is needed now; the next step also installs whatever else of the extra is missing."""
    packages = EXTRAS[extra]
    also = [name for name in packages if name in modules or not is_installed(name)]
    named, install = ([packages[name] for name in names] for names in (modules, also))
    return MissingExtraError(
        f"{purpose} needs {', '.join(named)}, which {'are' if len(named) > 1 else 'is'} not installed.",
        f'Run: {install_command(install)} (in a checkout of mt3kit: pip install ".[{extra}]")',
    )
