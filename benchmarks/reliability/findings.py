"""What a campaign found: sorts, storage for a replay, and counts."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# In the order of the table. `crash`: the process died in a library's native code. `message`: something but one sentence
# and a next step; `terminal`: a library wrote to the terminal.
SORTS = (
    *(
        "traceback",
        "crash",
        "hang",
        "half-written",
        "wrong acceptance",
        "memory",
        "message",
        "terminal",
        "left running",
    ),
)
_MOST_STORED = 5  # of the same signature


class Found(Exception):
    """Raised while a case is checked: a finding of this sort."""

    def __init__(self, sort: str, message: str) -> None:
        super().__init__(message)
        self.sort = sort


@dataclass(frozen=True)
class Finding:
    """One finding. `where` is the place in the code that failed, or what else tells findings apart."""

    kind: str
    seed: int
    number: int
    sort: str
    message: str
    description: str
    where: str = ""
    detail: str = ""

    @property
    def signature(self) -> tuple[str, str, str]:
        return self.kind, self.sort, self.where


@dataclass
class Tally:
    """Counts of one kind, filled by several threads."""

    kind: str
    store: Path
    files: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    unreadable: list[str] = field(default_factory=list)  # sources that could not be read whole
    usual_seconds: float = 0.0  # the slowest source
    sorts: Counter[str] = field(default_factory=Counter)
    signatures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, accepted: bool, notes: dict[str, int]) -> None:
        with self.lock:
            self.files += 1
            self.accepted += accepted
            self.refused += not accepted
            self.notes.update(notes)

    def add(self, finding: Finding, data: bytes | None) -> None:
        with self.lock:
            self.sorts[finding.sort] += 1
            self.signatures[finding.signature] += 1
            self.examples.setdefault(finding.signature, finding)
            if self.signatures[finding.signature] <= _MOST_STORED:
                store(self.store, finding, data)

    def as_json(self) -> dict[str, Any]:
        found = [
            {**asdict(example), "count": self.signatures[signature]} for signature, example in self.examples.items()
        ]
        return {
            "files": self.files,
            "accepted": self.accepted,
            "refused": self.refused,
            "seconds": round(self.seconds, 1),
            "usual_seconds": round(self.usual_seconds, 4),
            "unreadable_sources": self.unreadable,
            "findings": dict(self.sorts),
            "notes": dict(self.notes),
            "examples": found,
        }


def store(folder: Path, finding: Finding, data: bytes | None) -> Path:
    """Writes a finding, and beside it the bytes that were read."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{finding.kind}-{finding.seed}-{finding.number}-{finding.sort.replace(' ', '_')}.json"
    path.write_text(json.dumps(asdict(finding), indent=1) + "\n", encoding="utf-8")
    if data is not None:
        path.with_suffix(".bin").write_bytes(data)
    return path


def stored(path: Path) -> tuple[Finding, bytes | None]:
    """A finding as `store` wrote it."""
    finding = Finding(**json.loads(path.read_text(encoding="utf-8")))
    beside = path.with_suffix(".bin")
    return finding, beside.read_bytes() if beside.is_file() else None


def table(tallies: list[Tally]) -> str:
    """A line for each kind, in Markdown."""
    lines = [f"| kind | cases | accepted | refused | {' | '.join(SORTS)} | cases/min |"]
    lines.append("|---" * (5 + len(SORTS)) + "|")
    for one in tallies:
        rate = round(one.files / max(one.seconds, 1e-9) * 60)
        found = " | ".join(str(one.sorts[sort]) for sort in SORTS)
        lines.append(f"| {one.kind} | {one.files:,} | {one.accepted:,} | {one.refused:,} | {found} | {rate:,} |")
    return "\n".join(lines)
