"""The results of evaluating a model: scores, accuracy, decoding and timing, by piece and together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mt3app.commands.evaluate.decoding import Decoded
from mt3app.progress import Reporter
from mt3core.transcription import Transcription
from mt3eval.headline import plain_scores, unpitched_sentence
from mt3eval.matching.note_accuracy import NoteCounts, count_notes, mean_accuracy, pooled
from mt3eval.reading.pairing import Pair
from mt3eval.result import Result, summarise, without_nan
from mt3eval.runner import ScoringTask, score_pairs

_FILE_NOTES = "notes last as long as the sustain pedal holds them, as in training; control changes are not scored again"
_STEM_NOTES = "programs of its metadata; overlapping notes of the same pitch are cut, as in training"
REFERENCES = {
    "maestro": f"MAESTRO's MIDI; {_FILE_NOTES}",
    "folder": f"the MIDI file with the recording's name; {_FILE_NOTES}",
    "slakh_stems": f"the notes of the stem alone, with the {_STEM_NOTES}",
    "slakh_mix": f"the notes of all stems together, with the {_STEM_NOTES}",
}
Found = Mapping[tuple[str, str], Decoded]


@dataclass(frozen=True)
class SetMetrics:
    """One variant decoded with one backend."""

    decoded: dict[str, Decoded]
    counts: dict[str, NoteCounts]
    result: Result

    @property
    def accuracy(self) -> float:
        """The mean over pieces."""
        return mean_accuracy(self.counts.values())

    @property
    def audio_seconds(self) -> float:
        return math.fsum(one.audio_seconds for one in self.decoded.values())

    @property
    def seconds(self) -> float:
        """Of decoding, even if an earlier run did it."""
        return math.fsum(one.seconds for one in self.decoded.values())

    def to_json(self) -> dict[str, Any]:
        """Averages first, then the pieces."""
        scored = self.result.to_json()
        pieces = [self._piece_json(piece) for piece in scored["pieces"]]
        return {
            "timing": {
                **_timing(self.audio_seconds, self.seconds),
                "compile_seconds": math.fsum(one.compile_seconds for one in self.decoded.values()),
                "pieces_decoded_by_this_run": sum(one.is_new for one in self.decoded.values()),
            },
            "note_accuracy": {
                "mean": without_nan(self.accuracy),
                "pooled": _accuracy_json(pooled(self.counts.values())),
            },
            "decoding": {
                "notes": sum(one.num_notes for one in self.decoded.values()),
                "invalid_events": sum(one.invalid_events for one in self.decoded.values()),
                "dropped_events": sum(one.dropped_events for one in self.decoded.values()),
            },
            "num_pieces": len(pieces),
            "protocols": scored["protocols"],
            "plain": scored["plain"],
            "intervals": scored["settings"],
            "pieces": pieces,
        }

    def _piece_json(self, piece: dict[str, Any]) -> dict[str, Any]:
        decoded = self.decoded[piece["name"]]
        return {
            **{key: value for key, value in piece.items() if key != "scores"},
            "timing": {
                **_timing(decoded.audio_seconds, decoded.seconds),
                "compile_seconds": decoded.compile_seconds,
                "decoded_by_this_run": decoded.is_new,
            },
            "note_accuracy": _accuracy_json(self.counts[piece["name"]]) if piece["name"] in self.counts else None,
            "decoding": {"invalid_events": decoded.invalid_events, "dropped_events": decoded.dropped_events},
            "scores": piece.get("scores", {}),
        }


def score_set(
    variant: str,
    found: Found,
    protocols: tuple[str, ...],
    processes: int | None,
    reporter: Reporter,
) -> SetMetrics:
    """Scores the decoded pieces of a variant from the files of their exact notes."""
    decoded = {name: one for (of, name), one in found.items() if of == variant}
    pairs = [Pair(name, one.reference, one.notes) for name, one in sorted(decoded.items())]
    task = ScoringTask(protocols, keep_notes=True)
    with reporter.file_bar(f"Scoring {variant}") as show:
        pieces = score_pairs(pairs, task, processes, lambda done, total, _: show(done, total))
    counts = {}
    for place, piece in enumerate(pieces):
        if piece.failure:
            reporter.failure(f"Not scored: {piece.failure}")
        elif piece.performances is not None:
            counts[piece.name] = count_notes(*(side.notes for side in piece.performances))
            pieces[place] = replace(piece, performances=None)  # all notes of a data set would stay in memory
    return SetMetrics(decoded, counts, summarise(protocols, pieces))


def backend_agreement(
    variant: str, decoded: Mapping[str, Found], scored: Mapping[str, Mapping[str, SetMetrics]]
) -> dict[str, Any]:
    """How far two backends agree: notes and tokens of their common pieces, and every average.

    Averages that neither has (NaN) are equal; those that only one of them has are counted, since they have no
    difference.
    """
    first, second = decoded
    common = sorted(name for of, name in decoded[first] if of == variant and (of, name) in decoded[second])
    same_notes = same_tokens = differing = 0
    for name in common:
        one, other = (Transcription.load(decoded[backend][variant, name].notes) for backend in (first, second))
        different = len(set(one.notes) ^ set(other.notes))
        differing += different
        same_notes += one.notes == other.notes
        same_tokens += [segment.tokens for segment in one.segments] == [segment.tokens for segment in other.segments]
    averages = [_averages(scored[backend][variant]) for backend in (first, second)]
    differences = [abs(averages[0][name] - averages[1][name]) for name in averages[0].keys() & averages[1].keys()]
    return {
        "back_ends": [first, second],
        "pieces": len(common),
        "pieces_with_the_same_notes": same_notes,
        "pieces_with_the_same_tokens": same_tokens,
        "notes_of_one_only": differing,
        "largest_difference_of_an_average": max(differences, default=None),
        "averages_of_one_only": len(averages[0].keys() ^ averages[1].keys()),
    }


def print_metrics(scored: Mapping[str, Mapping[str, SetMetrics]], agreed: Mapping[str, Any] | None) -> None:
    """A table on standard output, one line per variant and backend, with the scores in plain words."""
    protocols = next(iter(next(iter(scored.values())).values())).result.protocols
    plain = plain_scores(protocols)
    rows = [["", "", "pieces", "accuracy", *(one.name for one in plain), "invalid events", "x real time"]]
    for backend, variants in scored.items():
        for variant, one in variants.items():
            values = [one.result.plain[score.name].values.get(score.metric, math.nan) for score in plain]
            invalid = sum(piece.invalid_events for piece in one.decoded.values())
            factor = one.audio_seconds / one.seconds if one.seconds else math.nan
            numbers = [_shown(value) for value in (one.accuracy, *values)]
            rows.append([variant, backend, str(len(one.decoded)), *numbers, str(invalid), _shown(factor, 2)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    for score in plain:
        print(f"{score.name}: F1, {score.rule} ({score.protocol})")
    for variant, one in next(iter(scored.values())).items():
        if one.result.unpitched and any(score.needs_pitched for score in plain):
            print(f"{variant}: {unpitched_sentence(one.result.unpitched)}")
    for variant, same in (agreed or {}).items():
        print(
            f"{variant}: {' and '.join(same['back_ends'])} wrote the same notes for "
            f"{same['pieces_with_the_same_notes']} of {same['pieces']} pieces; {same['notes_of_one_only']} notes differ"
        )
        if same["averages_of_one_only"]:
            print(f"{variant}: {same['averages_of_one_only']} averages have a value for only one of them")


def _averages(one: SetMetrics) -> dict[tuple[str, str], float]:
    """All averages that have a value, by protocol and metric."""
    found = one.result.averages.items()
    return {
        (name, metric): value
        for name, average in found
        for metric, value in average.values.items()
        if not math.isnan(value)
    }


def _timing(audio_seconds: float, seconds: float) -> dict[str, float | None]:
    """Decoding, including reading the audio and making spectrograms, without loading the model or compiling."""
    factor = audio_seconds / seconds if seconds else None
    return {"audio_seconds": audio_seconds, "decoding_seconds": seconds, "real_time_factor": factor}


def _accuracy_json(counts: NoteCounts) -> dict[str, float | None]:
    return {**asdict(counts), "accuracy": without_nan(counts.accuracy)}


def _shown(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
