"""Where data sets are looked for, and which kind of data set a folder contains."""

from __future__ import annotations

from pathlib import Path

from mt3core.errors import DatasetError, UsageError
from mt3data.readers import folder, maestro, slakh
from mt3data.readers.tracks import Dataset

_READERS = {maestro.KIND: maestro.read, slakh.KIND: slakh.read, folder.KIND: folder.read}
KINDS = tuple(_READERS)
# Below the current folder, in this order.
DEFAULT_PLACES = {
    maestro.KIND: ("datasets/maestro-v3.0.0", "datasets/maestro-v2.0.0"),
    slakh.KIND: ("datasets/slakh2100_flac_redux", "datasets/slakh2100_flac", "datasets/babyslakh_16k"),
    folder.KIND: (),
}


def find_dataset(kind: str, directory: Path | None = None) -> Path:
    """The folder of a data set: `directory`, or the first default folder that exists.

    If a folder contains only the data set's own folder, as some archives unpack, that one is used. Raises
    `UsageError` for an unknown kind and `DatasetError`, naming where it looked, if nothing is found.
    """
    if kind not in _READERS:
        raise UsageError(f"Unknown kind of data set {kind!r}.", f"Choose from {', '.join(KINDS)}.")
    if directory is None:
        for place in DEFAULT_PLACES[kind]:
            if Path(place).is_dir():
                return Path(place)
        if not DEFAULT_PLACES[kind]:
            raise UsageError(f"A data set of the kind {kind} has no default folder.", "Pass its folder.")
        looked = ", ".join(f"{place}/" for place in DEFAULT_PLACES[kind])
        raise DatasetError(f"No {kind} data set was found: looked for {looked}.", "Pass its folder.")
    if not directory.is_dir():
        raise DatasetError(f"There is no folder {directory}.", "Check the name and the folder.")
    if kind != folder.KIND and recognise(directory) != kind:
        inside = [path for path in sorted(directory.iterdir()) if path.is_dir() and recognise(path) == kind]
        if len(inside) == 1:
            return inside[0]
    return directory


def recognise(directory: Path) -> str:
    """The kind of data set in a folder by its layout; `folder` if it is none of the others."""
    if maestro.metadata_files(directory):
        return maestro.KIND
    return slakh.KIND if next(slakh.track_folders(directory), None) else folder.KIND


def read_dataset(kind: str, directory: Path | None = None) -> Dataset:
    """Finds and reads a data set; see `find_dataset` and the readers for the errors."""
    root = find_dataset(kind, directory)
    return _READERS[kind](root)
