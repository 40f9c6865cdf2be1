"""The commands on data sets: `mt3 data ...` and what stands beside it. Imported for every help, so nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mt3app.command_line import command
from mt3app.progress import Reporter

data = typer.Typer(
    name="data",
    help="Look at data sets: check one, show what training is fed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Kind = Annotated[str, typer.Argument(metavar="KIND", help="maestro, slakh or folder.")]
Folder = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="Its folder. [default: below datasets/, by its usual name]")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file to `mt3`."""
    app.add_typer(data)
    command(app, RenderOptions)(render)
    command(app, SoundsOptions)(sounds)
    command(app, PrepareOptions)(prepare)


@dataclass(frozen=True)
class VerifyOptions:
    """What the command line says; None where it says nothing."""

    kind: Annotated[str, typer.Argument(metavar="KIND_OR_DIR", help="maestro, slakh, folder, or a data set's folder.")]
    directory: Folder = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for defects.parquet and defects.txt. [default: cache/KIND-defects]"
        ),
    ] = None
    processes: Annotated[int | None, typer.Option(min=1, help="Tracks side by side. [default: all cores]")] = None
    quick: Annotated[bool, typer.Option("--quick", help="Look at names and MIDI only; do not decode audio.")] = False


@command(data, VerifyOptions)
def verify(options: VerifyOptions, reporter: Reporter) -> int:
    """Look for what is missing, broken or wrongly labelled in a data set.

    Exit code 0 when everything can be used, perhaps mended; 1 when some of it should be left out, or when the data
    set cannot be read at all. mt3 prepare leaves out by itself what is missing or cannot be read, and with --defects
    FILE all that is found here.
    """
    from mt3app.commands.data import verify_dataset

    return verify_dataset(options, reporter)


@dataclass(frozen=True)
class PrepareOptions:
    """What the command line says; None where it says nothing."""

    kind: Kind
    directory: Folder = None
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards and their manifest.")] = Path("cache")
    splits: Annotated[str | None, typer.Option(help="With commas between them. [default: train,validation,test]")] = (
        None
    )
    sustain: Annotated[bool, typer.Option(help="Hold notes as long as the sustain pedal does.")] = True
    flac: Annotated[bool, typer.Option("--flac", help="Pack the audio: smaller, slower to read.")] = False
    pitch_semitones: Annotated[int, typer.Option(help="Raise audio and notes so far, drums' notes not.")] = 0
    stretch: Annotated[float, typer.Option(help="Make recordings so many times as long: 0.5 to 2.")] = 1.0
    name: Annotated[str | None, typer.Option(help="Of the data set in the manifest. [default: its kind]")] = None
    processes: Annotated[int | None, typer.Option(min=1, help="Shards side by side. [default: all cores]")] = None
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do part I (from 0) of N only, without a manifest.")
    ] = None
    merge: Annotated[bool, typer.Option("--merge", help="Only make the manifest, when all parts are done.")] = False
    defects: Annotated[
        Path | None,
        typer.Option(help="defects.parquet of mt3 data verify: leave out what it names. The same for all parts."),
    ] = None


def prepare(options: PrepareOptions, reporter: Reporter) -> int:
    """Make a data set ready for training: 16 kHz chunks with their notes, in shards with a manifest.

    A run that was broken off goes on where it was. Exit code 1 when something could not be used; the rest is ready.
    """
    from mt3app.commands.prepare import prepare_dataset

    return prepare_dataset(options, reporter)


@dataclass(frozen=True)
class RenderOptions:
    """What the command line says."""

    midi_dir: Annotated[Path, typer.Argument(metavar="MIDI_DIR", help="Folder that is searched for MIDI files.")]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the data set.")]
    layout: Annotated[str, typer.Option(help="slakh, maestro or folder.")]
    sound_fonts: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--sound-font",
            help="A sound font, a folder made by mt3 sounds, or a folder of such; may be repeated. [default: TimGM6mb]",
        ),
    ] = ()
    engine: Annotated[str, typer.Option(help="auto, tinysoundfont, fluidsynth or pretty_midi.")] = "auto"
    programs: Annotated[
        str, typer.Option(help="Instruments: keep, class (others of their class), or any (but drums).")
    ] = "class"
    seed: Annotated[int, typer.Option(min=0, help="Draws instruments, sound fonts and levels.")] = 0
    rate: Annotated[int, typer.Option(min=8000, max=192_000, help="Samples a second.")] = 44_100
    tuning_cents: Annotated[
        str, typer.Option(help="Each piece's tuning, drawn between two ends in cents: -20,24 is a' at 435 to 446 Hz.")
    ] = "0,0"
    max_minutes: Annotated[float, typer.Option(min=0.01, max=150, help="Cut longer pieces.")] = 20
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many files, spread over the folder.")] = None
    processes: Annotated[int | None, typer.Option(min=1, help="Files side by side. [default: all cores]")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Render again what is there.")] = False


def render(options: RenderOptions, reporter: Reporter) -> int:
    """Make a data set of audio and labels from MIDI files, laid out like SLAKH, MAESTRO or plain pairs.

    Pieces that are finished are skipped; files that cannot be rendered are named and left out, with exit code 1.
    """
    from mt3app.commands.render import render_files
    from mt3render.dataset import Rendering, parse_range

    rendering = Rendering(
        layout=options.layout,
        engine=options.engine,
        sound_fonts=options.sound_fonts,
        seed=options.seed,
        programs=options.programs,
        sample_rate_hz=options.rate,
        most_minutes=options.max_minutes,
        tuning_cents=parse_range(options.tuning_cents),
    )
    rest = options.processes, options.limit, options.overwrite
    return render_files(options.midi_dir, options.out, rendering, *rest, reporter)


@dataclass(frozen=True)
class SoundsOptions:
    """What the command line says; None leaves what the source says, if it does."""

    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="An .sfz file, a folder of a known kind, or a sound font."),
    ]
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the instrument, or the new sound font.")]
    rate: Annotated[int | None, typer.Option(min=8000, max=192_000, help="Samples a second. [default: theirs]")] = None
    mono: Annotated[bool, typer.Option("--mono", help="One channel.")] = False
    mend: Annotated[bool, typer.Option("--mend", help="Measure pitches and levels, and even them out.")] = False
    layers: Annotated[int | None, typer.Option(min=1, help="Velocity layers of the Salamander. [default: all]")] = None
    programs: Annotated[str | None, typer.Option(help="General MIDI programs that it plays, from 0: 40,41.")] = None
    drums: Annotated[bool, typer.Option("--drums", help="The .sfz file is a kit on General MIDI's keys.")] = False
    keys: Annotated[str | None, typer.Option(help="Take only these keys: 36-59,70. (.sfz, SpectMorph)")] = None
    without: Annotated[str | None, typer.Option(help="Programs to leave out of a sound font: 0,1,3.")] = None
    velocity_exponent: Annotated[
        float | None, typer.Option(min=0, max=4, help="Of amplitude within a sample's velocities. [default: theirs]")
    ] = None
    sustained: Annotated[bool, typer.Option("--sustained", help="Bowed or blown: repeated notes do not ring on.")] = (
        False
    )
    name: Annotated[str | None, typer.Option(help="What it is called.")] = None
    licence: Annotated[str | None, typer.Option(help="Of the samples.")] = None
    attribution: Annotated[str | None, typer.Option(help="Who made them.")] = None
    address: Annotated[str | None, typer.Option(help="Where they are from.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False


def sounds(options: SoundsOptions, reporter: Reporter) -> None:
    """Make a folder of samples that mt3 render --sound-font plays, from a published collection.

    With --without, copy a sound font (.sf2, .sf3) that lacks some programs instead.
    """
    from mt3app.commands.sounds import make_sounds

    make_sounds(options, reporter)


@dataclass(frozen=True)
class ShowOptions:
    """What the command line says."""

    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="chunk_manifest.parquet, or its folder.")]
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="Which example, from 0.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("examples_shown")
    preset: Annotated[str, typer.Option(help="mt3, ismir2021 or multitrack: segment length and tokens.")] = "mt3"
    dataset: Annotated[str | None, typer.Option(help="Only of this data set. [default: all, mixed]")] = None
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train"
    seed: Annotated[int, typer.Option(min=0, help="Draws the examples of training.")] = 0
    evaluation: Annotated[bool, typer.Option("--evaluation", help="Segment N of the recordings in order.")] = False


@command(data, ShowOptions)
def show(options: ShowOptions, reporter: Reporter) -> None:
    """Write one example as WAV, MIDI and picture, as the network is fed it: its notes are read from its tokens."""
    from mt3app.commands.data_show import show_example

    show_example(options, reporter)
