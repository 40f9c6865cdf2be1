"""This project's network on PyTorch or JAX, as `mt3 transcribe --quality fast --no-grammar` runs it by default."""

from collections.abc import Callable
from typing import Any


def load(options: dict[str, Any]) -> Callable[[str, str], float]:
    from mt3app.backend import choose_backend, choose_decoding, load_transcriber
    from mt3app.progress import Reporter
    from mt3core.notes.midi_writing import write_midi

    backend = choose_backend(options["backend"])
    decoding = choose_decoding(None, None, quality=options.get("quality", "fast"))
    weights = options["weights"] or options["model"]
    transcriber = load_transcriber(weights, backend, "cpu", decoding, Reporter(quiet=True))

    def transcribe(audio: str, midi: str) -> float:
        compiled_before = transcriber.compile_seconds
        write_midi(transcriber.transcribe(audio).notes, midi)
        return transcriber.compile_seconds - compiled_before

    return transcribe
