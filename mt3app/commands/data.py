"""`mt3 data`: checks a data set before it is prepared."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3core.errors import UsageError
from mt3data.checks.music_checks import Music, tuned
from mt3data.checks.verify import TrackReport, verify
from mt3data.readers.defects import parquet_modules, skipped, summary, write_defects
from mt3data.readers.file_names import printable
from mt3data.readers.locate import KINDS, find_dataset, read_dataset, recognise
from mt3data.readers.tracks import MIX, Dataset, Defect

if TYPE_CHECKING:
    from mt3app.cli_data import VerifyOptions

_SHOWN = 20


def verify_dataset(options: VerifyOptions, reporter: Reporter) -> int:
    """Checks a data set, prints a table of the defects and writes all of them; returns the exit code."""
    parquet_modules()  # before anything slow: is it installed?
    kind, root = _choose(options.kind, options.directory)
    dataset = read_dataset(kind, root)
    reporter.detail(f"{printable(dataset.root)}: {len(dataset.tracks)} tracks")
    seconds, heard = 0.0, list[Music]()
    with reporter.file_bar(f"Checking {kind}") as show:

        def advance(done: int, total: int, report: TrackReport) -> None:
            nonlocal seconds
            seconds += report.seconds
            if report.music:
                heard.append(report.music)
            if report.music and report.music.tuning_cents is not None:
                reporter.detail(f"{report.track}: tuned {tuned(report.music.tuning_cents)}")
            show(done, total)
            for one in report.defects:
                reporter.detail(f"{report.track}: {one.message}")

        defects = verify(dataset, not options.quick, options.processes, advance)
    if not reporter.quiet:
        print(_summary(dataset, defects, seconds, heard))
    table, text = write_defects(options.output or Path("cache") / f"{kind}-defects", kind, defects)
    reporter.line(
        f"Written: {printable(table)} and {text.name}; use it with mt3 prepare {kind} --defects {printable(table)}."
    )
    return 1 if skipped(defects) else 0


def _choose(kind_or_directory: str, directory: Path | None) -> tuple[str, Path | None]:
    if kind_or_directory in KINDS:
        return kind_or_directory, directory
    if directory is not None:
        raise UsageError(f"Unknown kind of data set {kind_or_directory!r}.", f"Choose from {', '.join(KINDS)}.")
    root = Path(kind_or_directory)
    if not root.is_dir():
        raise UsageError(
            f"{kind_or_directory} is neither a kind of data set nor a folder.", f"Choose from {', '.join(KINDS)}."
        )
    kind = recognise(root)
    if kind == "folder":  # perhaps the folder around a data set's own
        inside = {recognise(path) for path in root.iterdir() if path.is_dir()} - {"folder"}
        kind = inside.pop() if len(inside) == 1 else kind
    return kind, find_dataset(kind, root)


def _summary(dataset: Dataset, defects: tuple[Defect, ...], seconds: float, heard: list[Music]) -> str:
    splits = [f"{name} {len(dataset.split(name))}" for name in ("train", "validation", "test", "omitted")]
    shown = ", ".join(one for one in splits if not one.endswith(" 0"))
    size = f"{len(dataset.tracks)} tracks ({shown}), {seconds / 3600:.1f} h of audio"
    lines = [f"{dataset.kind} in {printable(dataset.root)}: {size}"]
    if cents := sorted(one.tuning_cents for one in heard if one.tuning_cents is not None):
        spread = f", from {cents[0]:+.0f} to {cents[-1]:+.0f}" if len(cents) > 1 else ""
        lines.append(f"Tuning, median: {tuned(median(cents))}{spread}")
    if late := sorted(one.late_seconds for one in heard if one.late_seconds is not None):
        share = median(one.heard_share for one in heard if one.heard_share is not None)
        lines.append(f"Onsets, median: {share:.0%} of the labelled are heard, {1000 * median(late):+.0f} ms late")
    if not defects:
        return "\n".join([*lines, "Nothing is wrong; mt3 prepare can use all of it."])
    lines.append(f"{'defect':24}{'left out':>10}{'used':>8}")
    lines += [f"{kind:24}{left or '-':>10}{used or '-':>8}" for kind, left, used in summary(defects)]
    out = skipped(defects)
    mixes = sum(stem == MIX for _, stem in out)
    lines.append(
        f"To be left out by mt3 prepare: {mixes} recordings and {len(out) - mixes} single stems. The rest can be used."
        if out
        else "mt3 prepare can use all of it, corrected as the table says."
    )
    first = [one for one in defects if one.skips][:_SHOWN]
    lines += [f"  {one.message}" for one in first]
    if len(first) == _SHOWN:
        lines.append(f"  ... and more in defects.txt ({len(defects)} in all)")
    return "\n".join(lines)
