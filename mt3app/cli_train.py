"""The command `mt3 train`. Imported for every help, so nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt3app.progress import Reporter


def register(app: typer.Typer) -> None:
    """Adds the command of this file to `mt3`."""
    app.command()(train)


def train(
    config: Annotated[
        str | None, typer.Option("--config", "-c", metavar="NAME", help="A config (see --list), or a .py file.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field, such as batch.examples=64; repeat for more."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run. [default: checkpoint/NAME]")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Initial weights: as for --model elsewhere, or the folder of a run."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="chunk_manifest.parquet of mt3 prepare, or its folder.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the configs and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print timings, and tracebacks with errors.")
    ] = False,
) -> None:
    """Train a model; run the same command again to resume.

    To see it work without any data: mt3 train --config multitrack_test. Exit code 0 when the last step is done, 75
    if a signal stopped the run and everything is saved, 1 for errors, 2 for a config that is not valid.
    """
    from mt3app.commands.train import Options, print_configs, run_training
    from mt3core.errors import UsageError

    if show_list:
        print_configs()
        return
    if config is None:
        raise UsageError("No config was given.", "Use mt3 train --config NAME; see mt3 train --list.")
    options = Options(config, tuple(changes or ()), output, init, data)
    raise typer.Exit(run_training(options, Reporter(quiet, verbose)))
