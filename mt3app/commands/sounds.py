"""`mt3 sounds`: makes a sampled instrument for `mt3 render`, or a sound font without some programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3core.errors import OutputError

if TYPE_CHECKING:
    from mt3app.cli_data import SoundsOptions


def make_sounds(options: SoundsOptions, reporter: Reporter) -> None:
    """Writes a sampled instrument and reports its contents, or writes a sound font without some programs."""
    from mt3render.instrument_folders import write_instrument
    from mt3render.instrument_sources import Card, parse_numbers, read_source

    if left_out := parse_numbers(options.without):
        _copy_sound_font(options, left_out, reporter)
        return
    card = Card(
        options.name,
        options.licence,
        options.attribution,
        options.address,
        parse_numbers(options.programs),
        False if options.sustained else None,
        options.drums,
        parse_numbers(options.keys),
        options.velocity_exponent,
    )
    instrument, takes = read_source(options.source, card, options.layers)
    out, settings = options.out, (options.rate, options.mono, options.mend, options.overwrite)
    with reporter.file_bar("writing") as show:
        made = write_instrument(out, instrument, takes, *settings, lambda done: show(done, len(takes)))
    keys = [key for sample in made.samples for key in sample.keys]
    reporter.line(
        f"{out}: {made.name}, {len(made.samples)} samples for keys {min(keys)} to {max(keys)}; "
        f"{made.licence}, {made.attribution}"
    )


def _copy_sound_font(options: SoundsOptions, without: Sequence[int], reporter: Reporter) -> None:
    from mt3core.files import atomic_output
    from mt3render.soundfonts import without_programs

    source, out = options.source, options.out
    if out.exists() and not options.overwrite:
        raise OutputError(f"{out} already exists.", "Choose another path, or use --overwrite.")
    data = without_programs(source, without)
    with atomic_output(out) as temporary:
        temporary.write_bytes(data)
    reporter.line(f"{out}: {source.name} without program {', '.join(str(program) for program in without)}")
