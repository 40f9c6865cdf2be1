"""The main values of each protocol, and the three protocols described in plain words for musicians."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PlainScore:
    """A value in plain words: its name, which notes count as found, and where it comes from.

    One that `needs_pitched` notes leaves out the pieces whose reference has none: mir_eval gives them 0.
    """

    name: str
    rule: str
    protocol: str
    metric: str
    needs_pitched: bool = False


PLAIN_SCORES = (
    PlainScore(
        "notes",
        "pitched notes of the right pitch that start within 50 ms; the instrument does not matter",
        "mir_eval_notes_nondrum",
        "F-measure_no_offset",
        needs_pitched=True,
    ),
    PlainScore(
        "notes and their ends",
        "the same, and they end within 50 ms or a fifth of the note's length",
        "mir_eval_notes_nondrum",
        "F-measure",
        needs_pitched=True,
    ),
    PlainScore(
        "notes and instruments",
        "pitch, start, end and family of instruments (piano, guitar, bass, ...) are right; drums by their starts",
        "mt3_program_aware",
        "Onset + offset + program F1 (midi_class)",
    ),
    PlainScore(
        "drums",
        "the right drum within 50 ms, similar drums (two kicks, ...) count as one; pieces without drums do not count",
        "yourmt3_slakh",
        "onset_f_drum",
    ),
)
DEFAULT_PROTOCOLS = tuple(dict.fromkeys(one.protocol for one in PLAIN_SCORES))

# By the start of the protocol's name; the first match counts.
_HEADLINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mir_eval_notes_drum", ("F-measure_no_offset",)),
    ("mir_eval_counts", ("pairs onset", "pairs onset+offset", "reference notes", "estimated notes")),
    ("mir_eval", ("F-measure_no_offset", "F-measure")),
    ("hft", ("F-measure_no_offset", "F-measure")),
    ("mt3_onsets_only", ("Onset F1", "Frame F1")),
    ("mt3_tracks", ("bass/Onset F1", "drums/Onset F1", "guitar/Onset F1", "piano/Onset F1")),
    ("mt3_tolerance_sweep", tuple(f"Onset + offset F1 ({seconds})" for seconds in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5))),
    ("mt3_program_aware", tuple(f"Onset + offset + program F1 ({one})" for one in ("flat", "midi_class", "full"))),
    ("mt3", ("Onset F1", "Onset + offset F1", "Onset + offset + program F1 (midi_class)", "Frame F1")),
    ("mrmt3_program_aware", ("Onset F1", "Onset + program F1 (midi_class)", "Onset + program F1 (full)")),
    ("mrmt3_notes", ("on_f1", "onoff_f1")),
    ("mrmt3_tracks", ("mean best track F1",)),
    ("mrmt3_instruments", ("instruments F1", "leakage ratio phi (from the paper, not in its code)")),
    ("yourmt3_drums_ksh", ("onset_f_drum",)),
    ("yourmt3", ("onset_f", "offset_f", "multi_f", "onset_f_drum", "frame_f")),
    ("transkun", ("note f1", "note+offset f1", "note+velocity+offset f1", "frame f1", "pedal64 f1")),
    ("bytedance", ("note_f1", "note+offset_f1", "note+offset+velocity_f1", "frame_f1", "pedal_f1")),
)


def headline(protocol: str, metrics: Iterable[str]) -> tuple[str, ...]:
    """The protocol's main values among those present; all of them for a protocol without an entry."""
    there = list(metrics)
    wanted = next((names for start, names in _HEADLINES if protocol.startswith(start)), None)
    return tuple(there) if wanted is None else tuple(name for name in wanted if name in there)


def plain_scores(protocols: Iterable[str]) -> tuple[PlainScore, ...]:
    """The values in plain words that these protocols give."""
    there = set(protocols)
    return tuple(one for one in PLAIN_SCORES if one.protocol in there)


def unpitched_sentence(references: int) -> str:
    """What is left out of the first values in plain words, for the table and the report; nothing if none is."""
    if references == 0:
        return ""
    if references == 1:
        return "1 reference has no pitched notes and is left out of the F1 of notes (mir_eval counts it as 0)."
    have = f"{references} references have no pitched notes"
    return f"{have} and are left out of the F1 of notes (mir_eval counts them as 0)."
