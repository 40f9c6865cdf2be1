"""The tables of MAESTRO v3.0.0: a CSV file with one row per piece, and a JSON file with one object per column."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

from mt3core.files import atomic_output
from mt3render.layouts import maestro_year, targets
from mt3render.sources import Source

TABLE_NAME = "maestro-v3.0.0"
COLUMNS = ("canonical_composer", "canonical_title", "split", "year", "midi_filename", "audio_filename", "duration")


def write_maestro_index(out: Path, sources: Iterable[Source]) -> None:
    """Writes both tables for the finished pieces, by composer and title. Raises `OutputError`."""
    rows = sorted((_row(out, source) for source in sources), key=lambda row: [str(row[column]) for column in COLUMNS])
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    columns = {column: {str(number): row[column] for number, row in enumerate(rows)} for column in COLUMNS}
    with atomic_output(out / f"{TABLE_NAME}.csv") as path:
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
    with atomic_output(out / f"{TABLE_NAME}.json") as path:
        path.write_text(json.dumps(columns, indent=4), encoding="utf-8")


def _row(out: Path, source: Source) -> dict[str, str | int | float]:
    import soundfile

    midi, audio = targets("maestro", out, source)
    info = soundfile.info(audio)
    return {
        "canonical_composer": source.composer,
        "canonical_title": source.title,
        "split": source.split,
        "year": maestro_year(source),
        "midi_filename": midi.relative_to(out).as_posix(),
        "audio_filename": audio.relative_to(out).as_posix(),
        "duration": info.frames / info.samplerate,
    }
