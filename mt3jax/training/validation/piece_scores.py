"""Note F1 of transcribed pieces: of each piece, of all together, and the worst ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mt3core.notes.table import Note
from mt3eval.matching.onset_score import matched_onsets

# Lines of the table.
MOST_WORST = 5


@dataclass(frozen=True)
class PieceScore:
    """One piece: matched, reference and estimated notes; pitched notes and drum hits are matched separately."""

    dataset: str
    track: str
    matched: tuple[int, int]  # pitched, drums
    reference: tuple[int, int]
    estimate: tuple[int, int]
    num_segments: int
    unfinished_segments: int  # tokens ran out before an end token
    invalid_events: int

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.track}"

    @property
    def note_f1(self) -> float:
        return f1(sum(self.matched), sum(self.reference), sum(self.estimate))


def score_piece(
    dataset: str,
    track: str,
    reference: Sequence[Note],
    estimate: Sequence[Note],
    num_segments: int,
    unfinished_segments: int,
    invalid_events: int,
) -> PieceScore:
    """Onsets within 50 ms, see `matched_onsets`."""
    pitched, pitched_found = ([note for note in notes if not note.is_drum] for notes in (reference, estimate))
    drums, drums_found = ([note for note in notes if note.is_drum] for notes in (reference, estimate))
    return PieceScore(
        dataset,
        track,
        matched=(len(matched_onsets(pitched, pitched_found)), len(matched_onsets(drums, drums_found))),
        reference=(len(pitched), len(drums)),
        estimate=(len(pitched_found), len(drums_found)),
        num_segments=num_segments,
        unfinished_segments=unfinished_segments,
        invalid_events=invalid_events,
    )


def piece_figures(pieces: Sequence[PieceScore], prefix: str) -> dict[str, float]:
    """Metrics by name; those without any note are left out.

    note_f1, note_precision, note_recall   all notes of all pieces together
    pitched_f1, drum_f1                    the same for each kind
    mean_note_f1                           mean over the pieces
    note_f1_DATASET                        if there are several data sets
    unfinished_segments                    share whose tokens ran out before an end token
    invalid_events                         per segment, without meaning at their position
    """
    matched, reference, estimate = (
        [sum(getattr(piece, name)[kind] for piece in pieces) for kind in (0, 1)]
        for name in ("matched", "reference", "estimate")
    )
    num_segments = sum(piece.num_segments for piece in pieces)
    own = [piece.note_f1 for piece in pieces if not math.isnan(piece.note_f1)]
    figures = {
        "note_f1": f1(sum(matched), sum(reference), sum(estimate)),
        "note_precision": _ratio(sum(matched), sum(estimate)),
        "note_recall": _ratio(sum(matched), sum(reference)),
        "pitched_f1": f1(matched[0], reference[0], estimate[0]),
        "drum_f1": f1(matched[1], reference[1], estimate[1]),
        "mean_note_f1": _ratio(sum(own), len(own)),
        "unfinished_segments": _ratio(sum(piece.unfinished_segments for piece in pieces), num_segments),
        "invalid_events": _ratio(sum(piece.invalid_events for piece in pieces), num_segments),
    }
    datasets = sorted({piece.dataset for piece in pieces})
    for dataset in datasets if len(datasets) > 1 else []:
        of_dataset = [piece for piece in pieces if piece.dataset == dataset]
        sums = (sum(sum(getattr(piece, name)) for piece in of_dataset) for name in ("matched", "reference", "estimate"))
        figures[f"note_f1_{dataset}"] = f1(*sums)
    return {f"{prefix}{name}": value for name, value in figures.items() if not math.isnan(value)}


def worst_first(pieces: Iterable[PieceScore]) -> list[PieceScore]:
    """By note F1, pieces without notes last; equal ones in their original order."""
    return sorted(pieces, key=lambda piece: math.inf if math.isnan(piece.note_f1) else piece.note_f1)


def worst_table(pieces: Iterable[PieceScore]) -> str:
    """The worst pieces as lines of text, with a heading; empty without pieces."""
    worst = worst_first(pieces)[:MOST_WORST]
    if not worst:
        return ""
    lines = ["note F1  pitched  drums  matched  estimated  reference  piece"]
    for piece in worst:
        kinds = [f1(*counts) for counts in zip(piece.matched, piece.reference, piece.estimate, strict=True)]
        lines.append(
            f"{_shown(piece.note_f1):>7}  {_shown(kinds[0]):>7}  {_shown(kinds[1]):>5}  {sum(piece.matched):>7,}  "
            f"{sum(piece.estimate):>9,}  {sum(piece.reference):>9,}  {piece.name}"
        )
    return "\n".join(lines)


def f1(matched: int, reference: int, estimate: int) -> float:
    """Harmonic mean of precision and recall; NaN without any note."""
    return _ratio(2 * matched, reference + estimate)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
