"""Integrated loudness in LUFS (ITU-R BS.1770-4), as used to normalise SLAKH's stems; pyloudnorm measures it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mt3core.extras import needed

SILENT_LUFS = -70.0  # the absolute gate: softer parts do not count
_BLOCK_SECONDS = 0.4
# The level of an instrument that seldom plays is that of the moments when it does.
_SOUNDING_BLOCK_SECONDS = 0.1
_SOUNDING_SHARE = 1e-4  # of the loudest block's power: 40 dB below it
# The standard gives its filters for 48 kHz only. Of pyloudnorm's two methods for other rates, these corner frequencies,
# qualities and gains (B. De Man, AES 2018) reproduce the standard's own values at 48 kHz.
_FILTERS = "DeMan"


def integrated_loudness(audio: Float[np.ndarray, " samples"], sample_rate_hz: int) -> float:
    """Loudness of mono audio in LUFS over its parts that are not silent; -70 if all are."""
    with needed("datasets", "Loudness"):
        import pyloudnorm

    if missing := max(0, int(np.ceil(_BLOCK_SECONDS * sample_rate_hz)) - len(audio)):
        audio = np.pad(audio, (0, missing))
    loudness = pyloudnorm.Meter(sample_rate_hz, _FILTERS).integrated_loudness(audio)
    return max(float(loudness), SILENT_LUFS)  # it is minus infinity for silence


def mean_level(audio: Float[np.ndarray, " samples"], sample_rate_hz: int) -> float:
    """Level of mono audio in decibels of full scale, without the standard's filters and gates, which need a package."""
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    return max(10 * float(np.log10(power)), SILENT_LUFS) if power else SILENT_LUFS


def sounding_level(audio: Float[np.ndarray, " samples"], sample_rate_hz: int) -> float:
    """The same over those tenths of a second in which there is sound: within 40 dB of the loudest of them."""
    length = max(1, round(_SOUNDING_BLOCK_SECONDS * sample_rate_hz))
    power = np.square(audio, dtype=np.float64)
    power = np.pad(power, (0, -len(power) % length)).reshape(-1, length).mean(axis=1)
    loudest = power.max(initial=0.0)
    if not loudest:
        return SILENT_LUFS
    return max(10 * float(np.log10(power[power > _SOUNDING_SHARE * loudest].mean())), SILENT_LUFS)
