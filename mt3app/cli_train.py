"""The command `mt3 train`. Imported for every help, so nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mt3app.command_line import command
from mt3app.progress import Reporter


@dataclass(frozen=True)
class TrainOptions:
    """The options of the command line; None or empty for those not given."""

    config: Annotated[
        str,
        typer.Option(
            "--config", "-c", metavar="NAME", help="A config (see --list), or a .py file.", show_default=False
        ),
    ] = ""
    changes: Annotated[
        tuple[str, ...],
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field, such as batch.examples=64; repeat for more."),
    ] = ()
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run. [default: checkpoint/NAME]")
    ] = None
    init: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Initial weights: as for --model elsewhere, or the folder of a run."),
    ] = None
    data: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="chunk_manifest.parquet of mt3 prepare, or its folder.")
    ] = None
    show_list: Annotated[bool, typer.Option("--list", help="List the configs and exit.")] = False


_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]


def register(app: typer.Typer) -> None:
    """Adds the command of this file to `mt3`."""
    command(app, TrainOptions, quiet=_QUIET)(train)


def train(options: TrainOptions, reporter: Reporter) -> int | None:
    """Train a model; run the same command again to resume.

    To see it work without any data: mt3 train --config multitrack_test. Exit code 0 when the last step is done, 75
    if a signal stopped the run and everything is saved, 1 for errors, 2 for a config that is not valid.

    Example: mt3 train --config finetune --init models/mt3 --data cache
    """
    from mt3app.commands.train import print_configs, run_training
    from mt3core.errors import UsageError

    if options.show_list:
        print_configs()
        return None
    if not options.config:
        raise UsageError("No config was given.", "Use mt3 train --config NAME; see mt3 train --list.")
    return run_training(options, reporter)
