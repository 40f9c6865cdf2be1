"""What decides an evaluation by `mt3 evaluate --config`, as frozen dataclasses; `configs/` holds such configs.

Each field can be changed on the command line: `--set data.maestro=DIR --set data.variants=maestro`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from mt3core.decoding import METHODS, Decoding
from mt3core.errors import UsageError

Variant = Literal["maestro", "slakh_stems", "slakh_mix", "folder"]
# The kind of data set that each variant is taken from, as `mt3data.readers.locate` names it.
KIND_OF_VARIANT = {"maestro": "maestro", "slakh_stems": "slakh", "slakh_mix": "slakh", "folder": "folder"}
ALL_PROTOCOLS = "all"
BACKENDS = ("torch", "jax", "both")


@dataclass(frozen=True)
class EvaluationData:
    """Which recordings: raw data sets as they were unpacked, not prepared ones.

    Attributes:
        variants: `maestro` and `folder` take whole recordings; `slakh_mix` the mixes against all notes, `slakh_stems`
            each stem alone against its own notes.
        maestro, slakh, folder: the data sets' folders; empty for the usual places below `datasets/`.
        split: train, validation or test; SLAKH also has omitted.
        limit: only the first so many tracks of the split, in the order of their names, with all their stems.
        most_seconds: only the beginning of each recording; notes that sound on are cut there.
    """

    variants: tuple[Variant, ...] = ("maestro", "slakh_stems", "slakh_mix")
    maestro: str = ""
    slakh: str = ""
    folder: str = ""
    split: str = "test"
    limit: int | None = None
    most_seconds: float | None = None


@dataclass(frozen=True)
class DecodingChoice:
    """How tokens are chosen; see `mt3core.decoding.Decoding`."""

    method: Literal["greedy", "t5x", "beam"] = "t5x"
    num_beams: int = 1


@dataclass(frozen=True)
class EvaluationCompute:
    """Where it is computed, as the options of `mt3 transcribe`; none of it is meant to change a note."""

    device: str = "auto"
    batch_size: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """A model, recordings to decode with it, and the protocols to score the notes by.

    Attributes:
        name: names the files: `OUTPUT/VARIANT/NAME_TRACK.mid` and `OUTPUT/metrics_NAME.json`.
        model: a source of weights as of `--model`; None for what `mt3 transcribe` takes by itself.
        backend: torch, jax, both, or None for the first that is installed.
        protocols: names (`mt3 evaluate --list`); `all` stands for every one.
    """

    name: str
    model: str | None = None
    backend: Literal["torch", "jax", "both"] | None = None
    data: EvaluationData = field(default_factory=EvaluationData)
    decoding: DecodingChoice = field(default_factory=DecodingChoice)
    compute: EvaluationCompute = field(default_factory=EvaluationCompute)
    protocols: tuple[str, ...] = (ALL_PROTOCOLS,)
    output: str = "eval_outputs"


def check_evaluation_config(config: EvaluationConfig) -> None:
    """Raises `UsageError` for values that cannot be, before anything is looked for or loaded."""
    data = config.data
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.name):
        raise UsageError(f"{config.name!r} cannot name an evaluation.", "Use letters, digits, '-', '_' and '.'.")
    if not data.variants:
        raise UsageError("data.variants is empty.", f"Choose from {', '.join(KIND_OF_VARIANT)}.")
    for variant in data.variants:
        _choice("data.variants", variant, tuple(KIND_OF_VARIANT))
    if len(set(data.variants)) < len(data.variants):
        raise UsageError("data.variants names one twice.", "Name each once.")
    if config.backend is not None:
        _choice("backend", config.backend, BACKENDS)
    _choice("decoding.method", config.decoding.method, METHODS)
    Decoding(config.decoding.method, config.decoding.num_beams)  # checks itself
    if data.limit is not None and data.limit < 1:
        raise UsageError(f"data.limit is {data.limit}.", "Give at least 1, or none for all.")
    if data.most_seconds is not None and not data.most_seconds > 0:  # NaN, too
        raise UsageError(f"data.most_seconds is {data.most_seconds}.", "Give more than 0, or none for all.")
    if not config.protocols:
        raise UsageError("There is no protocol to score by.", f"Give some (mt3 evaluate --list), or {ALL_PROTOCOLS}.")
    if not config.output:
        raise UsageError("output is empty.", "Name a folder.")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}.", f"Choose {', '.join(choices)}.")
