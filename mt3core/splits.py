"""The three parts of a data set, and folders that put the files below them in one of these."""

from __future__ import annotations

from collections.abc import Iterable

SPLITS = ("train", "validation", "test")
_SPLIT_OF_FOLDER = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_of_folders(names: Iterable[str]) -> str | None:
    """The split that the first of these folders with such a name (or valid, val, dev, ...) stands for, if any does."""
    return next((_SPLIT_OF_FOLDER[name.lower()] for name in names if name.lower() in _SPLIT_OF_FOLDER), None)


def splits_remark(splits: Iterable[str], what: str, how: str = "put some into folders called {}") -> str:
    """What a data set lacks for training if its recordings are in these splits, and what to do; empty if nothing.

    `what` names the recordings, such as "recordings"; `how` says what to do about the splits in its braces.
    """
    there = list(splits)
    missing = [name for name in ("train", "validation") if name not in there]
    if not there or not missing:
        return ""
    if len(set(there)) == 1:
        whose = f"All {len(there)} {what} are" if len(there) > 1 else f"The only one of the {what} is"
        found = f"{whose} in the split {there[0]}"
    else:
        found = f"None of the {what} is in {missing[0]}"
    lack = "there is nothing to train with" if "train" in missing else "training goes on without validation"
    return f"{found}: {lack}. To change this, {how.format(' and '.join(missing))}."
