"""Compiling ahead of time: once for each shape, timed, and kept on disk for the next start.

XLA takes seconds for what then runs in milliseconds. `Program` compiles a function when a shape comes for
the first time and adds the time to `compile_seconds()`, so that it can be reported apart from the run time.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from mt3core.files import cache_folder

# What compiles faster than this is compiled again rather than read from disk.
MIN_STORED_COMPILE_SECONDS = 0.3

_total_seconds = 0.0


def compile_seconds() -> float:
    """Seconds that this process has spent compiling (or reading what was compiled before) so far."""
    return _total_seconds


class Program:
    """`function(static, *arrays)` compiled once for each `static` and each set of shapes, types and devices.

    `donate` names the places (static is 0) whose memory the result may take over: the caller must not use
    those arguments again.
    """

    def __init__(self, function: Callable[..., Any], donate: tuple[int, ...] = ()) -> None:
        functools.update_wrapper(self, function)

        # Arguments travel as plain lists: JAX describes them by rebuilding them from things that are no
        # arrays, which classes that check their fields refuse.
        def flat(static_and_structures: tuple[Hashable, Any], *leaves: list[jax.Array]) -> Any:
            static, structures = static_and_structures
            return function(static, *map(jax.tree.unflatten, structures, leaves))

        self._jitted = jax.jit(flat, static_argnums=0, donate_argnums=donate)
        self._compiled: dict[Hashable, jax.stages.Compiled] = {}

    def __call__(self, static: Hashable, *arrays: Any) -> Any:
        leaves, structures = zip(*map(jax.tree.flatten, arrays), strict=True)
        shapes = tuple((leaf.shape, leaf.dtype, leaf.sharding) for part in leaves for leaf in part)
        key = (static, structures, shapes)
        if key not in self._compiled:
            self._compiled[key] = self._compile((static, structures), leaves)
        return self._compiled[key](*leaves)

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled so far."""
        return len(self._compiled)

    def _compile(self, static: Hashable, leaves: tuple[list[jax.Array], ...]) -> jax.stages.Compiled:
        global _total_seconds
        keep_compiled_programs()
        started = time.perf_counter()
        # TPUs and recent NVIDIA GPUs multiply float32 matrices in a shorter format unless told otherwise.
        with jax.default_matmul_precision("float32"):
            compiled = self._jitted.lower(static, *leaves).compile()
        _total_seconds += time.perf_counter() - started
        return compiled


@functools.cache
def keep_compiled_programs() -> Path | None:
    """Turns on JAX's cache of compiled programs, in the user's cache directory or below `MT3_CACHE`.

    Returns where. A directory that the user gave JAX is left alone; where nothing can be written there is none.
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
    # JAX decides at its first compilation whether there is a cache; something small may have been compiled.
    compilation_cache.reset_cache()
    return directory
