"""Preparation of a data set: units to shards, in several processes, and shards to a manifest.

    cache/chunk_manifest.parquet          rows of all data sets prepared into this folder
    cache/NAME/settings.json              settings that every run over these shards must share
    cache/NAME/prepared.json              the units of the data set; written when it is complete
    cache/NAME/train-00000.array_record   a shard; next to it `train-00000.json`, its report

Every file is written completely or not at all, and is the same however often a run was interrupted and however many
processes it used: a run after a kill does the units that have no report, and leaves the others alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mt3core.audio.load import probe_audio
from mt3core.errors import DatasetError, MT3Error, OutputError
from mt3core.files import atomic_output, size_in_words
from mt3core.json_text import json_value, read_json
from mt3core.processes import map_in_processes
from mt3data.prepare.chunks import SAMPLE_RATE_HZ
from mt3data.prepare.manifest import MANIFEST_NAME, write_manifest
from mt3data.prepare.shards import Report, manifest_rows, read_report, remove_leftovers, shard_path, write_unit
from mt3data.readers.units import Settings, Unit

SETTINGS_NAME, PREPARED_NAME = "settings.json", "prepared.json"
# FLAC's compression of music at 16 kHz, rather less than measured (docs/data.md), so as not to estimate too little.
FLAC_RATIO = 0.65
# Notes and the block structure of a shard add to the bytes of audio: measured 1 % to 2 %.
_OVERHEAD = 1.03


def claim_folder(out: Path, settings: Settings) -> Path:
    """The folder of a data set's shards, made for these settings; refused if it was started with others."""
    folder = out / settings.name
    path = folder / SETTINGS_NAME
    try:
        stored = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        with atomic_output(path) as temporary:
            temporary.write_text(settings.as_json(), encoding="utf-8")
        return folder
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.", "Choose another --out.") from error
    if stored != settings.as_json():
        raise DatasetError(
            f"{folder} was prepared with other settings ({_differences(stored, settings)}).",
            "Use the same settings, choose another --out or --name, or delete the folder.",
        )
    return folder


def unfinished(units: Sequence[Unit], folder: Path) -> list[Unit]:
    """The units to do: without a report, changed since, or with failures that may have been fixed."""
    reports = [read_report(unit.name, folder) for unit in units]
    pairs = zip(units, reports, strict=True)
    return [unit for unit, report in pairs if report is None or report.digest != unit.digest or report.failures]


def recorded_seconds(unit: Unit) -> float:
    """How much audio a unit has, counting all stems. Reads one header per track: its files are equally long."""
    lengths: dict[str, float] = {}
    total = 0.0
    for recording in unit.recordings:
        if recording.track.name not in lengths:
            try:
                lengths[recording.track.name] = probe_audio(recording.audio).duration_seconds or 0.0
            except MT3Error:  # reported when it is read
                continue
        total += lengths[recording.track.name]
    return total


def estimated_bytes(seconds: float, flac: bool) -> int:
    """Bytes that this much audio needs when prepared."""
    return int(seconds * SAMPLE_RATE_HZ * 2 * _OVERHEAD * (FLAC_RATIO if flac else 1.0))


def check_space(out: Path, needed_bytes: int) -> None:
    """Raises `OutputError` if the disk of `out` has less free space than that."""
    existing = out.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise OutputError(
            f"Preparing needs about {size_in_words(needed_bytes)}, but only {size_in_words(free)} are free at {out}.",
            f"Choose another --out, free {size_in_words(needed_bytes - free)}, or compress the audio with --flac.",
        )


def run_units(
    units: Sequence[Unit], settings: Settings, folder: Path, processes: int, done: Callable[[Unit, Report], None]
) -> None:
    """Prepares units in parallel and calls `done` as each is finished.

    Raises `OutputError` if a shard cannot be written and `ProcessError` if a process was killed;
    no further units are then started, and the finished ones stay.
    """
    write = partial(write_unit, settings=settings, folder=folder)
    try:
        map_in_processes(write, units, processes, "prepared shards", done)
    except (KeyboardInterrupt, SystemExit):
        for unit in units:  # unfinished shards are done again anyway
            remove_leftovers(folder, unit)
        raise


def merge(units: Sequence[Unit], settings: Settings, out: Path) -> list[Report]:
    """Makes the manifest from all reports and returns those of this data set, including failures.

    Shards that no longer belong to a unit are deleted. Raises `DatasetError` if a unit is not finished.
    """
    folder = out / settings.name
    reports = {unit.name: read_report(unit.name, folder) for unit in units}
    found = {name: report.digest for name, report in reports.items() if report is not None}
    missing = [unit.name for unit in units if found.get(unit.name) != unit.digest]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(units)} shards in {folder} are not finished, the first of them {missing[0]}.",
            "Run mt3 prepare for them, then merge.",
        )
    _delete_others(folder, {unit.name for unit in units})
    with atomic_output(folder / PREPARED_NAME) as temporary:
        temporary.write_text(json.dumps({"units": [unit.name for unit in units]}, indent=1) + "\n", encoding="utf-8")
    write_manifest(out / MANIFEST_NAME, _all_rows(out))
    return [report for report in reports.values() if report is not None]


def _all_rows(out: Path) -> Iterator[dict]:
    """The rows of every complete data set below `out`, by name."""
    for path in sorted(out.glob(f"*/{PREPARED_NAME}")):
        settings, names = _stored(path)
        for name in names:
            report = read_report(name, path.parent)
            if report is None:
                raise DatasetError(
                    f"{shard_path(path.parent, name)} is missing or was changed.",
                    f"Prepare {settings.name} again, or delete {path.parent}.",
                )
            yield from manifest_rows(report, settings)


def _stored(path: Path) -> tuple[Settings, list[str]]:
    try:
        content = read_json(path.parent / SETTINGS_NAME)
        settings = Settings(**{**content, "splits": tuple(content["splits"])})
        units = read_json(path)["units"]
        if settings.name != path.parent.name or not (
            isinstance(units, list) and all(isinstance(one, str) for one in units)
        ):
            raise ValueError("it is not as it was written")
        return settings, units
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path.parent} was prepared by another release, or its settings were changed.",
            "Delete the folder and prepare it again.",
        ) from error


def _delete_others(folder: Path, names: set[str]) -> None:
    """Shards and reports of units that no longer exist, and leftovers of killed runs."""
    kept = {SETTINGS_NAME, PREPARED_NAME}
    for path in folder.iterdir():
        if path.name.startswith(".") and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix in (".array_record", ".json") and path.stem not in names and path.name not in kept:
            path.unlink(missing_ok=True)


def _differences(stored: str, settings: Settings) -> str:
    """`flac: false, now true; ...` for what differs."""
    try:
        before = dict(json_value(stored))
    except (ValueError, TypeError):
        return "its settings.json cannot be read"
    now = json.loads(settings.as_json())
    names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {json.dumps(before.get(name))}, now {json.dumps(now.get(name))}" for name in names)
