"""Which data a run is trained on, and how its audio is changed: part of a training config."""

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
    """A data set and the shares of its variants; variants it has no chunks for are left out.

    `weight` None means by size: the number of its chunks to the power of 1 / temperature. `instrument_classes`,
    if given, are the stems to use; they apply to stem, subset and across. `across` None means 1, or 0 without stems.
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
                f"The data set {self.name} has no share above 0.",
                "Set a share above 0 for a variant, or leave the data set out.",
            )


_PASSED = Limits(
    f"frequencies above 0 and below {SAMPLE_RATE_HZ // 2}", lambda ends: ends[0] > 0 and ends[1] < SAMPLE_RATE_HZ / 2
)


@dataclass(frozen=True)
class AugmentationConfig(Checked, section="data.augmentation"):
    """Probability of each effect, and its strength; all draws are uniform within the ranges."""

    gain_probability: Probability = 0.0
    gain_db: Span = (-12.0, 6.0)
    polarity_probability: Probability = 0.0  # the sign of every sample is flipped
    tilt_probability: Probability = 0.0
    tilt_db: float = 6.0  # largest difference between the top of the spectrum and its bottom, in either direction
    noise_probability: Probability = 0.0
    noise_snr_db: Span = (20.0, 60.0)  # noise, against the signal's mean power
    # Its power falls with frequency to the power of this: 0 white, 1 pink, 2 brown.
    noise_exponent: Annotated[Span, span("exponents from 0 to 2", 0, 2)] = (0.0, 0.0)
    hum_probability: Probability = 0.0  # of the mains, 50 or 60 Hz with harmonics
    hum_snr_db: Span = (25.0, 55.0)
    reverb_probability: Probability = 0.0
    # The time in which the tail falls by 60 dB.
    reverb_seconds: Annotated[Span, Limits("times above 0", lambda ends: ends[0] > 0)] = (0.1, 0.8)
    reverb_db: Span = (-24.0, -10.0)  # level of the tail relative to the signal
    equaliser_probability: Probability = 0.0
    equaliser_db: float = 8.0  # largest gain or cut of a peak; one to three peaks
    low_pass_probability: Probability = 0.0
    low_pass_hz: Annotated[Span, _PASSED] = (2500.0, 7500.0)  # telephones end at 3,400 Hz, cheap microphones above
    high_pass_probability: Probability = 0.0
    high_pass_hz: Annotated[Span, _PASSED] = (60.0, 350.0)  # where small loudspeakers and telephones start
    compression_probability: Probability = 0.0  # like the automatic level control of a recorder
    compression_ratio: Annotated[Span, span("ratios from 1", 1)] = (1.5, 4.0)
    saturation_probability: Probability = 0.0  # like an overdriven amplifier or tape
    saturation_db: Span = (0.0, 12.0)  # how strong
    detune_probability: Probability = 0.0
    # Speed changes with pitch: 3 cents move the ends of 2 s by 1.8 ms, a fifth of the 10 ms step of the tokens.
    detune_cents: Annotated[
        float,
        Limits("a value from 0 to 5. Beyond 5 cents the note times would be wrong", lambda cents: 0 <= cents <= 5),
    ] = 3.0

    @property
    def is_on(self) -> bool:
        return any(getattr(self, field.name) > 0 for field in fields(self) if field.name.endswith("_probability"))


@dataclass(frozen=True)
class DataConfig(Checked, section="data"):
    """Which examples, and how they are loaded.

    Attributes:
        manifest: a `chunk_manifest.parquet` or the folder that contains it.
        composed_pieces: this many short pieces are composed and rendered instead, once (`mt3data/prepare/composed.py`).
        datasets: which data sets in which variants (see `mt3data.examples.sampling`); empty for the whole manifest.
        temperature: data sets are weighted by size ** (1 / temperature); 10/3 is MT3's, 1 is proportional to size.
        max_examples_per_mix: largest number of stems in a mix across tracks.
        part_gain_db: parts of a mix across tracks are attenuated by up to this many decibels.
        num_workers: processes that make batches; 0 uses threads of this process.
        num_threads: per process. Python threads mostly share one core, so one is enough.
        batches_ahead: batches that each process keeps ready.
    """

    # The state of the pipeline already records whether another manifest lists the same data.
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
