"""From the names given on the command line to a transcriber: which framework, which device, which weights."""

from __future__ import annotations

import dataclasses
import importlib
import time
from typing import TYPE_CHECKING, Any

from mt3app.progress import Reporter
from mt3core import extras
from mt3core.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from mt3core.decoding import Decoding
    from mt3core.model.search import LoadedWeights
    from mt3decode.transcriber import BaseTranscriber

# What each backend needs; the extra that brings it has the backend's own name.
PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax")}
INSTALL_ONE = "Run: {} (or {})".format(*(extras.install_command(extras.EXTRAS[name].values()) for name in PACKAGES))
DEFAULT_NUM_BEAMS = 4


def choose_backend(name: str | None) -> str:
    """The backend named, or the first that is installed. Imports nothing. Raises `MissingExtraError`."""
    if name is not None and name not in PACKAGES:
        raise UsageError(f"Unknown backend {name!r}.", f"Choose {' or '.join(PACKAGES)}.")
    for candidate in [name] if name else PACKAGES:
        if is_installed(candidate):
            return candidate
    if name:
        extras.require(name, f"--backend {name}", PACKAGES[name])
    raise MissingExtraError("Neither PyTorch nor JAX is installed.", INSTALL_ONE)


def is_installed(backend: str) -> bool:
    return all(map(extras.is_installed, PACKAGES[backend]))


def choose_decoding(
    method: str | None,
    num_beams: int | None,
    grammar: bool | None = None,
    instruments: str | None = None,
    excluded: str | None = None,
    quality: str = "fast",
    continuous: bool = False,
) -> Decoding:
    """The requested decoding: more than one beam means beam search, which has four beams by default.

    Where nothing is said of the grammar (None), a choice of instruments brings it. For the `quality` see
    `mt3core.decoding.in_quality`. Raises `UsageError`.
    """
    from mt3core.decoding import Decoding, in_quality

    chosen: Any = method or ("beam" if (num_beams or 1) > 1 else "t5x")
    beams = num_beams or (DEFAULT_NUM_BEAMS if chosen == "beam" else 1)
    decoding = Decoding(method=chosen, num_beams=beams, grammar=bool(grammar), continuous=continuous)
    decoding = in_quality(decoding, quality)
    if instruments is None and excluded is None:
        return decoding
    from mt3core.notes.instrument_choice import with_instruments

    decoding = with_instruments(decoding, instruments, excluded)
    if grammar is False and decoding.grammar:
        raise UsageError("Instruments are chosen by the grammar.", "Leave out --no-grammar.")
    return decoding


def load_transcriber(
    model: str | None,
    backend: str,
    device: str,
    decoding: Decoding,
    reporter: Reporter,
    batch_size: int | None = None,
    workers: int | None = None,
    precision: str | None = None,
) -> BaseTranscriber:
    """Reads the weights and builds the network on its device, and reports the model if None was named.

    Raises `ModelError`, `UsageError`.
    """
    from mt3core.model.search import find_model

    if backend != "torch" and (workers or 1) > 1:
        raise UsageError("Only PyTorch decodes with several workers.", "Omit --workers.")
    if backend != "torch" and (precision or "float32") != "float32":
        raise UsageError("Only PyTorch decodes in another precision than float32.", "Omit --precision.")
    started = time.perf_counter()
    found = find_model(model)  # before a framework is imported, so that a missing model is reported immediately
    if found.remark:
        reporter.line(found.remark)
    network = importlib.import_module(f"mt3{backend}")
    importlib.import_module(f"mt3{backend}.loading").choose_device(device)
    imported = time.perf_counter()
    weights = fetch_weights(found.source, reporter)
    built = network.build_model(weights.config, weights.arrays, device)
    sizes: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    if backend == "torch":
        sizes |= {"workers": workers, "precision": precision or "float32"}
    decoding = dataclasses.replace(decoding, max_tokens=weights.config.network.max_target_tokens)
    transcriber = network.Transcriber(built, decoding, **sizes)
    loaded = time.perf_counter()
    reporter.detail(f"Imported {backend} in {imported - started:.1f} s.")
    reporter.detail(f"Loaded {weights.config.name} from {found.source} in {loaded - imported:.1f} s.")
    return transcriber


def fetch_weights(source: str, reporter: Reporter) -> LoadedWeights:
    """The weights at a path or address; reports a download, and the notes that come with the weights."""
    from mt3core.model.search import is_address, load_weights

    if is_address(source):
        from mt3convert.remote import cache_directory, is_complete

        if not is_complete(source):
            reporter.line(f"Downloading {source} to {cache_directory(source)} (once).")
    with reporter.file_bar(f"Fetching {source}") as progress:
        weights = load_weights(source, progress)
    for note in weights.notes:
        reporter.line(f"Note: {note}")
    return weights
