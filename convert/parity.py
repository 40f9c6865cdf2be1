"""The parity report: both networks on the same input, compared stage by stage.

Both transcribers read the audio and their tokens, notes and MIDI files are compared; then both networks are
walked through layer by layer, the decoder under teacher forcing with PyTorch's tokens. Tokens may differ only
if the network itself is undecided: a tie, with the two best logits closer than the tolerance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mt3convert.parity_stages import Framework, Meter, StageDifference, decoder_stages, encoder_stages, log_mel_in
from mt3core.config.model import ModelConfig
from mt3core.decoding import START_TOKEN, Decoding
from mt3core.segments import AudioSegment, segment_samples, segments
from mt3core.spectrogram import log_mel_segments
from mt3core.transcription import Transcription

DEFAULT_TOLERANCE = 1e-4
AS_THE_ORIGINAL = Decoding()
# Rounding noise grows if a band is nearly silent; the bounds for float32 are those of the original's own
# float32 against float64, increased by an order of magnitude.
LOG_MEL_BOUNDS = ((-4.0, 2e-3), (-8.0, 2e-2))
_SEGMENTS_AT_ONCE = 4
_TOKENS_MULTIPLE = 128


@dataclass(frozen=True)
class TokenDifference:
    """The first token of a segment in which the networks disagree.

    `margin` is how much PyTorch's best logit there exceeds its second best.
    """

    segment: int
    position: int
    torch_token: int | None
    jax_token: int | None
    margin: float
    is_tie: bool


@dataclass(frozen=True)
class ParityReport:
    """What was compared, and how much the networks differ; every difference is absolute, PyTorch minus JAX."""

    model: str
    tolerance: float
    num_segments: int
    num_tokens: int
    stages: tuple[StageDifference, ...]
    token_differences: tuple[TokenDifference, ...]
    torch_notes: int
    jax_notes: int
    # Number of the first note that differs between the two.
    first_note_difference: int | None
    midi_identical: bool

    @property
    def within_tolerance(self) -> bool:
        """All stages are within their bounds; tokens, notes and MIDI are equal, or differ only after ties."""
        stages = all(stage.within_tolerance for stage in self.stages)
        only_ties = all(difference.is_tie for difference in self.token_differences)
        equal = self.midi_identical and self.first_note_difference is None
        return stages and only_ties and (equal or bool(self.token_differences))

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values, with `within_tolerance`, also for every stage."""
        stages = [{**dataclasses.asdict(stage), "within_tolerance": stage.within_tolerance} for stage in self.stages]
        return {**dataclasses.asdict(self), "stages": stages, "within_tolerance": self.within_tolerance}


def run_parity(
    config: ModelConfig,
    arrays: Mapping[str, np.ndarray],
    samples: Float[np.ndarray, " samples"],
    decoding: Decoding = AS_THE_ORIGINAL,
    tolerance: float = DEFAULT_TOLERANCE,
    device: str = "cpu",
) -> ParityReport:
    """Compares both networks on one recording.

    Args:
        config: the model's settings.
        arrays: its weights by PyTorch name.
        samples: mono audio at the model's rate.
        decoding: how tokens are chosen.
        tolerance: for the logits, absolute; in earlier stages relative to the largest value of the stage.
        device: for both frameworks.

    Raises `MissingExtraError` if one of the frameworks is not installed.
    """
    frameworks = Framework("torch", config, arrays, device), Framework("jax", config, arrays, device)
    return compare_frameworks(*frameworks, samples, decoding, tolerance)


def compare_frameworks(
    torch_side: Framework,
    jax_side: Framework,
    samples: Float[np.ndarray, " samples"],
    decoding: Decoding = AS_THE_ORIGINAL,
    tolerance: float = DEFAULT_TOLERANCE,
) -> ParityReport:
    """The same with networks that are already built: for several recordings one after the other."""
    config = torch_side.model.config
    decoding = dataclasses.replace(decoding, max_tokens=min(decoding.max_tokens, config.network.max_target_tokens))
    results = [
        side.package.Transcriber(side.model, decoding).transcribe_samples(samples) for side in (torch_side, jax_side)
    ]
    tokens = [[np.asarray(segment.tokens, np.int32) for segment in result.segments] for result in results]
    pieces = segments(len(samples), config)
    meters: dict[str, Meter] = {}
    differences: list[TokenDifference] = []
    with jax_side.full_precision():
        for first in range(0, len(pieces), _SEGMENTS_AT_ONCE):
            part = slice(first, first + _SEGMENTS_AT_ONCE)
            _compare_log_mels(torch_side, jax_side, samples, pieces[part], meters)
            log_mel = log_mel_segments(samples, pieces[part], config)
            logits = _compare_stages(torch_side, jax_side, log_mel, tokens[0][part], first, tolerance, meters)
            differences += _token_differences(tokens[0][part], tokens[1][part], logits, first, tolerance)
    return ParityReport(
        model=config.name,
        tolerance=tolerance,
        num_segments=len(pieces),
        num_tokens=sum(map(len, tokens[0])),
        stages=tuple(meter.result() for meter in meters.values()),
        token_differences=tuple(differences),
        torch_notes=len(results[0].notes),
        jax_notes=len(results[1].notes),
        first_note_difference=_first_note_difference(*results),
        midi_identical=results[0].to_bytes("mid") == results[1].to_bytes("mid"),
    )


def synthetic_samples(seconds: float, sample_rate_hz: int) -> Float[np.ndarray, " samples"]:
    """A test signal: decaying harmonic tones, a chord, noise bursts, and silence at the end."""
    times = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    signal = np.zeros_like(times)
    for number, semitones in enumerate([0, 4, 7, 12, 16, 7, 4, 0]):
        since = times - number * 0.35
        frequency_hz = 220.0 * 2 ** (semitones / 12)
        tone = sum(np.sin(2 * np.pi * frequency_hz * k * since) / k**1.5 for k in range(1, 9))
        signal += 0.15 * tone * np.exp(-3 * np.maximum(since, 0)) * (since >= 0) * (since < 1.5)
    noise = np.random.default_rng(0).standard_normal(len(times))
    signal += 0.1 * noise * np.exp(-40 * (times % 0.7)) * (times < 3)
    return signal.astype(np.float32)


def _compare_log_mels(
    torch_side: Framework,
    jax_side: Framework,
    samples: np.ndarray,
    pieces: list[AudioSegment],
    meters: dict[str, Meter],
) -> None:
    """The log-mel of each framework against NumPy's, over the values above each bound."""
    config = torch_side.model.config
    own = np.stack([segment_samples(samples, piece, config) for piece in pieces])
    frames = np.array([piece.num_frames for piece in pieces])
    expected = log_mel_segments(samples, pieces, config)
    is_valid = np.arange(expected.shape[1])[None, :, None] < frames[:, None, None]
    for side in (torch_side, jax_side):
        computed = side.numpy(log_mel_in(side, own, frames, config))
        for lowest, bound in LOG_MEL_BOUNDS:
            stage = f"log-mel > {lowest:g}, {side.name} and numpy"
            meter = meters.setdefault(stage, Meter(stage, bound))
            meter.add(computed, expected, is_valid & (expected > lowest), pieces[0].index)


def _compare_stages(
    torch_side: Framework,
    jax_side: Framework,
    log_mel: np.ndarray,
    tokens: list[np.ndarray],
    first: int,
    tolerance: float,
    meters: dict[str, Meter],
) -> np.ndarray:
    """Walks both networks through some segments; returns PyTorch's logits."""
    length = -(-max(map(len, tokens)) // _TOKENS_MULTIPLE) * _TOKENS_MULTIPLE
    # Always the same number of segments, and few different lengths, so that JAX compiles few programs.
    log_mel = np.concatenate([log_mel, np.zeros_like(log_mel[:1]).repeat(_SEGMENTS_AT_ONCE - len(log_mel), axis=0)])
    inputs = np.full((len(log_mel), length), START_TOKEN, np.int32)
    is_token = np.zeros(inputs.shape, bool)
    for row, own in enumerate(tokens):
        inputs[row, 1 : len(own)] = own[:-1]
        is_token[row, : len(own)] = True

    def compare(stages: Iterator, valid: np.ndarray) -> tuple[Any, Any]:
        for (name, torch_values), (_, jax_values) in stages:
            # The tolerance is meant for logits; hidden states are larger in deeper layers.
            meter = meters.setdefault(name, Meter(name, tolerance, is_relative=name != "logits"))
            meter.add(torch_side.numpy(torch_values), jax_side.numpy(jax_values), valid, first)
        return torch_values, jax_values

    every_frame = np.zeros(log_mel.shape[:2], bool)
    every_frame[: len(tokens)] = True
    walk = zip(torch_side.run(encoder_stages, log_mel), jax_side.run(encoder_stages, log_mel), strict=True)
    torch_encoded, jax_encoded = compare(walk, every_frame)
    walk = zip(
        torch_side.run(decoder_stages, torch_encoded, inputs),
        jax_side.run(decoder_stages, jax_encoded, inputs),
        strict=True,
    )
    return torch_side.numpy(compare(walk, is_token)[0])


def _token_differences(
    torch_tokens: list[np.ndarray], jax_tokens: list[np.ndarray], logits: np.ndarray, first: int, tolerance: float
) -> Iterator[TokenDifference]:
    for row, (ours, theirs) in enumerate(zip(torch_tokens, jax_tokens, strict=True)):
        if np.array_equal(ours, theirs):
            continue
        shared = min(len(ours), len(theirs))
        differs = np.flatnonzero(ours[:shared] != theirs[:shared])
        position = int(differs[0]) if len(differs) else shared
        place = min(position, logits.shape[1] - 1)
        second, best = np.partition(logits[row, place], -2)[-2:]
        yield TokenDifference(
            segment=first + row,
            position=position,
            torch_token=int(ours[position]) if position < len(ours) else None,
            jax_token=int(theirs[position]) if position < len(theirs) else None,
            margin=float(best - second),
            is_tie=bool(best - second < tolerance),
        )


def _first_note_difference(torch_result: Transcription, jax_result: Transcription) -> int | None:
    ours, theirs = torch_result.notes, jax_result.notes
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return number
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs))
