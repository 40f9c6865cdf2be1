"""Unbroken notes: what `--continuous` does to note fragments, offsets and speed, on the real piano recordings.

    python benchmarks/continuity.py [FOLDER] [--model MODEL] [--clip ID]... [--seconds 60] [--grammar] [--output FILE]

FOLDER is as for benchmarks/realdata.py; by default three of its clips `piano_real_maps_*`, whole. For each and each way
of decoding the table has

- notes: those that were found
- broken: the reference notes whose sound is covered by two or more of them. A reference note sounds from its onset to
  its offset, or to the next onset of its pitch if that is earlier; an estimated note of the same pitch covers it if
  both sound together for more than 50 ms, mir_eval's tolerance of onsets.
- overlong: the notes found that last longer than every reference note
- onset F1, and onset+offset F1 (within the larger of 50 ms and a fifth of the note), by mir_eval's rules
- speed: seconds of music per second, after one segment was decoded for warming up
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from realdata import SHARED, read_notes

from mt3core.decoding import Decoding
from mt3core.model.search import find_model, load_weights
from mt3core.notes.choosing import Excerpt
from mt3core.notes.table import Note, note_table
from mt3eval.matching.note_scores import Comparison, scored_notes
from mt3torch import Transcriber, build_model

LEAST_SECONDS = 0.05
DEFAULT_CLIPS = [f"piano_real_maps_{name}_ENSTDkCl" for name in ("scn15_12", "mz_545_3", "chpn_p19")]
COLUMNS = ("notes", "broken", "overlong", "onset F1", "onset+offset F1", "speed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "realdata")
    parser.add_argument("--model", default="small")
    parser.add_argument("--clip", action="append", help="repeatable")
    parser.add_argument("--seconds", type=float, help="only the beginning of each clip")
    parser.add_argument("--grammar", action="store_true", help="with the grammar, in all rows")
    parser.add_argument("--output", type=Path, help="also write the table to this file (Markdown)")
    options = parser.parse_args()
    weights = load_weights(find_model(options.model).source)
    model = build_model(weights.config, weights.arrays, "cpu")
    clips = {clip["id"]: clip for clip in json.loads((options.folder / "index.json").read_text())}
    lines = ["| clip | decoding | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    chosen = Decoding(max_tokens=weights.config.network.max_target_tokens, grammar=options.grammar)
    for name in options.clip or DEFAULT_CLIPS:
        reference = [note for note in read_notes(options.folder / clips[name]["notes"]) if not note.is_drum]
        if options.seconds:
            reference = Excerpt(0.0, options.seconds).cut(reference)
        for decoding in (chosen, replace(chosen, continuous=True)):
            transcriber = Transcriber(model, decoding)
            path = options.folder / clips[name]["audio"]
            transcriber.transcribe(path, end_seconds=0.1)
            start = time.perf_counter()
            result = transcriber.transcribe(path, end_seconds=options.seconds)
            passed = time.perf_counter() - start
            heard = min(result.duration_seconds, options.seconds or result.duration_seconds)
            way = "continuous" if decoding.continuous else "segments apart"
            row = measured(reference, [note for note in result.notes if not note.is_drum], heard / passed)
            lines.append(f"| `{name}` | {way} | " + " | ".join(row[column] for column in COLUMNS) + " |")
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    print(table)
    if options.output:
        options.output.write_text(table)


def measured(reference: list[Note], found: list[Note], speed: float) -> dict[str, str]:
    """The cells of a row, by column."""
    comparison = Comparison(scored_notes(note_table(reference)), scored_notes(note_table(found)))
    broken, longest = num_broken(reference, found), max(note.offset - note.onset for note in reference)
    return {
        "notes": f"{len(found)} of {len(reference)}",
        "broken": f"{broken} ({100 * broken / len(reference):.1f} %)",
        "overlong": str(sum(note.offset - note.onset > longest for note in found)),
        "onset F1": f"{comparison.score(offset_ratio=None).f1:.3f}",
        "onset+offset F1": f"{comparison.score().f1:.3f}",
        "speed": f"{speed:.2f}x",
    }


def num_broken(reference: Iterable[Note], found: Iterable[Note]) -> int:
    """How many reference notes are covered by two or more notes, as defined above."""
    onsets: dict[int, list[float]] = {}
    for note in reference:
        onsets.setdefault(note.pitch, []).append(note.onset)
    of_pitch: dict[int, list[Note]] = {}
    for note in found:
        of_pitch.setdefault(note.pitch, []).append(note)
    broken = 0
    for note in reference:
        end = min([note.offset, *(onset for onset in onsets[note.pitch] if onset > note.onset)])
        shared = [min(end, one.offset) - max(note.onset, one.onset) for one in of_pitch.get(note.pitch, [])]
        broken += sum(seconds > LEAST_SECONDS for seconds in shared) > 1
    return broken


if __name__ == "__main__":
    main()
