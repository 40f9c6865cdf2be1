"""A model of mt3-infer with weights given by path and the package's own settings; it downloads nothing."""

from collections.abc import Callable
from typing import Any


def load(options: dict[str, Any]) -> Callable[[str, str], None]:
    import soundfile
    import soxr
    from mt3_infer import load_model

    model = load_model(options["model"], checkpoint_path=options["weights"], device="cpu", auto_download=False)

    def transcribe(audio: str, midi: str) -> None:
        samples, rate_hz = soundfile.read(audio, dtype="float32", always_2d=True)
        mono = soxr.resample(samples.mean(axis=1), rate_hz, 16_000)
        model.transcribe(mono, sr=16_000).save(midi)

    return transcribe
