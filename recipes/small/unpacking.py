"""Archives of music, unpacked once."""

from __future__ import annotations

import tarfile
from pathlib import Path

from mt3core.files import atomic_directory

ARCHIVES = {
    "giantmidi": ("piano_giantmidi*", "GiantMIDI-Piano*"),
    "pop909": ("pop909*", "POP909-Dataset*"),
    "freedoom": ("gm_multitrack_freedoom*", "freedoom*"),
    "groove": ("groove_drums*", "drums-with-llm*"),
    "lieder": ("Lieder*", "OpenScore-Lieder*"),
    "quartets": ("StringQuartets*", "OpenScore-StringQuartets*"),
}
_WANTED = (".mid", ".mxl", ".csv")


def unpacked(sources: Path, folder: Path) -> dict[str, Path]:
    """The folder of each corpus whose archive is in `sources`."""
    found = {}
    for corpus, patterns in ARCHIVES.items():
        archives = [path for pattern in patterns for path in sorted(sources.glob(pattern)) if ".tar" in path.name]
        if not archives:
            continue
        found[corpus] = folder / corpus
        if not found[corpus].exists():
            with atomic_directory(found[corpus]) as new, tarfile.open(archives[0]) as archive:
                members = [one for one in archive if one.isfile() and one.name.endswith(_WANTED)]
                archive.extractall(new, members=members, filter="data")
    return found
