"""Parity of the two networks on every recording of a folder: makes the second table of docs/results.md.

    python benchmarks/parity.py [FOLDER] [--model MODEL] [--output FILE]

For each clip it reports the same as `mt3 parity`: segments, tokens, whether tokens and MIDI bytes are equal, ties, and
the largest differences of encoder output and logits. Exits with 1 if a clip is out of tolerance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mt3convert.parity import ParityReport, compare_frameworks
from mt3convert.parity_stages import Framework
from mt3convert.sources import load
from mt3core.audio.load import load_audio

SHARED = Path(__file__).resolve().parents[2] / "shared"
AUDIO = {".flac", ".ogg", ".mp3", ".wav"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Parity of both networks on real recordings.")
    parser.add_argument("folder", nargs="?", type=Path, default=SHARED / "realdata")
    parser.add_argument("--model", default=str(SHARED / "mt3_checkpoint"))
    parser.add_argument("--output", type=Path, help="also write the table to this file (Markdown)")
    options = parser.parse_args()
    weights = load(options.model)
    sides = [Framework(name, weights.config, weights.arrays, "cpu") for name in ("torch", "jax")]
    lines = [
        "| clip | segments | tokens | first differing tokens | MIDI identical | encoder | logits |",
        "|---|---|---|---|---|---|---|",
    ]
    good = True
    for clip in sorted(path for path in options.folder.iterdir() if path.suffix in AUDIO):
        samples = load_audio(clip, weights.config.spectrogram.sample_rate_hz)
        report = compare_frameworks(sides[0], sides[1], samples)
        good &= report.within_tolerance
        lines.append(row(clip.stem, report))
        print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n")
    sys.exit(not good)


def row(name: str, report: ParityReport) -> str:
    largest = {stage.stage: stage.largest for stage in report.stages}
    encoder = max((value for stage, value in largest.items() if stage.startswith("encoder")), default=0.0)
    differences = "; ".join(
        f"segment {d.segment} token {d.position} (margin {d.margin:.1e}{', a tie' if d.is_tie else ''})"
        for d in report.token_differences
    )
    midi = "yes" if report.midi_identical else "no"
    cells = [f"`{name}`", str(report.num_segments), str(report.num_tokens), differences or "none", midi]
    return "| " + " | ".join([*cells, f"{encoder:.1e}", f"{largest['logits']:.1e}"]) + " |"


if __name__ == "__main__":
    main()
