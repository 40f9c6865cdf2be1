"""`mt3 parity`: prints how far the two networks differ, stage by stage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.backend import PACKAGES
from mt3app.outputs import STDOUT, check_writable
from mt3app.progress import Reporter
from mt3core.errors import UsageError
from mt3core.extras import require
from mt3core.files import atomic_output

if TYPE_CHECKING:
    from mt3convert.parity import ParityReport

SYNTHETIC_SECONDS = 4.0


def compare(
    model: str,
    audio: Path | None,
    json_output: str | None,
    tolerance: float,
    seconds: float | None,
    device: str,
    reporter: Reporter,
) -> int:
    """Runs the comparison; returns 0 if the networks agree within the tolerance, else 1."""
    for backend, packages in PACKAGES.items():
        require(backend, "mt3 parity", packages)
    if seconds is not None and seconds <= 0:
        raise UsageError(f"--seconds is {seconds:g}; it must be above 0.")
    if json_output not in (None, STDOUT):
        check_writable([Path(json_output)])
    if audio is not None:
        from mt3core.audio.load import probe_audio

        probe_audio(audio)
    report = _run(model, audio, tolerance, seconds, device, reporter)
    if json_output == STDOUT:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report)
        if json_output is not None:
            with atomic_output(json_output) as path:
                path.write_text(json.dumps(report.to_dict(), indent=2) + "\n")
    return 0 if report.within_tolerance else 1


def print_report(report: ParityReport) -> None:
    """The report as a table on standard output."""
    print(f"{report.model}: {report.num_segments} segments, {report.num_tokens} tokens, PyTorch minus JAX")
    print(f"{'stage':32}  {'largest':>9}  {'mean':>9}  {'allowed':>9}  first disagreement")
    for stage in report.stages:
        first = "-" if stage.within_tolerance else f"at {stage.first}" if stage.first else "not finite"
        print(f"{stage.stage:32}  {stage.largest:9.2e}  {stage.mean:9.2e}  {stage.allowed:9.2e}  {first}")
    print(f"{'tokens':32}  {_tokens_line(report)}")
    notes = "equal" if report.first_note_difference is None else f"first disagreement at {report.first_note_difference}"
    print(f"{'notes':32}  {report.torch_notes} and {report.jax_notes}, {notes}")
    print(f"{'MIDI':32}  {'identical bytes' if report.midi_identical else 'different bytes'}")
    for difference in report.token_differences:
        kind = "tie, excused" if difference.is_tie else "DIFFERENT"
        print(
            f"  segment {difference.segment}, token {difference.position}: PyTorch {difference.torch_token}, "
            f"JAX {difference.jax_token}; best logits {difference.margin:.1e} apart: {kind}"
        )
    verdict = "within tolerance" if report.within_tolerance else "OUT OF TOLERANCE"
    print(f"The two networks are {verdict} ({report.tolerance:g}).")


def _tokens_line(report: ParityReport) -> str:
    if not report.token_differences:
        return "equal in all segments"
    return f"different in {len(report.token_differences)} of {report.num_segments} segments"


def _run(
    model: str, audio: Path | None, tolerance: float, seconds: float | None, device: str, reporter: Reporter
) -> ParityReport:
    from mt3convert.parity import run_parity, synthetic_samples
    from mt3core.audio.load import load_audio
    from mt3core.model.search import find_model, load_weights

    weights = load_weights(find_model(model).source)
    rate_hz = weights.config.spectrogram.sample_rate_hz
    if audio is None:
        samples = synthetic_samples(seconds or SYNTHETIC_SECONDS, rate_hz)
    else:
        samples = load_audio(audio, rate_hz)
        samples = samples if seconds is None else samples[: max(1, round(seconds * rate_hz))]
    reporter.detail(f"Comparing {len(samples) / rate_hz:.1f} s of audio.")
    print("Running both networks ...", file=sys.stderr)
    return run_parity(weights.config, weights.arrays, samples, tolerance=tolerance, device=device)
