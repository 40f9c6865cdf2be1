"""The tables that `mt3 evaluate` prints."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mt3eval.headline import PlainScore, headline, plain_scores
from mt3eval.intervals import Average, Interval
from mt3eval.protocol import protocol
from mt3eval.result import Result
from mt3eval.runner import ScoredPair

_MOST_PIECES = 40
_MOST_COLUMNS = 6
_WIDTH_WITHOUT_TERMINAL = 120


def print_result(result: Result, plain: bool, every_metric: bool) -> None:
    """Averages (one table, or one per protocol), their meaning, and the pieces."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False, soft_wrap=False)
    if plain and not every_metric:
        scores = plain_scores(result.protocols)
        _print_plain(console, result, scores)
        columns = [(one.name, one.protocol, one.metric) for one in scores]
    else:
        for name in result.protocols:
            _print_protocol(console, result, name, every_metric)
        columns = [(name, name, metric) for name in result.protocols for metric in _shown(result, name, False)[:1]]
    if 1 < len(result.pieces) <= _MOST_PIECES and len(columns) <= _MOST_COLUMNS:
        _print_pieces(console, result.pieces, columns)


def _print_plain(console: Console, result: Result, scores: Sequence[PlainScore]) -> None:
    table = _value_table(result, "F1 of")
    for one in scores:
        table.add_row(one.name, *_values(result, one.protocol, one.metric))
    console.print(table)
    for one in scores:
        text = Text(f"{one.name}: {one.rule} [{one.protocol}: {one.metric}]")
        console.print(text, soft_wrap=not console.is_terminal)
    read = [piece for piece in result.pieces if not piece.failure]
    unpitched = sum(piece.num_notes[0] == piece.num_drum_hits[0] for piece in read)
    if unpitched and len(read) > 1:
        console.print(f"{unpitched} of the references have no pitched notes: mir_eval counts these pieces as 0.")
    console.print()


def _print_protocol(console: Console, result: Result, name: str, every_metric: bool) -> None:
    table = _value_table(result, name)
    for metric in _shown(result, name, every_metric):
        table.add_row(metric, *_values(result, name, metric))
    console.print(Text(f"{name}: {protocol(name).summary}"), soft_wrap=not console.is_terminal)
    if table.row_count:
        console.print(table)
    else:
        console.print("Not defined for any piece.")
    console.print()


def _shown(result: Result, name: str, every_metric: bool) -> tuple[str, ...]:
    metrics = tuple(result.averages[name].values)
    return metrics if every_metric else headline(name, metrics)


def _value_table(result: Result, first_column: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first_column)
    columns = ["value"] if result.against is None else ["value", "other", "difference"]
    if len(result.pieces) > 1:
        columns += [f"{100 * result.bootstrap.confidence:.0f} % interval", "pieces"]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _values(result: Result, name: str, metric: str) -> list[str]:
    """The cells of one metric after its name; with a second system, for the pieces that both have."""
    many = len(result.pieces) > 1
    if result.against is None:
        return _cells(result.averages[name], metric, many)
    paired = result.against.paired[name]
    both = [_number(one.values.get(metric)) for one in (paired.first, paired.second)]
    return [*both, *_cells(paired.difference, metric, many, signed=True)]


def _cells(one: Average, metric: str, many: bool, signed: bool = False) -> list[str]:
    cells = [_number(one.values.get(metric), signed)]
    if many:
        cells += [_interval(one.intervals.get(metric), signed), str(one.counts.get(metric, 0))]
    return cells


def _print_pieces(console: Console, pieces: list[ScoredPair], columns: list[tuple[str, str, str]]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("piece", overflow="fold")
    table.add_column("notes", justify="right", no_wrap=True)
    table.add_column("found", justify="right", no_wrap=True)
    for name, _, _ in columns:
        table.add_column(name, justify="right", overflow="fold")
    for piece in pieces:
        if piece.failure:
            table.add_row(Text(piece.name), "-", "-", *["not read"] * len(columns))
            continue
        values = [_piece_value(piece, name, metric) for _, name, metric in columns]
        table.add_row(Text(piece.name), *map(str, piece.num_notes), *values)
    console.print(table)


def _piece_value(piece: ScoredPair, name: str, metric: str) -> str:
    values = piece.values(name)
    return "not defined" if values is None else _number(values.get(metric))


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
