"""The command `mt3 evaluate`: files of notes, or a model on data sets. Imported for every help, so nothing heavy."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mt3app.command_line import HelpfulCommand, filled, in_panel, parameters, spelling, with_parameters
from mt3app.progress import Reporter

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every metric; tracebacks with errors.")]


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How notes are scored, wherever they come from; without protocols, the three in plain words."""

    protocols: Annotated[
        tuple[str, ...],
        typer.Option(
            "--protocol",
            "-p",
            metavar="NAME",
            help="Protocol to score by; repeatable; * and ? are wildcards. [default: three in plain words]",
        ),
    ] = ()
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes. [default: all cores]")] = None


@dataclass(frozen=True, kw_only=True)
class _FileParameters:
    reference: Annotated[
        Path | None, typer.Argument(metavar="REFERENCE", help="Reference: a file of notes, or a folder of them.")
    ] = None
    estimate: Annotated[
        Path | None, typer.Argument(metavar="ESTIMATE", help="Estimate: a file, or a folder with matching names.")
    ] = None
    json_output: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for standard output.")
    ] = None
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page: tables, piano rolls, errors, playback.")
    ] = None
    audio: Annotated[Path | None, typer.Option(help="Folder with the recordings, for the report.")] = None
    embed_audio: Annotated[
        bool, typer.Option("--embed-audio", help="Put the recordings into the page instead of links.")
    ] = False
    rolls: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw both sides of each piece as PNG (needs Matplotlib).")
    ] = None
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER_ESTIMATE", help="Estimates of a second system: show the difference.")
    ] = None
    reference_suffix: Annotated[
        str | None,
        typer.Option(
            metavar="SUFFIX", help="Suffix of the reference folder's files, such as .notes.tsv. [default: all]"
        ),
    ] = None
    estimate_suffix: Annotated[
        str | None,
        typer.Option(metavar="SUFFIX", help="Suffix of the estimate folder's files, such as .mid. [default: all]"),
    ] = None
    sustain: Annotated[
        bool, typer.Option("--sustain", help="Hold notes of both sides as long as the sustain pedal does, as MT3 does.")
    ] = False
    drop_empty: Annotated[
        bool, typer.Option("--drop-empty", help="Leave out notes without length, as programs with pretty_midi do.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class _DataSetParameters:
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "-c",
            metavar="NAME",
            help="Instead of files: decode data sets by this config, such as sample.",
            show_default=False,
        ),
    ] = ""
    changes: Annotated[
        tuple[str, ...],
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field of the config; repeat for more."),
    ] = ()
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N tracks of each data set.")] = None
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="torch, jax or both. [default: torch if installed]")
    ] = None
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Model, as for mt3 transcribe.")] = None
    output: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write. [default: eval_outputs]")] = None


@dataclass(frozen=True, kw_only=True)
class FileOptions(_FileParameters, ScoringOptions):
    """The options for files of notes; None or empty for those not given."""


@dataclass(frozen=True, kw_only=True)
class DataSetOptions(_DataSetParameters, ScoringOptions):
    """The options for a model on data sets. `processes` are for scoring; those for decoding are in the config."""


class _EvaluateCommand(HelpfulCommand):
    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", "(REFERENCE ESTIMATE | --config NAME)"]


_OF_FILES = in_panel("Files of notes", parameters(_FileParameters))
_OF_DATA_SETS = in_panel("A model on data sets", parameters(_DataSetParameters))
_List = Annotated[bool, typer.Option("--list", help="List all protocols and exit.")]
_LIST = inspect.Parameter("show_protocols", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_List)


def register(app: typer.Typer) -> None:
    """Adds the command of this file to `mt3`."""
    scoring = in_panel("Scoring", [*parameters(ScoringOptions), _LIST])
    given = [*_OF_FILES, *_OF_DATA_SETS, *scoring]
    app.command("evaluate", cls=_EvaluateCommand)(with_parameters(_evaluate, _evaluate.__doc__, given, verbose=Verbose))


def _evaluate(quiet: bool, verbose: bool, **values: Any) -> None:
    """Score notes against a reference, by the rules of any published evaluation.

    Files of notes are MIDI, JSON, JSONL, CSV and TSV, from any system. In folders, names are matched without their
    suffixes; files without a partner are listed. Exit code 1 if a file cannot be read or a reference has no estimate.

    With --config, recordings of data sets are decoded first: mt3 evaluate --config sample --limit 10. Running it again
    decodes only what is missing.

    Example: mt3 evaluate truth/ transcribed/ --report report.html
    """
    reporter = Reporter(quiet, verbose)
    if values["show_protocols"]:
        from mt3app.commands.evaluate.files import print_protocols

        print_protocols()
    elif not values["config"]:
        from mt3app.commands.evaluate.files import evaluate_files

        _refuse(_OF_DATA_SETS, values, "needs --config", "For example: mt3 evaluate --config sample")
        raise typer.Exit(evaluate_files(filled(FileOptions, values), reporter))
    else:
        from mt3app.commands.evaluate.config import evaluate_config

        next_step = "Score its notes afterwards (docs/evaluation_datasets.md)."
        _refuse(_OF_FILES, values, "is for files of notes, not for --config", next_step)
        raise typer.Exit(evaluate_config(filled(DataSetOptions, values), reporter))


def _refuse(parameters: Sequence[inspect.Parameter], values: Mapping[str, Any], problem: str, next_step: str) -> None:
    from mt3core.errors import UsageError

    for one in parameters:
        if values[one.name]:
            raise UsageError(f"{spelling(one)} {problem}.", next_step)
