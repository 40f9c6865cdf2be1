"""Pairs of files scored by several protocols, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from mt3core.errors import MT3Error
from mt3core.processes import map_in_processes
from mt3core.processors import num_processors
from mt3eval.protocol import Scores, protocol
from mt3eval.reading.pairing import Pair
from mt3eval.reading.performance import NotDefinedError, Performance
from mt3eval.reading.reading import Reading, read_with_remarks

# A process takes seconds to start, a pair and protocol about 0.1 s; fewer of these are faster without processes.
_WORTH_PROCESSES = 60


@dataclass(frozen=True)
class ScoringTask:
    """What is done with every pair: the protocols' names, how files are read, and what else is computed."""

    protocols: tuple[str, ...]
    reading: Reading = field(default_factory=Reading)
    analyse: bool = False  # the category of each note (`note_errors.analyse`)
    keep_notes: bool = False  # for a report


@dataclass(frozen=True, eq=False)
class ScoredPair:
    """One pair, scored.

    `scores` has for each protocol its values, or a sentence saying why it has none for these notes. A pair that could
    not be read has a `failure` and no scores. `analysis` is a `note_errors.Analysis`.
    """

    name: str
    reference: str
    estimate: str
    scores: dict[str, Scores | str] = field(default_factory=dict)
    num_notes: tuple[int, int] = (0, 0)  # reference, estimate
    num_drum_hits: tuple[int, int] = (0, 0)
    remarks: tuple[str, ...] = ()
    failure: str = ""
    analysis: Any = None
    performances: tuple[Performance, Performance] | None = None

    @property
    def has_pitched_reference(self) -> bool:
        """Whether the reference has notes other than drum hits."""
        return self.num_notes[0] > self.num_drum_hits[0]

    def values(self, name: str) -> Scores | None:
        """The values of a protocol; None if it is not defined for the piece or the piece was not read."""
        values = self.scores.get(name)
        return None if values is None or isinstance(values, str) else values


def score_pairs(
    pairs: Sequence[Pair],
    task: ScoringTask,
    processes: int | None = None,
    progress: Callable[[int, int, ScoredPair], None] = lambda done, total, piece: None,
) -> list[ScoredPair]:
    """Every pair scored, in the order given; a pair that cannot be read never stops the others.

    Args:
        pairs: names and files.
        task: what to compute for each.
        processes: pairs scored at the same time; None for one per processor, and none for a few pairs.
        progress: called in this process after each pair with (pairs done, all pairs, the piece).

    Raises `UsageError` for an unknown protocol and `ProcessError` if a process was killed.
    """
    for name in task.protocols:
        protocol(name)
    if processes is None:
        processes = num_processors() if len(pairs) * len(task.protocols) >= _WORTH_PROCESSES else 1
    counts = count(1)
    order = sorted(range(len(pairs)), key=lambda place: -_size(pairs[place]))  # the longest files first
    pieces = map_in_processes(
        partial(score_pair, task=task),
        [pairs[place] for place in order],
        processes,
        "scored pairs",
        lambda pair, piece: progress(next(counts), len(pairs), piece),
    )
    return [piece for _, piece in sorted(zip(order, pieces, strict=True), key=lambda one: one[0])]


def score_pair(pair: Pair, task: ScoringTask) -> ScoredPair:
    """Reads and scores one pair; whatever goes wrong is its `failure`."""
    files = str(pair.reference), str(pair.estimate)
    try:
        reference, remarks = read_with_remarks(pair.reference, task.reading)
        estimate, more_remarks = read_with_remarks(pair.estimate, task.reading)
        return score_performances(pair.name, reference, estimate, task, files, (*remarks, *more_remarks))
    except MT3Error as error:
        return ScoredPair(pair.name, *files, failure=str(error))
    except Exception as error:  # one piece never stops the others
        return ScoredPair(pair.name, *files, failure=f"Scoring {pair.name} failed ({type(error).__name__}: {error}).")


def score_performances(
    name: str,
    reference: Performance,
    estimate: Performance,
    task: ScoringTask,
    files: tuple[str, str] = ("", ""),
    remarks: tuple[str, ...] = (),
) -> ScoredPair:
    """Scores notes that are in memory."""
    scores: dict[str, Scores | str] = {}
    for one in task.protocols:
        try:
            scores[one] = protocol(one).score(reference, estimate)
        except NotDefinedError as error:
            scores[one] = str(error)
    analysis = None
    if task.analyse:
        from mt3eval.note_errors import analyse

        analysis = analyse(reference, estimate)
    return ScoredPair(
        name,
        *files,
        scores,
        (len(reference.notes), len(estimate.notes)),
        (int(reference.notes["is_drum"].sum()), int(estimate.notes["is_drum"].sum())),
        remarks,
        analysis=analysis,
        performances=(reference, estimate) if task.keep_notes else None,
    )


def _size(pair: Pair) -> int:
    return sum(path.stat().st_size for path in (pair.reference, pair.estimate) if path.exists())
