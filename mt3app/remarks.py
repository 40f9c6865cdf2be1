"""Remarks on single files, without filling the screen: a line for each, or one for many files of the same remark."""

from __future__ import annotations

from collections.abc import Iterable

from mt3app.progress import Reporter
from mt3data.readers.tracks import Defect

_FILES_OF_ONE_REMARK = 3  # more are reported in one line


def tell_remarks(remarks: Iterable[tuple[str, str]], reporter: Reporter) -> None:
    """Prints remarks, pairs of a file and a clause; each pair once. Numbers in front of a clause may differ."""
    by_matter: dict[str, dict[str, str]] = {}  # -> file -> the clause
    for file, clause in remarks:
        by_matter.setdefault(clause.lstrip("0123456789 "), {})[file] = clause
    for matter, clauses in by_matter.items():
        if len(clauses) > _FILES_OF_ONE_REMARK and not reporter.verbose:
            same = next(iter(clauses.values())) if len(set(clauses.values())) == 1 else matter
            first = ", ".join(list(clauses)[:_FILES_OF_ONE_REMARK])
            rest = len(clauses) - _FILES_OF_ONE_REMARK
            reporter.line(f"{len(clauses)} files: {same}: {first} and {rest} more (all with --verbose)")
        else:
            for file, clause in clauses.items():
                reporter.line(f"{file}: {clause}")


def tell_used(defects: Iterable[Defect], reporter: Reporter) -> None:
    """Prints what is odd about the MIDI files of a data set that are used."""
    tell_remarks((one.message.rstrip(".").rpartition(": ")[::2] for one in defects), reporter)
