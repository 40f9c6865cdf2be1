"""The common result of all audio readers: a description, float32 blocks in order, and remarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from jaxtyping import Float
from numpy import ndarray

from mt3core.errors import AudioError

# Values per block, over all channels: about 1 MB of float32.
BLOCK_VALUES = 1 << 18
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 1_000_000
KEEP_HINT = 'to use what can be read, with silence for what is lost, --damaged keep (in Python damaged="keep").'


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself; `duration_seconds` is None if only decoding the whole file would tell."""

    duration_seconds: float | None
    sample_rate_hz: float
    channels: int
    format: str


@dataclass(frozen=True)
class RateChange:
    """Stands between two blocks of a stream: the blocks after it have another sample rate."""

    sample_rate_hz: float


@dataclass(frozen=True)
class AudioStream:
    """An open source of audio: `blocks` can be read once, while the source is open.

    `remarks` are sentences about what is odd about the source; some are added while the blocks are read.
    """

    name: str
    info: AudioInfo
    blocks: Iterator[Float[ndarray, "frames channels"] | RateChange]
    remarks: list[str] = field(default_factory=list)


def cut_off_error(name: str, reason: str) -> AudioError:
    """For files whose end is missing or damaged: part of a piece must not pass for the whole."""
    return AudioError(f"{name} is truncated or damaged: {reason}.", f"Copy or download it again; {KEEP_HINT}")


def seconds_text(seconds: float) -> str:
    """A length or a place for a sentence: "0.046 s", "4.15 s", "1:02:03"."""
    if seconds < 100:
        return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.2f} s"
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:02d}:{whole % 60:02d}" if hours else f"{whole // 60}:{whole % 60:02d}"


def check_rate(name: str, rate_hz: float) -> None:
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:  # NaN fails too
        raise AudioError(
            f"{name} has a sample rate of {rate_hz:g} Hz.",
            f"Use a rate from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz, or resample first.",
        )


def no_samples_error(name: str) -> AudioError:
    return AudioError(f"{name} contains no audio: 0 samples.", "Check the recording or the export that made it.")
