"""Which data a run is trained on, and what is done to its audio: part of a training config."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mt3core.errors import UsageError

SAMPLE_RATE_HZ = 16_000  # of prepared audio
VARIANTS = ("mix", "stem", "subset", "across")


@dataclass(frozen=True)
class DatasetChoice:
    """A data set and the shares of its variants; those it has no chunks for are left out.

    `weight` None means by size: the number of its chunks to the power of 1 / temperature. `instrument_classes`, where
    given, are the stems to use; they apply to stem, subset and across. `across` None means 1, or 0 without stems.
    """

    name: str
    weight: float | None = None
    mix: float = 1.0
    stem: float = 1.0
    subset: float = 1.0
    across: float | None = None
    instrument_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shares = [getattr(self, variant) or 0.0 for variant in VARIANTS]
        shares[-1] = 1.0 if self.across is None else self.across
        if min(shares) < 0 or sum(shares) <= 0 or (self.weight is not None and self.weight < 0):
            raise UsageError(
                f"The data set {self.name} has shares {shares}, weight {self.weight}.", "Give positive ones."
            )


@dataclass(frozen=True)
class AugmentationConfig:
    """Probability of each effect, and how far it goes; all draws are uniform within the ranges."""

    gain_probability: float = 0.0
    gain_db: tuple[float, float] = (-12.0, 6.0)
    polarity_probability: float = 0.0  # the signal upside down
    tilt_probability: float = 0.0
    tilt_db: float = 6.0  # largest difference between the top of the spectrum and its bottom, either way
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (20.0, 60.0)  # noise, against the signal's mean power
    noise_exponent: tuple[float, float] = (0.0, 0.0)  # its power falls with frequency to this: 0 white, 1 pink, 2 brown
    hum_probability: float = 0.0  # of the mains, 50 or 60 Hz with harmonics
    hum_snr_db: tuple[float, float] = (25.0, 55.0)
    reverb_probability: float = 0.0
    reverb_seconds: tuple[float, float] = (0.1, 0.8)  # until the tail has fallen by 60 dB
    reverb_db: tuple[float, float] = (-24.0, -10.0)  # the tail's level against the signal's
    equaliser_probability: float = 0.0
    equaliser_db: float = 8.0  # largest gain of a peak, either way; one to three peaks
    low_pass_probability: float = 0.0
    low_pass_hz: tuple[float, float] = (2500.0, 7500.0)  # telephones end at 3,400 Hz, cheap microphones above
    high_pass_probability: float = 0.0
    high_pass_hz: tuple[float, float] = (60.0, 350.0)  # where small loudspeakers and telephones begin
    compression_probability: float = 0.0  # the automatic level of a recorder
    compression_ratio: tuple[float, float] = (1.5, 4.0)
    saturation_probability: float = 0.0  # an amplifier or a tape driven too far
    saturation_db: tuple[float, float] = (0.0, 12.0)  # how far
    detune_probability: float = 0.0
    # Speed changes with pitch: 3 cents move the ends of 2 s by 1.8 ms, a fifth of the codec's step of 10 ms.
    detune_cents: float = 3.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_probability") and not 0.0 <= value <= 1.0:
                raise UsageError(f"augmentation.{field.name} is {value}.", "Give a probability from 0 to 1.")
            if isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise UsageError(f"augmentation.{field.name} is {value}.", "Give the lower and the upper end.")
        for name in ("low_pass_hz", "high_pass_hz"):
            value = getattr(self, name)
            if not (value[0] > 0 and value[1] < SAMPLE_RATE_HZ / 2):
                raise UsageError(
                    f"augmentation.{name} is {value}.", f"Give frequencies above 0 and below {SAMPLE_RATE_HZ // 2}."
                )
        if self.compression_ratio[0] < 1:
            raise UsageError(f"augmentation.compression_ratio is {self.compression_ratio}.", "Give ratios from 1.")
        if not 0 <= self.noise_exponent[0] <= self.noise_exponent[1] <= 2:
            raise UsageError(f"augmentation.noise_exponent is {self.noise_exponent}.", "Give exponents from 0 to 2.")
        if self.reverb_seconds[0] <= 0:
            raise UsageError(f"augmentation.reverb_seconds is {self.reverb_seconds}.", "Give times above 0.")
        if not 0 <= self.detune_cents <= 5:
            raise UsageError(
                f"augmentation.detune_cents is {self.detune_cents}.", "Beyond 5 cents the notes' times are wrong."
            )

    @property
    def is_on(self) -> bool:
        return any(getattr(self, field.name) > 0 for field in fields(self) if field.name.endswith("_probability"))
