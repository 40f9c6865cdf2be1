"""The commands for data sets: `mt3 data ...`, prepare, render, sounds. Imported for every help, so nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mt3app.command_line import HelpfulGroup, command
from mt3app.progress import Reporter

data = typer.Typer(
    name="data",
    cls=HelpfulGroup,
    help="Check a data set, show a training example, or see what the cache keeps.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Kind = Annotated[str, typer.Argument(metavar="KIND", help="Kind of data set: maestro, slakh or folder.")]
Folder = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="Folder of the data set. [default: its usual name below datasets/]")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file to `mt3`."""
    app.add_typer(data)
    command(app, RenderOptions)(render)
    command(app, SoundsOptions)(sounds)
    command(app, PrepareOptions)(prepare)


@dataclass(frozen=True)
class VerifyOptions:
    """The options of the command line; None for those not given."""

    kind: Annotated[
        str, typer.Argument(metavar="KIND_OR_DIR", help="Kind of data set (maestro, slakh, folder), or its folder.")
    ]
    directory: Folder = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for defects.parquet and defects.txt. [default: cache/KIND-defects]"
        ),
    ] = None
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: all cores]")] = None
    quick: Annotated[bool, typer.Option("--quick", help="Check names and MIDI only, without decoding audio.")] = False


@command(data, VerifyOptions)
def verify(options: VerifyOptions, reporter: Reporter) -> int:
    """Find what is missing, damaged or wrongly labelled in a data set.

    Exit code 0 if everything can be used, perhaps corrected; 1 if some of it should be left out, or if the data
    set cannot be read at all. mt3 prepare always leaves out missing and unreadable files, and with --defects
    FILE everything found here.

    Example: mt3 data verify maestro datasets/maestro-v3.0.0
    """
    from mt3app.commands.data import verify_dataset

    return verify_dataset(options, reporter)


@dataclass(frozen=True)
class PrepareOptions:
    """The options of the command line; None for those not given."""

    kind: Kind
    directory: Folder = None
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards and their manifest.")] = Path("cache")
    splits: Annotated[
        str | None, typer.Option(metavar="LIST", help="Splits, separated by commas. [default: train,validation,test]")
    ] = None
    sustain: Annotated[bool, typer.Option(help="Hold notes as long as the sustain pedal does.")] = True
    flac: Annotated[bool, typer.Option("--flac", help="Compress the audio: smaller, slower to read.")] = False
    pitch_semitones: Annotated[int, typer.Option(help="Raise the audio and the notes, except drums.")] = 0
    stretch: Annotated[float, typer.Option(help="Make recordings longer by this factor, 0.5 to 2.")] = 1.0
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the data set in the manifest. [default: its kind]")
    ] = None
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: all cores]")] = None
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do only job I of N (from 0), without a manifest.")
    ] = None
    merge: Annotated[bool, typer.Option("--merge", help="Make only the manifest, after all jobs are done.")] = False
    defects: Annotated[
        Path | None,
        typer.Option(help="defects.parquet of mt3 data verify: leave out its entries. Use it for all jobs."),
    ] = None


def prepare(options: PrepareOptions, reporter: Reporter) -> int:
    """Prepare a data set for training: 16 kHz chunks with their notes, in shards with a manifest.

    An interrupted run is resumed. Exit code 1 if something could not be used; the rest is ready.

    Example: mt3 prepare slakh datasets/slakh2100_flac_redux --out cache
    """
    from mt3app.commands.prepare import prepare_dataset

    return prepare_dataset(options, reporter)


@dataclass(frozen=True)
class RenderOptions:
    """The options of the command line."""

    midi_dir: Annotated[Path, typer.Argument(metavar="MIDI_DIR", help="Folder to search for MIDI files.")]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the data set.")]
    layout: Annotated[str, typer.Option(metavar="NAME", help="slakh, maestro or folder.")]
    sound_fonts: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--sound-font",
            help="A sound font, a folder made by mt3 sounds, or a folder of these; repeatable. [default: TimGM6mb]",
        ),
    ] = ()
    engine: Annotated[str, typer.Option(metavar="NAME", help="auto, tinysoundfont, fluidsynth or pretty_midi.")] = (
        "auto"
    )
    programs: Annotated[
        str,
        typer.Option(metavar="RULE", help="Instruments: keep, class (others of their class), or any (except drums)."),
    ] = "class"
    seed: Annotated[int, typer.Option(min=0, help="Random seed for instruments, sound fonts and levels.")] = 0
    rate: Annotated[int, typer.Option(min=8000, max=192_000, help="Sample rate in Hz.")] = 44_100
    tuning_cents: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH",
            help="Each piece's tuning, drawn between two ends in cents: -20,24 is a' at 435 to 446 Hz.",
        ),
    ] = "0,0"
    mixed_kits: Annotated[
        bool, typer.Option("--mixed-kits", help="Take kick, snare, hi-hat, toms and cymbals from different kits.")
    ] = False
    max_minutes: Annotated[float, typer.Option(min=0.01, max=150, help="Cut longer pieces.")] = 20
    limit: Annotated[int | None, typer.Option(min=1, help="Render only N files, spread over the folder.")] = None
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: all cores]")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Render existing pieces again.")] = False


def render(options: RenderOptions, reporter: Reporter) -> int:
    """Make a data set of audio and labels from MIDI files, laid out like SLAKH, MAESTRO or plain pairs.

    Finished pieces are skipped; files that cannot be rendered are named and left out, with exit code 1.

    Example: mt3 render midi/ datasets/rendered --layout slakh
    """
    from mt3app.commands.render import render_files

    return render_files(options, reporter)


@dataclass(frozen=True)
class SoundsOptions:
    """The options of the command line; None keeps what the source says, if anything."""

    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="An .sfz file, a folder of a known kind, or a sound font."),
    ]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the instrument, or the new sound font.")]
    rate: Annotated[
        int | None, typer.Option(min=8000, max=192_000, help="Sample rate in Hz. [default: that of the recordings]")
    ] = None
    mono: Annotated[bool, typer.Option("--mono", help="Write one channel.")] = False
    mend: Annotated[bool, typer.Option("--mend", help="Measure pitches and levels, and even them out.")] = False
    layers: Annotated[int | None, typer.Option(min=1, help="Velocity layers of the Salamander. [default: all]")] = None
    programs: Annotated[
        str | None, typer.Option(metavar="LIST", help="General MIDI programs that it plays, from 0: 40,41.")
    ] = None
    drums: Annotated[bool, typer.Option("--drums", help="The .sfz file is a kit on General MIDI's keys.")] = False
    keys: Annotated[
        str | None, typer.Option(metavar="LIST", help="Use only these keys: 36-59,70. (.sfz, SpectMorph)")
    ] = None
    without: Annotated[
        str | None, typer.Option(metavar="LIST", help="Programs to leave out of a sound font: 0,1,3.")
    ] = None
    velocity_exponent: Annotated[
        float | None,
        typer.Option(
            min=0, max=4, help="Exponent of amplitude over velocity within one sample. [default: the source's]"
        ),
    ] = None
    sustained: Annotated[bool, typer.Option("--sustained", help="Bowed or blown: repeated notes do not ring on.")] = (
        False
    )
    name: Annotated[str | None, typer.Option(help="Name of the instrument.")] = None
    licence: Annotated[str | None, typer.Option(help="Licence of the samples.")] = None
    attribution: Annotated[str | None, typer.Option(help="Who made the recordings.")] = None
    address: Annotated[str | None, typer.Option(help="Address of the recordings.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False


def sounds(options: SoundsOptions, reporter: Reporter) -> None:
    """Make a sampled instrument for mt3 render --sound-font from a published collection.

    With --without, copy a sound font (.sf2, .sf3) without some of its programs instead.

    Example: mt3 sounds Cello.sfz sounds/cello --programs 42 --licence CC0-1.0
    """
    from mt3app.commands.sounds import make_sounds

    make_sounds(options, reporter)


@dataclass(frozen=True)
class CacheOptions:
    """The options of the command line."""

    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="composed, models, programs, all, or the name of one entry.")
    ] = ""
    clear: Annotated[bool, typer.Option("--clear", help="Remove it: WHAT, or without WHAT the composed pieces.")] = (
        False
    )


@command(data, CacheOptions)
def cache(options: CacheOptions, reporter: Reporter) -> None:
    """List what is kept in the cache, with its size: composed pieces, downloaded models, compiled programs.

    All of it can be made or downloaded again. Remove nothing that a run is using at the moment.

    Example: mt3 data cache composed --clear
    """
    from mt3app.commands.data_cache import show_cache

    show_cache(options, reporter)


@dataclass(frozen=True)
class ShowOptions:
    """The options of the command line."""

    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="chunk_manifest.parquet, or its folder.")]
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="Number of the example, from 0.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("examples_shown")
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="mt3, ismir2021 or multitrack: segment length and tokens.")
    ] = "mt3"
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only from this data set. [default: all, mixed]")
    ] = None
    split: Annotated[str, typer.Option(metavar="NAME", help="train, validation or test.")] = "train"
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the training examples.")] = 0
    evaluation: Annotated[
        bool, typer.Option("--evaluation", help="Show segment N of the recordings in order instead.")
    ] = False


@command(data, ShowOptions)
def show(options: ShowOptions, reporter: Reporter) -> None:
    """Write one training example as WAV, MIDI and picture, as the network receives it.

    Its notes are read from its tokens.

    Example: mt3 data show cache 0 --split validation
    """
    from mt3app.commands.data_show import show_example

    show_example(options, reporter)
