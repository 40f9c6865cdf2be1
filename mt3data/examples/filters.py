"""Second-order filters and their cascade, from R. Bristow-Johnson's "Cookbook formulae for audio equalizer biquad
filter coefficients". They delay the signal by less than a millisecond at the frequencies used here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_BUTTERWORTH_QUALITY = 2**-0.5
_FOURTH_ORDER_QUALITIES = (0.54119610, 1.30656296)  # of the two sections of a Butterworth filter of fourth order

Section = Float[np.ndarray, " 6"]


def peak(frequency_hz: float, gain_db: float, quality: float, sample_rate_hz: int) -> list[Section]:
    """A band around a frequency louder by `gain_db`, or softer; the rest is unchanged."""
    cosine, alpha = _angle(frequency_hz, quality, sample_rate_hz)
    amplitude = 10 ** (gain_db / 40)
    above, below = alpha * amplitude, alpha / amplitude
    return [_section((1 + above, -2 * cosine, 1 - above), (1 + below, -2 * cosine, 1 - below))]


def low_pass(frequency_hz: float, sample_rate_hz: int) -> list[Section]:
    """3 dB less at a frequency and 24 dB less an octave higher."""
    sections = []
    for quality in _FOURTH_ORDER_QUALITIES:
        cosine, alpha = _angle(frequency_hz, quality, sample_rate_hz)
        half = (1 - cosine) / 2
        sections.append(_section((half, 2 * half, half), (1 + alpha, -2 * cosine, 1 - alpha)))
    return sections


def high_pass(frequency_hz: float, sample_rate_hz: int) -> list[Section]:
    """3 dB less at a frequency and 12 dB less an octave lower."""
    cosine, alpha = _angle(frequency_hz, _BUTTERWORTH_QUALITY, sample_rate_hz)
    half = (1 + cosine) / 2
    return [_section((half, -2 * half, half), (1 + alpha, -2 * cosine, 1 - alpha))]


def filtered(samples: Float[np.ndarray, " samples"], sections: Sequence[Section]) -> Float[np.ndarray, " samples"]:
    """The samples through all sections, one after the other, in one pass."""
    from scipy.signal import sosfilt

    if not sections:
        return samples
    return sosfilt(np.stack(sections).astype(np.float32), samples)


def _angle(frequency_hz: float, quality: float, sample_rate_hz: int) -> tuple[float, float]:
    angle = 2 * np.pi * frequency_hz / sample_rate_hz
    return float(np.cos(angle)), float(np.sin(angle) / (2 * quality))


def _section(numerator: tuple[float, float, float], denominator: tuple[float, float, float]) -> Section:
    return np.array([*numerator, *denominator]) / denominator[0]
