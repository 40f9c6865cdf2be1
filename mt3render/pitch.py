"""How far a recorded note of known key is out of tune."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_SEARCHED_CENTS = 300  # either way: a clarinet's files may be named by the written pitch
_STEP_CENTS = 2
_HARMONICS = np.arange(1, 9)
_ATTACK_SECONDS = 0.06  # which is left out
_LONGEST_SECONDS, _SHORTEST_SECONDS, _FEWEST_PERIODS = 0.8, 0.1, 12
_FINENESS = 8  # bins of the spectrum per bin of its window


def cents_above(audio: Float[np.ndarray, " samples"], sample_rate_hz: int, key: int) -> float:
    """Cents by which a note is higher than its key; 0 if it is too short to measure.

    Measured at the pitch where the amplitudes of eight harmonics, higher ones weighted less, have the largest sum.
    """
    key_hz = 440 * 2 ** ((key - 69) / 12)
    begin = round(_ATTACK_SECONDS * sample_rate_hz)
    stretch = audio[begin : begin + round(_LONGEST_SECONDS * sample_rate_hz)]
    if len(stretch) < max(_FEWEST_PERIODS / key_hz, _SHORTEST_SECONDS) * sample_rate_hz:
        return 0.0
    num_bins = _FINENESS * len(stretch)
    spectrum = np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)), num_bins))
    cents = np.arange(-_SEARCHED_CENTS, _SEARCHED_CENTS + 1, _STEP_CENTS)
    frequencies_hz = key_hz * 2 ** (cents[:, np.newaxis] / 1200) * _HARMONICS
    places = np.rint(frequencies_hz * num_bins / sample_rate_hz).astype(np.int64)
    amplitudes = np.where(places < len(spectrum), spectrum[np.minimum(places, len(spectrum) - 1)], 0.0)
    return float(cents[np.argmax(amplitudes @ (1 / np.sqrt(_HARMONICS)))])
