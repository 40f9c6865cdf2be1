"""The table of a comparison, as text for a terminal and as Markdown, and a table by clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mt3eval.protocol import protocol
from systems.clips import Clip
from systems.running import Record
from systems.scoring import MEASURES, Run, Value

Rows = list[list[str]]
_NONE = "-"


def comparison(runs: Sequence[Run], clips: Sequence[Clip]) -> Rows:
    """A header and one row per measure, one column per system that ran; then speed and memory."""
    runs = [run for run in runs if not run.outcome.skipped]
    rows = [["measure", "protocol", "clips", *(run.system.name for run in runs)]]
    for place, measure in enumerate(MEASURES):
        expected = sum(measure.belongs(clip) for clip in clips)
        if expected:
            cells = [_score_cell(run.values[place], expected) for run in runs]
            rows.append([measure.title, measure.protocol, str(expected), *cells])
    for title, how, cell in _COSTS:
        cells = [cell(list(run.outcome.records.values())) if run.outcome.records else _NONE for run in runs]
        rows.append([title, how, str(len(clips)), *cells])
    return rows


def by_clip(runs: Sequence[Run], clips: Sequence[Clip]) -> Rows:
    """The onset F1 of each clip: of its pitched notes, or of its drum hits if it has only drums."""
    runs = [run for run in runs if not run.outcome.skipped]
    rows = [["clip", "s", "kind", "of", *(run.system.name for run in runs)]]
    for clip in clips:
        for place in (0, len(MEASURES) - 1):
            if MEASURES[place].belongs(clip):
                what = "drum hits" if place else "pitched notes"
                cells = [_clip_cell(run.values[place], clip) for run in runs]
                rows.append([clip.name, f"{clip.seconds:.1f}", clip.kind, what, *cells])
    return rows


def remarks(runs: Sequence[Run]) -> list[str]:
    """Skipped systems and failed clips, with the reasons."""
    lines = [f"Skipped: {run.system.name}: {run.outcome.skipped}" for run in runs if run.outcome.skipped]
    for run in runs:
        lines += [f"Failed: {run.system.name}, {clip}: {why}" for clip, why in run.outcome.failures.items()]
    return lines


def legend(runs: Sequence[Run]) -> list[str]:
    """Explains the columns and the protocols."""
    used = dict.fromkeys(measure.protocol for measure in MEASURES)
    lines = [f"{run.system.name}: {run.system.summary}" for run in runs if not run.outcome.skipped]
    return lines + [f"{name}: {protocol(name).summary} ({protocol(name).source})" for name in used]


def as_text(rows: Rows) -> str:
    """Aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]]) + "\n"


def as_markdown(rows: Rows, code_columns: Sequence[int] = ()) -> str:
    """The same as a Markdown table; cells of `code_columns` in code style."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

    body = [[f"`{cell}`" if place in code_columns and cell else cell for place, cell in enumerate(row)] for row in rows]
    return "\n".join([line(rows[0]), "|---" * len(rows[0]) + "|", *map(line, body[1:])]) + "\n"


def _score_cell(value: Value | None, expected: int) -> str:
    if value is None or math.isnan(value.mean):
        return _NONE
    cell = f"{value.mean:.3f}"
    if value.interval:
        cell += f" [{value.interval[0]:.3f}, {value.interval[1]:.3f}]"
    return cell if len(value.by_clip) == expected else f"{cell} ({len(value.by_clip)} of {expected})"


def _clip_cell(value: Value | None, clip: Clip) -> str:
    return f"{value.by_clip[clip.name]:.3f}" if value and clip.name in value.by_clip else _NONE


def _real_time(records: Sequence[Record]) -> str:
    return f"{_sum(records, 'audio_seconds') / _sum(records, 'seconds'):.2f}"


def _cpu(records: Sequence[Record]) -> str:
    seconds = _sum(records, "cpu_seconds")
    return f"{seconds / _sum(records, 'audio_seconds'):.2f}" if seconds else _NONE


def _memory(records: Sequence[Record]) -> str:
    peak = max(record["peak_bytes"] for record in records)
    return f"{peak / 2**20:.0f}" if peak else _NONE


def _start_up(records: Sequence[Record]) -> str:
    return f"{max(record['load_seconds'] for record in records) + _sum(records, 'compile_seconds'):.1f}"


def _sum(records: Sequence[Record], name: str) -> float:
    return math.fsum(record[name] for record in records)


_COSTS: tuple[tuple[str, str, Callable[[list[Record]], str]], ...] = (
    ("speed, x real time", "wall clock, model loaded", _real_time),
    ("processor s per s of audio", "all threads and processes", _cpu),
    ("start-up, s", "import, loading, compilation", _start_up),
    ("peak memory, MiB", "resident, all processes", _memory),
)


def score_values(run: Run) -> list[dict]:
    """The values of a system for a JSON file; NaN as null."""
    if run.outcome.skipped:
        return []
    return [
        {
            "measure": measure.title,
            "protocol": measure.protocol,
            "metric": measure.metric,
            "mean": None if math.isnan(value.mean) else value.mean,
            "interval": value.interval,
            "by_clip": {name: None if math.isnan(one) else one for name, one in value.by_clip.items()},
        }
        for measure, value in zip(MEASURES, run.values, strict=True)
        if value is not None
    ]
