"""Transcriptions to listen to: all of it, some of its instruments, or beside the recording, in WAV files.

Times are those of the notes to the sample, and of the recording as it was transcribed, so that both agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from mt3core.audio.files import Damaged
from mt3core.audio.load import AudioSource, load_audio
from mt3core.files import atomic_output
from mt3core.notes.table import Note
from mt3render.loudness import SILENT_LUFS, sounding_level
from mt3render.playing import SAMPLE_RATE_HZ, Played, play_notes

_MOST_PEAK = 0.98
_BLOCK_FRAMES = 1 << 16


def sonify(notes: Iterable[Note], path: Path, stem_folder: Path | None = None) -> Played:
    """Writes the notes as they sound, in stereo; silence if there are none. `stem_folder` as for `play_notes`.

    Raises `OutputError`, and `MidiError` if the sounds that are there cannot play any of the notes.
    """
    listed = list(notes)
    if listed:
        return play_notes(listed, path, measure=sounding_level, stem_folder=stem_folder)
    with atomic_output(path) as temporary:
        _write(temporary, np.zeros((SAMPLE_RATE_HZ, 2), np.float32))
    return Played([], 1.0, "silence")


def write_mix(stems: Iterable[Path], path: Path) -> None:
    """Writes the sum of some stems of one recording; silence if there are none. Raises `OutputError`."""
    files = [soundfile.SoundFile(stem) for stem in stems]
    try:
        with atomic_output(path) as temporary:
            _write_sum(files, temporary)
    finally:
        for file in files:
            file.close()


def write_comparison(
    recording: AudioSource, played: Path, path: Path, track: int | None = None, damaged: Damaged = "refuse"
) -> None:
    """Writes the recording on the left and what `sonify` wrote on the right, both mono and about equally loud.

    `track` and `damaged` are those of `read_audio`. Raises `AudioError` and `OutputError`.
    """
    left = load_audio(recording, SAMPLE_RATE_HZ, track=track, damaged=damaged)
    right = soundfile.read(played, dtype="float32", always_2d=True)[0].mean(axis=1)
    both = np.zeros((max(len(left), len(right)), 2), np.float32)
    both[: len(left), 0], both[: len(right), 1] = left, right
    level, wanted = (sounding_level(both[:, side], SAMPLE_RATE_HZ) for side in (1, 0))
    if min(level, wanted) > SILENT_LUFS:
        both[:, 1] *= np.float32(10 ** ((wanted - level) / 20))
    for side in (0, 1):
        peak = float(np.abs(both[:, side]).max(initial=0.0))
        both[:, side] *= np.float32(min(1.0, _MOST_PEAK / peak) if peak else 1.0)
    with atomic_output(path) as temporary:
        _write(temporary, both)


def _write_sum(files: list[soundfile.SoundFile], path: Path) -> None:
    frames = max((file.frames for file in files), default=SAMPLE_RATE_HZ)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 2, "PCM_16", format="WAV") as mix:
        for first in range(0, frames, _BLOCK_FRAMES):
            total = np.zeros((min(_BLOCK_FRAMES, frames - first), 2), np.int32)
            for file in files:
                block = file.read(len(total), dtype="int16", always_2d=True)
                total[: len(block)] += block
            mix.write(total.clip(-(2**15), 2**15 - 1).astype(np.int16))


def _write(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
