"""Pieces with errors of every kind, for the tests of the report."""

import json
import math
import re
from pathlib import Path

import numpy as np

from mt3core.notes.table import NOTE_DTYPE
from mt3eval.note_errors import analyse
from mt3eval.reading.performance import Performance
from mt3eval.report import PieceReport

HOSTILE = '</script><script>throw "run"</script> & "song" {{style}}'
SUMMARY = {
    "protocols": {
        "mt3": {
            "summary": "MT3's own scores",
            "average": {"Onset F1": 0.51, "Frame F1": math.nan, "Onset precision": np.float64(0.6)},
            "intervals": {"Onset F1": [0.4, 0.6]},
        }
    },
    "settings": {"confidence": 0.95, "versions": {"mt3kit": "0"}},
}


def performances(seed: int, notes: int) -> tuple[Performance, Performance]:
    """Notes of some instruments and drums, and an estimate of them."""
    rng = np.random.default_rng(seed)
    table = np.zeros(notes, NOTE_DTYPE)
    table["onset"] = np.sort(rng.uniform(0, notes / 10, notes))
    table["offset"] = table["onset"] + rng.uniform(0.05, 1.5, notes)
    table["pitch"], table["velocity"] = rng.integers(36, 90, notes), rng.integers(1, 128, notes)
    table["program"], table["is_drum"] = rng.choice([0, 24, 33, 40], notes), rng.random(notes) < 0.2
    found = table[rng.random(notes) < 0.9].copy()
    found["onset"] = np.maximum(0, found["onset"] + rng.normal(0, 0.04, len(found)))
    found["offset"] = np.maximum(found["onset"], found["offset"] + rng.normal(0, 0.1, len(found)))
    found["pitch"] += np.where(rng.random(len(found)) < 0.1, 12, 0)
    found["program"] = np.where(rng.random(len(found)) < 0.1, 56, found["program"])
    return Performance(table), Performance(found, confidences=rng.uniform(0, 1, len(found)))


def piece(name: str, seed: int = 0, notes: int = 300) -> PieceReport:
    """A piece with a score for one protocol, and none for another."""
    reference, estimate = performances(seed, notes)
    scores = {"mt3": {"Onset F1": 0.5 + seed / 100, "Frame F1": math.nan}, "bytedance": {"error": "Not for songs."}}
    return PieceReport(name, reference, estimate, scores, analyse(reference, estimate))


def data_of(page: Path) -> dict:
    """The data in a report."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)[1])
