"""Which data a run is trained on, and what is done to its audio: part of a training config."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from mt3core.config.values import (
    FREE,
    Checked,
    Count,
    CountOrZero,
    Limits,
    NotNegative,
    Positive,
    Probability,
    Span,
    span,
)
from mt3core.errors import UsageError

SAMPLE_RATE_HZ = 16_000  # of prepared audio


@dataclass(frozen=True)
class DatasetChoice(Checked, section="data.datasets"):
    """A data set and the shares of its variants; those it has no chunks for are left out.

    `weight` None means by size: the number of its chunks to the power of 1 / temperature. `instrument_classes`, where
    given, are the stems to use; they apply to stem, subset and across. `across` None means 1, or 0 without stems.
    """

    name: str
    weight: NotNegative | None = None
    mix: NotNegative = 1.0
    stem: NotNegative = 1.0
    subset: NotNegative = 1.0
    across: NotNegative | None = None
    instrument_classes: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> DatasetChoice | None:
        return cls(text) if text else None

    @classmethod
    def text_means(cls) -> str:
        return "the name of a data set"

    def _check_together(self) -> None:
        if not (self.mix or self.stem or self.subset or self.across != 0):
            raise UsageError(
                f"The data set {self.name} has no share above 0.", "Give one to a variant, or leave it out."
            )


_PASSED = Limits(
    f"frequencies above 0 and below {SAMPLE_RATE_HZ // 2}", lambda ends: ends[0] > 0 and ends[1] < SAMPLE_RATE_HZ / 2
)


@dataclass(frozen=True)
class AugmentationConfig(Checked, section="data.augmentation"):
    """Probability of each effect, and how far it goes; all draws are uniform within the ranges."""

    gain_probability: Probability = 0.0
    gain_db: Span = (-12.0, 6.0)
    polarity_probability: Probability = 0.0  # the signal upside down
    tilt_probability: Probability = 0.0
    tilt_db: float = 6.0  # largest difference between the top of the spectrum and its bottom, either way
    noise_probability: Probability = 0.0
    noise_snr_db: Span = (20.0, 60.0)  # noise, against the signal's mean power
    # Its power falls with frequency to this: 0 white, 1 pink, 2 brown.
    noise_exponent: Annotated[Span, span("exponents from 0 to 2", 0, 2)] = (0.0, 0.0)
    hum_probability: Probability = 0.0  # of the mains, 50 or 60 Hz with harmonics
    hum_snr_db: Span = (25.0, 55.0)
    reverb_probability: Probability = 0.0
    # Until the tail has fallen by 60 dB.
    reverb_seconds: Annotated[Span, Limits("times above 0", lambda ends: ends[0] > 0)] = (0.1, 0.8)
    reverb_db: Span = (-24.0, -10.0)  # the tail's level against the signal's
    equaliser_probability: Probability = 0.0
    equaliser_db: float = 8.0  # largest gain of a peak, either way; one to three peaks
    low_pass_probability: Probability = 0.0
    low_pass_hz: Annotated[Span, _PASSED] = (2500.0, 7500.0)  # telephones end at 3,400 Hz, cheap microphones above
    high_pass_probability: Probability = 0.0
    high_pass_hz: Annotated[Span, _PASSED] = (60.0, 350.0)  # where small loudspeakers and telephones begin
    compression_probability: Probability = 0.0  # the automatic level of a recorder
    compression_ratio: Annotated[Span, span("ratios from 1", 1)] = (1.5, 4.0)
    saturation_probability: Probability = 0.0  # an amplifier or a tape driven too far
    saturation_db: Span = (0.0, 12.0)  # how far
    detune_probability: Probability = 0.0
    # Speed changes with pitch: 3 cents move the ends of 2 s by 1.8 ms, a fifth of the codec's step of 10 ms.
    detune_cents: Annotated[
        float, Limits("0 to 5. Beyond 5 cents the notes' times are wrong", lambda cents: 0 <= cents <= 5)
    ] = 3.0

    @property
    def is_on(self) -> bool:
        return any(getattr(self, field.name) > 0 for field in fields(self) if field.name.endswith("_probability"))


@dataclass(frozen=True)
class DataConfig(Checked, section="data"):
    """Which examples, and how they are fetched.

    Attributes:
        manifest: a `chunk_manifest.parquet` or the folder that holds it.
        composed_pieces: so many short pieces are made up and rendered instead, once (`mt3data/prepare/composed.py`).
        datasets: which data sets in which variants (see `mt3data.examples.sampling`); empty for all of the manifest.
        temperature: data sets are weighted by size ** (1 / temperature); 10/3 is MT3's, 1 follows the size.
        max_examples_per_mix: most stems in a mix across tracks.
        part_gain_db: parts of a mix across tracks are made softer by up to so many decibels.
        num_workers: processes that make batches; 0 for threads of this one.
        num_threads: in each of these processes. NumPy and Python share one core for the most part, so one is enough.
        batches_ahead: that each process keeps ready.
    """

    # The pipeline's state knows by itself whether another manifest lists the same data.
    manifest: Annotated[str, FREE] = "cache/chunk_manifest.parquet"
    composed_pieces: CountOrZero = 0
    datasets: tuple[DatasetChoice, ...] = ()
    temperature: Positive = 10 / 3
    max_examples_per_mix: Count = 4
    part_gain_db: NotNegative = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    num_workers: Annotated[CountOrZero, FREE] = 0
    num_threads: Annotated[CountOrZero, FREE] = 1
    batches_ahead: Annotated[Count, FREE] = 2
