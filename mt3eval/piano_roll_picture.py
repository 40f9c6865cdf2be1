"""A picture of a transcription: the reference's piano roll above, the estimate's below, differences in red."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mt3core.extras import needed
from mt3core.files import atomic_output
from mt3core.notes.table import Note, NoteTable, note_table, to_notes
from mt3eval.matching.onset_score import matched_onsets, onset_scores

_COLOURS = ("#1f6fb4", "#2a9d5c", "#8a5fb0", "#b8860b", "#159aa5", "#c05a9d", "#5a6b7b", "#6a8a1f", "#7a4a2b")
_WRONG = "#d62728"
_LEAST_SECONDS = 0.02  # shorter notes are drawn this long, to be visible
_MOST_NAMED_PROGRAMS = 16  # in the legend; an untrained network would fill it with all 128
_INCHES_PER_SECOND, _LEAST_INCHES, _MOST_INCHES = 0.6, 8.0, 24.0


def draw_piano_rolls(
    path: Path,
    reference: NoteTable | Iterable[Note | Sequence[Any]],
    estimate: NoteTable | Iterable[Note | Sequence[Any]],
    title: str = "",
) -> None:
    """Writes a PNG: time in seconds to the right, pitch upward, one colour per program, drum hits in separate lanes.

    Notes that the estimate misses (above) and those that it invents (below) are red, by onset and pitch alone as
    in `onset_score`, whose F1 is in the heading. Raises `MissingExtraError` without Matplotlib.
    """
    with needed("evaluate", "A picture"):
        from matplotlib.figure import Figure
    expected, found = note_table(reference), note_table(estimate)
    is_found, is_true = _matches(expected, found)
    everything = np.concatenate([expected, found])
    end = float(everything["offset"].max(initial=1.0))
    width = float(np.clip(end * _INCHES_PER_SECOND, _LEAST_INCHES, _MOST_INCHES))
    figure = Figure(figsize=(width, 7.5), layout="constrained")  # without pyplot, so nothing global changes
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    colours = _program_colours(everything)
    lanes = _drum_lanes(everything)
    for axes, table, is_right, name in ((above, expected, is_found, "reference"), (below, found, is_true, "estimate")):
        _draw_roll(axes, table, is_right, colours, lanes)
        axes.set_ylabel(f"{name}: pitch")
    for program in _most_frequent_programs(everything):
        above.plot([], [], color=colours[program], linewidth=4, label=_program_name(program))
    above.plot([], [], color=_WRONG, linewidth=4, label="missed / invented")
    above.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
    below.set(xlabel="seconds", xlim=(0, end))
    figure.suptitle(_heading(title, expected, found), parse_math=False)
    with atomic_output(path) as temporary, warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes; nothing more can be done about them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, dpi=100, format="png")


def _matches(expected: NoteTable, found: NoteTable) -> tuple[np.ndarray, np.ndarray]:
    """Which notes of either table have a counterpart in the other."""
    is_found, is_true = np.zeros(len(expected), bool), np.zeros(len(found), bool)
    for drums in (False, True):
        rows, columns = np.flatnonzero(expected["is_drum"] == drums), np.flatnonzero(found["is_drum"] == drums)
        for row, column in matched_onsets(to_notes(expected[rows]), to_notes(found[columns])):
            is_found[rows[row]] = is_true[columns[column]] = True
    return is_found, is_true


def _draw_roll(
    axes: Any, table: NoteTable, is_right: np.ndarray, colours: dict[int, str], lanes: dict[int, int]
) -> None:
    """All notes as one object, all drum hits as another: an untrained network writes tens of thousands of notes."""
    from matplotlib.collections import PolyCollection

    is_drum = table["is_drum"]
    named = ["black" if drum else colours[program] for drum, program in table[["is_drum", "program"]].tolist()]
    colour = np.where(is_right, np.array(named, dtype=object), _WRONG)
    notes, hits = table[~is_drum], table[is_drum]
    left, low = notes["onset"], notes["pitch"] - 0.4
    right, high = np.maximum(notes["offset"], left + _LEAST_SECONDS), low + 0.8
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2)
    axes.add_collection(PolyCollection(list(corners), facecolors=colour[~is_drum].tolist()))
    heights = [lanes[pitch] for pitch in hits["pitch"].tolist()]
    axes.scatter(hits["onset"], heights, marker="|", s=49, linewidths=1, color=colour[is_drum].tolist())
    axes.autoscale_view()
    if lanes:
        axes.axhline(max(lanes.values()) + 1.5, color="0.8", linewidth=0.8)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)


def _program_colours(table: NoteTable) -> dict[int, str]:
    programs = np.unique(table["program"][~table["is_drum"]]).tolist()
    return {program: _COLOURS[number % len(_COLOURS)] for number, program in enumerate(programs)}


def _most_frequent_programs(table: NoteTable) -> list[int]:
    programs, counts = np.unique(table["program"][~table["is_drum"]], return_counts=True)
    return sorted(programs[np.argsort(-counts, kind="stable")[:_MOST_NAMED_PROGRAMS]].tolist())


def _drum_lanes(table: NoteTable) -> dict[int, int]:
    """A height below the pitched notes for each key of the drum kit."""
    keys = np.unique(table["pitch"][table["is_drum"]]).tolist()
    lowest = int(table["pitch"][~table["is_drum"]].min(initial=60))
    return {key: lowest - 2 - len(keys) + number for number, key in enumerate(keys)}


def _heading(title: str, expected: NoteTable, found: NoteTable) -> str:
    both = onset_scores(to_notes(expected), to_notes(found))
    scores = [f"{name} onset F1 {score.f1:.3f}" for name, score in both.items()]
    return "\n".join(part for part in (title, ", ".join(scores)) if part)


def _program_name(program: int) -> str:
    import pretty_midi

    return f"{program} {pretty_midi.program_to_instrument_name(program)}"
