"""Writing a sampled instrument's folder: recordings cut to their sound, levelled, and described.

A recording starts some milliseconds before its note, and a soft one with the noise of the key. The written file starts
with the sound, so that a note's onset is where its label says.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from mt3core.errors import AudioError, reading
from mt3core.files import atomic_directory
from mt3render.instruments import DESCRIPTION_NAME, Instrument, Sample, description
from mt3render.pitch import cents_above

# The onset is where a note first reaches a tenth of the peak of its attack; noise of keys and bows is softer.
_ONSET_SHARE = 0.1
_ATTACK_SECONDS = 0.1
_BEFORE_ONSET_SECONDS = 0.001
_SILENT_SHARE = 10 ** (-60 / 20)  # of the peak: the tail below this is cut off
_LONGEST_SECONDS = 15.0
_FADE_SHARE = 0.05  # of the remaining sound, at its end
_PEAK = 0.9
_LOUDNESS_SECONDS, _UNEVEN_DB = 0.5, 6.0


@dataclass(frozen=True)
class Recording:
    """A file, or the recording of one of several microphones: its gain, and the frame from which it is used."""

    path: Path
    gain_db: float = 0.0
    first_frame: int = 0
    amplitude: float = 1.0  # a factor in addition to `gain_db`


@dataclass(frozen=True)
class Take:
    """A sample to be written: recordings that sound together, and what they play (its `file` is set later)."""

    recordings: tuple[Recording, ...]
    sample: Sample


@dataclass(frozen=True)
class _Written:
    """A file: its name, the gain that restores its level, its own loudness, and how far it is out of tune."""

    name: str
    gain_db: float
    loudness_db: float
    cents: float


def write_instrument(
    out: Path,
    instrument: Instrument,
    takes: Sequence[Take],
    sample_rate_hz: int | None = None,
    mono: bool = False,
    mend: bool = False,
    overwrite: bool = False,
    on_take: Callable[[int], None] = lambda number: None,
) -> Instrument:
    """Writes the folder of an instrument, completely or not at all, and returns it with its samples.

    `sample_rate_hz` None means that of the recordings. `mend` is for recordings as they were played: each is
    measured, tuned, and brought within 6 dB of the others of its velocities. Raises `AudioError` for a recording
    that cannot be read or is silent, and `OutputError` if the folder already exists or cannot be written.
    """
    samples: list[Sample] = []
    written: dict[tuple[Recording, ...], _Written] = {}  # a file may play several drums
    taken: set[str] = set()
    with atomic_directory(out, overwrite=overwrite) as folder:
        for number, take in enumerate(takes):
            if take.recordings not in written:
                audio, rate_hz = _heard(take, sample_rate_hz, mono)
                audio, gain_db = _levelled(cut_to_sound(audio, rate_hz))
                name = _file_name(take.recordings[0].path, taken)
                cents = cents_above(audio.mean(axis=1), rate_hz, take.sample.key) if mend else 0.0
                written[take.recordings] = _Written(name, gain_db, _loudness_db(audio, rate_hz), cents)
                soundfile.write(folder / name, audio, rate_hz, "PCM_16", format="FLAC")
            done = written[take.recordings]
            gain_db = round(take.sample.gain_db + done.gain_db, 2)
            samples.append(dataclasses.replace(take.sample, file=done.name, gain_db=gain_db))
            on_take(number + 1)
        if mend:
            samples = _mended(samples, {one.name: one for one in written.values()})
        complete = dataclasses.replace(instrument, samples=tuple(samples))
        (folder / DESCRIPTION_NAME).write_text(description(complete), encoding="utf-8")
    return complete


def cut_to_sound(
    audio: Float[np.ndarray, "frames channels"], sample_rate_hz: int
) -> Float[np.ndarray, "frames channels"]:
    """The recording from a millisecond before its onset until it has died away, faded in and out."""
    level = np.abs(audio).max(axis=1)
    begin = max(onset_frame(level, sample_rate_hz) - round(_BEFORE_ONSET_SECONDS * sample_rate_hz), 0)
    loud = np.flatnonzero(level > _SILENT_SHARE * level.max())
    end = min(int(loud[-1]) + 1, begin + round(_LONGEST_SECONDS * sample_rate_hz))
    cut = audio[begin:end].copy()
    rise = min(round(_BEFORE_ONSET_SECONDS * sample_rate_hz), len(cut))
    cut[:rise] *= np.linspace(0, 1, rise, endpoint=False)[:, np.newaxis]
    fall = round(_FADE_SHARE * len(cut))
    cut[len(cut) - fall :] *= np.linspace(1, 0, fall)[:, np.newaxis]
    return cut


def onset_frame(level: Float[np.ndarray, " frames"], sample_rate_hz: int) -> int:
    """Where a note starts, in a recording's magnitudes. Raises `ValueError` for silence."""
    if not level.max(initial=0.0) > 0:
        raise ValueError("it is silent")
    about = int(np.argmax(level > _ONSET_SHARE * level.max()))
    attack = level[about : about + round(_ATTACK_SECONDS * sample_rate_hz)].max()
    return int(np.argmax(level > _ONSET_SHARE * attack))


def _heard(take: Take, sample_rate_hz: int | None, mono: bool) -> tuple[np.ndarray, int]:
    mixed, rate_hz = np.zeros((0, 2), np.float32), 0
    for recording in take.recordings:
        with reading(recording.path, AudioError, "Download the samples again.", soundfile.LibsndfileError):
            audio, own_rate_hz = soundfile.read(recording.path, dtype="float32", always_2d=True)
        if rate_hz and own_rate_hz != rate_hz:
            audio = soxr.resample(audio, own_rate_hz, rate_hz)
        rate_hz = rate_hz or own_rate_hz
        stereo = np.broadcast_to(audio[recording.first_frame :, :2], (len(audio) - recording.first_frame, 2))
        if len(stereo) > len(mixed):
            mixed = np.concatenate([mixed, np.zeros((len(stereo) - len(mixed), 2), np.float32)])
        mixed[: len(stereo)] += stereo * np.float32(recording.amplitude * 10 ** (recording.gain_db / 20))
    if not mixed.any():
        raise AudioError(f"{take.recordings[0].path} is silent.", "Leave it out of the instrument.")
    if mono:
        mixed = mixed.mean(axis=1, keepdims=True)
    if sample_rate_hz is not None and sample_rate_hz != rate_hz:
        mixed, rate_hz = soxr.resample(mixed, rate_hz, sample_rate_hz), sample_rate_hz
    return mixed, rate_hz


def _levelled(audio: np.ndarray) -> tuple[np.ndarray, float]:
    """The recording close to full scale, so that soft notes keep their bits, and the gain that undoes this."""
    peak = float(np.abs(audio).max())
    return audio * np.float32(_PEAK / peak), float(20 * np.log10(peak / _PEAK))


def _loudness_db(audio: np.ndarray, sample_rate_hz: int) -> float:
    begin = audio[: round(_LOUDNESS_SECONDS * sample_rate_hz)]
    return float(10 * np.log10(np.mean(begin**2)))


def _mended(samples: Sequence[Sample], files: Mapping[str, _Written]) -> list[Sample]:
    """The samples in tune, none further from the middle level of its layer than a player would be."""
    levels_db = np.array([sample.gain_db + files[sample.file].loudness_db for sample in samples])
    layers = [sample.velocities for sample in samples]
    result = []
    for sample, level_db in zip(samples, levels_db.tolist(), strict=True):
        middle_db = float(np.median(levels_db[[layer == sample.velocities for layer in layers]]))
        change_db = float(np.clip(level_db, middle_db - _UNEVEN_DB, middle_db + _UNEVEN_DB)) - level_db
        gain_db, cents = round(sample.gain_db + change_db, 2), files[sample.file].cents
        result.append(dataclasses.replace(sample, gain_db=gain_db, tune_cents=-cents))
    return result


def _file_name(path: Path, taken: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9.\-#]+", "_", path.stem)
    name, count = f"{stem}.flac", 1
    while name.lower() in taken:
        count += 1
        name = f"{stem}_{count}.flac"
    taken.add(name.lower())
    return name
