"""SpectMorph's instruments: one note per file, mostly the University of Iowa's recordings of an orchestra."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from mt3core.errors import UsageError, reading
from mt3render.instrument_folders import Recording, Take
from mt3render.instruments import Instrument, Sample
from mt3render.salamander import nearest_keys

DESCRIPTION = "instrument.xml"
_BEYOND_SEMITONES = 2  # how far the lowest and the highest recording are stretched


def is_spectmorph(folder: Path) -> bool:
    return (folder / DESCRIPTION).is_file()


def read_spectmorph(folder: Path) -> tuple[Instrument, list[Take]]:
    """The instrument of a folder and its recordings. Raises `UsageError` if there are none."""
    path = folder / DESCRIPTION
    with reading(path, UsageError, "Download the instrument again.", KeyError, ValueError, ElementTree.ParseError):
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        files = {int(sample.attrib["midi_note"]): sample.attrib["filename"] for sample in root.iter("sample")}
    if not files:
        raise UsageError(f"{path} has no samples.", "Use another instrument.")
    roots = sorted(files)
    takes = [
        Take((Recording(folder / files[key]),), Sample("", key, nearest_keys(key, roots, _BEYOND_SEMITONES)))
        for key in roots
    ]
    name = root.attrib.get("name", folder.name)
    return Instrument(name, release_seconds=((0, 0.15),), rings=False), takes
