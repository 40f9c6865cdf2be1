"""`mt3 demo`: renders a short piece, transcribes it and scores the result against the piece's own notes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.backend import choose_backend, choose_decoding, load_transcriber
from mt3app.jobs import check_writable
from mt3app.progress import Reporter

if TYPE_CHECKING:
    from mt3core.transcriber import BaseTranscriber
    from mt3core.transcription import Transcription


def run_demo(folder: Path, model: str | None, backend: str | None, device: str, reporter: Reporter) -> None:
    """Writes demo.wav, reference.mid and transcription.mid to `folder` and prints the score.

    Raises `ModelError`, saying what to do, where there is no model.
    """
    import soundfile

    from mt3app.demo_piece import SAMPLE_RATE_HZ, piece, render
    from mt3core.files import atomic_output
    from mt3core.model_search import find_model

    chosen = choose_backend(backend)
    found = find_model(model)
    if found.remark:
        reporter.line(found.remark)
    check_writable([folder / "demo.wav"])
    notes = piece()
    samples, renderer = render(notes, folder)
    with atomic_output(folder / "demo.wav") as path:
        soundfile.write(path, samples, SAMPLE_RATE_HZ)
    print(f"Rendered {len(notes)} notes, {len(samples) / SAMPLE_RATE_HZ:.1f} s ({renderer}).")

    transcriber = load_transcriber(found.source, chosen, device, choose_decoding(None, None), reporter)
    print(f"Transcribing with {found.source} ({chosen}).")
    result, seconds = _transcribe(transcriber, folder / "demo.wav", reporter)
    result.save(folder / "transcription.mid")
    _print_scores(notes, result)
    factor = result.duration_seconds / seconds
    print(f"Took {seconds:.1f} s: {factor:.1f}x real time, model load apart.")
    print(f"Listen: {folder / 'demo.wav'}, {folder / 'reference.mid'}, {folder / 'transcription.mid'}")


def _transcribe(transcriber: BaseTranscriber, audio: Path, reporter: Reporter) -> tuple[Transcription, float]:
    spectrogram = transcriber.config.spectrogram
    segment_seconds = transcriber.config.segment_samples / spectrogram.sample_rate_hz
    started = time.perf_counter()
    with reporter.audio_bar() as show:
        result = transcriber.transcribe(
            audio, lambda done, total: show(done * segment_seconds, total * segment_seconds, audio.name)
        )
    return result, time.perf_counter() - started - getattr(transcriber, "compile_seconds", 0.0)


def _print_scores(notes: list, result: Transcription) -> None:
    from mt3core.onset_score import ONSET_TOLERANCE_SECONDS, onset_score

    print(f"Onsets within {1000 * ONSET_TOLERANCE_SECONDS:.0f} ms (mir_eval):")
    print(f"  {'':8} {'written':>8} {'found':>8} {'precision':>10} {'recall':>8} {'F1':>8}")
    for name, drums in (("pitched", False), ("drums", True)):
        score = onset_score(notes, result.notes, drums)
        print(
            f"  {name:8} {score.reference_notes:8} {score.estimated_notes:8} "
            f"{score.precision:10.3f} {score.recall:8.3f} {score.f1:8.3f}"
        )
