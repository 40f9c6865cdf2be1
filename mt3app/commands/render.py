"""`mt3 render`: reports what is rendered, file by file, and what could not be rendered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mt3app.progress import Reporter
from mt3core.processors import num_processors

MOST_NAMES = 6

if TYPE_CHECKING:
    from mt3app.cli_data import RenderOptions
    from mt3render.dataset import Outcome


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
