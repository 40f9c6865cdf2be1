"""What the grammar costs: recordings transcribed with and without it, in turns, in one process.

    python benchmarks/grammar_cost.py [FILE ...] [--model small] [--seconds 40] [--rounds 9] [--threads 2]

For each recording: seconds of the fastest run without the grammar and with it, the median of the ratios of neighbouring
runs, tokens written, and events that were ignored. Neighbouring runs have the same luck on a machine that does other
things too, so only ratios mean something there. With one thread they are of processor time, which other programs change
least. `share` is the time spent in the grammar itself as a part of the rest of the run, the median: it has none of the
network's noise, but leaves out what other tokens cost.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mt3torch
from mt3core.audio.load import load_audio
from mt3core.model.search import find_model, load_weights
from mt3decode.transcriber import default_decoding
from mt3torch import search

REALDATA = Path(__file__).resolve().parents[2] / "shared/realdata"
CLIPS = (
    "piano_real_maps_mz_545_3_ENSTDkCl.flac",
    "guitar_real_guitarset_00_bn1_129_eb_solo.flac",
    "drums_only_mdb_80srock.flac",
    "multi_rendered_gugs_jcycle.ogg",
)


class TimedLegal:
    """Passes all calls on and adds up their seconds."""

    seconds = 0.0

    def __init__(self, legal: Any) -> None:
        self._legal = legal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._legal, name)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = method(*arguments)
            TimedLegal.seconds += time.perf_counter() - started
            return result

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the cost of the grammar.")
    parser.add_argument("files", nargs="*", type=Path, default=[REALDATA / name for name in CLIPS], metavar="FILE")
    parser.add_argument("--model", default="small")
    parser.add_argument("--seconds", type=float, default=40.0, help="only the start of each recording")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = load_weights(find_model(options.model).source)
    model = mt3torch.build_model(weights.config, weights.arrays, "cpu")
    rate_hz = weights.config.spectrogram.sample_rate_hz
    _time_the_grammar()
    print("recording                                     s without     with  ratio  share  tokens          ignored")
    ratios = []
    for file in options.files:
        samples = load_audio(file, rate_hz)[: int(options.seconds * rate_hz)]
        ratios.append(one_recording(file.stem, model, samples, options.rounds))
    print(f"mean ratio {np.mean(ratios):.3f}")


def one_recording(name: str, model: mt3torch.model.Transformer, samples: np.ndarray, rounds: int) -> float:
    """Prints a line; returns the median ratio."""
    default = default_decoding(model.config)
    both = [mt3torch.Transcriber(model, dataclasses.replace(default, grammar=grammar)) for grammar in (False, True)]
    for transcriber in both:  # the first run is slower
        transcriber.transcribe_samples(samples)
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: list[list[float]] = [[], []]
    shares: list[float] = []
    tokens, ignored = [0, 0], [0, 0]
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            TimedLegal.seconds = 0.0
            started, wall_started = now(), time.perf_counter()
            result = both[which].transcribe_samples(samples)
            seconds[which].append(now() - started)
            if which:
                shares.append(TimedLegal.seconds / (time.perf_counter() - wall_started - TimedLegal.seconds))
            tokens[which] = sum(len(one.tokens) for one in result.segments)
            ignored[which] = sum(one.invalid_events + one.dropped_events for one in result.segments)
    ratio = statistics.median(after / before for before, after in zip(*seconds, strict=True))
    print(
        f"{name[:44]:44} {min(seconds[0]):10.2f} {min(seconds[1]):8.2f} {ratio:6.3f} {statistics.median(shares):6.3f}  "
        f"{tokens[0]} -> {tokens[1]}  {ignored[0]} -> {ignored[1]}",
        flush=True,
    )
    return ratio


def _time_the_grammar() -> None:
    """Lets every search of a decoding call its grammar through a `TimedLegal`."""
    begin = search.Search.__init__

    def timed(self: search.Search, decoding: Any, num_lanes: int, legal: Any = None) -> None:
        begin(self, decoding, num_lanes, None if legal is None else TimedLegal(legal))

    search.Search.__init__ = timed  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
