"""basic-pitch with its own weights and defaults, in ONNX Runtime."""

from collections.abc import Callable
from typing import Any


def load(options: dict[str, Any]) -> Callable[[str, str], None]:
    from basic_pitch import ICASSP_2022_MODEL_PATH
    from basic_pitch.inference import Model, predict

    model = Model(ICASSP_2022_MODEL_PATH)

    def transcribe(audio: str, midi: str) -> None:
        _, found, _ = predict(audio, model)
        found.write(midi)

    return transcribe
