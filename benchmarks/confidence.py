"""What a model's confidences mean: fits a calibration to half of some pieces, and measures it on the others.

    mt3 render MIDI out --layout slakh       pieces with known notes, unless there are some
    python benchmarks/confidence.py out [--model small] [--seconds 60] [--store] [--output FILE]

PIECES is a folder that `benchmarks/systems/clips.py` reads: `index.json`, MAESTRO, SLAKH, or audio and MIDI files of
the same names. The calibration is fitted to every second piece, and the expected calibration error (ten bins;
`mt3eval/calibration.py` has the sources) is that of the others and of real recordings (shared/realdata next to the
checkout), with and without it. A note counts as right if its onset is within 50 ms and its pitch is equal (mir_eval's
matching), pitched notes and drum hits by themselves; with `--instruments` also its class of General MIDI must agree, as
for `mt3 evaluate`. Where only drums are labelled, only they count. Any calibration that the model has is ignored;
`--store` writes the new one to its `config.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from systems.clips import Clip, read_clips

from mt3core.errors import MT3Error, UsageError
from mt3core.files import atomic_output
from mt3core.model.directory import CONFIG_FILE, is_model_directory, load_model_config
from mt3core.model.search import find_model, load_weights
from mt3core.notes.choosing import Excerpt
from mt3core.notes.instruments import PROGRAMS_PER_CLASS
from mt3core.notes.table import DRUM_PROGRAM, Note, to_notes
from mt3decode.transcriber import BaseTranscriber
from mt3eval.calibration import Bin, Knots, calibrate, calibrated, fit_calibration
from mt3eval.matching.onset_score import matched_onsets

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Judged:
    """The notes found in some recordings: the products of their probabilities, and which are right."""

    recordings: int
    products: np.ndarray
    is_right: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 2 for unusable input."""
    options = parse(arguments)
    try:
        source = source_of(options.model, options.store)
        network = importlib.import_module(f"mt3{options.backend}")
        pieces = read_clips(options.pieces, options.split, limit=options.limit)
        if len(pieces) < 2:
            raise UsageError("One piece cannot be divided into halves.", "Render at least two.")
        recordings = read_clips(options.recordings) if options.recordings.exists() else []
        weights = load_weights(source)
        transcriber = network.Transcriber(network.build_model(weights.config, weights.arrays, options.device))
        sets = {
            name: judge(transcriber, clips, options.seconds, options.instruments)
            for name, clips in {
                "pieces, fitted to": pieces[::2],
                "pieces, the others": pieces[1::2],
                "recordings": recordings,
            }.items()
        }
        fitted = next(iter(sets.values()))
        knots = fit_calibration(fitted.products, fitted.is_right)
        if options.store:
            store(source, confidence=knots)
    except MT3Error as error:
        print(f"confidence: {error}", file=sys.stderr)
        return 2
    text = markdown(sets, knots)
    print(text)
    if options.output:
        with atomic_output(options.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fit and measure the confidences of a model.")
    parser.add_argument("pieces", type=Path)
    parser.add_argument("--model", default="small")
    parser.add_argument("--backend", default="torch", choices=["torch", "jax"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recordings", type=Path, default=SHARED / "realdata")
    parser.add_argument("--split", default="test", help="of a data set of pieces")
    parser.add_argument("--limit", type=int, help="at most this many pieces")
    parser.add_argument("--seconds", type=float, help="only the beginning of each")
    parser.add_argument("--instruments", action="store_true", help="a note is right only if its class is, too")
    parser.add_argument("--store", action="store_true", help="write the calibration to the model directory")
    parser.add_argument("--output", type=Path, help="also write the tables to this file (Markdown)")
    return parser.parse_args(arguments)


def judge(
    transcriber: BaseTranscriber, clips: Sequence[Clip], seconds: float | None = None, instruments: bool = False
) -> Judged:
    """Transcribes recordings, or their first `seconds`, and compares all notes with the reference."""
    products, is_right = [], []
    for clip in clips:
        notes = transcriber.transcribe(clip.audio, end_seconds=seconds).notes
        reference = Excerpt(0.0, seconds).cut(to_notes(clip.reference.notes))
        for kind in sorted({group(note, instruments) for note in notes}):
            if clip.only_drums_labelled and kind != DRUM_PROGRAM:
                continue
            found = [note for note in notes if group(note, instruments) == kind]
            pairs = matched_onsets([note for note in reference if group(note, instruments) == kind], found)
            right = {number for _, number in pairs}
            products += [product(note) for note in found]
            is_right += [number in right for number in range(len(found))]
        print(f"{clip.name}: {sum(is_right)} of {len(is_right)} notes so far are right", file=sys.stderr)
    return Judged(len(clips), np.array(products, float), np.array(is_right, bool))


def group(note: Note, instruments: bool) -> int:
    """Notes of one group are compared with each other: drums, and pitched notes, or those of a class."""
    if note.is_drum:
        return DRUM_PROGRAM
    return note.program // PROGRAMS_PER_CLASS if instruments else 0


def product(note: Note) -> float:
    """The confidence of a note before any calibration."""
    assert note.confidence is not None
    return note.confidence.onset * note.confidence.pitch * note.confidence.program


def source_of(model: str, is_stored: bool) -> str:
    """Where a model is; raises `UsageError` if something is to be stored in it and it is not a model directory."""
    source = find_model(model).source
    if is_stored and not is_model_directory(source):
        raise UsageError(f"{source} is not a model directory.", "Convert it first: mt3 convert.")
    return source


def store(source: str, **fields: Any) -> None:
    """Makes what was fitted part of a model directory: fields of its configuration."""
    directory = Path(source)
    config = dataclasses.replace(load_model_config(directory), **fields)
    with atomic_output(directory / CONFIG_FILE) as temporary:
        temporary.write_text(config.to_text(), encoding="utf-8")


def markdown(sets: dict[str, Judged], knots: Knots) -> str:
    """The errors of every set, the curve of those that were not fitted to, and the calibration."""
    lines = [
        "| notes of | recordings | notes | right | product: expected error | greatest | calibrated: expected error "
        "| greatest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    curves = []
    for name, one in sets.items():
        before, after = (calibrate(sure, one.is_right) for sure in (one.products, calibrated(one.products, knots)))
        if before is None or after is None:
            continue
        errors = (before.expected_error, before.greatest_error, after.expected_error, after.greatest_error)
        cells = [name, one.recordings, len(one.products), f"{one.is_right.mean():.3f}", *(f"{x:.3f}" for x in errors)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
        curves += [*curve(f"{name}, product", before.bins), *curve(f"{name}, calibrated", after.bins)]
    return "\n".join([*lines, "", *curves, f"confidence = {json.dumps(knots)}", ""])


def curve(title: str, bins: Sequence[Bin]) -> list[str]:
    """A reliability table."""
    rows = [
        f"| {one.low:.1f} to {one.high:.1f} | {one.notes} | {one.mean_confidence:.3f} | {one.right:.3f} |"
        for one in bins
    ]
    return [f"{title}:", "", "| confidence | notes | mean | right |", "|---|---|---|---|", *rows, ""]


if __name__ == "__main__":
    sys.exit(main())
