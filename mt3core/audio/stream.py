"""The common result of all audio readers: a description, and float32 blocks in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from mt3core.errors import AudioError

# Values per block, over all channels: about 1 MB of float32.
BLOCK_VALUES = 1 << 18


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself; `duration_seconds` is None if only decoding the whole file would tell."""

    duration_seconds: float | None
    sample_rate_hz: float
    channels: int
    format: str


@dataclass(frozen=True)
class AudioStream:
    """An open source of audio: `blocks` can be read once, while the source is open."""

    name: str
    info: AudioInfo
    blocks: Iterator[Float[ndarray, "frames channels"]]


def cut_off_error(name: str, reason: str) -> AudioError:
    """For files whose end is missing or damaged: part of a piece must not pass for the whole."""
    return AudioError(
        f"{name} is truncated or damaged: {reason}.",
        "Copy or download it again; to use the intact part, save it as a new file first (ffmpeg or Audacity).",
    )
