"""`mt3 demo`: renders a short piece, transcribes it and scores the result against the piece's own notes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.backend import choose_backend, choose_decoding, load_transcriber
from mt3app.jobs import check_writable
from mt3app.progress import Reporter
from mt3core.errors import ModelError

if TYPE_CHECKING:
    from mt3core.transcriber import BaseTranscriber
    from mt3core.transcription import Transcription

WITHOUT_MODEL = (
    "The demo needs weights, which do not ship with mt3kit yet: set MT3_MODEL to a model or T5X directory, "
    "or run it with a network connection, which fetches the published ones once."
)


def run_demo(folder: Path, model: str | None, backend: str | None, device: str, reporter: Reporter) -> None:
    """Writes demo.wav, reference.mid and transcription.mid to `folder` and prints the score.

    Raises `ModelError`, saying what to do, where there are no weights and none can be fetched.
    """
    import soundfile

    from mt3app.demo_piece import SAMPLE_RATE_HZ, piece, render
    from mt3core.files import atomic_output

    chosen = choose_backend(backend)
    source = model or _find_model()
    check_writable([folder / "demo.wav"])
    notes = piece()
    samples, renderer = render(notes, folder)
    with atomic_output(folder / "demo.wav") as path:
        soundfile.write(path, samples, SAMPLE_RATE_HZ)
    print(f"Rendered {len(notes)} notes, {len(samples) / SAMPLE_RATE_HZ:.1f} s ({renderer}).")

    try:
        transcriber = load_transcriber(source, chosen, device, choose_decoding(None, None), reporter)
    except ModelError as error:
        raise ModelError(error.problem, error.next_step if model else WITHOUT_MODEL) from error
    print(f"Transcribing with {source} ({chosen}).")
    result, seconds = _transcribe(transcriber, folder / "demo.wav", reporter)
    result.save(folder / "transcription.mid")
    _print_scores(notes, result)
    factor = result.duration_seconds / seconds
    print(f"Took {seconds:.1f} s: {factor:.1f}x real time, model load apart.")
    print(f"Listen: {folder / 'demo.wav'}, {folder / 'reference.mid'}, {folder / 'transcription.mid'}")


def _find_model() -> str:
    """`MT3_MODEL`, the shared folder beside the checkout or the current folder, what is installed, what is published.

    The last is an address, fetched when it is loaded.
    """
    from mt3convert.sources import DEFAULT_NAME, MODEL_VARIABLE, PUBLISHED, resolve_model

    if os.environ.get(MODEL_VARIABLE):
        return resolve_model(None)
    for folder in (Path.cwd(), Path(__file__).resolve().parents[1]):
        beside = folder.parent / "shared" / "mt3_checkpoint"
        if beside.is_dir():
            return str(beside)
    try:
        return resolve_model(None)
    except ModelError:
        return PUBLISHED[DEFAULT_NAME]


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
