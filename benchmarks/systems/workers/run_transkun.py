"""Transkun with the weights of its package and its settings, as its command uses them.

The audio is read with libsndfile instead of FFmpeg: the same samples, except for 24-bit files, which the command scales
as if they had 16 bits.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def load(options: dict[str, Any]) -> Callable[[str, str], None]:
    import moduleconf
    import soundfile
    import soxr
    import torch
    import transkun
    from transkun.Data import writeMidi

    folder = Path(transkun.__file__).parent / "pretrained"
    settings = moduleconf.parseFromFile(str(folder / "2.0.conf"))["Model"]
    model = settings.module.TransKun(conf=settings.config)
    # The package's own file: a dictionary of tensors and plain settings.
    state = torch.load(folder / "2.0.pt", map_location="cpu", weights_only=False)
    model.load_state_dict(state.get("best_state_dict") or state["state_dict"], strict=False)
    model.eval()
    torch.set_grad_enabled(False)

    def transcribe(audio: str, midi: str) -> None:
        samples, rate_hz = soundfile.read(audio, dtype="float32", always_2d=True)
        if rate_hz != model.fs:
            samples = soxr.resample(samples, rate_hz, model.fs)
        notes = model.transcribe(torch.from_numpy(samples), discardSecondHalf=False)
        writeMidi(notes).write(midi)

    return transcribe
