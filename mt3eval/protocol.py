"""Every published evaluation by name.

A protocol is the rule by which one paper or program scores. Two protocols give different values for the same notes,
so a value means something only together with the protocol's name. `all_protocols` has all of them; the modules
that define them are imported when it is first used.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

from mt3core.errors import UsageError
from mt3eval.reading.performance import Performance

Scores = dict[str, float]
LeftOut = Float[np.ndarray, " files"]  # the averages without each of the files

_MODULES = ("mir_eval", "mt3", "mrmt3", "yourmt3", "transkun", "bytedance", "hft")


# A word of the metric's name; elsewhere a letter may follow, as in "offset".
_SHARE = re.compile(r"(?<![a-z])(f|f1|f-measure|precision|recall|overlap)(?![a-z0-9])", re.IGNORECASE)


def is_share(metric: str) -> bool:
    """Whether the metric's name is that of a value from 0 to 1: F1, precision, recall, overlap."""
    return _SHARE.search(metric) is not None


def mean_over_files(files: Sequence[Scores]) -> Scores:
    """The plain mean of each metric over the files that have it; a NaN makes the mean NaN."""
    names = dict.fromkeys(name for scores in files for name in scores)
    return {name: _mean([scores[name] for scores in files if name in scores]) for name in names}


def mean_without_nan(files: Sequence[Scores]) -> Scores:
    """The mean of each metric over the files that have a value other than NaN for it; NaN if none has."""
    names = dict.fromkeys(name for scores in files for name in scores)
    return {
        name: _mean([scores[name] for scores in files if name in scores and not math.isnan(scores[name])])
        for name in names
    }


@dataclass(frozen=True)
class Protocol:
    """One published way of scoring.

    `score(reference, estimate)` gives the values of one file under the original's names (NaN where the original
    says NaN) and raises `NotDefinedError` if the original fails with an error. `average` makes the value of a
    set from the values of its files as the original does. `averages_without_each` does the same for all files but one,
    for each file in turn; a protocol whose average is a mean needs none.
    """

    name: str
    summary: str  # one line
    source: str  # the paper or repository, with its commit
    score: Callable[[Performance, Performance], Scores]
    average: Callable[[Sequence[Scores]], Scores] = mean_over_files
    averages_without_each: Callable[[Sequence[Scores]], dict[str, LeftOut]] | None = None


@cache
def all_protocols() -> dict[str, Protocol]:
    """All protocols by name, a family after the other."""
    found: dict[str, Protocol] = {}
    for module in _MODULES:
        for one in importlib.import_module(f"mt3eval.protocols.{module}").PROTOCOLS:
            assert one.name not in found, f"two protocols are named {one.name}"
            found[one.name] = one
    return found


def protocol(name: str) -> Protocol:
    """The protocol of this name; raises `UsageError` listing all names, the most similar first, if there is none."""
    if name not in all_protocols():
        nearest = difflib.SequenceMatcher(b=name.lower())
        likeness = {}
        for known in all_protocols():
            nearest.set_seq1(known)
            likeness[known] = nearest.ratio()
        names = ", ".join(sorted(likeness, key=lambda known: -likeness[known]))
        raise UsageError(f"Unknown evaluation protocol {name!r}.", f"Choose from: {names}.")
    return all_protocols()[name]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
