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
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The page. [default: beside the notes]")
    ] = None
    link: Annotated[
        bool, typer.Option("--link", help="Refer to the recording by its path instead of putting it into the page.")
    ] = False
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False


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
