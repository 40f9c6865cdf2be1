"""The pairs of notes that were scored with the original evaluators, and what these said about them."""

import json
import math
from functools import cache

import numpy as np
import pytest
from conftest import shared_path

from mt3core.notes.table import note_table
from mt3eval.protocol import protocol
from mt3eval.reading.performance import NotDefinedError, Performance


@cache
def golden_pair(name: str) -> tuple[Performance, Performance]:
    """(reference, estimate) of a pair, its notes in the order of the file."""
    pair = json.loads(shared_path(f"golden_metrics/pairs/{name}.json").read_text())
    reference, estimate = (
        Performance(
            note_table(pair[side]), np.array(pair.get(f"{side}_controls", []), dtype=float).reshape(-1, 3), name
        )
        for side in ("reference", "estimate")
    )
    return reference, estimate


@cache
def expected_scores() -> dict:
    """Protocol -> pair -> metric -> value, "NaN" or an error."""
    return json.loads(shared_path("golden_metrics/expected.json").read_text())


@cache
def expected_averages() -> dict:
    """Protocol -> the files, and the original's average of each metric."""
    return json.loads(shared_path("golden_metrics/averages.json").read_text())


def disagreements(name: str, tolerance: float = 1e-9) -> list[str]:
    """What a protocol says otherwise than its original about any pair; an error there has to be one here."""
    found = []
    for pair, expected in expected_scores()[name].items():
        stops = any(metric.split()[0] == "error" for metric in expected)
        try:
            scores = protocol(name).score(*golden_pair(pair))
        except NotDefinedError as error:
            if not stops:
                found.append(f"{pair}: {error}")
            continue
        if stops:
            found.append(f"{pair}: the original stops with {expected}")
            continue
        for metric, value in expected.items():
            wanted = math.nan if value == "NaN" else value
            if scores.get(metric) != pytest.approx(wanted, abs=tolerance, rel=0, nan_ok=True):
                found.append(f"{pair}: {metric} is {scores.get(metric)}, not {wanted}")
    return found


def average_disagreements(name: str, tolerance: float) -> list[str]:
    """What a protocol's average of a set says otherwise than the original's."""
    golden = expected_averages()[name]
    averages = protocol(name).average([protocol(name).score(*golden_pair(file)) for file in golden["files"]])
    return [
        f"{metric} is {averages.get(metric)}, not {value}"
        for metric, value in golden["metrics"].items()
        if averages.get(metric)
        != pytest.approx(math.nan if value == "NaN" else value, abs=tolerance, rel=0, nan_ok=True)
    ]
