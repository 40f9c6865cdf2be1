"""Commands whose options are declared once: as fields of a dataclass, which Typer reads and the command receives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from mt3app.progress import Reporter

_Options = TypeVar("_Options")
_Run = Callable[[Any, Reporter], int | None]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print timings, and tracebacks with errors.")]


def command(app: typer.Typer, options: type, quiet: Any = Quiet) -> Callable[[_Run], _Run]:
    """Makes a function of `options` and a `Reporter` the command of its name; it returns the exit code."""

    def register(run: _Run) -> _Run:
        def invoke(quiet: bool, verbose: bool, **values: Any) -> None:
            raise typer.Exit(run(filled(options, values), Reporter(quiet, verbose)) or 0)

        app.command(run.__name__)(with_parameters(invoke, run.__doc__, parameters(options), quiet))
        return run

    return register


def parameters(options: type) -> list[inspect.Parameter]:
    """The fields of a dataclass as Typer expects them: a tuple is a list there, and an empty one None."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for field in fields(options):
        kind, about = get_args(hints[field.name])
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if get_origin(kind) is tuple:
            kind = GenericAlias(list, get_args(kind)[:1])
            if default == ():
                kind, default = kind | None, None
        found.append(_parameter(field.name, Annotated[kind, about], default))
    return found


def with_parameters(
    invoke: Callable[..., None],
    about: str | None,
    given: Sequence[inspect.Parameter],
    quiet: Any = Quiet,
    verbose: Any = Verbose,
) -> Callable[..., None]:
    """The function as Typer sees it: with these parameters, and with --quiet and --verbose."""
    given = [*given, _parameter("quiet", quiet, False), _parameter("verbose", verbose, False)]
    invoke.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    invoke.__annotations__ = {one.name: one.annotation for one in given}
    invoke.__doc__ = about
    return invoke


def filled(options: type[_Options], values: Mapping[str, Any]) -> _Options:
    """The dataclass with those values that are its fields and not None."""
    names = {field.name for field in fields(options)}  # type: ignore[arg-type]
    own = names & {name for name, value in values.items() if value is not None}
    return options(**{name: tuple(one) if isinstance(one := values[name], list) else one for name in own})


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def in_panel(panel: str, given: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    """The parameters, to be shown under a heading of their own."""
    for one in given:
        one.annotation.__metadata__[0].rich_help_panel = panel
    return list(given)


def spelling(parameter: inspect.Parameter) -> str:
    """What a user types for a parameter: `--protocol`, or an argument's name in capitals."""
    about = parameter.annotation.__metadata__[0]
    if isinstance(about, typer.models.ArgumentInfo):
        return parameter.name.upper()
    names = [name for name in (about.default, *(about.param_decls or ())) if isinstance(name, str)]
    return next((name for name in names if name.startswith("--")), f"--{parameter.name.replace('_', '-')}")


class PanelCommand(TyperCommand):
    """Its help has a section for each panel, in order of appearance, after the options without a panel."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            section = "Arguments" if parameter.param_type_name == "argument" else "Options"
            section = getattr(parameter, "rich_help_panel", None) or section
            if record := parameter.get_help_record(ctx):
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)
