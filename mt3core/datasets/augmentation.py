"""Changes to the audio of an example that leave its notes true. Each is off until it is given a probability.

Every draw comes from the generator given in, and an effect that is off draws nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float

from mt3core.datasets.chunks import SAMPLE_RATE_HZ
from mt3core.datasets.filters import Section, filtered, high_pass, low_pass, peak
from mt3core.datasets.mixing import limit_peak
from mt3core.errors import UsageError

_NOISE_BANK_SAMPLES = 1 << 18
_NUM_COMBS = 4
# Delays of 30 to 50 ms are too long to be heard as a pitch and too short to be heard as an echo (Schroeder 1962).
_COMB_SAMPLES = (480, 800)
_PEAK_HZ, _PEAK_QUALITY, _MOST_PEAKS = (80.0, 6000.0), (0.5, 3.0), 3
_LOWEST_NOISE_HZ = 40.0
_HUM_TURNS, _HUM_SAMPLES, _HUM_HARMONICS = (5, 6), SAMPLE_RATE_HZ // 10, 6
_LEVEL_SAMPLES = 512
_SMOOTHING = (0.25, 0.5, 0.25)
_COMPRESSOR_GAIN_DB = (-18.0, 12.0)


@dataclass(frozen=True)
class AugmentationConfig:
    """Probability of each effect, and how far it goes; all draws are uniform within the ranges."""

    gain_probability: float = 0.0
    gain_db: tuple[float, float] = (-12.0, 6.0)
    polarity_probability: float = 0.0  # the signal upside down
    tilt_probability: float = 0.0
    tilt_db: float = 6.0  # largest difference between the top of the spectrum and its bottom, either way
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (20.0, 60.0)  # noise, against the signal's mean power
    noise_exponent: tuple[float, float] = (0.0, 0.0)  # its power falls with frequency to this: 0 white, 1 pink, 2 brown
    hum_probability: float = 0.0  # of the mains, 50 or 60 Hz with harmonics
    hum_snr_db: tuple[float, float] = (25.0, 55.0)
    reverb_probability: float = 0.0
    reverb_seconds: tuple[float, float] = (0.1, 0.8)  # until the tail has fallen by 60 dB
    reverb_db: tuple[float, float] = (-24.0, -10.0)  # the tail's level against the signal's
    equaliser_probability: float = 0.0
    equaliser_db: float = 8.0  # largest gain of a peak, either way; one to three peaks
    low_pass_probability: float = 0.0
    low_pass_hz: tuple[float, float] = (2500.0, 7500.0)  # telephones end at 3,400 Hz, cheap microphones above
    high_pass_probability: float = 0.0
    high_pass_hz: tuple[float, float] = (60.0, 350.0)  # where small loudspeakers and telephones begin
    compression_probability: float = 0.0  # the automatic level of a recorder
    compression_ratio: tuple[float, float] = (1.5, 4.0)
    saturation_probability: float = 0.0  # an amplifier or a tape driven too far
    saturation_db: tuple[float, float] = (0.0, 12.0)  # how far
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
        for name in ("low_pass_hz", "high_pass_hz"):
            value = getattr(self, name)
            if not (value[0] > 0 and value[1] < SAMPLE_RATE_HZ / 2):
                raise UsageError(
                    f"augmentation.{name} is {value}.", f"Give frequencies above 0 and below {SAMPLE_RATE_HZ // 2}."
                )
        if self.compression_ratio[0] < 1:
            raise UsageError(f"augmentation.compression_ratio is {self.compression_ratio}.", "Give ratios from 1.")
        if not 0 <= self.noise_exponent[0] <= self.noise_exponent[1] <= 2:
            raise UsageError(f"augmentation.noise_exponent is {self.noise_exponent}.", "Give exponents from 0 to 2.")
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

    In the order of a recording: the instrument's tuning, the room, what colours it on its way, noise, the level.
    Whatever is drawn, a note's onset stays within 5 ms; detuning alone moves the ends of the example by 2 ms.
    """
    if _happens(config.detune_probability, rng):
        samples = detune(samples, rng.uniform(-config.detune_cents, config.detune_cents))
    if _happens(config.reverb_probability, rng):
        samples = reverberate(samples, rng.uniform(*config.reverb_seconds), rng.uniform(*config.reverb_db), rng)
    if _happens(config.tilt_probability, rng):
        samples = tilt(samples, rng.uniform(-config.tilt_db, config.tilt_db))
    samples = filtered(samples, _draw_filters(config, rng))
    if _happens(config.noise_probability, rng):
        low, high = config.noise_exponent
        samples = add_noise(samples, rng.uniform(*config.noise_snr_db), rng, rng.uniform(low, high) if high else 0.0)
    if _happens(config.hum_probability, rng):
        samples = add_hum(samples, rng.uniform(*config.hum_snr_db), rng)
    if _happens(config.compression_probability, rng):
        samples = compress(samples, rng.uniform(*config.compression_ratio))
    if _happens(config.saturation_probability, rng):
        samples = saturate(samples, rng.uniform(*config.saturation_db))
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


def _draw_filters(config: AugmentationConfig, rng: np.random.Generator) -> list[Section]:
    """An equaliser's peaks, evenly on a scale of octaves, and the ends of a transmission."""
    sections: list[Section] = []
    if _happens(config.equaliser_probability, rng):
        for _ in range(int(rng.integers(1, _MOST_PEAKS + 1))):
            frequency_hz = float(np.exp(rng.uniform(*np.log(_PEAK_HZ))))
            gain_db = rng.uniform(-config.equaliser_db, config.equaliser_db)
            sections += peak(frequency_hz, gain_db, rng.uniform(*_PEAK_QUALITY), SAMPLE_RATE_HZ)
    if _happens(config.low_pass_probability, rng):
        sections += low_pass(rng.uniform(*config.low_pass_hz), SAMPLE_RATE_HZ)
    if _happens(config.high_pass_probability, rng):
        sections += high_pass(rng.uniform(*config.high_pass_hz), SAMPLE_RATE_HZ)
    return sections


def add_noise(
    samples: Float[np.ndarray, " samples"], snr_db: float, rng: np.random.Generator, exponent: float = 0.0
) -> Float[np.ndarray, " samples"]:
    """Noise added, `snr_db` below the signal's mean power; silence stays silent.

    Its power falls with frequency to `exponent`, to the nearest half: 0 is white, 1 pink, 2 brown. Cut at random from
    a stretch of noise that is made once, because drawing it costs as much as all the rest.
    """
    bank = _noise_bank(round(2 * exponent))
    if len(samples) > len(bank):
        raise ValueError(f"noise is there for {len(bank)} samples, not {len(samples)}")
    start = int(rng.integers(len(bank) - len(samples) + 1))
    noise = bank[start : start + len(samples)]
    return samples + noise * np.float32(_root_mean_square(samples) * _factor(-snr_db))


def add_hum(
    samples: Float[np.ndarray, " samples"], snr_db: float, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """The hum of the mains added, `snr_db` below the signal's mean power: 50 or 60 Hz with weaker harmonics."""
    harmonics = np.arange(1, _HUM_HARMONICS + 1)
    turns = int(rng.choice(_HUM_TURNS)) * harmonics  # in a tenth of a second, a whole number for either
    phase = rng.uniform(0, 2 * np.pi, _HUM_HARMONICS)
    weights = rng.uniform(0, 1, _HUM_HARMONICS) / harmonics
    places = np.arange(_HUM_SAMPLES) * (2 * np.pi / _HUM_SAMPLES)
    hum = weights @ np.sin(turns[:, np.newaxis] * places + phase[:, np.newaxis])
    level = _root_mean_square(samples) * _factor(-snr_db) / max(float(np.sqrt(np.mean(hum**2))), 1e-9)
    return samples + np.resize((hum * level).astype(np.float32), len(samples))


def compress(samples: Float[np.ndarray, " samples"], ratio: float) -> Float[np.ndarray, " samples"]:
    """Soft passages louder and loud ones softer: differences of level, in decibels, become `ratio` times smaller.

    The level is that of stretches of 32 ms, and the gain moves from the middle of one to that of the next.
    """
    num_blocks = len(samples) // _LEVEL_SAMPLES
    if not num_blocks:
        return samples
    blocks = samples[: num_blocks * _LEVEL_SAMPLES].reshape(num_blocks, _LEVEL_SAMPLES)
    power = np.einsum("bs,bs->b", blocks, blocks) / _LEVEL_SAMPLES
    if not power.any():
        return samples
    smooth = np.convolve(np.pad(power, 1, "edge"), _SMOOTHING, "valid")
    level_db = 10 * np.log10(np.maximum(smooth / smooth.mean(), 1e-9))
    gain_db = np.clip((1 / ratio - 1) * level_db, *_COMPRESSOR_GAIN_DB)
    middles = (np.arange(num_blocks) + 0.5) * _LEVEL_SAMPLES
    gain = np.interp(np.arange(len(samples)), middles, 10 ** (gain_db / 20))
    return samples * gain.astype(np.float32)


def saturate(samples: Float[np.ndarray, " samples"], drive_db: float) -> Float[np.ndarray, " samples"]:
    """Peaks rounded off by a hyperbolic tangent; the highest keeps its height. At 0 dB it is hardly heard."""
    drive, highest = np.float32(_factor(drive_db)), np.abs(samples).max(initial=0.0)
    if highest == 0:
        return samples
    return np.tanh(samples * (drive / highest)) * np.float32(highest / np.tanh(drive))


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


@functools.lru_cache(maxsize=5)
def _noise_bank(half_exponents: int = 0) -> Float[np.ndarray, " samples"]:
    """Noise of power 1 whose power falls with frequency to half of `half_exponents`, from 40 Hz on."""
    bank = np.random.default_rng(0).standard_normal(_NOISE_BANK_SAMPLES, np.float32)
    if half_exponents:
        frequencies_hz = np.fft.rfftfreq(len(bank), 1 / SAMPLE_RATE_HZ)
        shape = np.maximum(frequencies_hz, _LOWEST_NOISE_HZ) ** (-half_exponents / 4)
        shape[frequencies_hz < _LOWEST_NOISE_HZ] = 0
        bank = np.fft.irfft(np.fft.rfft(bank) * shape).astype(np.float32)
        bank /= _root_mean_square(bank)
    bank.flags.writeable = False
    return bank


def _root_mean_square(samples: np.ndarray) -> float:
    return float(np.sqrt(np.dot(samples, samples) / max(len(samples), 1)))


def _happens(probability: float, rng: np.random.Generator) -> bool:
    return probability > 0 and rng.random() < probability


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))
