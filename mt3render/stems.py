"""Parts as audio files: played one at a time, set to their loudness, quantised, and summed.

A piece's stems may be larger than memory, and their common gain is known only after the last; so they are kept as raw
samples in a temporary folder. The mix is the sum of the stems after their quantisation: equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mt3core.errors import OutputError
from mt3render.engines import Engine
from mt3render.loudness import SILENT_LUFS, integrated_loudness
from mt3render.score import Part
from mt3render.variation import Voice

NORMALISED_LUFS = -13.0  # SLAKH's `normalization_factor`
TARGET_PEAK_DB = -1.0  # SLAKH's `target_peak`
TAIL_SECONDS = 2.0  # for the last notes to ring
_FULL_SCALE = 32767
_BLOCK_FRAMES = 1 << 16

Measure = Callable[[np.ndarray, int], float]  # loudness in decibels of mono audio at a sample rate


@dataclass(frozen=True)
class AudioFormat:
    """How audio is written: `FLAC` or `WAV` of 16 bits, with one channel or two."""

    container: str
    sample_rate_hz: int
    channels: int = 1


@dataclass(frozen=True)
class Stem:
    """A part that was played, and where its samples are kept."""

    part: Part
    voice: Voice
    raw: Path
    loudness_lufs: float
    peak: float


class Stems:
    """The stems of one piece; they are in `folder` until they are written, `measure` returns the loudness of one."""

    def __init__(
        self, folder: Path, audio_format: AudioFormat, end_seconds: float, measure: Measure = integrated_loudness
    ) -> None:
        self._folder, self._measure = folder, measure
        self._format = audio_format
        self._num_samples = round((end_seconds + TAIL_SECONDS) * audio_format.sample_rate_hz)
        self._mix = np.zeros((self._num_samples, audio_format.channels), np.float32)
        self.stems: list[Stem] = []

    @property
    def seconds(self) -> float:
        return self._num_samples / self._format.sample_rate_hz

    @property
    def overall_gain(self) -> float:
        """The gain that brings the mix to its target peak and leaves no stem beyond full scale."""
        peak = max([_peak(self._mix), *(stem.peak for stem in self.stems)])
        return 10 ** (TARGET_PEAK_DB / 20) / peak if peak else 1.0

    def play(self, part: Part, voice: Voice, engine: Engine) -> Stem | None:
        """Plays a part at its voice's level. Returns None and keeps nothing if it is silent."""
        rate = self._format.sample_rate_hz
        samples = engine.play(part.sounding(), voice, self._num_samples, rate)
        mono = (samples[:, 0] + samples[:, 1]) * np.float32(0.5)  # several times faster than mean()
        loudness = self._measure(mono, rate)
        if loudness <= SILENT_LUFS:
            return None
        if self._format.channels == 1:
            samples = mono[:, np.newaxis]
        level = NORMALISED_LUFS + voice.level_db
        samples *= np.float32(10 ** ((level - loudness) / 20))
        raw = self._folder / f"{len(self.stems)}.raw"
        with writing(raw):
            samples.tofile(raw)
        self._mix += samples
        stem = Stem(part, voice, raw, level, _peak(samples))
        self.stems.append(stem)
        return stem

    def write(self, mix: Path, stem_paths: Sequence[Path] = ()) -> None:
        """Writes the mix, and each stem to its path if paths are given. Raises `OutputError`."""
        gain = np.float32(self.overall_gain * _FULL_SCALE)
        with writing(mix), ExitStack() as files:
            mix_file = files.enter_context(self._open(mix))
            stem_files = [files.enter_context(self._open(path)) for path in stem_paths]
            raw_files = [files.enter_context(stem.raw.open("rb")) for stem in self.stems]
            for first in range(0, self._num_samples, _BLOCK_FRAMES):
                num_frames = min(_BLOCK_FRAMES, self._num_samples - first)
                total = np.zeros((num_frames, self._format.channels), np.int32)
                for number, raw in enumerate(raw_files):
                    samples = np.fromfile(raw, np.float32, num_frames * self._format.channels)
                    quantised = np.rint(samples.reshape(total.shape) * gain).astype(np.int16)
                    if stem_files:
                        stem_files[number].write(quantised)
                    total += quantised
                mix_file.write(np.clip(total, -_FULL_SCALE - 1, _FULL_SCALE).astype(np.int16))

    def _open(self, path: Path) -> soundfile.SoundFile:
        return soundfile.SoundFile(
            path, "w", self._format.sample_rate_hz, self._format.channels, "PCM_16", format=self._format.container
        )


def _peak(samples: np.ndarray) -> float:
    return float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))  # abs() would need a copy


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk or a folder without permission into `OutputError`."""
    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"Cannot write {path.name} ({reason}).", "Free some disk space, or choose another folder."
        ) from error
