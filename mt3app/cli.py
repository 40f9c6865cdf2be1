"""The command `mt3`: options and help. Each command's work is in the file of its name, imported when it runs."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mt3app import cli_data, cli_evaluate, cli_page, cli_train
from mt3app.command_line import DefaultGroup, HelpfulCommand, Verbose, command, explain
from mt3app.progress import Reporter, writing_stdout
from mt3core.errors import MT3Error

# Rich help and tracebacks are off: importing Rich costs as much as everything else that help needs.
app = typer.Typer(
    name="mt3",
    cls=DefaultGroup,
    help="Music transcription: recordings in, multi-instrument MIDI out. mt3 song.mp3 is mt3 transcribe song.mp3.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Name, path or address. [default: MT3_MODEL, else models/mt3, else small]"),
]
Backend = Annotated[str | None, typer.Option(metavar="NAME", help="torch or jax. [default: torch if installed]")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps; for JAX also tpu.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]


@dataclass(frozen=True)
class TranscribeOptions:
    """The options of the command line; None for those not given."""

    # As text, because a path would lose a slash of an address.
    inputs: Annotated[
        tuple[str, ...],
        typer.Argument(
            metavar="INPUT", help="Audio or video files, folders to search for them, and - for standard input."
        ),
    ]
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File or folder; - for standard output. [default: next to the recording]",
        ),
    ] = None
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="mid, json, jsonl, csv, html (a page), musicxml, pdf; with commas. [default: suffix of -o, or mid]",
        ),
    ] = None
    model: Model = None
    backend: Backend = None
    device: Device = "auto"
    batch_size: Annotated[int | None, typer.Option(min=1, help="Segments decoded at a time.")] = None
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "--processes", min=1, help="Threads that decode, for PyTorch on a CPU. [default: up to four]"
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="float32, bfloat16 (faster, on processors that have it), or auto; for PyTorch. [default: float32]",
        ),
    ] = None
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="fast, best (overlapping windows, which take two to four times as long), or auto: best if the model "
            "weighs its windows, as small does. [default: auto]",
        ),
    ] = None
    decoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="greedy, t5x (like the original) or beam. [default: t5x; beam with --num-beams]"
        ),
    ] = None
    num_beams: Annotated[int | None, typer.Option(min=1, help="Width of the beam search. [default: 4]")] = None
    instruments: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Only these, such as piano,bass,drums; mt3 instruments lists them."),
    ] = None
    exclude: Annotated[str | None, typer.Option(metavar="LIST", help="All instruments but these.")] = None
    grammar: Annotated[
        bool | None,
        typer.Option("--grammar/--no-grammar", help="Write only events that make sense. [default: on]"),
    ] = None
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Begin each segment with the notes that the one before left sounding.")
    ] = False
    track: Annotated[
        int | None, typer.Option(min=1, help="Which of several audio tracks. [default: the marked one, or the first]")
    ] = None
    damaged: Annotated[
        str, typer.Option(help="refuse damaged recordings, or keep what can be read, with silence for the rest.")
    ] = "refuse"
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Transcribe from here on: seconds, or 1:23.5. [default: 0]")
    ] = None
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Transcribe up to here. [default: the recording's end]")
    ] = None
    pitch_range: Annotated[
        str | None,
        typer.Option(metavar="RANGE", help="Leave out pitched notes outside it: C2-C7 (C4 is 60), or 36-96."),
    ] = None
    merge: Annotated[
        str | None,
        typer.Option(metavar="class", help="Make one instrument of those of a General MIDI class, the most frequent."),
    ] = None
    merge_gap: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Join notes of one pitch and instrument with a shorter gap.",
            show_default=False,
        ),
    ] = 0.0
    min_note: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Leave out shorter pitched notes.", show_default=False)
    ] = 0.0
    min_confidence: Annotated[
        float, typer.Option(metavar="SHARE", help="Leave out less certain notes: 0 to 1.", show_default=False)
    ] = 0.0
    velocity: Annotated[
        str | None, typer.Option(metavar="confidence", help="Write the confidence of each note as its velocity.")
    ] = None
    tempo: Annotated[
        str | None,
        typer.Option(
            metavar="auto|N|FILE", help="Write bars: beats found, N a minute, or those of a MIDI file or a list."
        ),
    ] = None
    time_signature: Annotated[
        str | None, typer.Option(metavar="N/N", help="Of the bars, such as 3/4. [default: by evidence, 4/4 or 3/4]")
    ] = None
    quantise: Annotated[
        str | None, typer.Option(metavar="VALUE", help="Move notes to a grid: 1/8, 1/16, 1/32; 1/8t for triplets.")
    ] = None
    sonify: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write the transcription as sound: a WAV file, or a folder."),
    ] = None
    compare: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write a WAV file with the original left, the transcription right."),
    ] = None
    uncertain: Annotated[bool, typer.Option("--uncertain", help="Name the least certain bars or stretches of 5 s.")] = (
        False
    )
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N shares of the recordings, from 1/N to N/N.")
    ] = None
    overwrite: Overwrite = False


@command(app, TranscribeOptions)
def transcribe(options: TranscribeOptions, reporter: Reporter) -> int:
    """Write the notes of recordings as MIDI, JSON or CSV.

    Recordings whose output exists are skipped. Exit code 1 if one could not be transcribed; the others are done.

    Example: mt3 transcribe album/ -o notes/ --format mid,json --start 0:30 --end 1:00
    """
    from mt3app.commands.transcribe import transcribe_files

    return transcribe_files(options, reporter)


@app.command(cls=HelpfulCommand)
def instruments(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the instruments that --instruments can name.

    Example: mt3 instruments --json
    """
    from mt3app.commands.instruments import list_instruments

    list_instruments(json_output)


@app.command(cls=HelpfulCommand)
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Model directory, T5X or Orbax directory, .pth file, name or address."),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="Folder or file to write.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="model_directory, t5x, orbax or port. [default: by suffix (.pth, .orbax), else model_directory]",
        ),
    ] = None,
    stored_type: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="How a model directory stores weights: float32 or bfloat16. [default: float32]",
        ),
    ] = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Convert weights from one form to another.

    Example: mt3 convert gs://mt3/checkpoints/mt3 models/mt3
    """
    from mt3app.commands.convert import convert_model

    convert_model(source, destination, to, stored_type, overwrite, Reporter(verbose=verbose))


@app.command(cls=HelpfulCommand)
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name (small), path of a model in any form, or address.")
    ],
    destination: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write.")],
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Write a model as two ONNX graphs, for programs without PyTorch or JAX.

    The folder also gets config.json and a README with all inputs and outputs.

    Example: mt3 export small small_onnx/
    """
    from mt3app.commands.export import export_model

    export_model(model, destination, overwrite, Reporter(verbose=verbose))


@app.command(cls=HelpfulCommand)
def parity(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name (small), path of a model in any form, or address.")
    ],
    audio: Annotated[
        Path | None, typer.Argument(metavar="RECORDING", help="A recording. [default: a synthetic signal]")
    ] = None,
    json_output: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON; - for standard output.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest allowed difference of the logits.")] = 1e-4,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Compare only the first seconds.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="For both networks: cpu, cuda, auto.")] = "cpu",
    verbose: Verbose = False,
) -> None:
    """Compare the JAX and the PyTorch network stage by stage.

    Exit code 1 if they differ by more than the tolerance.

    Example: mt3 parity small song.mp3 --seconds 30
    """
    from mt3app.commands.parity import compare

    raise typer.Exit(compare(model, audio, json_output, tolerance, seconds, device, Reporter(verbose=verbose)))


@app.command(cls=HelpfulCommand)
def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show versions, devices, models, audio formats and free disk space.

    Exit code 1 if something essential is missing or broken.

    Example: mt3 doctor --json
    """
    from mt3app.commands.doctor import examine

    raise typer.Exit(examine(json_output))


@app.command(cls=HelpfulCommand)
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("demo_output"),
    model: Model = None,
    backend: Backend = None,
    device: Device = "auto",
    verbose: Verbose = False,
) -> None:
    """Render a short piece, transcribe it and score the result.

    Example: mt3 demo --model models/mt3 -o demo_output
    """
    from mt3app.commands.demo import run_demo

    run_demo(output, model, backend, device, Reporter(verbose=verbose))


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"mt3kit {version('mt3kit')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    reporter = Reporter(verbose="--verbose" in arguments or "-v" in arguments)
    try:
        code = _run_command(arguments)
        with writing_stdout():
            sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except MT3Error as error:
        reporter.problem(error)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk behind it: the same again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error.exit_code
    except Exception as error:
        # Typer's errors of usage; older releases get them from click.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            print(explain(error), file=sys.stderr)
            return int(error.exit_code)
        reporter.problem(error)
        return 1
    if code == EXIT_INTERRUPTED:
        print("mt3: Interrupted.", file=sys.stderr)
    return code


def _run_command(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name="mt3", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as exit:
        if isinstance(exit.__context__, BrokenPipeError):  # Typer itself would return exit code 1
            raise BrokenPipeError from exit
        raise


def main() -> None:
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # SIGHUP (a terminal was closed) does not exist on Windows
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, _end_in_order)
    sys.exit(run(sys.argv[1:]))


def _end_in_order(number: int, _: object) -> None:
    """Ends like any other error, so that temporary files and other processes are cleaned up."""
    raise SystemExit(128 + number)


cli_page.register(app)
cli_data.register(app)
cli_train.register(app)
cli_evaluate.register(app)
