"""Fits and measures how far overlapping windows are believed (`mt3decode/agreement.py`).

    mt3 render MIDI out --layout slakh       pieces with known notes, unless there are some
    python benchmarks/agreement.py out [out2 ...] [--model small] [--seconds 60] [--store] [--output FILE]

PIECES are data sets that `benchmarks/systems/clips.py` reads: MAESTRO, SLAKH, or audio and MIDI of the same names.
The two small networks are fitted to one of their splits (with PyTorch), or to that of the pieces that `--fit-to` names:
sounds that are measured should be unknown to them. The table has the mean F1 of onsets (50 ms, mir_eval's matching,
pitched notes and drum hits by themselves) and of onsets and offsets: of the middles of two windows, and of
agreement, for another split and for real recordings (shared/realdata next to the checkout). Music and
sounds must be ones that training did not have, or the windows agree better than they do elsewhere. `--store` writes the
numbers to the model's `config.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from confidence import source_of, store
from systems.clips import DRUMS, Clip, read_clips

from mt3core.audio.load import read_audio
from mt3core.config.model import AGREEMENT_NUMBERS, ModelConfig
from mt3core.decoding import Decoding
from mt3core.errors import MT3Error, UsageError
from mt3core.files import atomic_output
from mt3core.model.search import load_weights
from mt3core.notes.choosing import Excerpt
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.table import Note, note_table, to_notes
from mt3decode.agreement import NUM_HIDDEN, OVERLAP, SEMITONES, AgreedParts, Weighing
from mt3decode.arriving import ArrivingSegments
from mt3decode.transcriber import BaseTranscriber
from mt3decode.windows import DRUMS as DRUM_KEY
from mt3decode.windows import Heard, MiddleParts, Parts
from mt3eval.matching.note_scores import Comparison, scored_notes
from mt3eval.matching.onset_score import matched_onsets, onset_score

SHARED = Path(__file__).resolve().parents[2] / "shared"
# Of the fitted networks. Each is made of several smaller ones, whose mean errs less.
NUM_PARTS = 4
EPOCHS, BATCH, HIGHEST_RATE, WEIGHT_DECAY, DROPOUT = 25, 256, 3e-3, 0.1, 0.1
PARTS = ("f1", "precision", "recall")
# The windows that hear every moment, and by how many semitones higher they hear it, in turn.
MIDDLES, AGREEMENT = "middles of 2", f"agreement of {OVERLAP}"
WAYS: dict[str, tuple[int, tuple[int, ...]]] = {MIDDLES: (2, (0,)), AGREEMENT: (OVERLAP, SEMITONES)}


@dataclasses.dataclass(frozen=True)
class Piece:
    """A recording's beginning: what the network heard in the windows of each of `WAYS`, and its true notes."""

    clip: Clip
    heard: dict[str, list[Heard]]
    reference: list[Note]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 2 for unusable input."""
    options = parse(arguments)
    try:
        source = source_of(options.model, options.store)
        network = importlib.import_module(f"mt3{options.backend}")
        weights = load_weights(source)
        decoding = Decoding(max_tokens=weights.config.network.max_target_tokens, grammar=True)
        transcriber = network.Transcriber(network.build_model(weights.config, weights.arrays, options.device), decoding)
        folders = options.fit_to or options.pieces
        to_fit = [clip for folder in folders for clip in read_clips(folder, options.fit, limit=options.limit)]
        fitted = [listen(transcriber, clip, options.seconds) for clip in to_fit]
        config = dataclasses.replace(weights.config, agreement=fit(fitted, weights.config))
        if options.store:
            store(source, agreement=config.agreement)
        text = [heading()]
        others = {folder.name: read_clips(folder, options.split, limit=options.limit) for folder in options.pieces}
        if options.recordings.exists():
            others["recordings"] = read_clips(options.recordings)
        for name, clips in others.items():
            text += rows(name, [listen(transcriber, clip, options.seconds) for clip in clips], config)
    except MT3Error as error:
        print(f"agreement: {error}", file=sys.stderr)
        return 2
    print("\n".join(text))
    if options.output:
        with atomic_output(options.output) as temporary:
            temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fit and measure the agreement of overlapping windows.")
    parser.add_argument("pieces", type=Path, nargs="+")
    parser.add_argument("--model", default="small")
    parser.add_argument("--backend", default="torch", choices=["torch", "jax"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--recordings", type=Path, default=SHARED / "realdata")
    parser.add_argument("--fit-to", type=Path, action="append", help="pieces to fit to, if not to those; repeatable")
    parser.add_argument("--fit", default="validation", metavar="SPLIT", help="of the pieces to fit to")
    parser.add_argument("--split", default="test", help="of the pieces to measure")
    parser.add_argument("--limit", type=int, help="at most this many pieces of each folder")
    parser.add_argument("--seconds", type=float, help="only the beginning of each")
    parser.add_argument("--store", action="store_true", help="write the numbers to the model directory")
    parser.add_argument("--output", type=Path, help="also write the table to this file (Markdown)")
    return parser.parse_args(arguments)


def listen(transcriber: BaseTranscriber, clip: Clip, seconds: float | None = None) -> Piece:
    """What the network writes for each of the windows of a recording, or of its first `seconds`."""
    rate_hz = transcriber.config.spectrogram.sample_rate_hz
    samples = read_audio(clip.audio, rate_hz).samples
    samples = samples if seconds is None else samples[: round(seconds * rate_hz)]
    heard = {}
    for way, (overlap, semitones) in WAYS.items():
        arriving = ArrivingSegments(
            [samples],
            transcriber.config,
            overlap,
            takes_samples=transcriber.takes_samples,
            semitones=semitones,
            gives_levels=way == AGREEMENT,
        )
        written = dict(transcriber.generate_stream(iter(arriving), arriving.last_steps))
        heard[way] = [
            Heard(*arriving.take(number), written[number], arriving.levels(number)) for number in range(len(written))
        ]
    reference = Excerpt(0.0, len(samples) / rate_hz).cut(to_notes(clip.reference.notes))
    print(f"{clip.name}: {len(heard[AGREEMENT])} windows", file=sys.stderr)
    return Piece(clip, heard, reference)


# ---- Fitting


def fit(pieces: Iterable[Piece], config: ModelConfig) -> tuple[tuple[float, ...], ...]:
    """The networks for pitched notes and for drum hits: is a candidate right?"""
    features: tuple[list[np.ndarray], ...] = ([], [])
    is_right: tuple[list[bool], ...] = ([], [])
    # Where no candidate is believed, none is forgotten.
    nothing = dataclasses.replace(config, agreement=tuple((0.0,) * count for count in AGREEMENT_NUMBERS))
    for piece in pieces:
        parts = AgreedParts(nothing)
        for window in piece.heard[AGREEMENT]:
            parts.add(window)
        for is_drum in (False, True):
            if piece.clip.only_drums_labelled and not is_drum:
                continue
            candidates = [pair for pair in parts.candidates() if (pair[0].key[0] == DRUM_KEY) == is_drum]
            per_second = config.vocabulary.steps_per_second
            notes = [note_at(one.step / per_second, one.key[1], is_drum) for one, _ in candidates]
            expected = [note for note in piece.reference if note.is_drum == is_drum]
            right = {number for _, number in matched_onsets(expected, notes)} if notes and expected else set()
            features[is_drum].extend(values for _, values in candidates)
            is_right[is_drum].extend(number in right for number in range(len(notes)))
    found = []
    for kind, (rows_of_kind, right_of_kind) in enumerate(zip(features, is_right, strict=True)):
        if not any(right_of_kind):
            raise UsageError("No pitched note or no drum hit of the pieces was found.", "Add pieces that have them.")
        found.append(fitted_network(np.array(rows_of_kind), np.array(right_of_kind, float), kind).numbers())
    return tuple(found)


def note_at(seconds: float, pitch: int, is_drum: bool) -> Note:
    return Note(seconds, seconds + 0.1, pitch, 100, 0, is_drum)


def fitted_network(features: np.ndarray, is_right: np.ndarray, kind: int) -> Weighing:
    """By AdamW on standardised features: the mean logits of `NUM_PARTS` networks with a part of the units each."""
    import torch

    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-3
    inputs, targets = (torch.tensor(one, dtype=torch.float32) for one in ((features - mean) / scale, is_right))
    hidden, last, constant = [], [], 0.0
    for part in range(NUM_PARTS):
        torch.manual_seed(part)
        units = NUM_HIDDEN[kind] // NUM_PARTS
        first, second = torch.nn.Linear(features.shape[1], units), torch.nn.Linear(units, 1)
        network = torch.nn.Sequential(first, torch.nn.SiLU(), torch.nn.Dropout(DROPOUT), second)
        optimizer = torch.optim.AdamW(network.parameters(), HIGHEST_RATE, weight_decay=WEIGHT_DECAY)
        num_steps = EPOCHS * len(inputs) // BATCH + 1
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, HIGHEST_RATE, total_steps=num_steps + 1)
        for _ in range(num_steps):
            drawn = torch.randint(len(inputs), (BATCH,))
            logits = network(inputs[drawn])[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[drawn])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        weights = first.weight.detach().numpy() / scale
        hidden.append(np.c_[first.bias.detach().numpy() - weights @ mean, weights])
        last.append(second.weight.detach().numpy()[0] / NUM_PARTS)
        constant += second.bias.item() / NUM_PARTS
    return Weighing(np.concatenate(hidden), np.array([constant, *np.concatenate(last)]))


# ---- Measuring


def notes_of(piece: Piece, config: ModelConfig, way: str) -> list[Note]:
    """The notes of a piece by one of `WAYS`."""
    decoder = NoteDecoder(config.vocabulary, is_grammatical=True)
    parts: Parts = (AgreedParts if way == AGREEMENT else MiddleParts)(config, is_grammatical=True)
    notes: list[Note] = []
    done = 0
    for one in piece.heard[way]:
        parts.add(one)
        while parts.is_known(done):
            window, following, part, _ = parts.take(done, decoder.sounding)
            done += 1
            end = None if following is None else following.start_seconds
            decoder.add_segment(window.start_seconds, part.tokens, end, part.log_probabilities)
            notes += decoder.take(decoder.final_seconds(window.start_seconds), config.confidence)
    return [*notes, *decoder.finish_notes(0.0, config.confidence)]


def heading() -> str:
    columns = ["pieces", "way", "pitched: onset F1 (precision, recall)", "onset + offset F1", "drums: onset F1"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def rows(name: str, pieces: Sequence[Piece], config: ModelConfig) -> list[str]:
    """A line of the table for each way."""
    lines = []
    for way in WAYS:
        pitched, offsets, drums = [], [], []
        for piece in pieces:
            notes = notes_of(piece, config, way)
            if piece.clip.kind != DRUMS:
                pitched.append(onset_score(piece.reference, notes, drums=False))
                offsets.append(offset_f1(piece.reference, notes))
            if any(note.is_drum for note in piece.reference):
                drums.append(onset_score(piece.reference, notes, drums=True).f1)
        cells = ["-"]
        if pitched:
            f1, precision, recall = (np.mean([getattr(one, name) for one in pitched]) for name in PARTS)
            cells = [f"{f1:.3f} ({precision:.2f}, {recall:.2f})"]
        cells += [f"{np.mean(scores):.3f}" if scores else "-" for scores in (offsets, drums)]
        lines.append(f"| {name} ({len(pieces)}) | {way} | {' | '.join(cells)} |")
    return lines


def offset_f1(reference: Iterable[Note], estimate: Iterable[Note]) -> float:
    """Of the onsets and offsets of pitched notes, by mir_eval's rules."""
    expected, found = ([note for note in notes if not note.is_drum] for notes in (reference, estimate))
    return Comparison(scored_notes(note_table(expected)), scored_notes(note_table(found))).score(overlap=False).f1


if __name__ == "__main__":
    sys.exit(main())
