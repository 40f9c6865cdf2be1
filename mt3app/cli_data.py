"""The commands on data sets: `mt3 data ...` and what stands beside it. Imported for every help, so nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what takes how long; tracebacks with errors.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file to `mt3`."""
    app.add_typer(data)


@data.command()
def verify(
    kind: Annotated[str, typer.Argument(metavar="KIND_OR_DIR", help="maestro, slakh, folder, or a data set's folder.")],
    directory: Folder = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for defects.parquet and defects.txt. [default: cache/KIND-defects]"
        ),
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Tracks side by side. [default: all cores]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Look at names and MIDI only; do not decode audio.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look for what is missing, broken or wrongly labelled in a data set.

    Exit code 0 when `mt3 prepare` can use everything, perhaps mended; 1 when it will leave something out, or when
    the data set cannot be read at all.
    """
    from mt3app.data import verify_dataset

    reporter = Reporter(quiet, verbose)
    raise typer.Exit(verify_dataset(kind, directory, output, processes, not quick, reporter))
