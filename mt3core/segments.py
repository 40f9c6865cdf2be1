"""A recording cut into the segments that the network reads one at a time.

A frame is one hop of audio (128 samples, 8 ms); a segment is `network.input_frames` frames without overlap.
Segments are cut before the spectrogram is made, so each is computed from its own samples only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mt3core.config.model import ModelConfig
from mt3core.notes.vocabulary import segment_start_seconds


@dataclass(frozen=True)
class AudioSegment:
    """The position of a segment: its frames in the recording, and the time its notes are counted from.

    The network may hear it some `semitones` higher, because it is played faster: then its `num_frames` are frames of
    what the network hears, and each is `pace` frames of the recording.
    """

    index: int
    first_frame: int
    num_frames: int
    # Rounded down to the 10 ms grid as in the original; see `vocabulary.segment_start_seconds`.
    start_seconds: float
    semitones: int = 0

    @property
    def pace(self) -> float:
        """How many times faster than it was played the network hears it."""
        return 2.0 ** (self.semitones / 12)


def num_frames(num_samples: int, hop_samples: int) -> int:
    """Frames of a recording: the original always pads to the next hop, so a whole hop of zeros at the least.

    0 samples make 1 frame, 127 make 1, 128 make 2.
    """
    return num_samples // hop_samples + 1


def segments(num_samples: int, config: ModelConfig) -> list[AudioSegment]:
    """The segments of a recording of `num_samples` samples, in order; only the last may be shorter."""
    total = num_frames(num_samples, config.spectrogram.hop_samples)
    length = config.network.input_frames
    return [
        AudioSegment(
            index=index,
            first_frame=first,
            num_frames=min(length, total - first),
            start_seconds=segment_start_seconds(
                first, config.spectrogram.frames_per_second, config.vocabulary.steps_per_second
            ),
        )
        for index, first in enumerate(range(0, total, length))
    ]


def segment_samples(
    samples: Float[np.ndarray, " samples"], segment: AudioSegment, config: ModelConfig
) -> Float[np.ndarray, " segment_samples"]:
    """The segment's own samples, float32, `config.segment_samples` of them: zeros after its end."""
    hop = config.spectrogram.hop_samples
    first = segment.first_frame * hop
    own = samples[first : first + segment.num_frames * hop]
    result = np.zeros(config.segment_samples, np.float32)
    result[: len(own)] = own
    return result
