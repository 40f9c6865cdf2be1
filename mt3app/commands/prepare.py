"""`mt3 prepare`: turns a published data set into shards of chunks and a manifest."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3app.remarks import tell_used
from mt3core.config.values import check_name
from mt3core.errors import DatasetError, UsageError
from mt3core.extras import require
from mt3core.files import size_in_words
from mt3core.processors import num_processors
from mt3core.splits import splits_remark
from mt3data.prepare.effects import check_effects
from mt3data.prepare.manifest import MANIFEST_NAME, array_record_module
from mt3data.prepare.prepare import (
    check_space,
    claim_folder,
    estimated_bytes,
    merge,
    recorded_seconds,
    run_units,
    unfinished,
)
from mt3data.prepare.shards import Report
from mt3data.readers import maestro
from mt3data.readers.defects import with_defects
from mt3data.readers.locate import find_dataset, read_dataset
from mt3data.readers.tracks import MIX, Dataset, Defect
from mt3data.readers.units import Settings, Unit, faults, plan_units

if TYPE_CHECKING:
    from mt3app.cli_data import PrepareOptions

# SLAKH's redux release has a fourth split: pieces omitted because they are already in the others.
DEFAULT_SPLITS = ("train", "validation", "test")
KNOWN_SPLITS = (*DEFAULT_SPLITS, "omitted")
# How to change the splits of a data set, if not by its folders.
_OTHER_SPLITS = {maestro.KIND: ("write {} into the column split of some rows of its table",)}
# When there is no terminal for a progress bar, as in a job's log.
_SECONDS_BETWEEN_LINES = 60.0


def prepare_dataset(options: PrepareOptions, reporter: Reporter) -> int:
    """Prepares what is not prepared yet. Returns 1 if something could not be used, otherwise 0."""
    array_record_module()  # before anything slow: is it installed?
    part = _parse_part(options.shard)
    if options.merge and part:
        raise UsageError("--merge and --shard cannot be used together.", "Merge once, after all jobs are done.")
    check_effects(options.pitch_semitones, options.stretch)
    if options.pitch_semitones or options.stretch != 1:
        require("datasets", "Another pitch or length", ["librosa"])
    root = find_dataset(options.kind, options.directory)
    settings = Settings(
        name=check_name(options.name or options.kind, "a data set"),
        kind=options.kind,
        source=root.resolve().name,
        sustain=options.sustain,
        flac=options.flac,
        splits=_parse_splits(options.splits),
        pitch_semitones=options.pitch_semitones,
        stretch=options.stretch,
    )
    dataset = read_dataset(options.kind, root)
    if options.defects is not None:
        dataset = with_defects(dataset, options.defects)
    units = plan_units(dataset, settings)
    if not any(unit.recordings for unit in units):
        raise DatasetError(
            f"{root} has nothing to prepare in {', '.join(settings.splits)}.",
            "Check it with mt3 data verify.",
        )
    folder = claim_folder(options.out, settings)
    if options.splits is None:
        used = sorted({(one.track.split, one.track.name) for unit in units for one in unit.recordings})
        if remark := splits_remark([split for split, _ in used], "recordings", *_OTHER_SPLITS.get(options.kind, ())):
            reporter.line(remark)
    if not options.merge:
        mine = units if part is None else units[part[0] :: part[1]]
        _prepare_units(mine, settings, folder, options, reporter)
        if part is not None:
            return _finish_part(mine, folder, part, reporter)
    return _finish(dataset, units, settings, options.out, reporter)


def _prepare_units(
    units: Sequence[Unit], settings: Settings, folder: Path, options: PrepareOptions, reporter: Reporter
) -> None:
    waiting = unfinished(units, folder)
    reporter.detail(f"{len(units) - len(waiting)} of {len(units)} shards are already finished.")
    seconds = {unit.name: recorded_seconds(unit) for unit in waiting}
    total = sum(seconds.values())
    check_space(folder, estimated_bytes(total * settings.stretch, settings.flac))
    progress = _Progress(total, len(waiting), reporter)
    with reporter.audio_bar() as show:
        show(0.0, total, settings.name)

        def done(unit: Unit, report: Report) -> None:
            failed = set(report.failures)
            for one in report.left_out:
                (reporter.failure if one in failed else reporter.line)(_sentence(one))
            progress.add(seconds[unit.name])
            show(progress.done_seconds, total, f"{settings.name} {progress.count}/{len(waiting)}")

        run_units(waiting, settings, folder, options.processes or num_processors(), done)


class _Progress:
    """Counts finished shards; without a progress bar, prints the count once a minute."""

    def __init__(self, total_seconds: float, num_units: int, reporter: Reporter) -> None:
        self._total, self._num_units, self._reporter = total_seconds, num_units, reporter
        self._started = self._last_line = time.monotonic()
        self.done_seconds, self.count = 0.0, 0

    def add(self, seconds: float) -> None:
        self.done_seconds += seconds
        self.count += 1
        now = time.monotonic()
        if sys.stderr.isatty() or now - self._last_line < _SECONDS_BETWEEN_LINES or not self.done_seconds:
            return
        self._last_line = now
        left = (now - self._started) * (self._total - self.done_seconds) / self.done_seconds
        self._reporter.line(
            f"{self.count} of {self._num_units} shards, {self.done_seconds / 3600:.1f} of {self._total / 3600:.1f} "
            f"hours of audio; about {math.ceil(left / 60)} min left."
        )


def _finish_part(units: Sequence[Unit], folder: Path, part: tuple[int, int], reporter: Reporter) -> int:
    failed = unfinished(units, folder)
    reporter.line(
        f"Job {part[0]}/{part[1]} is done: {len(units)} shards. When all jobs are done: mt3 prepare ... --merge"
    )
    return 1 if failed else 0


def _finish(dataset: Dataset, units: Sequence[Unit], settings: Settings, out: Path, reporter: Reporter) -> int:
    reports = merge(units, settings, out)
    tell_used((one for report in reports for one in report.used), reporter)
    lost = faults(dataset, settings)
    for fault in lost:
        reporter.failure(_sentence(fault))
    failures = [failure for report in reports for failure in report.failures]
    num_chunks = sum(len(recording["chunks"]) for report in reports for recording in report.recordings)
    num_recordings = sum(len(report.recordings) for report in reports)
    hours = sum(report.seconds for report in reports) / 3600
    size = sum(report.shard_bytes for report in reports)
    reporter.line(
        f"{out / MANIFEST_NAME}: {settings.name} has {num_recordings} recordings, {hours:.2f} hours in {num_chunks} "
        f"chunks, {len(reports)} shards, {size_in_words(size)} in total."
    )
    if lost or failures:
        reporter.failure(
            f"{len(lost) + len(failures)} recordings could not be used and are left out; the rest is ready."
        )
        return 1
    return 0


def _sentence(failure: Defect) -> str:
    place = failure.track if failure.stem == MIX else f"{failure.track} {failure.stem}"
    return f"Left out: {place}: {failure.message}"


def _parse_part(text: str | None) -> tuple[int, int] | None:
    """`"3/16"` as (3, 16): job 3 of 16, counted from 0."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not int(found[1]) < int(found[2]):
        raise UsageError(
            f"--shard {text} is not of the form I/N.", "Use --shard I/N with I from 0 to N-1, such as 0/16."
        )
    return int(found[1]), int(found[2])


def _parse_splits(text: str | None) -> tuple[str, ...]:
    """Splits in their usual order."""
    if text is None:
        return DEFAULT_SPLITS
    wanted = {part.strip() for part in text.split(",") if part.strip()}
    unknown = wanted - set(KNOWN_SPLITS)
    if unknown or not wanted:
        raise UsageError(
            f"Unknown split {', '.join(sorted(unknown)) or repr(text)}.", f"Choose from {', '.join(KNOWN_SPLITS)}."
        )
    return tuple(split for split in KNOWN_SPLITS if split in wanted)
