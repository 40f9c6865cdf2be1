"""Makes all training data of the small model in one command. To train on it: `mt3 train --config small`.

    python recipes/small/data.py --out small-data                       # downloads what it needs
    python recipes/small/data.py --out small-data --sources FOLDER      # uses the archives in FOLDER

Music is taken from published archives or composed, varied (music.py), rendered with sounds drawn for each piece from
sampled instruments (sampled.py) and sound fonts, and prepared; training reads
`small-data/cache/chunk_manifest.parquet`. Validation and test use compositions and sounds that training does not.
Finished work is skipped, so run the same command again to resume.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archives import unpacked
from music import UNSEEN, make_music
from sampled import TRAINED_ON, make_sampled
from sampled import UNSEEN as UNSEEN_SOUNDS
from sources import SOUND_FONTS, UNSEEN_SOUND_FONTS, Source

from mt3app.cli_data import PrepareOptions, RenderOptions
from mt3app.commands.prepare import prepare_dataset
from mt3app.commands.render import render_files
from mt3app.progress import Reporter
from mt3core.errors import MT3Error
from mt3core.files import atomic_output
from mt3core.processors import num_processors
from mt3data.prepare.manifest import MANIFEST_NAME
from mt3render.soundfonts import without_programs

HOURS = 100.0
HOURS_SHARES = {"piano": 0.5, "multi": 0.4, "drums": 0.1}
LAYOUTS = {"piano": "folder", "multi": "slakh", "drums": "slakh"}
PROGRAMS = {"piano": "keep", "multi": "class", "drums": "keep"}  # within the piano class, a quarter would be honky-tonk
SAMPLE_RATE_HZ = 16_000  # the network's sample rate
TUNING_CENTS = "-20,24"  # of a piece: concert pitch from 435 to 446 Hz


@dataclass(frozen=True)
class Wanted:
    """The data to make. Without sound fonts, all sounds of the recipe are used; with `sources` None they are
    downloaded."""

    out: Path
    sources: Path | None = None
    hours: float = HOURS
    sound_fonts: tuple[Path, ...] = ()
    unseen_sound_fonts: tuple[Path, ...] = ()
    engine: str = "auto"
    seed: int = 0
    processes: int | None = None


def make_data(wanted: Wanted, reporter: Reporter) -> int:
    """Makes everything missing; returns 1 if a piece could not be used, otherwise 0. Raises `MT3Error`s."""
    processes = wanted.processes or num_processors()
    hours = {kind: wanted.hours * share for kind, share in HOURS_SHARES.items()}
    make_music(wanted.sources, wanted.out / "music", hours, wanted.seed, processes)
    failed, sounds = 0, wanted.out / "sounds"
    if wanted.engine != "pretty_midi" and not (wanted.sound_fonts and wanted.unseen_sound_fonts):
        failed |= make_sampled(sounds, wanted.sources, reporter)
    for suffix, given, known, sampled in (
        ("", wanted.sound_fonts, SOUND_FONTS, sounds / TRAINED_ON),
        (UNSEEN, wanted.unseen_sound_fonts, UNSEEN_SOUND_FONTS, sounds / UNSEEN_SOUNDS),
    ):
        fonts = () if wanted.engine == "pretty_midi" else given or _all_sounds(sampled, known, wanted)
        for kind, layout in LAYOUTS.items():
            name = kind + suffix
            midi, rendered = wanted.out / "music" / name, wanted.out / "rendered" / name
            if not midi.is_dir():
                continue
            rendering = RenderOptions(
                *(midi, rendered, layout, fonts, wanted.engine, PROGRAMS[kind], wanted.seed, SAMPLE_RATE_HZ),
                tuning_cents=TUNING_CENTS,
                processes=processes,
            )
            failed |= render_files(rendering, reporter)
            options = PrepareOptions(layout, rendered, wanted.out / "cache", name=f"small_{name}", processes=processes)
            failed |= prepare_dataset(options, reporter)
    reporter.line(f"Training data: {wanted.out / 'cache' / MANIFEST_NAME}. Next: mt3 train --config small")
    return failed


def _all_sounds(sampled: Path, known: Sequence[Source], wanted: Wanted) -> tuple[Path, ...]:
    """The folder of sampled instruments, if any could be made, and the sound fonts."""
    fonts = [_sound_font(source, wanted) for source in known]
    return (*((sampled,) if sampled.is_dir() else ()), *fonts)


def _sound_font(source: Source, wanted: Wanted) -> Path:
    folder = unpacked(source, wanted.sources, wanted.out / "sounds" / "fonts")
    font = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    if not source.without_programs:
        return font
    mended = folder.with_name(f"{source.name}_mended{font.suffix}")
    if not mended.is_file():
        with atomic_output(mended) as part:
            part.write_bytes(without_programs(font, source.without_programs))
    return mended


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("small-data"), help="output folder")
    parser.add_argument("--sources", type=Path, help="folder with the archives; missing ones are downloaded")
    parser.add_argument("--hours", type=float, default=HOURS, help=f"of music in total [default: {HOURS:g}]")
    parser.add_argument(
        "--sound-font", type=Path, action="append", help="or a sampled instrument, to train with; repeatable"
    )
    parser.add_argument("--unseen-sound-font", type=Path, action="append", help="for validation and test")
    parser.add_argument("--engine", default="auto", help="as in mt3 render")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, help="worker processes [default: all cores]")
    given = parser.parse_args(arguments)
    fonts, unseen = tuple(given.sound_font or ()), tuple(given.unseen_sound_font or ())
    wanted = Wanted(given.out, given.sources, given.hours, fonts, unseen, given.engine, given.seed, given.processes)
    reporter = Reporter()
    try:
        return make_data(wanted, reporter)
    except MT3Error as error:
        reporter.problem(error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
