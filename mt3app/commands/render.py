"""`mt3 render`: reports what is rendered, file by file, and what could not be rendered."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3app.remarks import tell_remarks
from mt3core.processors import num_processors
from mt3core.splits import splits_remark

MOST_NAMES = 6

if TYPE_CHECKING:
    from mt3app.cli_data import RenderOptions
    from mt3render.dataset import Outcome
    from mt3render.sources import Source


def render_files(options: RenderOptions, reporter: Reporter) -> int:
    """Renders a folder of MIDI files; returns the exit code, 1 if a file failed."""
    from mt3render.dataset import Rendering, check_rendering, parse_range, render_dataset

    rendering = check_rendering(
        Rendering(
            layout=options.layout,
            engine=options.engine,
            sound_fonts=options.sound_fonts,
            seed=options.seed,
            programs=options.programs,
            sample_rate_hz=options.rate,
            most_minutes=options.max_minutes,
            tuning_cents=parse_range(options.tuning_cents),
            mixed_kits=options.mixed_kits,
        )
    )
    midi_dir, out = options.midi_dir, options.out
    names = [font.name for font in rendering.sound_fonts]
    fonts = f"{len(names)} sounds" if len(names) > MOST_NAMES else ", ".join(names) or "sine waves"
    processes = options.processes or num_processors()
    reporter.line(f"Rendering {midi_dir} with {rendering.engine} ({fonts}), {processes} processes")
    started = time.perf_counter()
    with reporter.file_bar("rendering") as show:
        done = 0

        def on_outcome(outcome: Outcome, total: int) -> None:
            nonlocal done
            done += 1
            show(done, total)
            _say(outcome, reporter)

        report = render_dataset(midi_dir, out, rendering, processes, options.limit, options.overwrite, on_outcome)
    tell_remarks(((one.source.relative, remark) for one in report.outcomes for remark in one.remarks), reporter)
    if remark := _on_splits([outcome.source for outcome in report.outcomes], midi_dir):
        reporter.line(remark)
    elapsed = time.perf_counter() - started
    seconds = sum(outcome.seconds for outcome in report.outcomes)
    failed = [outcome.source.relative for outcome in report.outcomes if outcome.state == "failed"]
    reporter.line(
        f"{out}: {report.count('written')} pieces rendered ({seconds / 60:.1f} min in {elapsed:.1f} s, "
        f"{seconds / max(elapsed, 1e-3):.0f}x real time), {report.count('skipped')} existed, {len(failed)} failed"
    )
    if failed:
        reporter.line(f"Failed and left out: {', '.join(failed)}")
    return 1 if failed else 0


def _on_splits(sources: list[Source], midi_dir: Path) -> str:
    """What the data set lacks for training, and what to do."""
    remark = splits_remark([source.split for source in sources], "pieces", "put MIDI files into folders called {}")
    folders = {source.relative.rpartition("/")[0] for source in sources}
    if not remark or len(folders) > 1 or len({source.split for source in sources}) > 1 or "/" not in min(folders):
        return remark
    return f"{remark} Or render {midi_dir / min(folders)} instead: files in one folder inside others stay together."


def _say(outcome: Outcome, reporter: Reporter) -> None:
    name = outcome.source.relative
    if outcome.error is not None:
        reporter.problem(outcome.error)
    elif outcome.state == "skipped":
        reporter.detail(f"{name}: skipped: already rendered")
    else:
        cut = "; its end was cut off (--max-minutes)" if outcome.is_cut else ""
        left_out = f"; {outcome.num_left_out} notes that no sound plays were left out" if outcome.num_left_out else ""
        tell = reporter.line if cut else reporter.detail
        tell(f"{name}: {outcome.num_notes} notes, {outcome.seconds:.1f} s{cut}{left_out}")
