"""Transcribes a recording with ONNX Runtime, without PyTorch and without JAX.

    mt3 export small small_onnx/          (once, with PyTorch and the extra onnx)
    python examples/transcribe_onnx.py small_onnx/ song.mp3 song.mid

Needs NumPy, onnxruntime and `mt3core`. The notes are those of `mt3 transcribe --decoding greedy
--quality fast --no-grammar`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from mt3core.audio.load import load_audio
from mt3core.decoding import END_TOKEN, START_TOKEN
from mt3core.errors import ModelError, MT3Error
from mt3core.model.directory import load_model_config
from mt3core.notes.decoding import NoteDecoder
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3core.transcription import Transcription

PROVIDERS = ["CPUExecutionProvider"]
BATCH = 32  # segments at a time
FIRST_LENGTH = 32  # positions in the cache at first; doubled when they are used up


class OnnxNetwork:
    """The two graphs of a folder that `mt3 export` wrote."""

    def __init__(self, folder: Path) -> None:
        self.config = load_model_config(folder)
        paths = [folder / "encoder.onnx", folder / "decoder_step.onnx"]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise ModelError(f"{folder} has no {missing[0]}.", "Write the folder with mt3 export.")
        self.encoder, self.step = (onnxruntime.InferenceSession(path, providers=PROVIDERS) for path in paths)

    def generate(self, log_mel: np.ndarray) -> list[np.ndarray]:
        """The tokens of each segment, the end token last, of log-mel (segments, frames, mel), float32."""
        network = self.config.network
        names = [output.name for output in self.encoder.get_outputs()]
        cross = dict(zip(names, self.encoder.run(None, {"log_mel": log_mel}), strict=True))
        empty = np.zeros((len(log_mel), network.num_heads, FIRST_LENGTH, network.head_dim), np.float32)
        cache = {name.replace("cross", "self"): empty for name in names}
        written: list[list[int]] = [[] for _ in log_mel]
        rows = np.arange(len(log_mel))  # the segments that are not finished, in the order of the arrays
        tokens = np.full(len(rows), START_TOKEN)
        for position in range(network.max_target_tokens):
            if position == next(iter(cache.values())).shape[2]:
                longer = ((0, 0), (0, 0), (0, position), (0, 0))
                cache = {name: np.pad(one, longer) for name, one in cache.items()}
            positions = np.full(len(rows), position)
            logits, *new = self.step.run(None, {"tokens": tokens, "positions": positions, **cross, **cache})
            cache = dict(zip(cache, new, strict=True))
            tokens = logits.argmax(axis=-1)
            for row, token in zip(rows, tokens, strict=True):
                written[row].append(token)
            if not (kept := tokens != END_TOKEN).all():
                rows, tokens = rows[kept], tokens[kept]
                cross = {name: one[kept] for name, one in cross.items()}
                cache = {name: one[kept] for name, one in cache.items()}
            if len(rows) == 0:
                break
        return [np.array(own) for own in written]


def transcribe(network: OnnxNetwork, samples: np.ndarray) -> Transcription:
    """The notes of mono samples at the model's rate."""
    config, decoder = network.config, NoteDecoder(network.config.vocabulary)
    pieces = segments(len(samples), config)
    for first in range(0, len(pieces), BATCH):
        batch = pieces[first : first + BATCH]
        ends = [piece.start_seconds for piece in pieces[first + 1 : first + 1 + len(batch)]] + [None]
        generated = network.generate(log_mel_segments(samples, batch, config))
        for piece, tokens, end in zip(batch, generated, ends, strict=False):
            decoder.add_segment(piece.start_seconds, tokens, end)
    seconds = len(samples) / config.spectrogram.sample_rate_hz
    return Transcription(decoder.finish_notes(), duration_seconds=seconds, model=config.name)


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("Usage: transcribe_onnx.py FOLDER RECORDING OUTPUT(.mid, .json, .jsonl or .csv)")
    _, folder, recording, output = sys.argv
    try:
        network = OnnxNetwork(Path(folder))
        samples = load_audio(recording, network.config.spectrogram.sample_rate_hz)
        transcribe(network, samples).save(output)
    except MT3Error as error:
        sys.exit(f"transcribe_onnx: {error}")


if __name__ == "__main__":
    main()
