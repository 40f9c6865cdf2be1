"""The commands that show notes in a browser: their options. Their work is in `commands/`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from mt3app.command_line import command
from mt3app.progress import Reporter


@dataclass(frozen=True)
class ViewOptions:
    """The options of `mt3 view`."""

    notes: Annotated[str, typer.Argument(metavar="NOTES", help="A MIDI file, or JSON of mt3 transcribe.")]
    recording: Annotated[
        str | None,
        typer.Argument(metavar="RECORDING", help="The recording they belong to. [default: the one that JSON names]"),
    ] = None
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The page. [default: next to the notes]")
    ] = None
    link: Annotated[
        bool, typer.Option("--link", help="Refer to the recording by its path instead of putting it into the page.")
    ] = False
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False


@dataclass(frozen=True)
class ServeOptions:
    """The options of `mt3 serve`."""

    host: Annotated[
        str, typer.Option(metavar="HOST", help="Who can reach it: 127.0.0.1 only this machine, 0.0.0.0 everybody.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8765
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Name, path or address. [default: MT3_MODEL, else models/mt3, else small]"),
    ] = None
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="torch or jax. [default: torch if installed]")] = (
        None
    )
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps; for JAX also tpu.")] = (
        "auto"
    )
    max_upload: Annotated[str, typer.Option(metavar="SIZE", help="Largest recording: 500 MB, 1 GB.")] = "1 GB"
    time_limit: Annotated[float, typer.Option(min=0.1, metavar="MINUTES", help="For decoding one recording.")] = 60.0
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app, ViewOptions)
    def view(options: ViewOptions, reporter: Reporter) -> int:
        """Show notes and their recording in a page: a piano roll to look at and to listen to.

        The page is one file that needs no network.

        Example: mt3 view song.mid song.mp3 --open
        """
        from mt3app.commands.view import view as write_page

        return write_page(options, reporter)

    @command(app, ServeOptions)
    def serve(options: ServeOptions, reporter: Reporter) -> int:
        """Open a page to drop recordings on, watch the notes appear, listen and compare.

        It runs on this machine, without a network. Recordings are removed after an hour.

        Example: mt3 serve --open
        """
        from mt3app.commands.serve import serve as run_server

        return run_server(options, reporter)
