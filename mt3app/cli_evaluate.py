"""The command `mt3 evaluate`. Imported for every help, so nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mt3app.progress import Reporter


def register(app: typer.Typer) -> None:
    """Adds the command of this file to `mt3`."""
    app.command()(evaluate)


def evaluate(
    reference: Annotated[
        Path | None, typer.Argument(metavar="[REFERENCE", help="The truth: a file of notes, or a folder of them.")
    ] = None,
    estimate: Annotated[
        Path | None, typer.Argument(metavar="ESTIMATE]", help="What is scored: a file, or a folder with equal names.")
    ] = None,
    protocols: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            metavar="NAME",
            help="Whose rules; repeatable; * and ? stand for anything. [default: three in plain words]",
        ),
    ] = None,
    show_protocols: Annotated[bool, typer.Option("--list", help="List all protocols, and stop.")] = False,
    json_output: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON; - for standard output.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page: tables, piano rolls, errors, playback.")
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="Folder with the recordings, for the report.")] = None,
    embed_audio: Annotated[
        bool, typer.Option("--embed-audio", help="Put the recordings into the page, in place of links to them.")
    ] = False,
    rolls: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw both sides of each piece as PNG (needs Matplotlib).")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER_ESTIMATE", help="A second system: show the difference.")
    ] = None,
    reference_suffix: Annotated[
        str | None, typer.Option(help="Ending of the reference folder's files, such as .notes.tsv. [default: all]")
    ] = None,
    estimate_suffix: Annotated[
        str | None, typer.Option(help="Ending of the estimate folder's files, such as .mid. [default: all]")
    ] = None,
    sustain: Annotated[
        bool, typer.Option("--sustain", help="Hold notes of both sides as long as the sustain pedal does, as MT3.")
    ] = False,
    drop_empty: Annotated[
        bool, typer.Option("--drop-empty", help="Leave out notes without length, as programs with pretty_midi do.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", metavar="NAME", help="Instead of files: decode a data set, such as by sample."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a field of the config; repeat for more."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --config: the first so many tracks of each data set.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="With --config: torch, jax or both. [default: torch where installed]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="With --config: weights, as of mt3 transcribe.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --config: folder to write. [default: eval_outputs]")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Pairs side by side. [default: all cores]")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every metric; tracebacks with errors.")
    ] = False,
) -> None:
    """Score notes against the truth, by the rules of whatever paper.

    Files of notes are MIDI, JSON, JSONL, CSV and TSV, of any system. In folders, names are matched without their
    suffixes; what has no partner is listed. Exit code 1 when a file could not be read or a reference has no estimate.

    With --config recordings of data sets are decoded first: mt3 evaluate --config sample --limit 10. The same again
    decodes only what is missing.
    """
    from mt3app.commands.evaluate.files import Options, evaluate_files, print_protocols

    if show_protocols:
        print_protocols()
        return
    reporter = Reporter(quiet, verbose)
    for_config = {"--set": changes, "--limit": limit, "--backend": backend, "--model": model, "--out": output}
    if config is not None:
        for_files = {
            **{"REFERENCE": reference, "--json": json_output, "--report": report, "--rolls": rolls, "--audio": audio},
            **{"--against": against, "--reference-suffix": reference_suffix, "--estimate-suffix": estimate_suffix},
            **{"--sustain": sustain, "--drop-empty": drop_empty, "--embed-audio": embed_audio},
        }
        _refuse(
            for_files,
            "is for files of notes, not for --config",
            "Score its notes afterwards (docs/evaluation_datasets.md).",
        )
        from mt3app.commands.evaluate.config import ConfigOptions, evaluate_config

        chosen = ConfigOptions(
            config=config,
            changes=tuple(changes or ()),
            limit=limit,
            backend=backend,
            model=model,
            output=output,
            protocols=tuple(protocols or ()),
            processes=processes,
            resamples=resamples,
            seed=seed,
        )
        raise typer.Exit(evaluate_config(chosen, reporter))
    _refuse(for_config, "needs --config", "mt3 evaluate --config sample")
    options = Options(
        reference=reference,
        estimate=estimate,
        protocols=tuple(protocols or ()),
        json_output=json_output,
        report=report,
        audio=audio,
        embed_audio=embed_audio,
        rolls=rolls,
        against=against,
        reference_suffix=reference_suffix,
        estimate_suffix=estimate_suffix,
        sustain=sustain,
        drop_empty=drop_empty,
        processes=processes,
        resamples=resamples,
        seed=seed,
    )
    raise typer.Exit(evaluate_files(options, reporter))


def _refuse(options: Mapping[str, object], problem: str, next_step: str) -> None:
    from mt3core.errors import UsageError

    for name, value in options.items():
        if value:
            raise UsageError(f"{name} {problem}.", next_step)
