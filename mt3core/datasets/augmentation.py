"""Changes to the audio of an example that leave its notes true. Each is off until it is given a probability.

Every draw comes from the generator given in, and an effect that is off draws nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from mt3core.datasets.chunks import SAMPLE_RATE_HZ
from mt3core.datasets.mixing import limit_peak
from mt3core.errors import UsageError

_NOISE_BANK_SAMPLES = 1 << 18
_NUM_COMBS = 4
# Delays of 30 to 50 ms are too long to be heard as a pitch and too short to be heard as an echo (Schroeder 1962).
_COMB_SAMPLES = (480, 800)


@dataclass(frozen=True)
class AugmentationConfig:
    """Probability of each effect, and how far it goes; all draws are uniform within the ranges."""

    gain_probability: float = 0.0
    gain_db: tuple[float, float] = (-12.0, 6.0)
    polarity_probability: float = 0.0  # the signal upside down
    tilt_probability: float = 0.0
    tilt_db: float = 6.0  # largest difference between the top of the spectrum and its bottom, either way
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (20.0, 60.0)  # white noise, against the signal's mean power
    reverb_probability: float = 0.0
    reverb_seconds: tuple[float, float] = (0.1, 0.8)  # until the tail has fallen by 60 dB
    reverb_db: tuple[float, float] = (-24.0, -10.0)  # the tail's level against the signal's
    detune_probability: float = 0.0
    # Speed changes with pitch: 3 cents move the ends of 2 s by 1.8 ms, a fifth of the codec's step of 10 ms.
    detune_cents: float = 3.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_probability") and not 0.0 <= value <= 1.0:
                raise UsageError(f"augmentation.{field.name} is {value}.", "Give a probability from 0 to 1.")
            if isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise UsageError(f"augmentation.{field.name} is {value}.", "Give the lower and the upper end.")
        if self.reverb_seconds[0] <= 0:
            raise UsageError(f"augmentation.reverb_seconds is {self.reverb_seconds}.", "Give times above 0.")
        if not 0 <= self.detune_cents <= 5:
            raise UsageError(
                f"augmentation.detune_cents is {self.detune_cents}.", "Beyond 5 cents the notes' times are wrong."
            )

    @property
    def is_on(self) -> bool:
        return any(getattr(self, field.name) > 0 for field in fields(self) if field.name.endswith("_probability"))


def augment(
    samples: Float[np.ndarray, " samples"], config: AugmentationConfig, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """The samples with the effects whose turn it is; float32 within +-1, perhaps the same array.

    In the order of a recording: the instrument's tuning, the room, the microphone's colour and noise, the level.
    """
    if _happens(config.detune_probability, rng):
        samples = detune(samples, rng.uniform(-config.detune_cents, config.detune_cents))
    if _happens(config.reverb_probability, rng):
        samples = reverberate(samples, rng.uniform(*config.reverb_seconds), rng.uniform(*config.reverb_db), rng)
    if _happens(config.tilt_probability, rng):
        samples = tilt(samples, rng.uniform(-config.tilt_db, config.tilt_db))
    if _happens(config.noise_probability, rng):
        samples = add_noise(samples, rng.uniform(*config.noise_snr_db), rng)
    if _happens(config.gain_probability, rng):
        samples = samples * np.float32(_factor(rng.uniform(*config.gain_db)))
    if _happens(config.polarity_probability, rng):
        samples = -samples
    return limit_peak(samples)


def detune(samples: Float[np.ndarray, " samples"], cents: float) -> Float[np.ndarray, " samples"]:
    """Faster and higher by so many cents, or slower and lower; the middle stays where it is.

    Resampled by a cubic (Catmull-Rom) through four neighbours; what lies beyond the ends is their last sample.
    """
    length = len(samples)
    middle = (length - 1) / 2
    position = middle + (np.arange(length) - middle) * 2 ** (cents / 1200)
    before = np.floor(position)
    part = (position - before).astype(np.float32)
    index = before.astype(np.int64)
    p0, p1, p2, p3 = (samples[np.clip(index + shift, 0, length - 1)] for shift in (-1, 0, 1, 2))
    slope = p2 - p0
    bend = 2 * p0 - 5 * p1 + 4 * p2 - p3
    twist = 3 * (p1 - p2) + p3 - p0
    return p1 + np.float32(0.5) * part * (slope + part * (bend + part * twist))


def tilt(samples: Float[np.ndarray, " samples"], tilt_db: float) -> Float[np.ndarray, " samples"]:
    """A filter of two taps: the top of the spectrum by `tilt_db` louder than the bottom, or softer if negative.

    The louder end keeps its level.
    """
    ratio = _factor(-tilt_db)
    tap = (ratio - 1) / (ratio + 1)  # gain 1 + tap at 0 Hz and 1 - tap at half the rate
    result = samples * np.float32(1 / (1 + abs(tap)))
    result[1:] += samples[:-1] * np.float32(tap / (1 + abs(tap)))
    return result


def add_noise(
    samples: Float[np.ndarray, " samples"], snr_db: float, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """White noise added, `snr_db` below the signal's mean power; silence stays silent.

    Cut at random from a stretch of noise that is made once, because drawing it costs as much as all the rest.
    """
    bank = _noise_bank()
    if len(samples) > len(bank):
        raise ValueError(f"noise is there for {len(bank)} samples, not {len(samples)}")
    start = int(rng.integers(len(bank) - len(samples) + 1))
    noise = bank[start : start + len(samples)]
    root_mean_square = np.sqrt(np.dot(samples, samples) / max(len(samples), 1))
    return samples + noise * np.float32(root_mean_square * _factor(-snr_db))


def reverberate(
    samples: Float[np.ndarray, " samples"], seconds: float, level_db: float, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """A tail that falls by 60 dB in `seconds`: four recursive combs side by side (Schroeder 1962).

    `level_db` is the tail's power against the signal's. The onset of the sound itself stays where it is.
    """
    tail = np.zeros_like(samples)
    for delay in rng.integers(*_COMB_SAMPLES, size=_NUM_COMBS).tolist():
        feedback = np.float32(10 ** (-3 * delay / (seconds * SAMPLE_RATE_HZ)))
        rows = -(-len(samples) // delay)
        comb = np.zeros((rows, delay), np.float32)
        comb.reshape(-1)[: len(samples)] = samples
        for row in range(1, rows):
            comb[row] += feedback * comb[row - 1]
        tail[delay:] += comb.reshape(-1)[: max(len(samples) - delay, 0)]
    power, tail_power = np.dot(samples, samples), np.dot(tail, tail)
    if tail_power > 0:
        tail *= np.float32(np.sqrt(power / tail_power) * _factor(level_db))
    return samples + tail


@functools.lru_cache(maxsize=1)
def _noise_bank() -> Float[np.ndarray, " samples"]:
    bank = np.random.default_rng(0).standard_normal(_NOISE_BANK_SAMPLES, np.float32)
    bank.flags.writeable = False
    return bank


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return probability > 0 and rng.random() < probability


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
