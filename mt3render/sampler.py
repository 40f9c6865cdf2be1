"""The engine for sampled instruments: recorded notes, resampled to the keys between them, and added up.

A note is its sample from the first audible moment on. When released, it fades as if a damper fell; keys without
a damper, drums, and notes that are struck again while they sound keep ringing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from mt3core.errors import AudioError, reading
from mt3core.notes.table import NoteTable
from mt3render.instruments import Instrument, read_instrument
from mt3render.variation import Voice

_MOST_BYTES = 5 << 28  # of resampled notes kept in a process: all of a piano with 16 layers at 16 kHz in stereo
_REPEAT_SECONDS = 0.0015  # labels are whole milliseconds: a note that ends where the next starts was not released
_FULL_SCALE = 32767
# A bowed or blown note may last longer than its recording: the section between these shares of it is then repeated.
_REPEATED = (0.4, 0.85)
_CROSSFADE_SECONDS = 0.2
_SHORTEST_SUSTAINED_SECONDS, _LONGEST_SUSTAINED_SECONDS = 0.8, 12.0
_SIXTY_DB = np.log(1000.0)


class Sampler:
    """Plays sampled instruments; events are exact to the sample. Times on one core are in docs/rendering.md."""

    name = "sampler"
    uses_sound_fonts = True

    def play(self, notes: NoteTable, voice: Voice, num_samples: int, sample_rate_hz: int) -> np.ndarray:
        assert voice.font is not None
        instrument = read_instrument(voice.font)
        # A detuned piece is played slower by the same factor and then resampled to its duration.
        clock_hz = sample_rate_hz * 2 ** (voice.tuning_cents / 1200)
        samples = np.zeros((round(num_samples * clock_hz / sample_rate_hz), 2), np.float32)
        turns: defaultdict[tuple[int, int], int] = defaultdict(int)
        for onset, offset, key, velocity in _events(notes, instrument):
            choices = _choices(voice.font, key, velocity)
            if not choices:
                continue
            number = choices[turns[key, choices[0]] % len(choices)]
            turns[key, choices[0]] += 1
            wave, scale = _WAVES.wave(voice.font, number, key, sample_rate_hz)
            gain = np.float32(scale * _gain(instrument, number, velocity))
            first = round(onset * clock_hz)
            let_go = None if offset is None else round(offset * clock_hz) - first
            _add(samples[first:], wave, gain, let_go, round(instrument.release_of(key) * clock_hz))
        if clock_hz == sample_rate_hz:
            return samples
        result = np.zeros((num_samples, 2), np.float32)
        tuned = soxr.resample(samples, clock_hz, sample_rate_hz)[:num_samples]
        result[: len(tuned)] = tuned
        return result


@lru_cache(maxsize=1 << 16)
def _choices(folder: Path, key: int, velocity: int) -> list[int]:
    return read_instrument(folder).for_note(key, velocity)


def _events(notes: NoteTable, instrument: Instrument) -> list[tuple[float, float | None, int, int]]:
    """(onset, release, key, velocity) by onset and key; release None for notes that ring until they have died away."""
    rows = sorted(
        zip(*(notes[name].tolist() for name in ("onset", "pitch", "offset", "velocity")), strict=True), reverse=True
    )
    group_of = {key: place for place, group in enumerate(instrument.choke_groups) for key in group}
    next_onset: dict[int, float] = {}  # of the same key
    let_go: dict[int, float | None] = {}
    next_in_group: dict[int, float] = {}
    events: list[tuple[float, float | None, int, int]] = []
    for onset, key, offset, velocity in rows:  # from the last to the first
        ends: float | None = offset
        if instrument.is_drum_kit:
            ends = next_in_group.get(group_of[key]) if key in group_of else None
        elif key > instrument.damped_to:
            ends = None
        elif instrument.rings and key in next_onset and next_onset[key] - offset < _REPEAT_SECONDS:
            ends = let_go[key]
        next_onset[key], let_go[key] = onset, ends
        if key in group_of:
            next_in_group[group_of[key]] = onset
        events.append((onset, ends, key, velocity))
    return events[::-1]


def _gain(instrument: Instrument, number: int, velocity: int) -> float:
    sample = instrument.samples[number]
    return 10 ** (sample.gain_db / 20) * (velocity / sample.reference_velocity) ** instrument.velocity_exponent


def _add(samples: np.ndarray, wave: np.ndarray, gain: np.float32, let_go: int | None, release: int) -> None:
    """Adds a note to the audio from its onset on."""
    length = min(len(wave), len(samples))
    held = length if let_go is None else min(let_go, length)
    samples[:held] += wave[:held] * gain
    fading = min(length, held + release) - held
    if fading > 0:
        fade = gain * np.exp(np.arange(fading, dtype=np.float32) * np.float32(-_SIXTY_DB / release))
        samples[held : held + fading] += wave[held : held + fading] * fade[:, np.newaxis]


class Waves:
    """Samples resampled to keys, as 16 bits to keep many; the least recently used are dropped first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[Path, int, int, int], tuple[np.ndarray, float]] = OrderedDict()

    def wave(self, folder: Path, number: int, key: int, sample_rate_hz: int) -> tuple[np.ndarray, float]:
        """A sample at a key: int16 of shape (samples, 2) or (samples, 1), and its factor."""
        place = folder, number, key, sample_rate_hz
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        made = _wave(folder, number, key, sample_rate_hz)
        self._kept[place] = made
        self._bytes += made[0].nbytes
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][0].nbytes
        return made


_WAVES = Waves(_MOST_BYTES)


def _wave(folder: Path, number: int, key: int, sample_rate_hz: int) -> tuple[np.ndarray, float]:
    instrument = read_instrument(folder)
    sample = instrument.samples[number]
    path = folder / sample.file
    with reading(path, AudioError, "Make the folder again with mt3 sounds.", soundfile.LibsndfileError):
        recorded, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    semitones = key - sample.key + sample.tune_cents / 100
    resampled = soxr.resample(recorded[:, :2], rate_hz * 2 ** (semitones / 12), sample_rate_hz)
    if not (instrument.rings or instrument.is_drum_kit):
        resampled = sustained(resampled, sample_rate_hz)
    peak = float(np.abs(resampled).max(initial=0.0)) or 1.0
    return np.rint(resampled * (_FULL_SCALE / peak)).astype(np.int16), peak / _FULL_SCALE


def sustained(audio: Float[np.ndarray, "frames channels"], sample_rate_hz: int) -> Float[np.ndarray, "longer channels"]:
    """A recording of a held note for as long as notes are held: its middle repeated, each faded into the next."""
    if len(audio) < _SHORTEST_SUSTAINED_SECONDS * sample_rate_hz:
        return audio
    begin, end = (round(share * len(audio)) for share in _REPEATED)
    stretch = audio[begin:end]
    fade = min(round(_CROSSFADE_SECONDS * sample_rate_hz), len(stretch) // 3)
    angle = np.linspace(0, np.pi / 2, fade, dtype=np.float32)[:, np.newaxis]
    joint = audio[end - fade : end] * np.cos(angle) + stretch[:fade] * np.sin(angle)
    repeat = np.concatenate([joint, stretch[fade:-fade]])
    count = int(np.ceil(_LONGEST_SUSTAINED_SECONDS * sample_rate_hz / len(repeat)))
    return np.concatenate([audio[: end - fade], *[repeat] * count])
