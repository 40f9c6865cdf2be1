"""Commands whose options are declared once: as fields of a dataclass, which Typer reads and the command receives."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from mt3app.progress import Reporter

_Options = TypeVar("_Options")
_Run = Callable[[Any, Reporter], int | None]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print timings, and tracebacks with errors.")]

_ANY_LENGTH = 1000
DEFAULT_COMMAND = "transcribe"
# How Typer, or click in its place in older releases, names the types of values.
_TYPE = re.compile(r"<[^>]*>|\b(INTEGER|FLOAT)( RANGE)?\b")
_REQUIRED = re.compile(r"\s*\[required\]|; required(?=\])")  # of an argument, the line of usage says so
_METAVARS = {"int": "N", "float": "X", "path": "PATH", "integer": "N"}
_WORDS = (
    (re.compile(r"Input should be a valid integer.*|\S+ is not a valid integer.*"), "use a whole number"),
    (re.compile(r"Input should be a valid number.*|\S+ is not a valid float.*"), "use a number"),
    (re.compile(r"Input should be greater than or equal to "), "use at least "),
    (re.compile(r"Input should be less than or equal to "), "use at most "),
    (re.compile(r" \(Possible options: (.*)\)"), r". Similar ones: \1"),
)


def command(app: typer.Typer, options: type, quiet: Any = Quiet) -> Callable[[_Run], _Run]:
    """Makes a function of `options` and a `Reporter` the command of its name; it returns the exit code."""

    def register(run: _Run) -> _Run:
        def invoke(quiet: bool, verbose: bool, **values: Any) -> None:
            raise typer.Exit(run(filled(options, values), Reporter(quiet, verbose)) or 0)

        app.command(run.__name__, cls=HelpfulCommand)(with_parameters(invoke, run.__doc__, parameters(options), quiet))
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


class HelpfulCommand(TyperCommand):
    """Arguments in capitals, whole sentences, and a section for each panel, in order of appearance, before the options.

    Without Rich, whose import takes as long as everything else that help needs.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        names = [(_argument(one), one.required) for one in arguments]
        return ["[OPTIONS]", *(name if required else f"[{name}]" for name, required in names)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        options: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            is_argument = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else None)
            if record := parameter.get_help_record(ctx):
                name = _argument(parameter) if is_argument else _TYPE.sub(_metavar, record[0])
                rows = options if panel is None else sections.setdefault(panel, [])
                text = _readable(record[1])
                rows.append((name, _REQUIRED.sub("", text) if is_argument else text))
        for section, rows in [*sections.items(), ("Options", options)]:
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def get_short_help_str(self, limit: int = 0) -> str:
        return super().get_short_help_str(_ANY_LENGTH)


class HelpfulGroup(TyperGroup):
    """In the list of the commands above it, its sentence is whole, as theirs are."""

    def get_short_help_str(self, limit: int = 0) -> str:
        return super().get_short_help_str(_ANY_LENGTH)


class DefaultGroup(HelpfulGroup):
    """The command `mt3`: a recording in the place of a command is transcribed, as in `mt3 song.mp3`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_path = args[:1] == ["--"] and len(args) > 1  # as of names that begin like options
        if is_path or (args and args[0] not in self.commands and names_recording(args[0])):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


def names_recording(word: str) -> bool:
    """Whether a word is meant as a file or folder, there or not; another that is no command is a typing error."""
    from mt3core.audio import AUDIO_SUFFIXES

    if word.startswith("-"):
        return word == "-"
    looks_like_path = any(sign in word for sign in "/\\*?[") or os.path.splitext(word)[1].lower() in AUDIO_SUFFIXES
    return looks_like_path or os.path.lexists(os.path.expanduser(word))


def explain(error: Any) -> str:
    """What a person who typed a command wrongly needs: how it is used, what is wrong, and where there is more."""
    message = error.format_message()
    for pattern, words in _WORDS:
        message = pattern.sub(words, message)
    message = _readable(message)
    message += "" if message.endswith((".", "?")) else "."
    context = getattr(error, "ctx", None)
    if context is None:
        return f"mt3: {message} See mt3 -h."
    return f"{context.get_usage()}\nmt3: {message} See {context.command_path} -h."


def _argument(parameter: Any) -> str:
    return (parameter.metavar or parameter.name.upper()) + "..." * (parameter.nargs == -1)


def _metavar(found: re.Match[str]) -> str:
    kind = found[0].strip("<>").lower().removeprefix("list[").split()[0].rstrip("]")
    return _METAVARS.get(kind, "TEXT")


def _readable(text: str) -> str:
    """One pair of brackets at the end, and bounds in words."""
    text = text.replace("\\[", "[")  # older releases of Typer mark brackets for Rich
    text = re.sub(r"\s+\[", " [", re.sub(r"\]\s+\[", "; ", text))
    text = re.sub(r"([\d.]+)<=x<=([\d.]+)", lambda found: f"{float(found[1]):g} to {float(found[2]):.0f}", text)
    return re.sub(r"x>=([\d.]+)", lambda found: f"at least {float(found[1]):g}", text)
