"""`mt3 sounds`: makes a folder of samples for `mt3 render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.progress import Reporter

if TYPE_CHECKING:
    from mt3core.rendering.instrument_sources import Card


def make_sounds(
    source: Path,
    out: Path,
    card: Card,
    sample_rate_hz: int | None,
    mono: bool,
    mend: bool,
    num_layers: int | None,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    """Writes the folder of a sampled instrument and says what is in it."""
    from mt3core.rendering.instrument_folders import write_instrument
    from mt3core.rendering.instrument_sources import read_source

    instrument, takes = read_source(source, card, num_layers)
    with reporter.file_bar("writing") as show:
        made = write_instrument(
            out, instrument, takes, sample_rate_hz, mono, mend, overwrite, lambda done: show(done, len(takes))
        )
    keys = [key for sample in made.samples for key in sample.keys]
    reporter.line(
        f"{out}: {made.name}, {len(made.samples)} samples for keys {min(keys)} to {max(keys)}; "
        f"{made.licence}, {made.attribution}"
    )
