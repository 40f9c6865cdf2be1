"""What defines a model: network, spectrogram and vocabulary, as frozen dataclasses, with the presets.

The same values are stored as `config.json` in a model directory (see `model_directory.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from mt3core.config.values import FREE, Checked, Count, CountOrZero, Limits, NotNegative, Share
from mt3core.errors import ModelError

FORMAT_VERSION = 1
# Fields that are younger than the format: written only where they differ from the default, so that earlier releases
# read every model that they can use.
ADDED_LATER: dict[str, Any] = {"shortest_repeat_seconds": 0.0, "confidence": (), "agreement": ()}

Granularity = Literal["flat", "midi_class", "full"]
ACTIVATIONS = ("gelu", "relu", "silu", "linear")
_KNOWN_ACTIVATIONS = Limits(
    f"one or more of {', '.join(ACTIVATIONS)}", lambda names: bool(names) and {*names} <= {*ACTIVATIONS}
)
_CALIBRATION = Limits(
    "pairs of numbers from 0 to 1, the first of each higher than before and the second not lower",
    lambda knots: (
        all(0 <= one <= 1 for pair in knots for one in pair)
        and all(low[0] < high[0] and low[1] <= high[1] for low, high in itertools.pairwise(knots))
    ),
)
# Of the small networks of `mt3decode/agreement.py`, for pitched notes and for drum hits.
AGREEMENT_NUMBERS = (2785, 1169)
_AGREEMENT = Limits(
    f"{AGREEMENT_NUMBERS[0]} numbers for pitched notes and {AGREEMENT_NUMBERS[1]} for drum hits",
    lambda rows: not rows or tuple(map(len, rows)) == AGREEMENT_NUMBERS,
)


@dataclass(frozen=True)
class NetworkConfig(Checked, section="network", error=ModelError):
    """Size and form of the T5 network. The defaults are those of the published `mt3` checkpoint."""

    num_encoder_layers: CountOrZero = 8
    num_decoder_layers: CountOrZero = 8
    num_heads: Count = 6
    head_dim: Count = 64
    emb_dim: Annotated[int, Limits("an even number of at least 4", lambda n: n >= 4 and not n % 2)] = 512
    mlp_dim: Count = 1024
    # One name per input projection; more than one means a gated MLP: the product of all of them.
    mlp_activations: Annotated[tuple[str, ...], _KNOWN_ACTIVATIONS] = ("gelu", "linear")
    dropout_rate: Share = 0.1
    vocab_size: Count = 1536
    logits_via_embedding: bool = False
    input_frames: Count = 256
    input_bands: Count = 512
    max_target_tokens: Count = 1024
    max_positions: Count = 2048

    def _check_together(self) -> None:
        if max(self.input_frames, self.max_target_tokens) > self.max_positions:
            raise ModelError(
                f"network.max_positions is {self.max_positions}, fewer than the input frames ({self.input_frames}) "
                f"or the target tokens ({self.max_target_tokens})."
            )


@dataclass(frozen=True)
class SpectrogramConfig(Checked, section="spectrogram", error=ModelError):
    """Log-mel settings; conventions in `spectrogram.py`."""

    sample_rate_hz: Count = 16_000
    hop_samples: Count = 128
    fft_samples: Count = 2048
    mel_bands: Count = 512
    low_hz: float = 20.0
    high_hz: float = 7600.0
    # Replaces the logarithm's argument if it is zero; smaller positive values stay unchanged.
    zero_replacement: float = 1e-5

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate_hz / self.hop_samples


@dataclass(frozen=True)
class VocabularyConfig(Checked, section="vocabulary", error=ModelError):
    """Which events exist, which of them are written for a note, and how soon a note may be struck again.

    A small network that is unsure of an onset writes it twice. Onsets within `shortest_repeat_seconds` of the onset
    before, of the same pitch and instrument, are ignored; the published models keep them all (0).
    """

    steps_per_second: Count = 100
    max_shift_seconds: Count = 10
    velocity_bins: Annotated[int, Limits("a number from 1 to 127", lambda bins: 1 <= bins <= 127)] = 1
    ties: bool = True
    program_granularity: Granularity = "full"
    onsets_only: bool = False
    shortest_repeat_seconds: NotNegative = 0.0


@dataclass(frozen=True)
class ModelConfig(Checked, error=ModelError):
    """Everything needed to build and use a model.

    `confidence` says what confidences of notes mean: pairs of the product of a note's probabilities and the share of
    such notes that are right, with straight lines between them (`benchmarks/confidence.py`). Empty: the product itself.

    `agreement` says which onsets are believed where windows overlap: the numbers of the two small networks of
    `mt3decode/agreement.py` (`benchmarks/agreement.py` fits them). Empty: those of the window in whose middle they are.
    """

    name: str = "mt3"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    confidence: Annotated[tuple[tuple[float, float], ...], _CALIBRATION, FREE] = ()
    agreement: Annotated[tuple[tuple[float, ...], ...], _AGREEMENT, FREE] = ()

    def _check_together(self) -> None:
        if self.network.input_bands != self.spectrogram.mel_bands:
            raise ModelError(
                f"The network reads {self.network.input_bands} bands, the spectrogram has {self.spectrogram.mel_bands}."
            )

    @classmethod
    def from_text(cls, text: str) -> ModelConfig | None:
        return PRESETS.get(text)

    @classmethod
    def text_means(cls) -> str:
        return f"the name of a preset ({', '.join(PRESETS)}), or a value for one of its fields"

    @property
    def segment_samples(self) -> int:
        return self.network.input_frames * self.spectrogram.hop_samples

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary with `format_version`."""
        return {"format_version": FORMAT_VERSION, **self.values()}

    def to_text(self) -> str:
        """What `config.json` says: `to_dict`, with lists of numbers in a line each."""
        text = json.dumps(self.to_dict(), indent=2)
        return re.sub(r"\[\s+([-+.\deE,\s]+)\s\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"

    def values(self) -> dict[str, Any]:
        """All fields by section, without those added later that have their default."""
        values = dataclasses.asdict(self)
        for section in (values, values["vocabulary"]):
            for name in ADDED_LATER.keys() & section.keys():
                if section[name] == ADDED_LATER[name]:
                    del section[name]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`. Raises `ModelError` for a newer version, missing or unknown keys."""
        values = dict(values)
        version = values.pop("format_version", None)
        if not isinstance(version, int):
            raise ModelError("The model's config has no format_version.", "Convert the model again: mt3 convert.")
        if version > FORMAT_VERSION:
            raise ModelError(
                f"The model has format version {version}; this mt3kit reads up to {FORMAT_VERSION}.",
                "Install a newer release of mt3kit.",
            )
        parts = {"network": NetworkConfig, "spectrogram": SpectrogramConfig, "vocabulary": VocabularyConfig}
        built = {key: _build(kind, values.pop(key, None), key) for key, kind in parts.items()}
        return _build(cls, {**values, **built}, "config")


def _build(kind: type, values: Any, where: str) -> Any:
    """Builds the dataclass `kind` from a dictionary that must name each of its fields but those added later."""
    if not isinstance(values, dict):
        raise ModelError(f"The model's config has no section {where!r}.")
    names = {f.name for f in dataclasses.fields(kind)}
    missing, surplus = sorted(names - values.keys() - ADDED_LATER.keys()), sorted(values.keys() - names)
    if missing or surplus:
        raise ModelError(f"The model's config does not match: in {where}, missing {missing}, unknown {surplus}.")
    return kind(**{key: _frozen(value) for key, value in values.items()})


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


MT3 = ModelConfig(name="mt3")
ISMIR2021 = ModelConfig(
    name="ismir2021",
    network=NetworkConfig(vocab_size=1664, input_frames=512),
    vocabulary=VocabularyConfig(velocity_bins=127, ties=False, program_granularity="flat"),
)
MULTITRACK = ModelConfig(
    name="multitrack",
    network=NetworkConfig(
        num_encoder_layers=6,
        num_decoder_layers=6,
        num_heads=8,
        mlp_dim=2048,
        mlp_activations=("relu",),
        input_frames=512,
    ),
)
PRESETS: dict[str, ModelConfig] = {config.name: config for config in (MT3, ISMIR2021, MULTITRACK)}
