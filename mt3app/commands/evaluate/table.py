"""The tables that `mt3 evaluate` prints."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mt3eval.headline import PlainScore, headline, plain_scores, unpitched_sentence
from mt3eval.intervals import METHOD, Average, Interval, Paired
from mt3eval.protocol import protocol
from mt3eval.result import Result
from mt3eval.runner import ScoredPair

_MOST_PIECES = 40
_MOST_COLUMNS = 6
_WIDTH_WITHOUT_TERMINAL = 120
_LEAST_NAME = 16  # characters to a line of a name, however narrow the terminal is
_HEADING = 16  # characters to a line of a column's heading
_GAP = 3  # between columns
_MARGINS = 2  # of the table
_COUNT_COLUMNS = ("notes", "found")

Row = tuple[str, list[str]]  # a name and the cells after it


def print_result(result: Result, plain: bool, every_metric: bool) -> None:
    """Averages (one table, or one per protocol), their meaning, and the pieces."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, soft_wrap=False)
    if plain and not every_metric:
        scores = plain_scores(result.protocols)
        _print_plain(console, result, scores)
        columns = [(one.name, one.protocol, one.metric) for one in scores]
        unpitched = {one.name for one in scores if one.needs_pitched}
    else:
        for name in result.protocols:
            _print_protocol(console, result, name, every_metric)
        columns = [(name, name, metric) for name in result.protocols for metric in _shown(result, name, False)[:1]]
        unpitched = set()
    if len(result.pieces) > 1:
        console.print(f"Intervals: {METHOD}.", soft_wrap=not console.is_terminal)
    if 1 < len(result.pieces) <= _MOST_PIECES and len(columns) <= _MOST_COLUMNS:
        _print_pieces(console, result.pieces, columns, plain and not every_metric, unpitched)


def lines_of(name: str, width: int) -> list[str]:
    """A name in lines of at most `width` characters, broken after spaces, `_`, `/`, `+` and `-` where there are any."""
    lines = [""]
    for part in re.findall(r"[^ _/+-]*[ _/+-]+|[^ _/+-]+", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        while len(lines[-1] + part.rstrip()) > width:
            room = width - len(lines[-1])
            lines[-1] += part[:room]
            part = part[room:]
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _print_plain(console: Console, result: Result, scores: Sequence[PlainScore]) -> None:
    against = None if result.against is None else result.against.plain
    rows = [
        (one.name, _values(result, result.plain[one.name], against[one.name] if against else None, one.metric))
        for one in scores
    ]
    _print_values(console, result, "F1 of", [(name, _without_nan(cells)) for name, cells in rows])
    for one in scores:
        text = Text(f"{one.name}: {one.rule} [{one.protocol}: {one.metric}]")
        console.print(text, soft_wrap=not console.is_terminal)
    if result.unpitched and any(one.needs_pitched for one in scores):
        console.print(unpitched_sentence(result.unpitched), soft_wrap=not console.is_terminal)
    console.print()


def _print_protocol(console: Console, result: Result, name: str, every_metric: bool) -> None:
    against = None if result.against is None else result.against.paired[name]
    metrics = _shown(result, name, every_metric)
    rows = [(metric, _values(result, result.averages[name], against, metric)) for metric in metrics]
    console.print(Text(f"{name}: {protocol(name).summary}"), soft_wrap=not console.is_terminal)
    if rows:
        _print_values(console, result, name, rows)
    else:
        console.print("Not defined for any piece.")
    console.print()


def _shown(result: Result, name: str, every_metric: bool) -> tuple[str, ...]:
    metrics = tuple(result.averages[name].values)
    return metrics if every_metric else headline(name, metrics)


def _print_values(console: Console, result: Result, first_column: str, rows: Sequence[Row]) -> None:
    columns = ["value"] if result.against is None else ["value", "other", "difference"]
    if len(result.pieces) > 1:
        columns += ["95 % interval", "pieces"]
    _print_table(console, first_column, columns, rows)


def _values(result: Result, one: Average, paired: Paired | None, metric: str) -> list[str]:
    """The cells of one metric after its name; with a second system, for the pieces that both have."""
    many = len(result.pieces) > 1
    if paired is None:
        return _cells(one, metric, many)
    both = [_number(side.values.get(metric)) for side in (paired.first, paired.second)]
    return [*both, *_cells(paired.difference, metric, many, signed=True)]


def _cells(one: Average, metric: str, many: bool, signed: bool = False) -> list[str]:
    cells = [_number(one.values.get(metric), signed)]
    if many:
        cells += [_interval(one.intervals.get(metric), signed), str(one.counts.get(metric, 0))]
    return cells


def _print_pieces(
    console: Console, pieces: list[ScoredPair], columns: list[tuple[str, str, str]], plain: bool, unpitched: set[str]
) -> None:
    rows = []
    for piece in pieces:
        if piece.failure:
            rows.append((piece.name, ["-", "-", *["not read"] * len(columns)]))
            continue
        values = [
            "-" if column in unpitched and not piece.has_pitched_reference else _piece_value(piece, name, metric)
            for column, name, metric in columns
        ]
        rows.append((piece.name, [*map(str, piece.num_notes), *(_without_nan(values) if plain else values)]))
    _print_table(console, "piece", [*_COUNT_COLUMNS, *(column for column, _, _ in columns)], rows)


def _print_table(console: Console, first_column: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """The rows in one table, or in several with some of the columns each where the terminal is too narrow for all."""
    headings = ["\n".join(lines_of(column, _HEADING)) for column in columns]
    widths = [
        max(max(map(len, heading.split("\n"))), *(len(cells[place]) for _, cells in rows)) + _GAP
        for place, heading in enumerate(headings)
    ]
    widest_name = max(len(name) for name in (first_column, *(name for name, _ in rows)))
    room = console.width - _MARGINS
    for places in _groups(widths, room - min(widest_name, _LEAST_NAME) - _GAP):
        name_width = max(_LEAST_NAME, room - _GAP - sum(widths[place] for place in places))
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("\n".join(lines_of(first_column, name_width)), no_wrap=True)
        for place in places:
            table.add_column(headings[place], justify="right", no_wrap=True)
        for name, cells in rows:
            table.add_row(Text("\n".join(lines_of(name, name_width))), *(cells[place] for place in places))
        console.print(table)


def _groups(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The places of the columns in groups that fit, at least one to a group."""
    group: list[int] = []
    for place, width in enumerate(widths):
        if group and sum(widths[one] for one in group) + width > room:
            yield group
            group = []
        group.append(place)
    yield group


def _piece_value(piece: ScoredPair, name: str, metric: str) -> str:
    values = piece.values(name)
    return "not defined" if values is None else _number(values.get(metric))


def _without_nan(cells: Sequence[str]) -> list[str]:
    """In plain words there is nothing where a protocol says NaN, such as for the drums of a piece without drums."""
    return ["-" if cell == "NaN" else cell for cell in cells]


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "not defined"
    if math.isnan(value):
        return "NaN"
    if value == int(value) and abs(value) > 1:
        return f"{value:+.0f}" if signed else f"{value:.0f}"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def _interval(interval: Interval | None, signed: bool) -> str:
    return "-" if interval is None else f"{_number(interval[0], signed)} to {_number(interval[1], signed)}"
