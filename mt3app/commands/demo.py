"""`mt3 demo`: renders a short piece, transcribes it, scores and draws the result against the piece's own notes.

It needs no internet connection and no packages beyond those of `mt3 transcribe`. The score and the picture need more;
without those packages they are left out, with a line that says why.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.backend import choose_backend, choose_decoding, load_transcriber
from mt3app.outputs import check_writable
from mt3app.progress import Reporter
from mt3core.extras import SCORE_PACKAGES, install_command, is_installed

if TYPE_CHECKING:
    from mt3core.notes.table import Note
    from mt3core.transcription import Transcription
    from mt3decode.transcriber import BaseTranscriber

PICTURE_PACKAGES = (*SCORE_PACKAGES, "matplotlib")
_FILES = {
    "demo.wav": "the recording",
    "reference.mid": "the notes that were played",
    "transcription.mid": "the transcribed notes",
    "transcription.json": "the same with the tokens they come from",
    "piano_roll.png": "both in one picture, differences in red",
}


def run_demo(folder: Path, model: str | None, backend: str | None, device: str, reporter: Reporter) -> None:
    """Writes the files to `folder` and prints what was done, the score and the file names.

    Raises `ModelError` if there is no model, `MissingExtraError` if neither PyTorch nor JAX is installed.
    """
    from mt3core.model.search import find_model
    from mt3core.notes.midi_writing import write_midi

    chosen = choose_backend(backend)
    found = find_model(model)
    if found.remark:
        reporter.line(found.remark)
    places = {name: folder / name for name in _FILES}
    check_writable(places.values())
    played = _render(places["demo.wav"])
    write_midi(played, places["reference.mid"])

    transcriber = load_transcriber(
        found.source, chosen, device, choose_decoding(None, None, grammar=True, quality="auto"), reporter
    )
    result, seconds = _transcribe(transcriber, places["demo.wav"], reporter)
    for name in ("transcription.mid", "transcription.json"):
        result.save(places[name])
    factor = result.duration_seconds / max(seconds, 1e-3)
    print(
        f"Transcribed with {transcriber.config.name} ({chosen}): {len(result.notes)} notes in {seconds:.1f} s, "
        f"{factor:.1f}x real time, without loading the model."
    )
    for remark in result.remark.splitlines():
        reporter.line(remark)
    if _installed("score", SCORE_PACKAGES):
        _print_scores(played, result.notes)
    if _installed("picture", PICTURE_PACKAGES):
        from mt3eval.piano_roll_picture import draw_piano_rolls

        draw_piano_rolls(places["piano_roll.png"], played, result.notes, f"mt3 demo, {transcriber.config.name}")
    else:
        del places["piano_roll.png"]
    print("Files:")
    width = max(len(str(path)) for path in places.values())
    for name, path in places.items():
        print(f"  {path!s:{width}}  {_FILES[name]}")


def _render(path: Path) -> list[Note]:
    """Renders the piece; returns the notes that can be heard in the recording."""
    from mt3app.commands.demo_piece import DRUMS_LEVEL_DB, LEVELS_DB, piece
    from mt3render.playing import DRUMS, play_notes

    notes = piece()
    played = play_notes(notes, path, levels_db={**LEVELS_DB, DRUMS: DRUMS_LEVEL_DB})
    left_out = len(notes) - len(played.notes)
    print(f"Rendered {len(played.notes)} notes, {played.seconds:.1f} s ({played.sound}){_left_out(left_out)}.")
    return played.notes


def _left_out(number: int) -> str:
    if number == 0:
        return ""
    return f"; {number} note{'s' * (number != 1)} that it cannot play {'was' if number == 1 else 'were'} left out"


def _transcribe(transcriber: BaseTranscriber, audio: Path, reporter: Reporter) -> tuple[Transcription, float]:
    spectrogram = transcriber.config.spectrogram
    segment_seconds = transcriber.config.segment_samples / spectrogram.sample_rate_hz
    started = time.perf_counter()
    with reporter.audio_bar() as show:
        result = transcriber.transcribe(
            audio, lambda done, total: show(done * segment_seconds, total * segment_seconds, audio.name)
        )
    return result, time.perf_counter() - started - transcriber.compile_seconds


def _installed(what: str, packages: tuple[str, ...]) -> bool:
    """Whether all packages are installed; otherwise prints what is left out and what to install."""
    missing = [name for name in packages if not is_installed(name)]
    if missing:
        print(f"No {what}: {', '.join(missing)} not installed. Install it: {install_command(missing)}")
    return not missing


def _print_scores(played: list[Note], found: list[Note]) -> None:
    from mt3eval.matching.matching import ONSET_TOLERANCE_SECONDS
    from mt3eval.matching.onset_score import onset_scores

    print(f"Onsets within {1000 * ONSET_TOLERANCE_SECONDS:.0f} ms (mir_eval):")
    print(f"  {'':8} {'reference':>9} {'estimate':>8} {'precision':>10} {'recall':>8} {'F1':>8}")
    for name, score in onset_scores(played, found).items():
        print(
            f"  {name:8} {score.reference_notes:9} {score.estimated_notes:8} "
            f"{score.precision:10.3f} {score.recall:8.3f} {score.f1:8.3f}"
        )
