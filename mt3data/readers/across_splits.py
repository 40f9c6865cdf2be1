"""The same piece in two splits: a network must not be tested on pieces it was trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mt3data.readers.defects import defect
from mt3data.readers.tracks import MIX, Defect

# Which split keeps a piece that is in several: the test set stays as published, training gives way. Pieces in other
# splits (SLAKH's `omitted`, left out by its publisher for this very reason) do no harm.
_KEEPERS = ("test", "validation", "train")


def across_splits(
    items: Iterable[tuple[str, str, str]], kind: str, what: str, skips: bool = True
) -> tuple[Defect, ...]:
    """A defect for each track with the same key as a track in a split that takes precedence over its own.

    Args:
        items: (track, split, key) of all tracks.
        kind: the defects' kind.
        what: names what is the same, with `{key}` if the key is worth showing.
        skips: whether the tracks that give way are left out.
    """
    by_key: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for track, split, key in items:
        if split in _KEEPERS:
            by_key[key].append((_KEEPERS.index(split), track, split))
    found = []
    for key, places in by_key.items():
        _, first_track, first_split = min(places)
        for _, track, split in sorted(places):
            if split != first_split:
                same = what.format(key=key)
                problem = f"{track} ({split}) has {same} of {first_track} ({first_split})."
                found.append(defect(track, MIX, kind, problem, skips))
    return tuple(found)
