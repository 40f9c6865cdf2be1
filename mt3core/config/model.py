"""What defines a model: network, spectrogram and vocabulary, as frozen dataclasses, with the presets.

The same values are stored as `config.json` in a model directory (see `model_directory.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from mt3core.errors import ModelError

FORMAT_VERSION = 1

Granularity = Literal["flat", "midi_class", "full"]
ACTIVATIONS = ("gelu", "relu", "silu", "linear")


@dataclass(frozen=True)
class NetworkConfig:
    """Size and form of the T5 network. The defaults are those of the published `mt3` checkpoint."""

    num_encoder_layers: int = 8
    num_decoder_layers: int = 8
    num_heads: int = 6
    head_dim: int = 64
    emb_dim: int = 512
    mlp_dim: int = 1024
    # One name an input projection; more than one means gated: the product of all of them.
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    dropout_rate: float = 0.1
    vocab_size: int = 1536
    logits_via_embedding: bool = False
    input_frames: int = 256
    input_bands: int = 512
    max_target_tokens: int = 1024
    max_positions: int = 2048

    def __post_init__(self) -> None:
        unknown = [name for name in self.mlp_activations if name not in ACTIVATIONS]
        if unknown or not self.mlp_activations:
            raise ModelError(
                f"Unknown MLP activations {list(self.mlp_activations)}.", f"Choose from {', '.join(ACTIVATIONS)}."
            )
        for name in ("num_heads", "head_dim", "emb_dim", "mlp_dim", "vocab_size", "input_frames", "input_bands"):
            if getattr(self, name) < 1:
                raise ModelError(f"network.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.emb_dim % 2 or self.emb_dim < 4:
            raise ModelError(f"network.emb_dim is {self.emb_dim}; positions need an even number of at least 4.")
        if max(self.input_frames, self.max_target_tokens) > self.max_positions:
            raise ModelError(
                f"network.max_positions is {self.max_positions}, fewer than the input frames ({self.input_frames}) "
                f"or the target tokens ({self.max_target_tokens})."
            )


@dataclass(frozen=True)
class SpectrogramConfig:
    """Log-mel settings; conventions in `spectrogram.py`."""

    sample_rate_hz: int = 16_000
    hop_samples: int = 128
    fft_samples: int = 2048
    mel_bands: int = 512
    low_hz: float = 20.0
    high_hz: float = 7600.0
    # Replaces the logarithm's argument where that is zero; smaller positive values stay as they are.
    zero_replacement: float = 1e-5

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate_hz / self.hop_samples


@dataclass(frozen=True)
class VocabularyConfig:
    """Which events exist and what is written of a note."""

    steps_per_second: int = 100
    max_shift_seconds: int = 10
    velocity_bins: int = 1
    ties: bool = True
    program_granularity: Granularity = "full"
    onsets_only: bool = False

    def __post_init__(self) -> None:
        if self.program_granularity not in ("flat", "midi_class", "full"):
            raise ModelError(
                f"Unknown program granularity {self.program_granularity!r}.", "Choose flat, midi_class or full."
            )
        if not 1 <= self.velocity_bins <= 127:
            raise ModelError(f"vocabulary.velocity_bins is {self.velocity_bins}; it must lie in 1 to 127.")


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a model and use it."""

    name: str = "mt3"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)

    def __post_init__(self) -> None:
        if self.network.input_bands != self.spectrogram.mel_bands:
            raise ModelError(
                f"The network reads {self.network.input_bands} bands, the spectrogram has {self.spectrogram.mel_bands}."
            )

    @property
    def segment_samples(self) -> int:
        return self.network.input_frames * self.spectrogram.hop_samples

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary with `format_version`."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

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
    """Builds the dataclass `kind` from a dictionary that must name each of its fields, no more and no fewer."""
    if not isinstance(values, dict):
        raise ModelError(f"The model's config has no section {where!r}.")
    names = {f.name for f in dataclasses.fields(kind)}
    missing, surplus = sorted(names - values.keys()), sorted(values.keys() - names)
    if missing or surplus:
        raise ModelError(f"The model's config does not fit: in {where} missing {missing}, unknown {surplus}.")
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ModelError(f"The model's config has a value of the wrong type in {where}: {error}.") from error


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
