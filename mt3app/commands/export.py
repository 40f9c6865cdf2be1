"""`mt3 export`: a model as ONNX graphs, for programs without PyTorch or JAX."""

from __future__ import annotations

import time
from pathlib import Path

from mt3app.backend import fetch_weights
from mt3app.progress import Reporter
from mt3core.errors import OutputError, UsageError
from mt3core.extras import require
from mt3core.files import atomic_directory, expanded, folder_bytes, size_in_words


def export_model(model: str, destination: Path, overwrite: bool, reporter: Reporter) -> None:
    """Writes the folder, completely or not at all, and prints its files with their sizes.

    Raises `MissingExtraError`, `ModelError`, `OutputError`, `UsageError`.
    """
    from mt3core.model.search import find_model

    require("torch", "mt3 export")
    require("onnx", "mt3 export", ("onnx", "onnxscript"))
    folder = expanded(destination)
    if folder.suffix.lower() == ".onnx":
        raise UsageError(f"{destination} would be one file, and a model is two graphs.", "Name a folder.")
    started = time.perf_counter()
    source = find_model(model).source
    if folder.exists() and Path(source).exists() and folder.samefile(source):
        raise OutputError(f"{destination} is the model itself.", "Name another folder.")
    with atomic_directory(folder, overwrite) as temporary:
        weights = fetch_weights(source, reporter)
        from mt3torch.loading import build_model
        from mt3torch.onnx_export import write_graphs

        write_graphs(build_model(weights.config, weights.arrays, "cpu"), temporary)
    print(f"Model:   {weights.config.name}")
    for path in sorted(folder.iterdir()):
        print(f"Written: {path} ({size_in_words(folder_bytes(path))})")
    reporter.detail(f"Took {time.perf_counter() - started:.1f} s.")
