"""Transcribes the beginnings of some recordings with a network, and scores them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mt3core.decoding import END_TOKEN, Decoding
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.table import NoteTable, note_table, to_notes
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3data.examples.pieces import Excerpt, as_written
from mt3jax.decoding import generate_stream
from mt3jax.model import Transformer
from mt3jax.training.validation.piece_scores import PieceScore, score_piece


@dataclass(frozen=True, eq=False)
class Transcribed:
    """One piece: its score, its notes as far as the vocabulary represents them, and those that were decoded."""

    score: PieceScore
    reference: NoteTable = field(repr=False)
    estimate: NoteTable = field(repr=False)


def transcribe_pieces(
    model: Transformer, pieces: Sequence[Excerpt], decoding: Decoding, batch_size: int
) -> list[Transcribed]:
    """Transcribes and scores pieces. All their segments go through the device together, as lanes become free."""
    config = model.config
    cut = [segments(len(piece.samples), config) for piece in pieces]
    places = [(number, segment) for number, own in enumerate(cut) for segment in own]
    log_mels = (log_mel_segments(pieces[number].samples, [segment], config)[0] for number, segment in places)
    tokens = {index: generated.tokens for index, generated in generate_stream(model, log_mels, decoding, batch_size)}
    results, first = [], 0
    for piece, own in zip(pieces, cut, strict=True):
        decoder, invalid, unfinished = NoteDecoder(config.vocabulary), 0, 0
        ends: list[float | None] = [segment.start_seconds for segment in own[1:]]
        for index, (segment, end) in enumerate(zip(own, [*ends, None], strict=True), first):
            invalid += decoder.add_segment(segment.start_seconds, tokens[index], end)[0]
            unfinished += END_TOKEN not in tokens[index]
        first += len(own)
        reference, estimate = as_written(piece.notes, config.vocabulary), decoder.finish()
        score = score_piece(
            piece.dataset, piece.track, to_notes(reference), to_notes(estimate), len(own), unfinished, invalid
        )
        results.append(Transcribed(score, reference, estimate))
    return results


def pack(transcribed: Sequence[Transcribed]) -> bytes:
    """As JSON, to be sent to other processes."""
    values = [
        {"score": dataclasses.asdict(one.score), "notes": [one.reference.tolist(), one.estimate.tolist()]}
        for one in transcribed
    ]
    return json.dumps(values).encode()


def unpack(data: bytes) -> list[Transcribed]:
    """The inverse of `pack`."""
    return [Transcribed(_score(one["score"]), *map(note_table, one["notes"])) for one in json.loads(data)]


def _score(values: dict[str, Any]) -> PieceScore:
    return PieceScore(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})  # type: ignore
