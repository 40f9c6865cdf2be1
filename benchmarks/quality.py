"""What different ways of decoding are worth on the same weights: makes the tables of docs/results.md about quality.

    python benchmarks/quality.py [FOLDER ...] [--model MODEL] [--variant NAME ...] [--output FOLDER] [--markdown FILE]

FOLDER contains recordings and their notes: `index.json` (as in shared/realdata, the default), MAESTRO, SLAKH, or audio
and MIDI files of the same names; several are scored one after the other. Every variant transcribes every clip with the
same network (PyTorch); MIDI files and timings are kept in `--output`, so an interrupted command can be run again to
resume. The table has means over clips and, for every variant but the first, its difference from the first over the same
clips with a 95 % interval (Student's t over clips, docs/evaluation.md). Cost is processor time in units of the first
variant's on the same clips.

`instruments` is told which instruments play (those of the reference), as a musician would tell it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from systems import table
from systems.clips import Clip, read_clips
from systems.scoring import MEASURES, Measure

import mt3torch
from mt3core.decoding import Decoding
from mt3core.errors import UsageError
from mt3core.files import atomic_output
from mt3core.model.search import find_model, load_weights
from mt3decode.transcriber import default_decoding
from mt3eval.intervals import Average, average, compare
from mt3eval.protocol import protocol
from mt3eval.reading.performance import NotDefinedError, Performance
from mt3eval.reading.reading import Reading, read_performance
from mt3torch.precision import Precision

SHARED = Path(__file__).resolve().parents[2] / "shared"
TITLES = (
    "pitched notes: onset F1",
    "pitched notes: onset + offset F1",
    "other than piano: onset + offset + program F1",
    "drum hits: onset F1",
)
_BEAM: dict[str, Any] = {"method": "beam", "grammar": True}
# The first is what the others are compared with.
VARIANTS: dict[str, Mapping[str, Any]] = {
    "t5x": {},
    "greedy": {"method": "greedy"},
    "bfloat16": {},
    "greedy, bfloat16": {"method": "greedy"},
    "grammar": {"grammar": True},
    "beam 2": {**_BEAM, "num_beams": 2},
    "beam 4": {**_BEAM, "num_beams": 4},
    "beam 4, no length penalty": {**_BEAM, "num_beams": 4, "length_penalty": 0.0},
    "overlap 2": {"overlap": 2},
    "overlap 4": {"overlap": 4},
    "agreement": {"grammar": True, "overlap": 4, "agreement": True},  # --quality best of `mt3 transcribe`
    "overlap 2, beam 2": {**_BEAM, "num_beams": 2, "overlap": 2},
    "instruments": {"grammar": True},
    "instruments, overlap 2": {"grammar": True, "overlap": 2},
    "instruments, agreement": {"grammar": True, "overlap": 4, "agreement": True},
}
Scores = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways of decoding on the same weights.")
    parser.add_argument("folders", nargs="*", type=Path, default=[SHARED / "realdata"], metavar="FOLDER")
    parser.add_argument("--model", default="small")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="default: all")
    parser.add_argument("--output", type=Path, default=Path("quality"), help="MIDI files and timings")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--split", default="test", help="of a data set")
    parser.add_argument("--only", action="append", default=[], help="only clips with this in their names")
    parser.add_argument("--limit", type=int, help="at most this many clips of each folder")
    parser.add_argument("--seconds", type=float, help="only the start of each clip")
    options = parser.parse_args()
    weights = load_weights(find_model(options.model).source)
    model = mt3torch.build_model(weights.config, weights.arrays, "auto")
    names = options.variant or list(VARIANTS)
    tables = []
    for folder in options.folders:
        clips = read_clips(folder, options.split, tuple(options.only), options.limit)
        output = options.output / folder.name
        for name in names:
            transcribe(model, name, clips, folder_of(output, name), options.model, options.seconds)
        tables.append(f"{folder.name}, {len(clips)} clips:\n\n{markdown(names, clips, output, options.seconds)}")
    text = "\n\n".join(tables)
    print(text)
    if options.markdown:
        with atomic_output(options.markdown) as part:
            part.write_text(text + "\n")


def folder_of(output: Path, name: str) -> Path:
    return output / name.replace(",", "").replace(" ", "_")


def transcribe(
    model: mt3torch.model.Transformer,
    name: str,
    clips: Sequence[Clip],
    folder: Path,
    model_name: str,
    seconds: float | None,
) -> None:
    """All clips that are not finished with one variant: `CLIP.mid`, and `CLIP.json` with the costs.

    Raises `UsageError` if the folder has results of another model, or of another part of the clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"model": model_name, "seconds": seconds}
    for clip in clips:
        finished = folder / f"{clip.name}.json"
        if finished.exists():
            if json.loads(finished.read_text())["asked"] != asked:
                raise UsageError(f"{folder} has results of another command.", "Choose another --output.")
            continue
        decoding = decoding_of(name, clip, default_decoding(model.config))
        precision: Precision = "bfloat16" if name.endswith("bfloat16") else "float32"
        transcriber = mt3torch.Transcriber(model, decoding, precision=precision)
        started, wall = time.process_time(), time.perf_counter()
        result = transcriber.transcribe(clip.audio, end_seconds=seconds)
        costs = {
            "asked": asked,
            "processor_seconds": time.process_time() - started,
            "seconds": time.perf_counter() - wall,
            "audio_seconds": min(result.duration_seconds, seconds or math.inf),
            "invalid_events": sum(segment.invalid_events for segment in result.segments),
            "dropped_events": sum(segment.dropped_events for segment in result.segments),
            "tokens": sum(len(segment.tokens) for segment in result.segments),
        }
        result.save(folder / f"{clip.name}.mid")
        with atomic_output(finished) as part:
            part.write_text(json.dumps(costs) + "\n")
        print(f"{name}: {clip.name}: {costs['audio_seconds'] / costs['seconds']:.1f}x real time", flush=True)


def decoding_of(name: str, clip: Clip, default: Decoding) -> Decoding:
    """The decoding of a variant for a clip; with `instruments`, those of its reference."""
    chosen = dataclasses.replace(default, **VARIANTS[name])
    if not name.startswith("instruments"):
        return chosen
    pitched = clip.reference.pitched().notes
    programs = sorted(set(pitched["program"].tolist())) if not clip.only_drums_labelled else None
    drums = bool(clip.reference.notes["is_drum"].any())
    return dataclasses.replace(chosen, programs=None if programs is None else tuple(programs), drums=drums)


def markdown(names: Sequence[str], clips: Sequence[Clip], output: Path, seconds: float | None) -> str:
    """A row per variant: each measure's mean and difference, the events that made no sense, the cost."""
    measures = [measure for measure in MEASURES if measure.title in TITLES and any(map(measure.belongs, clips))]
    folders = {name: folder_of(output, name) for name in names}
    costs = {
        name: [json.loads((folder / f"{clip.name}.json").read_text()) for clip in clips]
        for name, folder in folders.items()
    }
    spent = {name: sum(one["processor_seconds"] for one in costs[name]) for name in names}
    rows = [["variant", *(measure.title for measure in measures), "invalid + dropped, of tokens", "cost"]]
    scores = {name: [scored(measure, clips, folders[name], seconds) for measure in measures] for name in names}
    for name in names:
        cells = [
            cell(measure, of_variant, of_first, name == names[0])
            for measure, of_variant, of_first in zip(measures, scores[name], scores[names[0]], strict=True)
        ]
        events = [sum(one[key] for one in costs[name]) for key in ("invalid_events", "dropped_events", "tokens")]
        share = f"{events[0]:,} + {events[1]:,} of {events[2]:,}"
        rows.append([name, *cells, share, f"{spent[name] / spent[names[0]]:.2f}"])
    return table.as_markdown(rows, (0,))


def scored(measure: Measure, clips: Sequence[Clip], folder: Path, seconds: float | None) -> list[Scores]:
    """The measure's value for each clip that has one; NaN is kept, so that the clips are the same for all variants."""
    rule, found = protocol(measure.protocol), []
    for clip in clips:
        if not measure.belongs(clip):
            continue
        estimate = read_performance(folder / f"{clip.name}.mid", Reading(drop_empty=True))
        try:
            scores = rule.score(measure.part(until(clip.reference, seconds)), measure.part(estimate))
            found.append({measure.metric: scores[measure.metric]})
        except NotDefinedError:
            found.append({measure.metric: math.nan})
    return found


def until(performance: Performance, seconds: float | None) -> Performance:
    """The notes that start before a time."""
    if seconds is None:
        return performance
    return dataclasses.replace(performance, notes=performance.notes[performance.notes["onset"] < seconds])


def cell(measure: Measure, scores: Sequence[Scores], first: Sequence[Scores], is_first: bool) -> str:
    rule, metric = protocol(measure.protocol), measure.metric
    if is_first:
        return _shown(average(rule, scores), metric, "{:.3f}")
    pair = compare(rule, scores, first)
    return f"{pair.first.values[metric]:.3f} ({_shown(pair.difference, metric, '{:+.3f}')})"


def _shown(found: Average, metric: str, form: str) -> str:
    text = form.format(found.values[metric])
    interval = found.intervals.get(metric)
    return text if interval is None else f"{text}, {form.format(interval[0])} to {form.format(interval[1])}"


if __name__ == "__main__":
    main()
