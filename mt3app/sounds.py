"""`mt3 sounds`: makes a folder of samples for `mt3 render`, or a sound font without some programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3core.errors import OutputError

if TYPE_CHECKING:
    from mt3render.instrument_sources import Card


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
    from mt3render.instrument_folders import write_instrument
    from mt3render.instrument_sources import read_source

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


def copy_sound_font(source: Path, out: Path, without: Sequence[int], overwrite: bool, reporter: Reporter) -> None:
    """Copies a sound font without some of its programs."""
    from mt3core.files import atomic_output
    from mt3render.soundfonts import without_programs

    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already.", "Choose another place, or say --overwrite.")
    data = without_programs(source, without)
    with atomic_output(out) as temporary:
        temporary.write_bytes(data)
    reporter.line(f"{out}: {source.name} without program {', '.join(str(program) for program in without)}")
