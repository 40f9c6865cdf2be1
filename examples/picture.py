"""Draws what the network reads and writes: the log-mel of the demo piece with the notes below it.

    mt3 demo && python examples/picture.py demo_output docs/transcription.png

Needs the extra `evaluate` (matplotlib).
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt

from mt3core.audio.load import load_audio
from mt3core.config.model import MT3
from mt3core.errors import MT3Error
from mt3core.notes.midi_reading import read_midi
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments


def main(folder: Path, picture: Path) -> None:
    samples = load_audio(folder / "demo.wav")
    rows = log_mel_segments(samples, segments(len(samples), MT3), MT3).reshape(-1, MT3.network.input_bands)
    seconds = len(samples) / MT3.spectrogram.sample_rate_hz
    rows = rows[: int(seconds * MT3.spectrogram.frames_per_second)]
    figure, (above, below) = plt.subplots(2, 1, figsize=(10, 5.2), sharex=True, height_ratios=[2, 3])
    draw_log_mel(above, rows, seconds)
    above.set(ylabel="mel band", title="in: log-mel of the recording")
    draw_notes(below, folder)
    below.set(xlabel="seconds", ylabel="pitch", xlim=(0, seconds), title="out: notes (grey: what was played)")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def draw_log_mel(axes, rows: np.ndarray, seconds: float) -> None:
    """A frame shows the window that starts with it and is drawn at the window's middle; the first reaches to 0 s."""
    rate = MT3.spectrogram.sample_rate_hz
    starts = np.arange(len(rows) + 1) * MT3.spectrogram.hop_samples
    edges = (starts + (MT3.spectrogram.fft_samples - MT3.spectrogram.hop_samples) / 2) / rate
    edges[0] = 0
    axes.pcolormesh(edges, np.arange(rows.shape[1] + 1), np.maximum(rows.T, -8), cmap="magma", rasterized=True)
    axes.set_xlim(0, seconds)


def draw_notes(axes, folder: Path) -> None:
    reference, estimate = read_midi(folder / "reference.mid"), read_midi(folder / "transcription.mid")
    for note in reference[~reference["is_drum"]]:
        axes.plot([note["onset"], note["offset"]], [note["pitch"]] * 2, color="0.8", linewidth=7, solid_capstyle="butt")
    pitched = estimate[~estimate["is_drum"]]
    colours = {program: f"C{number}" for number, program in enumerate(dict.fromkeys(pitched["program"].tolist()))}
    for note in pitched:
        colour = colours[int(note["program"])]
        axes.plot([note["onset"], note["offset"]], [note["pitch"]] * 2, color=colour, linewidth=3)
    hits = estimate[estimate["is_drum"]]
    axes.plot(hits["onset"], np.full(len(hits), 24), "|", color="black", label="drums")
    axes.legend(loc="lower right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws a recording's log-mel with the notes transcribed from it.")
    parser.add_argument("folder", type=Path, help="what mt3 demo wrote, such as demo_output")
    parser.add_argument("picture", type=Path, help="the PNG to write, such as picture.png")
    options = parser.parse_args()
    try:
        main(options.folder, options.picture)
    except (MT3Error, OSError) as error:
        parser.exit(1, f"picture.py: {error}\n")
