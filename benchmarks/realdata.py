"""Onset F1 on real recordings, for both networks: makes the first table of docs/results.md.

    python benchmarks/realdata.py [FOLDER] [--model MODEL] [--backend torch --backend jax] [--output FILE]

FOLDER contains `index.json` and, for each clip, the audio and `ID.notes.tsv`; the default is shared/realdata next to
the checkout. Protocol: mir_eval, onset within 50 ms and equal pitch, ignoring offsets and instruments; pitched notes
and drums are scored separately, and if only drums are labelled, only they are scored.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
import time
from pathlib import Path

from mt3core.model.search import find_model, load_weights
from mt3core.notes.midi_writing import midi_bytes
from mt3core.notes.table import Note
from mt3eval.matching.onset_score import onset_score

SHARED = Path(__file__).resolve().parents[2] / "shared"


def main() -> None:
    parser = argparse.ArgumentParser(description="Onset F1 on real recordings.")
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "realdata")
    parser.add_argument("--model", default=str(SHARED / "mt3_checkpoint"))
    parser.add_argument("--backend", action="append", choices=["torch", "jax"], help="default: both")
    parser.add_argument("--output", type=Path, help="also write the table to this file (Markdown)")
    options = parser.parse_args()
    weights = load_weights(find_model(options.model).source)
    results = {}
    for backend in options.backend or ["torch", "jax"]:
        network = importlib.import_module(f"mt3{backend}")
        model = network.build_model(weights.config, weights.arrays, "auto")
        results[backend] = run(network.Transcriber(model), options.folder)
    table = markdown(results)
    print(table)
    if options.output:
        options.output.write_text(table)


def run(transcriber, folder: Path) -> dict[str, dict]:
    """Transcribes and scores every clip; one row per clip."""
    rows = {}
    for clip in json.loads((folder / "index.json").read_text()):
        reference = read_notes(folder / clip["notes"])
        start = time.perf_counter()
        result = transcriber.transcribe(folder / clip["audio"])
        seconds = time.perf_counter() - start
        only_drums = clip["truth_covers"] == "drum onsets only"
        rows[clip["id"]] = {
            "seconds": result.duration_seconds,
            "real_time": result.duration_seconds / seconds,
            "pitched": None if only_drums else onset_score(reference, result.notes, drums=False),
            "drums": onset_score(reference, result.notes, drums=True),
            "tokens": [segment.tokens for segment in result.segments],
            "midi": midi_bytes(result.notes),
        }
        print(f"{clip['id']}: {result.duration_seconds / seconds:.1f}x real time", flush=True)
    return rows


def read_notes(path: Path) -> list[Note]:
    with path.open() as file:
        return [
            Note(
                float(row["onset"]),
                float(row["offset"]),
                int(row["pitch"]),
                int(row["velocity"]),
                int(row["program"]),
                row["is_drum"] == "1",
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def markdown(results: dict[str, dict[str, dict]]) -> str:
    """One line per clip: the figures of the first backend, and whether the others found the same notes."""
    first, *others = results
    lines = [
        "| clip | s | pitched notes | onset P | R | F1 | drum hits | onset P | R | F1 | "
        + " | ".join(f"{other}: same tokens, same MIDI bytes" for other in others)
        + (" |" if others else ""),
    ]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for clip, row in results[first].items():
        cells = [f"`{clip}`", f"{row['seconds']:.1f}", *score_cells(row["pitched"]), *score_cells(row["drums"])]
        for other in others:
            theirs = results[other][clip]
            cells.append(", ".join("yes" if theirs[part] == row[part] else "no" for part in ("tokens", "midi")))
        lines.append("| " + " | ".join(cells) + " |")
    for part in ("pitched", "drums"):
        scores = [row[part].f1 for row in results[first].values() if row[part] and row[part].reference_notes]
        name = {"pitched": "pitched notes", "drums": "drum hits"}[part]
        lines.append(f"\nMean onset F1 of {name} over the {len(scores)} clips that have them: {mean(scores):.3f}")
    for kind in ("piano_real", "multi_rendered"):
        chosen = [row for clip, row in results[first].items() if clip.startswith(kind) and row["seconds"] >= 20]
        if scores := [row["pitched"].f1 for row in chosen if row["pitched"]]:
            lines.append(f"\nMean over the {len(scores)} clips `{kind}_*` of 20 s and more: {mean(scores):.3f}")
    return "\n".join(lines) + "\n"


def score_cells(score) -> list[str]:
    if score is None or math.isnan(score.f1):
        return ["-"] * 4
    if not score.reference_notes:
        return [f"0 (found {score.estimated_notes})", "-", "-", "-"]
    return [str(score.reference_notes), *(f"{x:.3f}" for x in (score.precision, score.recall, score.f1))]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


if __name__ == "__main__":
    main()
