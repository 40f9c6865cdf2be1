"""Defects as tables: the results of checking a data set, for people and for the preparation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mt3core.errors import DatasetError, MT3Error
from mt3core.extras import needed
from mt3core.files import atomic_output
from mt3data.readers.file_names import printable
from mt3data.readers.tracks import MIX, Dataset, Defect

TABLE_NAME, TEXT_NAME = "defects.parquet", "defects.txt"
_COLUMNS = ("track", "stem", "kind", "message", "skips")


def defect(track: str, stem: str, kind: str, problem: str | BaseException, skips: bool = True) -> Defect:
    """A `Defect` whose message can be printed and stored, from a sentence or from an error."""
    if isinstance(problem, BaseException):
        problem = problem.problem if isinstance(problem, MT3Error) else f"{type(problem).__name__}: {problem}"
    return Defect(printable(track), printable(stem), kind, " ".join(printable(problem).split()), skips)


def skipped(defects: Iterable[Defect]) -> frozenset[tuple[str, str]]:
    """(track, stem) of everything left out; the stem MIX means the whole recording, its stems stay."""
    return frozenset((one.track, one.stem) for one in defects if one.skips)


def in_order(defects: Iterable[Defect]) -> tuple[Defect, ...]:
    """Each defect once, by track, those of the whole track first."""
    return tuple(sorted(set(defects), key=lambda one: (one.track, one.stem != MIX, one.stem, one.kind, one.message)))


def summary(defects: Iterable[Defect]) -> list[tuple[str, int, int]]:
    """(kind, how many are left out, how many are used anyway), sorted by kind."""
    out, used = Counter[str](), Counter[str]()
    for one in defects:
        (out if one.skips else used)[one.kind] += 1
    return [(kind, out[kind], used[kind]) for kind in sorted(out | used)]


def write_defects(folder: Path, dataset: str, defects: Iterable[Defect]) -> tuple[Path, Path]:
    """Writes `defects.parquet` and `defects.txt`, each completely or not at all; returns their paths.

    The Parquet file has the columns dataset, track, stem, kind, message and skips. Raises `OutputError`, and
    `MissingExtraError` without pyarrow.
    """
    parquet, pyarrow = parquet_modules()
    rows = in_order(defects)
    columns: dict[str, Any] = {"dataset": pyarrow.array([dataset] * len(rows), pyarrow.string())}
    for name in _COLUMNS:
        kind = pyarrow.bool_() if name == "skips" else pyarrow.string()
        columns[name] = pyarrow.array([getattr(row, name) for row in rows], kind)
    table, text = folder / TABLE_NAME, folder / TEXT_NAME
    with atomic_output(table) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)
    with atomic_output(text) as temporary:
        temporary.write_text(_as_text(dataset, rows), encoding="utf-8")
    return table, text


def read_defects(path: Path) -> tuple[Defect, ...]:
    """The table that `write_defects` wrote. Raises `DatasetError` if the file is not one."""
    parquet, _ = parquet_modules()
    try:
        rows = parquet.read_table(path, columns=list(_COLUMNS)).to_pylist()
        return tuple(Defect(**{name: row[name] for name in _COLUMNS}) for row in rows)
    except Exception as error:  # pyarrow has its own error for each kind of damage
        raise DatasetError(f"{path} is not a readable table of defects.", "Run mt3 data verify again.") from error


def with_defects(dataset: Dataset, path: Path) -> Dataset:
    """A data set with the defects of a table added to its reader's, so that its preparation leaves those out as well.

    Raises `DatasetError` for a table that cannot be read, or that belongs to a data set without these tracks.
    """
    more = read_defects(path)
    names = {track.name for track in dataset.tracks} | {one.track for one in dataset.defects}
    strangers = sorted({one.track for one in more} - names)
    if strangers:
        raise DatasetError(
            f"{path} belongs to another data set: it names {strangers[0]}.",
            "Run mt3 data verify on this folder.",
        )
    # The reader has found its own defects again, perhaps under another spelling of the folder.
    known = {(one.track, one.stem, one.kind) for one in dataset.defects}
    new = [one for one in more if (one.track, one.stem, one.kind) not in known]
    return replace(dataset, defects=in_order([*dataset.defects, *new]))


def _as_text(dataset: str, rows: tuple[Defect, ...]) -> str:
    lines = [f"{dataset}: {len(rows)} defects"]
    for one in rows:
        place = one.track if one.stem == MIX else f"{one.track} {one.stem}"
        lines.append(f"{'left out' if one.skips else 'used    '}  {place}  {one.kind}: {one.message}")
    return "\n".join(lines) + "\n"


def parquet_modules() -> tuple[Any, Any]:
    """(pyarrow.parquet, pyarrow); raises `MissingExtraError` if they are not installed."""
    with needed("datasets", "A table in Parquet"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow.parquet, pyarrow
