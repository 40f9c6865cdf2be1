"""Compiling: float32 products in full precision, compile times, and results kept on disk for the next start."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.experimental.compilation_cache import compilation_cache

from mt3core.files import cache_folder

# Programs that compile faster than this are compiled again rather than read from disk.
MIN_STORED_COMPILE_SECONDS = 0.3
# JAX's events for a program. Tracing is only counted for our own programs: it is also reported for inner functions.
TRACE_EVENT = "/jax/core/compile/jaxpr_trace_duration"
LOWER_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"

_programs: set[str] = set()
_total_seconds = 0.0
Result = TypeVar("Result")


def compile_seconds() -> float:
    """Seconds that this process has spent compiling so far (or reading compiled programs from disk)."""
    return _total_seconds


def _count(event: str, duration_secs: float, **details: str | int) -> None:
    global _total_seconds
    if event in (LOWER_EVENT, COMPILE_EVENT) or (event == TRACE_EVENT and details.get("fun_name") in _programs):
        _total_seconds += duration_secs


jax.monitoring.register_event_duration_secs_listener(_count)


def program(
    static: tuple[str, ...] = (), donate: tuple[str, ...] = ()
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Decorates a function: `jax.jit` with the arguments `static` and `donate`, and float32 products in float32."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        _programs.add(function.__name__)

        @functools.wraps(function)
        def exact(*arguments: Any) -> Result:
            keep_compiled_programs()
            # TPUs and recent NVIDIA GPUs multiply float32 matrices in a shorter format by default.
            with jax.default_matmul_precision("float32"):
                return function(*arguments)

        return jax.jit(exact, static_argnames=static, donate_argnames=donate)

    return decorate


@functools.cache
def keep_compiled_programs() -> Path | None:
    """Turns on JAX's cache of compiled programs, in the user's cache directory or below `MT3_CACHE`.

    Returns its folder. A directory that the user has set for JAX is kept; None if the folder cannot be written.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        return Path(chosen)
    directory = cache_folder() / "jax"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(directory, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_STORED_COMPILE_SECONDS)
    # JAX decides at its first compilation whether there is a cache; something small may already have been compiled.
    compilation_cache.reset_cache()
    return directory
