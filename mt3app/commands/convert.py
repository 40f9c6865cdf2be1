"""`mt3 convert`: converts weights from one form to another and describes them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mt3app.progress import Reporter

if TYPE_CHECKING:
    from mt3convert.sources import ConversionReport

_KIND_NAMES = {
    "t5x": "T5X checkpoint",
    "model_directory": "model directory",
    "orbax": "Orbax checkpoint",
    "port": "weights of a PyTorch port",
    "remote": "fetched checkpoint",
}


def convert_model(
    source: str, destination: Path, to: str | None, stored_type: str | None, overwrite: bool, reporter: Reporter
) -> None:
    """Converts, then prints the kind of the source, its arrays, where they were written, and any notes."""
    from mt3convert.sources import convert

    started = time.perf_counter()
    with reporter.file_bar(f"Fetching {source}") as progress:
        report = convert(source, destination, overwrite, cast(Any, to), progress, stored_type)
    _print_report(report)
    reporter.detail(f"Took {time.perf_counter() - started:.1f} s.")


def _print_report(report: ConversionReport) -> None:
    network = report.config.network
    print(f"Source:  {report.source} ({_KIND_NAMES[report.source_kind]})")
    print(
        f"Model:   {report.config.name}, {network.num_encoder_layers} + {network.num_decoder_layers} layers, "
        f"{report.num_arrays} arrays, {report.num_parameters:,} parameters"
    )
    print(f"Written: {report.destination} ({_KIND_NAMES[report.destination_kind]})")
    for note in report.notes:
        print(f"Note:    {note}")
