"""Changes to the audio of an example that keep its notes correct. Each is off until it has a probability.

Every draw comes from the given generator, and an effect that is off draws nothing.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from mt3core.config.data import AugmentationConfig
from mt3data.examples.filters import Section, filtered, high_pass, low_pass, peak
from mt3data.examples.mixing import limit_peak
from mt3data.prepare.chunks import SAMPLE_RATE_HZ

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


def augment(
    samples: Float[np.ndarray, " samples"], config: AugmentationConfig, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """The samples with the effects drawn for them; float32 within +-1, perhaps the same array.

    In the order of a recording: the instrument's tuning, the room, the transmission, noise, the level.
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
    """Faster and higher by this many cents, or slower and lower; the middle stays in place.

    Resampled by a cubic (Catmull-Rom) through four neighbours; beyond the ends the last sample is repeated.
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
    """A filter of two taps: the top of the spectrum `tilt_db` louder than the bottom, or softer if negative.

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

    Its power falls with frequency to the power `exponent`, rounded to halves: 0 is white, 1 pink, 2 brown. Cut at
    random from noise that is made once, because drawing it costs as much as everything else.
    """
    bank = _noise_bank(round(2 * exponent))
    if len(samples) > len(bank):
        raise ValueError(f"the noise bank has {len(bank)} samples, fewer than {len(samples)}")
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

    The level is measured over 32 ms at a time, and the gain is interpolated between their middles.
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
    """Peaks rounded off by a hyperbolic tangent; the highest keeps its height. At 0 dB it is hardly audible."""
    drive, highest = np.float32(_factor(drive_db)), np.abs(samples).max(initial=0.0)
    if highest == 0:
        return samples
    return np.tanh(samples * (drive / highest)) * np.float32(highest / np.tanh(drive))


def reverberate(
    samples: Float[np.ndarray, " samples"], seconds: float, level_db: float, rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """A tail that falls by 60 dB in `seconds`: four parallel recursive combs (Schroeder 1962).

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
