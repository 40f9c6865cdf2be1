"""What defines an evaluation by `mt3 evaluate --config`, as frozen dataclasses; `configs/` contains such configs.

Each field can be changed on the command line: `--set data.maestro=DIR --set data.variants=maestro`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from mt3core.config.values import Checked, Count, Limits, check_name
from mt3core.decoding import Decoding, Method

Variant = Literal["maestro", "slakh_stems", "slakh_mix", "folder"]
# The kind of data set that each variant comes from, as `mt3data.readers.locate` names it.
KIND_OF_VARIANT = {"maestro": "maestro", "slakh_stems": "slakh", "slakh_mix": "slakh", "folder": "folder"}
ALL_PROTOCOLS = "all"


@dataclass(frozen=True)
class EvaluationData(Checked, section="data"):
    """Which recordings: raw data sets as they were unpacked, not prepared ones.

    Attributes:
        variants: `maestro` and `folder` use whole recordings; `slakh_mix` scores the mixes against all notes,
            `slakh_stems` each stem on its own against its own notes.
        maestro, slakh, folder: the data sets' folders; empty for their default folders below `datasets/`.
        split: train, validation or test; SLAKH also has omitted.
        limit: only the first N tracks of the split, in the order of their names, with all their stems.
        most_seconds: only the first seconds of each recording; notes that continue are cut there.
    """

    variants: Annotated[
        tuple[Variant, ...],
        Limits(f"one or more of {', '.join(get_args(Variant))}, each once", lambda v: 0 < len(v) == len(set(v))),
    ] = ("maestro", "slakh_stems", "slakh_mix")
    maestro: str = ""
    slakh: str = ""
    folder: str = ""
    split: str = "test"
    limit: Annotated[int | None, Limits("at least 1, or none for all", lambda n: n is None or n >= 1)] = None
    most_seconds: Annotated[
        float | None, Limits("more than 0, or none for all", lambda seconds: seconds is None or seconds > 0)
    ] = None


@dataclass(frozen=True)
class DecodingChoice(Checked, section="decoding"):
    """How tokens are chosen; see `mt3core.decoding.Decoding`."""

    method: Method = "t5x"
    num_beams: Count = 1

    def _check_together(self) -> None:
        Decoding(self.method, self.num_beams)  # checks itself


@dataclass(frozen=True)
class EvaluationCompute(Checked, section="compute"):
    """Where it is computed, with the same options as `mt3 transcribe`; none of them is meant to change a note."""

    device: str = "auto"
    batch_size: Count | None = None
    processes: Count | None = None


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """A model, the recordings to decode with it, and the protocols to score the notes by.

    Attributes:
        name: used in file names: `OUTPUT/VARIANT/NAME_TRACK.mid` and `OUTPUT/metrics_NAME.json`.
        model: a source of weights as for `--model`; None for the default of `mt3 transcribe`.
        backend: torch, jax, both, or None for the first that is installed.
        protocols: names (`mt3 evaluate --list`); `all` means all of them.
    """

    name: str
    model: str | None = None
    backend: Literal["torch", "jax", "both"] | None = None
    data: EvaluationData = field(default_factory=EvaluationData)
    decoding: DecodingChoice = field(default_factory=DecodingChoice)
    compute: EvaluationCompute = field(default_factory=EvaluationCompute)
    protocols: Annotated[
        tuple[str, ...], Limits(f"one or more protocols (mt3 evaluate --list), or {ALL_PROTOCOLS}", bool)
    ] = (ALL_PROTOCOLS,)
    output: Annotated[str, Limits("the name of a folder", bool)] = "eval_outputs"

    def _check_together(self) -> None:
        check_name(self.name, "an evaluation")
