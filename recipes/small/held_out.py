"""Compositions used for evaluation, which must not be in the training data.

They are the works in the evaluation's recordings (see `../shared/realdata/index.json`), recognised by patterns in the
names of files and folders. A pattern covers a work in any form: transcription, arrangement, excerpt.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class HeldOut:
    """A work. `patterns` are searched in names normalised by `plain`; `recordings` are those that contain it."""

    work: str
    patterns: tuple[str, ...]
    recordings: tuple[str, ...]


HELD_OUT = (
    HeldOut(
        "Chopin, 24 Preludes op. 28 (among them no. 6 and no. 19)",
        (r"chopin.*\bpreludes?\b", r"chopin.*\bop 28\b", r"chpn p\d"),
        ("piano_real_maps_chpn_p19_ENSTDkCl", "piano_sampled_maps_chpn_p6_SptkBGCl"),
    ),
    HeldOut(
        "Schumann, Kinderszenen op. 15 (among them no. 3, 12 and 13)",
        (r"schumann.*\b(kinderszenen|kinderscenen|scenes? from childhood)\b", r"schumann.*\bop 15\b", r"\bscn15\b"),
        (
            "piano_real_maps_scn15_12_ENSTDkCl",
            "piano_sampled_maps_scn15_13_AkPnStgb",
            "piano_sampled_maps_scn15_3_AkPnBcht",
        ),
    ),
    HeldOut(
        "Mozart, Piano Sonata in C major K. 545",
        (r"mozart.*\bk(v|oechel)? ?545\b", r"mozart.*\bsonata (no )?16\b", r"\bmz 545\b", r"mozart.*\bfacile\b"),
        ("piano_real_maps_mz_545_3_ENSTDkCl",),
    ),
    HeldOut(
        "Borodin, Petite Suite (no. 6)",
        (
            r"borodin.*\bpetite suite\b",
            r"borodin.*\b(serenade|reverie|mazurka|nocturne|au couvent|intermezzo)\b",
            r"\bbor ps\d\b",
        ),
        ("piano_real_maps_bor_ps6_ENSTDkCl",),
    ),
    HeldOut(
        "Bach, Prelude and Fugue in C major BWV 846",
        (
            r"\bbwv ?846\b",
            r"bach.*\bwell tempered\b.*\b(no )?1\b.*\bc major\b",
            r"gounod.*\bave maria\b",
            r"grandval.*\blucioles\b",
        ),  # a song based on it, found by check_held_out.py
        ("piano_rendered_bwv846_fugue",),
    ),
    # The source does not name the piece. By its notes, it is in none of the music used (check_held_out.py).
    HeldOut(
        "Debussy, the excerpt 'Debussy2'",
        (r"\bdebussy2\b",),
        ("piano_real_disklavier_debussy2_alex_mkh8040",),
    ),
    HeldOut("J-cycle", (r"\bj ?cycle\b",), ("multi_rendered_gugs_jcycle",)),
    HeldOut("Richard Audd, Earth Day", (r"\bearth day\b", r"\baudd\b"), ("multi_rendered_gugs_earthday",)),
)


def plain(name: str) -> str:
    """A name in lower-case ASCII words with single spaces: `Préludes, Op.28_No.6` becomes `preludes op 28 no 6`."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"[^a-z0-9]+", " ", text)
    return re.sub(r"\b(op|no|kv?|bwv) ?(?=\d)", r"\1 ", text).strip()


def held_out(name: str) -> HeldOut | None:
    """The held-out work that a name (with its folders) refers to, if any."""
    words = plain(name)
    for work in HELD_OUT:
        if any(re.search(pattern, words) for pattern in work.patterns):
            return work
    return None
