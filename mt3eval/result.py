"""The result of an evaluation: averages with intervals, all pieces, and their JSON (docs/evaluation.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mt3core.files import atomic_output
from mt3eval.headline import PlainScore, plain_scores
from mt3eval.intervals import CONFIDENCE, METHOD, Average, Paired, average, compare
from mt3eval.protocol import Scores, protocol
from mt3eval.reading.pairing import Pairing
from mt3eval.runner import ScoredPair

SCHEMA_VERSION = 2
_NO_FILES = Pairing()  # where notes do not come from files that were paired


@dataclass(frozen=True, eq=False)
class Against:
    """A second system on the same references.

    `averages` are of all its pieces; `paired` compares by protocol over the pieces that both systems have and for
    which the protocol is defined for both; `plain` does the same for the scores in plain words. `pairing` tells what it
    has no partners for.
    """

    estimate: str
    pieces: list[ScoredPair]
    averages: dict[str, Average]
    paired: dict[str, Paired]
    plain: dict[str, Paired]
    pairing: Pairing = _NO_FILES


@dataclass(frozen=True, eq=False)
class Result:
    """The scored pieces. `protocols` are names; `settings` go into the JSON unchanged.

    `plain` has the averages of the scores in plain words by name, without the pieces that have nothing to find.
    """

    protocols: tuple[str, ...]
    pieces: list[ScoredPair]
    averages: dict[str, Average]
    plain: dict[str, Average]
    against: Against | None = None
    pairing: Pairing = _NO_FILES
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN is None."""
        against = None
        if self.against is not None:
            against = {
                "estimate": self.against.estimate,
                "protocols": {
                    name: {
                        **_average_json(name, self.against.averages[name]),
                        "paired": _paired_json(self.against.paired[name]),
                    }
                    for name in self.protocols
                },
                "plain": self._plain_json({name: one.difference for name, one in self.against.plain.items()}),
                "pieces": [_piece_json(piece) for piece in self.against.pieces],
                "unmatched": _unmatched_json(self.against.pairing),
            }
        return {
            "schema_version": SCHEMA_VERSION,
            "protocols": {name: _average_json(name, self.averages[name]) for name in self.protocols},
            "plain": self._plain_json(self.plain),
            "unpitched": self.unpitched,
            "pieces": [_piece_json(piece) for piece in self.pieces],
            "analysis": self._analysis,
            "against": against,
            "unmatched": _unmatched_json(self.pairing),
            "settings": {
                "confidence": CONFIDENCE,
                "interval": METHOD,
                **self.settings,
            },
        }

    @property
    def unpitched(self) -> int:
        """How many references that were read have no pitched notes."""
        return sum(not piece.failure and not piece.has_pitched_reference for piece in self.pieces)

    def _plain_json(self, averages: Mapping[str, Average]) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "protocol": one.protocol,
                "metric": one.metric,
                "pieces": averages[one.name].counts.get(one.metric, 0),
                "average": without_nan(averages[one.name].values.get(one.metric)),
                "interval": averages[one.name].intervals.get(one.metric),
            }
            for one in plain_scores(self.protocols)
        ]

    @cached_property
    def _analysis(self) -> dict[str, Any] | None:
        """The analysis of all pieces pooled: computed once, for the JSON and for the report."""
        return _pooled_analysis(self.pieces)

    def save(self, path: Path) -> None:
        """Writes the JSON, completely or not at all."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        with atomic_output(path) as temporary:
            # File names need not be UTF-8; Python's stand-ins for other bytes can only be escaped in JSON.
            temporary.write_bytes(f"{text}\n".encode(errors="backslashreplace"))


def scores_json(piece: ScoredPair) -> dict[str, dict[str, Any]]:
    """Protocol -> metric -> value, None for NaN; `{"error": why}` if it is not defined for the piece."""
    return {
        name: {"error": found} if isinstance(found, str) else _numbers(found) for name, found in piece.scores.items()
    }


def summarise(
    protocols: Sequence[str],
    pieces: list[ScoredPair],
    against: tuple[str, list[ScoredPair]] | None = None,
    pairing: Pairing = _NO_FILES,
    others_pairing: Pairing = _NO_FILES,
    settings: dict[str, Any] | None = None,
) -> Result:
    """Averages with intervals of scored pieces; `against` names a second system and has its pieces.

    `pairing` and, of the second system, `others_pairing` tell which files have no partner. A piece for which a protocol
    is not defined stays out of that protocol's average.
    """
    other = None
    plain = plain_scores(protocols)
    if against is not None:
        estimate, others = against
        paired = {name: _paired(name, pieces, others) for name in protocols}
        plainly = {one.name: _paired(one.protocol, _with_notes(one, pieces), others) for one in plain}
        other = Against(estimate, others, _averages(protocols, others), paired, plainly, others_pairing)
    averages = {one.name: _average(one.protocol, _with_notes(one, pieces)) for one in plain}
    return Result(tuple(protocols), pieces, _averages(protocols, pieces), averages, other, pairing, settings or {})


def _averages(protocols: Sequence[str], pieces: list[ScoredPair]) -> dict[str, Average]:
    return {name: _average(name, pieces) for name in protocols}


def _average(name: str, pieces: list[ScoredPair]) -> Average:
    return average(protocol(name), _defined(name, pieces))


def _with_notes(score: PlainScore, pieces: list[ScoredPair]) -> list[ScoredPair]:
    return [piece for piece in pieces if piece.has_pitched_reference] if score.needs_pitched else pieces


def _defined(name: str, pieces: list[ScoredPair]) -> list[Scores]:
    return [values for piece in pieces if (values := piece.values(name)) is not None]


def _paired(name: str, pieces: list[ScoredPair], others: list[ScoredPair]) -> Paired:
    """Over the pieces that both systems have and for which the protocol is defined for both."""
    by_name = {piece.name: piece.values(name) for piece in others}
    both = []
    for piece in pieces:
        mine, theirs = piece.values(name), by_name.get(piece.name)
        if mine is not None and theirs is not None:
            both.append((mine, theirs))
    return compare(protocol(name), [mine for mine, _ in both], [theirs for _, theirs in both])


def _unmatched_json(one: Pairing) -> dict[str, list[str]]:
    return {"reference": list(one.references_alone), "estimate": list(one.estimates_alone)}


def _average_json(name: str, one: Average) -> dict[str, Any]:
    about = protocol(name)
    values = {"pieces": one.pieces, "average": _numbers(one.values), "intervals": one.intervals}
    return {"summary": about.summary, "source": about.source, **values, "counts": one.counts}


def _paired_json(one: Paired) -> dict[str, Any]:
    return {
        "pieces": one.difference.pieces,
        "first": _numbers(one.first.values),
        "second": _numbers(one.second.values),
        "difference": _numbers(one.difference.values),
        "intervals": one.difference.intervals,
        "one_sided": one.one_sided,
    }


def _piece_json(piece: ScoredPair) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": piece.name,
        "reference": piece.reference,
        "estimate": piece.estimate,
        "reference_notes": piece.num_notes[0],
        "estimated_notes": piece.num_notes[1],
        "remarks": list(piece.remarks),
    }
    if piece.failure:
        return {**values, "error": piece.failure}
    analysis = {} if piece.analysis is None else {"analysis": without_nan(piece.analysis.to_json())}
    return {**values, "scores": scores_json(piece), **analysis}


def _pooled_analysis(pieces: list[ScoredPair]) -> dict[str, Any] | None:
    analyses = [piece.analysis for piece in pieces if piece.analysis is not None]
    if not analyses:
        return None
    from mt3eval.note_errors import pool

    return without_nan(pool(analyses).to_json())


def _numbers(scores: Scores) -> dict[str, float | None]:
    return {name: without_nan(float(value)) for name, value in scores.items()}


def without_nan(value: Any) -> Any:
    """The same with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
